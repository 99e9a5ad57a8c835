"""Verifies senders that cannot sign and send a key instead, such as EventBridge's API destinations.

A key proves who sends, and nothing about the body: only over TLS.
"""

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime

from contracts.settings.sources import KeyHeader
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming, Verified, key_in_time, refused, single


class KeyVerifier:
    """Compares the key of a request with the source's keys.

    Args:
        where: which header, and what stands in it.
        keys: the source's keys, retired and future ones included.
    """

    def __init__(self, where: KeyHeader, keys: Sequence[Key]) -> None:
        self._header = where.header.encode()
        self._keys = [(key, _written(where, key.secret)) for key in keys]

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`; says only which key the request carries."""
        found = single(request.headers, self._header)
        if found is None:
            raise refused(detail="missing_header")
        # Every key is compared, so that the time tells nothing about which one came close.
        return Verified(
            key_in_time([key for key, written in self._keys if hmac.compare_digest(written, found)], now).id
        )


def _written(where: KeyHeader, secret: bytes) -> bytes:
    if where.form == "basic":
        return b"Basic " + base64.b64encode(secret)
    return (b"Bearer " if where.form == "bearer" else b"") + secret
