"""The challenge-response check of X (Twitter): GET with `crc_token`, answered with an HMAC of it by the source's key.

Nothing is signed there, so anybody gets an HMAC of a token of his choice. X signs a body with the same secret in the
same way: therefore tokens are of an alphabet in which no JSON object can be written, and a body that could be a token
is no event, however well it is signed.
Source: X, "Webhooks quickstart: the CRC check" (checked 2026-11).
"""

import base64
import hmac
import re
from collections.abc import Sequence
from datetime import datetime

import msgspec

from contracts import metrics
from contracts.errors import BadSignature, InvalidPayload
from gateways.ingress.handshakes.base import JSON, HandshakeAnswer, HandshakeRequest, parameter
from gateways.ingress.keys import Key

_TOKEN = re.compile(r"[A-Za-z0-9_=+/-]{1,256}")
# Also no body at all: a token may be the sender's time alone, where that is signed in front of the body.
_BODY = re.compile(rb"[A-Za-z0-9_=+/-]{0,256}")


class CrcHandshake:
    """The handshake of one source.

    Args:
        name: of the source.
        keys: the source's keys; the first that is valid answers.
    """

    method = "GET"

    def __init__(self, name: str, keys: Sequence[Key]) -> None:
        self._name = name
        self._keys = tuple(keys)

    def answer(self, request: HandshakeRequest, now: datetime) -> HandshakeAnswer | None:
        """Return the answer to the challenge."""
        token = parameter(request.query, "crc_token")
        if token is None or not _TOKEN.fullmatch(token):
            message = "crc_token must be 1 to 256 characters of base64"
            raise InvalidPayload(message)
        key = next((key for key in self._keys if key.is_valid_at(now)), None)
        if key is None:
            raise _refused(self._name, "retired_key")
        digest = base64.b64encode(hmac.digest(key.secret, token.encode(), "sha256")).decode()
        return HandshakeAnswer("crc", msgspec.json.encode({"response_token": f"sha256={digest}"}), JSON)


class CrcGuard:
    """Refuses events whose signature could be the answer to a challenge.

    Args:
        name: of the source.
    """

    method = "POST"

    def __init__(self, name: str) -> None:
        self._name = name

    def answer(self, request: HandshakeRequest, _now: datetime) -> HandshakeAnswer | None:
        """Let a body pass that cannot be a token.

        Raises:
            BadSignature: it can.
        """
        if _BODY.fullmatch(request.body):
            raise _refused(self._name, "crc_token")
        return None


def _refused(name: str, detail: str) -> BadSignature:
    metrics.SIGNATURES_REFUSED.labels(name, detail).inc()
    return BadSignature(detail)
