"""What both protocols need of HTTP: bodies in, answers out, and the ways in which an answer can break."""

import json
import math
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from streams.fmstub.call import Backend
from streams.fmstub.faults import CallFailedError

BACKEND: web.AppKey[Backend] = web.AppKey("backend", Backend)


async def read_object(request: web.Request) -> dict[str, Any]:
    """Return the body as a JSON object.

    Raises:
        CallFailedError: it is none.
    """
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise CallFailedError(message=f"The body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise CallFailedError(message="The body must be a JSON object.")
    return body


def bearer(request: web.Request) -> str | None:
    """Return the bearer token; None when there is none, as with signed requests."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def event_id_header(request: web.Request) -> str:
    """Return the event id that a client put into X-Client-Request-Id; empty when it did not."""
    return unquote(request.headers.get("X-Client-Request-Id", ""))


def retry_headers(retry_after_s: float | None) -> dict[str, str]:
    """Return the wait in all the ways that clients look for it."""
    if retry_after_s is None:
        return {}
    milliseconds = str(math.ceil(retry_after_s * 1000))
    return {
        "Retry-After": str(math.ceil(retry_after_s)),
        "retry-after-ms": milliseconds,
        "x-amz-retry-after": milliseconds,
    }


def positive(value: Any, name: str, default: int) -> int:
    """Return a positive integer of a body.

    Raises:
        CallFailedError: it is something else.
    """
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CallFailedError(message=f"{name} must be a positive integer.")
    return value


def texts(value: Any, name: str) -> tuple[str, ...]:
    """Return one text or a list of texts.

    Raises:
        CallFailedError: it is something else.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not items or not all(isinstance(item, str) for item in items):
        raise CallFailedError(message=f"{name} must be a text or a list of texts.")
    return tuple(items)


async def send(
    request: web.Request, body: dict[str, Any], headers: dict[str, str], fault: str = ""
) -> web.StreamResponse:
    """Answer with JSON, whole or broken: `cut` closes in the middle, `malformed` is half a document."""
    raw = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    if fault == "malformed":
        raw = raw[: len(raw) // 2]
    response = web.StreamResponse(headers={**headers, "Content-Type": "application/json"})
    response.content_length = len(raw)
    await response.prepare(request)
    if fault in ("cut", "stream_error"):
        await response.write(raw[: len(raw) // 2])
        close(request)
        return response
    await response.write(raw)
    await response.write_eof()
    return response


def close(request: web.Request) -> None:
    """Close the connection without ending the answer."""
    if request.transport is not None:
        request.transport.abort()
