"""What OpenAPI says about handshakes that are not a POST. Source: OpenAPI 3.1.1 (checked 2026-11)."""

from typing import Any

from gateways.endpoints.described import SOURCE, _parameter, _problem

_ALLOW = {"Allow": {"description": "Methods of this URL.", "schema": {"type": "string"}}}
_NOT_HERE = {
    "400": _problem("What the handshake carries cannot be answered."),
    "404": _problem("No such source."),
    "405": _problem("This source has no such handshake.", _ALLOW),
}

GET: dict[str, Any] = {
    "summary": "Answer the challenge-response check of X, for sources that enable it.",
    "tags": ["events"],
    "parameters": [SOURCE, _parameter("crc_token", "query", "The challenge.", pattern="^[A-Za-z0-9_=+/-]{1,256}$")],
    "responses": {
        "200": {
            "description": "The token's HMAC.",
            "content": {"application/json": {"schema": {"type": "object", "required": ["response_token"]}}},
        },
        "401": _problem("No secret of the source is valid now."),
        **_NOT_HERE,
    },
    "security": [],
}

_ORIGIN = {"description": "The sending system that may deliver.", "schema": {"type": "string"}}
_RATE = {"description": "Requests a minute, or *.", "schema": {"type": "string"}}
OPTIONS: dict[str, Any] = {
    "summary": "Answer the abuse protection of CloudEvents, for sources that enable it.",
    "tags": ["events"],
    "parameters": [
        SOURCE,
        _parameter("WebHook-Request-Origin", "header", "DNS name of the sending system."),
        _parameter("WebHook-Request-Rate", "header", "Requests a minute it asks for.", pattern="^[1-9][0-9]{0,8}$"),
    ],
    "responses": {
        "200": {
            "description": "It may deliver.",
            "headers": _ALLOW | {"WebHook-Allowed-Origin": _ORIGIN, "WebHook-Allowed-Rate": _RATE},
        },
        "403": _problem("This sending system may not deliver here."),
        **_NOT_HERE,
    },
    "security": [],
}
