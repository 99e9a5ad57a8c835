"""Health, metrics and the description of the API."""

from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from gateways.endpoints.table import ENDPOINTS, find
from tests.gateways.driver import Gateway


async def test_a_running_gateway_is_alive_and_ready(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/healthz")).json() == {"status": "alive"}
    assert (await gateway.call("GET", "/readyz")).json() == {"status": "ready"}


async def test_a_dead_results_view_needs_a_restart(gateway: Gateway) -> None:
    gateway.results.is_alive = False

    assert (await gateway.call("GET", "/healthz")).status == 503


async def test_without_kafka_it_lives_and_is_not_ready(gateway: Gateway) -> None:
    gateway.producer.set_unreachable()

    answer = await gateway.call("GET", "/readyz")

    assert answer.status == 503
    assert answer.json() == {"status": "not_ready", "reasons": ["log_unavailable"]}
    assert (await gateway.call("GET", "/healthz")).status == 200


async def test_a_nearly_full_buffer_is_not_ready_and_still_accepts(gateway: Gateway) -> None:
    gateway.producer.set_full()

    assert (await gateway.call("GET", "/readyz")).json()["reasons"] == ["buffer_full"]
    assert (await gateway.webhook()).status == 202


async def test_a_gateway_that_ends_is_not_ready_and_closes_its_connections(gateway: Gateway) -> None:
    gateway.parts.health.is_shutting_down = True

    answer = await gateway.call("GET", "/readyz")

    assert answer.json()["reasons"] == ["shutting_down"]
    assert answer.headers["connection"] == "close"
    assert (await gateway.webhook()).status == 202


async def test_metrics_are_in_the_prometheus_text_format(gateway: Gateway) -> None:
    await gateway.webhook()

    answer = await gateway.call("GET", "/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert b'penstock_http_requests_total{endpoint="post_webhook",status="202"}' in answer.body


async def test_the_openapi_document_is_valid(gateway: Gateway) -> None:
    document = (await gateway.call("GET", "/openapi.json")).json()

    validate(document, cls=OpenAPIV31SpecValidator)
    assert set(document["paths"]) == {endpoint.path for endpoint in ENDPOINTS}


async def test_the_index_names_every_path(gateway: Gateway) -> None:
    assert (await gateway.call("GET", "/")).json()["endpoints"] == [endpoint.path for endpoint in ENDPOINTS]


async def test_an_unknown_path_is_404(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/nope")

    assert answer.status == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_parameter_is_one_segment() -> None:
    assert find(b"/v1/results/a%2Fb", "GET")
    assert find(b"/v1/results/a/b", "GET") is None
    assert find(b"/v1/results/", "GET") is None


def test_every_endpoint_is_found_by_its_path() -> None:
    for endpoint in ENDPOINTS:
        path = endpoint.path.partition("{")[0] + ("x" if "{" in endpoint.path else "")

        found = find(path.encode(), endpoint.method)
        assert found is not None
        assert found[0] is endpoint
