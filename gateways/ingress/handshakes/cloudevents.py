"""Abuse protection of CloudEvents: OPTIONS asks whether a sending system may deliver here, and how often.

`WebHook-Request-Callback` is never called: it would let anybody send us to a URL of his choice.
Source: CloudEvents, HTTP 1.1 Web Hooks for Event Delivery 1.0.1, section 4 (checked 2026-11).
"""

import re
from datetime import datetime

from contracts.errors import Forbidden, InvalidPayload
from contracts.settings.handshakes import CloudEventsHandshake
from gateways.ingress.handshakes.base import HandshakeAnswer, HandshakeRequest
from gateways.ingress.verifying import single

_RATE = re.compile(rb"[1-9][0-9]{0,8}")


class OptionsHandshake:
    """The handshake of one source.

    Args:
        settings: its section.
        methods: which the URL has, for Allow.
    """

    method = "OPTIONS"

    def __init__(self, settings: CloudEventsHandshake, methods: tuple[str, ...]) -> None:
        self._origins = {origin.encode(): origin.encode() for origin in settings.origins}
        self._rate = settings.rate_per_minute
        self._allow = ", ".join(methods).encode()

    def answer(self, request: HandshakeRequest, _now: datetime) -> HandshakeAnswer | None:
        """Return the permission.

        Raises:
            Forbidden: the sending system is not on the list.
        """
        origin = self._origins.get((single(request.headers, b"webhook-request-origin") or b"").lower())
        if origin is None:
            message = "WebHook-Request-Origin is missing, or is none that may deliver here"
            raise Forbidden(message)
        asked = single(request.headers, b"webhook-request-rate")
        if asked is not None and not _RATE.fullmatch(asked):
            message = "WebHook-Request-Rate must be a positive number"
            raise InvalidPayload(message)
        headers = (
            (b"webhook-allowed-origin", origin),
            (b"webhook-allowed-rate", self._granted(int(asked) if asked else None)),
            (b"allow", self._allow),
        )
        return HandshakeAnswer("cloudevents", headers=headers)

    def _granted(self, asked: int | None) -> bytes:
        rates = [rate for rate in (asked, self._rate) if rate is not None]
        return b"%d" % min(rates) if rates else b"*"
