"""API keys under limits: who is refused, with what, and who is not."""

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from contracts.metrics import REGISTRY
from contracts.settings import Settings
from gateways.ingress.caller_limits import CallerLimits
from tests.gateways.driver import CONFIGURATION, OTHER_API_KEY, Answer, Gateway, as_caller
from tests.support import FakeClock, eventually_async

pytestmark = pytest.mark.usefixtures("secret_environment")

POSTS = ["/v1/events", "/v1/invoke", "/v1/stream"]
EVENTS = {"events": {"events_per_s": 0.05, "burst": 2}}
REQUESTS = {"requests_per_s": 0.05, "requests_burst": 2}


def configured(limit: dict[str, Any], **gateway: Any) -> Settings:
    crm, billing = CONFIGURATION["gateway"]["api_keys"]
    section = CONFIGURATION["gateway"] | {"api_keys": [crm | {"limit": limit}, billing]} | gateway
    return Settings.model_validate(CONFIGURATION | {"gateway": section})


async def gateway_with(limit: dict[str, Any], **gateway: Any) -> Gateway:
    made = Gateway(configured(limit, **gateway))
    await made.producer.start()
    return made


async def post(gateway: Gateway, path: str = "/v1/events", body: bytes = b"{}", **changes: str) -> Answer:
    headers = as_caller(**{"ce_type": "t", "prefer": "respond-async"} | changes)
    return await gateway.call("POST", path, headers, body)


def refused(limit: str) -> float:
    labels = {"key_id": "crm", "limit": limit}
    return REGISTRY.get_sample_value("penstock_caller_rate_limited_total", labels) or 0.0


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(("limit", "name"), [(EVENTS, "events"), (REQUESTS, "requests")])
async def test_a_key_over_its_limit_gets_429_and_nothing_is_produced(
    path: str, limit: dict[str, Any], name: str
) -> None:
    gateway = await gateway_with(limit)
    before = refused(name)
    for _ in range(2):
        assert (await post(gateway)).status == 202

    answer = await post(gateway, path)

    assert (answer.status, answer.json()["reason"]) == (429, "rate_limited")
    assert int(answer.headers["retry-after"]) >= 19
    assert "connection" not in answer.headers
    assert len(gateway.records) == 2
    assert refused(name) == before + 1


async def test_other_keys_and_strangers_are_counted_for_themselves() -> None:
    gateway = await gateway_with(REQUESTS)
    for _ in range(5):
        assert (await post(gateway, authorization="Bearer another-key-that-nobody-has")).status == 401
        assert (await post(gateway, authorization=f"Bearer {OTHER_API_KEY}", ce_source="shop/1")).status == 202

    assert [(await post(gateway)).status for _ in range(3)] == [202, 202, 429]


async def test_asking_for_results_is_a_request_and_no_event() -> None:
    asking = await gateway_with(EVENTS)
    for _ in range(5):
        assert (await asking.call("GET", "/v1/results/unknown", as_caller())).status == 404
    assert (await post(asking)).status == 202

    limited = await gateway_with(REQUESTS)
    statuses = [(await limited.call("GET", "/v1/results/unknown", as_caller())).status for _ in range(3)]
    assert statuses == [404, 404, 429]
    assert (await limited.call("DELETE", "/v1/stream/unknown?ticket=a", as_caller())).status == 429


async def test_what_is_no_event_does_not_count_as_one() -> None:
    gateway = await gateway_with(EVENTS)
    for _ in range(5):
        assert (await post(gateway, ce_type="")).status == 400

    assert (await post(gateway)).status == 202


async def test_bytes_are_counted_of_bodies() -> None:
    limit = {"events": {"events_per_s": 1000, "burst": 1000, "bytes_per_s": 1024}}
    gateway = await gateway_with(limit, max_body_bytes=20_000)
    before = refused("bytes")

    # Ten seconds of it at once, and one that is larger leaves a debt.
    assert [(await post(gateway, body=b"x" * 11_000)).status for _ in range(2)] == [202, 429]
    assert refused("bytes") == before + 1


async def test_bytes_in_flight_are_counted_until_the_ack_and_leave_the_rest_to_others() -> None:
    gateway = await gateway_with({"in_flight_bytes": 1024}, ack_timeout_s=5)
    before = refused("in_flight_bytes")
    gateway.producer.hold_acks()
    first = asyncio.create_task(post(gateway, body=b"x" * 600))
    await eventually_async(lambda: gateway.producer.buffered_bytes)

    assert (await post(gateway, body=b"y" * 600)).status == 429
    assert refused("in_flight_bytes") == before + 1
    other = asyncio.create_task(
        post(gateway, body=b"z" * 600, authorization=f"Bearer {OTHER_API_KEY}", ce_source="shop/1")
    )
    await eventually_async(lambda: gateway.parts.admission.held_bytes == 1200)
    gateway.producer.release_acks()

    assert ((await first).status, (await other).status) == (202, 202)
    assert (await post(gateway, body=b"y" * 600)).status == 202
    assert gateway.parts.admission.held_bytes == 0


async def test_a_key_that_is_refused_again_and_again_has_a_line_now_and_then() -> None:
    gateway = await gateway_with(REQUESTS)
    with capture_logs() as lines:
        for _ in range(20):
            await post(gateway)
        gateway.api.log.flush()

    assert [line["owner"] for line in lines if line["event"] == "request.refused"] == ["crm"]


async def test_room_comes_back_with_time_and_a_reload_brings_its_own_limit() -> None:
    clock = FakeClock()
    gateway = Gateway(configured({"requests_per_s": 2, "requests_burst": 1}))
    limits = CallerLimits(gateway.parts.admission, clock)
    headers = [(name.encode(), value.encode()) for name, value in as_caller().items()]
    caller = gateway.parts.callers.authenticate(headers)
    assert caller.limit is not None
    used = []
    for _ in range(2):
        limits.request(caller)
        used.append(is_refused(limits, caller))
        clock.advance(0.5)
    limits.request(caller)
    wider = caller._replace(limit=caller.limit.model_copy(update={"requests_burst": 3}))

    assert used == [True, True]
    assert [is_refused(limits, wider) for _ in range(4)] == [False, False, False, True]
    assert not any(is_refused(limits, caller._replace(limit=None)) for _ in range(10))


def is_refused(limits: CallerLimits, caller: Any) -> bool:
    try:
        limits.request(caller)
    except Exception as error:  # noqa: BLE001 - its kind is what is looked at
        return type(error).__name__ == "RateLimited"
    return False


def test_a_limit_that_no_large_body_would_ever_pass_is_refused_at_start() -> None:
    with pytest.raises(ValidationError, match=r"in_flight_bytes of crm \(1024\) is less than max_body_bytes"):
        configured({"in_flight_bytes": 1024}, max_body_bytes=2000)
