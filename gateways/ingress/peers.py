"""Names the sender's address: that of the connection, or the one a proxy of ours vouches for.

X-Forwarded-For is a list to which every proxy adds the address it was called from, at the right end. What stands
further left was written by somebody we know nothing about, often the sender itself.
"""

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from gateways.ingress.header_lines import HeaderLines, values_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FORWARDED_FOR = b"x-forwarded-for"
# More proxies of one's own than anybody has; a longer list is not read to its beginning.
_MAX_HOPS = 16
# What one customer of a provider gets at least (RFC 6177): single addresses of it cost nothing.
_IPV6_PREFIX = 64
_MAX_ADDRESS_CHARS = 64


class Peer(NamedTuple):
    """A sender's address; None when it is not known.

    Attributes:
        name: what is counted: the address, of IPv6 the /64.
    """

    name: str
    address: Address | None

    def is_in(self, networks: Sequence[Network]) -> bool:
        """Tell whether its address is in one of some networks."""
        address = self.address
        return address is not None and any(address in one for one in networks if one.version == address.version)


UNKNOWN = Peer("unknown", None)


class Peers:
    """Finds out who sends.

    Args:
        trusted_proxies: networks whose X-Forwarded-For is believed.
    """

    def __init__(self, trusted_proxies: Sequence[Network] = ()) -> None:
        self._trusted = tuple(trusted_proxies)
        self._known = lru_cache(maxsize=4096)(self._look_at)

    def find(self, connected: str, headers: HeaderLines) -> Peer:
        """Return the sender.

        Args:
            connected: address of the connection; empty when the server has none, as on a Unix socket.
            headers: names in lower case.
        """
        peer, is_ours = self._known(connected)
        if not is_ours:
            return peer
        hops = [hop for value in values_of(headers, _FORWARDED_FOR) for hop in value.split(b",")]
        for hop in reversed(hops[-_MAX_HOPS:]):
            forwarded, is_ours = self._known(hop.strip().decode("ascii", "replace"))
            if forwarded is UNKNOWN:
                # Not an address: whoever wrote it is the last one we know.
                return peer
            peer = forwarded
            if not is_ours:
                return peer
        return peer

    def _look_at(self, text: str) -> tuple[Peer, bool]:
        """Return the sender with an address, and whether it is a proxy of ours."""
        address = _read(text)
        if address is None:
            return UNKNOWN, False
        name = str(address)
        if isinstance(address, ipaddress.IPv6Address):
            name = str(ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False))
        peer = Peer(name, address)
        return peer, peer.is_in(self._trusted)


def _read(text: str) -> Address | None:
    """Read an address, also with a port, and IPv4 written as IPv6."""
    if len(text) > _MAX_ADDRESS_CHARS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
