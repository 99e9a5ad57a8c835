"""Reads the request out of the events that API Gateway and function URLs hand to a Lambda function.

Source: API Gateway Developer Guide, "Input format of a Lambda function for proxy integration" (REST APIs, payload
format 1.0) and "Payload format version" (HTTP APIs, 2.0); Lambda Developer Guide, function URLs (checked 2026-11).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode

from contracts.errors import InvalidPayload
from gateways.ingress.base import HeaderLines


class HttpRequest(NamedTuple):
    """A request: header names in lower case, nothing else changed; `peer` is the address that connected."""

    method: str
    path: str
    headers: HeaderLines
    body: bytes
    query: bytes = b""
    peer: str = ""


def read_request(event: Mapping[str, Any]) -> HttpRequest:
    """Return the request of an event, format 1.0 or 2.0.

    Format 2.0 joins the lines of a repeated header with commas. A signature, stamp or id in two lines is thus one odd
    value, which no scheme takes; with format 1.0 it is refused for standing there twice, as at the gateway.

    Raises:
        InvalidPayload: not such an event, or its body is not the base64 it says it is.
    """
    context = event.get("requestContext", {})
    http = context.get("http")
    if event.get("version") == "2.0" and isinstance(http, Mapping):
        method, path = http.get("method", ""), event.get("rawPath", "")
        lines = [(name, value) for name, value in (event.get("headers") or {}).items()]
        query = _bytes(event.get("rawQueryString") or "")
        peer = http.get("sourceIp")
    elif "httpMethod" in event:
        method, path = event["httpMethod"], event.get("path") or ""
        several: Mapping[str, Any] = event.get("multiValueHeaders") or {
            name: [value] for name, value in (event.get("headers") or {}).items()
        }
        lines = [(name, value) for name, values in several.items() for value in values]
        # This format has decoded them.
        query = urlencode(event.get("multiValueQueryStringParameters") or {}, doseq=True).encode()
        peer = (context.get("identity") or {}).get("sourceIp")
    else:
        message = "the function was not called through API Gateway or a function URL"
        raise InvalidPayload(message)
    headers = [(str(name).lower().encode("utf-8", "replace"), _bytes(value)) for name, value in lines]
    return HttpRequest(str(method).upper(), str(path), headers, _body(event), query, str(peer or ""))


def _bytes(value: Any) -> bytes:
    return str(value).encode("utf-8", "surrogatepass")


def _body(event: Mapping[str, Any]) -> bytes:
    """Return the body's bytes; a text body was decoded as UTF-8 on the way here, which other bytes do not survive."""
    body = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return _bytes(body)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        message = "the body is not base64, as the event says"
        raise InvalidPayload(message) from error


def source_name(path: str, fixed: str | None) -> str:
    """Return the name of the source that a path asks for: `/webhooks/<name>` at its end, a stage before it or not."""
    if fixed is not None:
        return fixed
    parts = path.split("/")
    return parts[-1] if parts[-2:-1] == ["webhooks"] else ""
