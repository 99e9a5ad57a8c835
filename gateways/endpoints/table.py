"""The one table of endpoints: routing, method checks and the OpenAPI document all come from it."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from gateways.asgi import Request, Response
from gateways.endpoints import described
from gateways.endpoints.events import post_event
from gateways.endpoints.invoke import post_invoke
from gateways.endpoints.operations import get_health, get_index, get_metrics, get_openapi, get_readiness
from gateways.endpoints.results import get_result
from gateways.endpoints.webhooks import post_webhook
from gateways.parts import Parts

Handler = Callable[[Parts, Request, bytes], Awaitable[Response]]


class Endpoint(NamedTuple):
    """One path with its one method; HEAD goes with GET.

    Attributes:
        name: metric label and OpenAPI operation id.
        path: with at most one parameter in braces, as its last segment.
        operation: the OpenAPI operation object, without the operation id.
        logged: which answers get a log line.
    """

    name: str
    method: str
    path: str
    handler: Handler
    operation: dict[str, Any]
    logged: Literal["all", "refused", "none"] = "refused"

    @property
    def allow(self) -> tuple[str, ...]:
        """Return the methods for the Allow header."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)


ENDPOINTS = (
    Endpoint("post_webhook", "POST", "/webhooks/{source}", post_webhook, described.POST_WEBHOOK, logged="all"),
    Endpoint("post_event", "POST", "/v1/events", post_event, described.POST_EVENT, logged="all"),
    Endpoint("post_invoke", "POST", "/v1/invoke", post_invoke, described.POST_INVOKE, logged="all"),
    Endpoint("get_result", "GET", "/v1/results/{id}", get_result, described.GET_RESULT),
    Endpoint("get_health", "GET", "/healthz", get_health, described.GET_HEALTH, logged="none"),
    Endpoint("get_readiness", "GET", "/readyz", get_readiness, described.GET_READINESS, logged="none"),
    Endpoint("get_metrics", "GET", "/metrics", get_metrics, described.GET_METRICS),
    Endpoint("get_openapi", "GET", "/openapi.json", get_openapi, described.GET_OPENAPI),
    Endpoint("get_index", "GET", "/", get_index, described.GET_INDEX),
)

_EXACT = {endpoint.path.encode(): endpoint for endpoint in ENDPOINTS if "{" not in endpoint.path}
_WITH_PARAMETER = tuple(
    (endpoint.path.partition("{")[0].encode(), endpoint) for endpoint in ENDPOINTS if "{" in endpoint.path
)


def find(path: bytes) -> tuple[Endpoint, bytes] | None:
    """Return the endpoint of a raw path, and its raw parameter; nothing is decoded or normalised on the way."""
    if path in _EXACT:
        return _EXACT[path], b""
    for prefix, endpoint in _WITH_PARAMETER:
        parameter = path[len(prefix) :]
        if path.startswith(prefix) and parameter and b"/" not in parameter:
            return endpoint, parameter
    return None
