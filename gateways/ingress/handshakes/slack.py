"""Slack's `url_verification`: the challenge comes back as text, after the request's signature has been checked.

Source: Slack, "url_verification event" and "Verifying requests from Slack" (checked 2026-11).
"""

from datetime import datetime

from gateways.ingress.handshakes.base import (
    MAX_BODY_BYTES,
    HandshakeAnswer,
    HandshakeRequest,
    Verify,
    document,
    echoed,
)

_TYPE = "url_verification"


class SlackHandshake:
    """The handshake of one source.

    Args:
        verify: the source's own.
    """

    method = "POST"

    def __init__(self, verify: Verify) -> None:
        self._verify = verify

    def answer(self, request: HandshakeRequest, now: datetime) -> HandshakeAnswer | None:
        """Return the challenge; None for an event, which is verified again as one."""
        # A cheap look first: nothing is parsed before the signature holds.
        if len(request.body) > MAX_BODY_BYTES or _TYPE.encode() not in request.body:
            return None
        self._verify(request.incoming, now)
        found = document(request.body)
        if found.get("type") != _TYPE:
            return None
        return HandshakeAnswer("slack", echoed(found.get("challenge"), "challenge").encode())
