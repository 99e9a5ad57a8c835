"""The address policy of everything that dials where somebody else says: pure, knows neither names nor sockets.

Why not `ipaddress.is_global`: it says yes to 64:ff9b::7f00:1, 2002:7f00:1::, ::127.0.0.1 and 224/4 (Python 3.11.7).
An IPv6 address passes only inside 2000::/3, all that IANA has given out; the table's other entries name the reason.

Source: IANA IPv4 and IPv6 Special-Purpose Address Registries and Address Space registries, RFC 6890, RFC 9637 (3fff::),
RFC 9602 (5f00::); 168.63.129.16 is Azure's platform address (Microsoft Learn). Checked 2026-11.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Reason (bounded slug: log field and metric label) -> networks; the first that matches names the refusal.
REFUSED: dict[str, tuple[str, ...]] = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    "shared": ("100.64.0.0/10",),
    "link_local": ("169.254.0.0/16", "fe80::/10"),
    "site_local": ("fec0::/10",),
    "platform": ("168.63.129.16/32",),
    "protocol": ("192.0.0.0/24",),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "as112": ("192.31.196.0/24", "192.175.48.0/24", "2001:4:112::/48", "2620:4f:8000::/48"),
    "amt": ("192.52.193.0/24", "2001:3::/32"),
    "6to4": ("192.88.99.0/24", "2002::/16"),
    "benchmark": ("198.18.0.0/15", "2001:2::/48"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4",),
    "ipv4_mapped": ("::ffff:0:0/96",),
    "ipv4_translated": ("::ffff:0:0:0/96",),
    "ipv4_compatible": ("::/96",),
    "nat64": ("64:ff9b::/96", "64:ff9b:1::/48"),
    "discard": ("100::/64", "100:0:0:1::/64"),
    "teredo": ("2001::/32",),
    # Whatever else lies in 2001::/23: ORCHID, ORCHIDv2, drone remote ids.
    "ietf": ("2001::/23",),
    "6bone": ("3ffe::/16",),
    "srv6": ("5f00::/16",),
}
_GIVEN_OUT = IPv6Network("2000::/3")
_TABLE: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(text), reason) for reason, texts in REFUSED.items() for text in texts
)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read networks.

    Raises:
        ValueError: one is not a network, or has bits set behind its prefix.
    """
    return tuple(ip_network(text) for text in texts)


class AddressPolicy:
    """Which addresses may be dialled.

    Args:
        allowed: networks that pass whatever the table says: own receivers inside.
        refused: networks refused beyond the table: public addresses that lead inside.
    """

    def __init__(self, allowed: Sequence[Network] = (), refused: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)
        self._refused = tuple(refused)

    def refusal(self, text: str) -> str | None:
        """Return why an address may not be dialled, as a bounded slug; None when it may."""
        try:
            address = ip_address(text)
        except ValueError:
            return "not_an_address"
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            # A zone says "on this link": never somebody outside.
            return "link_local"
        if _is_in(address, self._refused):
            return "refused_network"
        if _is_in(address, self._allowed):
            return None
        return next((reason for network, reason in _TABLE if _is_in(address, (network,))), _outside(address))


def _outside(address: Address) -> str | None:
    return "not_given_out" if isinstance(address, IPv6Address) and address not in _GIVEN_OUT else None


def _is_in(address: Address, candidates: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in candidates)
