"""Verifies Microsoft Graph's change notifications, which are not signed: each item carries its subscription's secret.

Source: Microsoft Graph, "Receive change notifications through webhooks" and the resource types changeNotification and
subscription (checked 2026-11). The tokens of notifications with resource data (`validationTokens`) are not looked at.
"""

import hmac
from collections.abc import Sequence
from datetime import datetime

import msgspec

from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming, Verified, key_in_time, refused


class _Notification(msgspec.Struct):
    clientState: str | None = None  # noqa: N815 - Graph's name


class _Collection(msgspec.Struct):
    value: list[_Notification]


_decoder = msgspec.json.Decoder(_Collection)


class ClientStateVerifier:
    """Compares the `clientState` of every item with the source's secrets.

    Args:
        keys: the source's secrets, retired and future ones included.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)

    def verify(self, request: Incoming, now: datetime) -> Verified:
        """As `Verifier`; says only which secret the items carry: of several the one that stands last in the section."""
        try:
            items = _decoder.decode(request.body).value
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise refused(detail="not_notifications") from error
        if not items:
            # Nothing in it says who sent it.
            raise refused(detail="not_notifications")
        # Subscriptions of one URL may have got different secrets, and come in one request during a rotation.
        # Whoever is to take the old one away looks at when it was last used: so it is the one that is told.
        used = {self._key_of(item.clientState, now).id for item in items}
        return Verified(next(key.id for key in reversed(self._keys) if key.id in used))

    def _key_of(self, state: str | None, now: datetime) -> Key:
        if not state:
            raise refused(detail="missing_client_state")
        text = state.encode()
        # Every secret is compared, so that the time tells nothing about which one came close.
        matching = [key for key in self._keys if hmac.compare_digest(key.secret, text)]
        if not matching:
            raise refused(detail="wrong_client_state")
        return key_in_time(matching, now)
