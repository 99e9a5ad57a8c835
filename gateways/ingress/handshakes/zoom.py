"""Zoom's `endpoint.url_validation`: its token comes back with an HMAC, after the signature has been checked.

Source: Zoom, "Using webhooks: validate your webhook endpoint" (checked 2026-11).
"""

import hmac
from collections.abc import Sequence
from datetime import datetime

import msgspec

from gateways.ingress.handshakes.base import (
    JSON,
    MAX_BODY_BYTES,
    HandshakeAnswer,
    HandshakeRequest,
    Verify,
    document,
    echoed,
)
from gateways.ingress.keys import Key

_EVENT = "endpoint.url_validation"


class ZoomHandshake:
    """The handshake of one source.

    Args:
        verify: the source's own.
        keys: the source's keys.
    """

    method = "POST"

    def __init__(self, verify: Verify, keys: Sequence[Key]) -> None:
        self._verify = verify
        self._secrets = {key.id: key.secret for key in keys}

    def answer(self, request: HandshakeRequest, now: datetime) -> HandshakeAnswer | None:
        """Return the token and its HMAC; None for an event, which is verified again as one."""
        if len(request.body) > MAX_BODY_BYTES or _EVENT.encode() not in request.body:
            return None
        verified = self._verify(request.incoming, now)
        found = document(request.body)
        if found.get("event") != _EVENT:
            return None
        payload = found.get("payload")
        token = echoed(payload.get("plainToken") if isinstance(payload, dict) else None, "payload.plainToken")
        # By the secret that signed the question.
        digest = hmac.digest(self._secrets[verified.key_id], token.encode(), "sha256").hex()
        return HandshakeAnswer("zoom", msgspec.json.encode({"plainToken": token, "encryptedToken": digest}), JSON)
