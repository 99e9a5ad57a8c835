"""Turns errors into answers: RFC 9457 problem details with our reason slug, and nothing about our insides.

Source: RFC 9457, RFC 9110 sections 10.2.3 (Retry-After), 11.6.1 (WWW-Authenticate), 15.5.6 (Allow); checked 2026-11.
"""

import math
from http import HTTPStatus
from typing import Any

import msgspec

from contracts.errors import (
    BadSignature,
    Busy,
    DeadlineExceeded,
    MethodNotAllowed,
    PenstockError,
    Rejected,
    Retryable,
    Terminal,
    Unauthenticated,
)
from gateways.asgi import Response

_CONTENT_TYPE = b"application/problem+json"
_DEFAULT_RETRY_AFTER_S = 2.0
_COME_AGAIN = "Not possible right now; please try again."
_OUTCOME_STATUSES = {kind.reason: kind.http_status for kind in Terminal.__subclasses__()}


def problem(
    status: int,
    reason: str,
    detail: str = "",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    *,
    closes: bool = False,
    **members: Any,
) -> Response:
    """Return a problem answer; further members as RFC 9457, section 3.2, allows them."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "reason": reason} | members
    if detail:
        body["detail"] = detail
    return Response(status, msgspec.json.encode(body), _CONTENT_TYPE, headers, closes)


def problem_of(error: PenstockError) -> Response:
    """Return the answer to an error of the tree."""
    if isinstance(error, BadSignature):
        # Always the same: what exactly is wrong is for the log, not for whoever tries.
        return problem(401, error.reason, headers=((b"www-authenticate", b'Signature realm="webhooks"'),))
    if isinstance(error, Rejected):
        return problem(error.http_status, error.reason, str(error), _extra_headers(error))
    if isinstance(error, Busy | Retryable):
        wait = error.retry_after_s or _DEFAULT_RETRY_AFTER_S
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(wait))),)
        return problem(error.http_status, error.reason, _COME_AGAIN, headers)
    return internal()


def told(error: PenstockError) -> str:
    """Return what a watcher is told of an error: of Kafka's and our own troubles no more than any other answer says."""
    return str(error) if isinstance(error, Rejected | Busy) else _COME_AGAIN


def outcome_status(reason: str, *, is_expired: bool) -> int:
    """Return the status that tells a waiting caller of a bad end: the error tree's, or 502 for what is not the event's.

    Args:
        reason: of the terminal record.
        is_expired: the event's deadline passed.
    """
    if is_expired:
        return DeadlineExceeded.http_status
    return _OUTCOME_STATUSES.get(reason, 502)


def internal() -> Response:
    """Return the answer to a fault of ours that nobody foresaw: 503, because senders come back after that."""
    return problem(503, "internal", headers=((b"retry-after", b"5"),), closes=True)


def _extra_headers(error: Rejected) -> tuple[tuple[bytes, bytes], ...]:
    if isinstance(error, MethodNotAllowed):
        return ((b"allow", ", ".join(error.allow).encode()),)
    if isinstance(error, Unauthenticated):
        return ((b"www-authenticate", b'Bearer realm="penstock"'),)
    return ()
