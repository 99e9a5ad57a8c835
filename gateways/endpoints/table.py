"""The one table of endpoints: routing, method checks and the OpenAPI document all come from it."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from gateways.asgi import Request, Response
from gateways.endpoints import described, described_handshakes, described_stream
from gateways.endpoints.events import post_event
from gateways.endpoints.invoke import post_invoke
from gateways.endpoints.operations import get_health, get_index, get_metrics, get_openapi, get_readiness
from gateways.endpoints.results import get_result
from gateways.endpoints.stream import delete_stream, get_stream, post_stream
from gateways.endpoints.webhooks import methods_of, post_webhook, shake_hands
from gateways.parts import Parts

Handler = Callable[[Parts, Request, bytes], Awaitable[Response]]


class Endpoint(NamedTuple):
    """One method of one path; HEAD goes with GET.

    Attributes:
        name: metric label and OpenAPI operation id.
        path: with at most one parameter in braces, as its last segment.
        operation: the OpenAPI operation object, without the operation id.
        logged: which answers get a log line.
        methods: which methods the path has, where that depends on its parameter.
    """

    name: str
    method: str
    path: str
    handler: Handler
    operation: dict[str, Any]
    logged: Literal["all", "refused", "none"] = "refused"
    methods: Callable[[Parts, bytes], tuple[str, ...]] | None = None

    @property
    def allow(self) -> tuple[str, ...]:
        """Return the methods for the Allow header."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


_WEBHOOKS = "/webhooks/{source}"
ENDPOINTS = (
    Endpoint("post_webhook", "POST", _WEBHOOKS, post_webhook, described.POST_WEBHOOK, logged="all", methods=methods_of),
    Endpoint("get_webhook", "GET", _WEBHOOKS, shake_hands, described_handshakes.GET, logged="all", methods=methods_of),
    Endpoint(
        "options_webhook",
        "OPTIONS",
        _WEBHOOKS,
        shake_hands,
        described_handshakes.OPTIONS,
        logged="all",
        methods=methods_of,
    ),
    Endpoint("post_event", "POST", "/v1/events", post_event, described.POST_EVENT, logged="all"),
    Endpoint("post_invoke", "POST", "/v1/invoke", post_invoke, described.POST_INVOKE, logged="all"),
    Endpoint("get_result", "GET", "/v1/results/{id}", get_result, described.GET_RESULT),
    Endpoint("post_stream", "POST", "/v1/stream", post_stream, described_stream.POST_STREAM, logged="all"),
    Endpoint("get_stream", "GET", "/v1/stream/{id}", get_stream, described_stream.GET_STREAM),
    Endpoint("cancel_stream", "DELETE", "/v1/stream/{id}", delete_stream, described_stream.DELETE_STREAM, logged="all"),
    Endpoint("get_health", "GET", "/healthz", get_health, described.GET_HEALTH, logged="none"),
    Endpoint("get_readiness", "GET", "/readyz", get_readiness, described.GET_READINESS, logged="none"),
    Endpoint("get_metrics", "GET", "/metrics", get_metrics, described.GET_METRICS),
    Endpoint("get_openapi", "GET", "/openapi.json", get_openapi, described.GET_OPENAPI),
    Endpoint("get_index", "GET", "/", get_index, described.GET_INDEX),
)


# What stands before a parameter, which is the last segment, and whether there is one -> method -> endpoint.
_BY_PATH: dict[tuple[bytes, bool], dict[str, Endpoint]] = {}
for _endpoint in ENDPOINTS:
    _methods = _BY_PATH.setdefault((_endpoint.path.partition("{")[0].encode(), "{" in _endpoint.path), {})
    for _method in _endpoint.allow:
        _methods[_method] = _endpoint


def find(path: bytes, method: str) -> tuple[Endpoint, bytes, tuple[str, ...]] | None:
    """Return the endpoint of a raw path, its raw parameter, and the methods its path has.

    Nothing is decoded or normalised on the way.
    """
    methods, parameter = _BY_PATH.get((path, False)), b""
    if methods is None:
        prefix, slash, parameter = path.rpartition(b"/")
        methods = _BY_PATH.get((prefix + slash, True)) if parameter else None
    if methods is None:
        return None
    return methods.get(method) or next(iter(methods.values())), parameter, tuple(methods)
