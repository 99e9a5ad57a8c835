"""Microsoft Graph's validation of a notification URL: POST with `validationToken`, which comes back as text.

Nothing is signed there; such a request is never an event, whatever its body is.
Source: Microsoft Graph, "Receive change notifications through webhooks", validation (checked 2026-11).
"""

from datetime import datetime

from gateways.ingress.handshakes.base import HandshakeAnswer, HandshakeRequest, echoed, parameter

_PARAMETER = "validationToken"


class GraphHandshake:
    """The handshake of one source."""

    method = "POST"

    def answer(self, request: HandshakeRequest, _now: datetime) -> HandshakeAnswer | None:
        """Return the decoded token; None without one."""
        token = parameter(request.query, _PARAMETER)
        return None if token is None else HandshakeAnswer("graph", echoed(token, _PARAMETER).encode())
