"""The metrics around a provider."""

import asyncio
import contextlib
import itertools
from typing import Any

import pytest

from contracts.errors import ContentBlocked, Throttled
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import FakeProvider
from streams.providers.base import Arrivals, NotAsked, billed
from streams.providers.fake import Fake
from streams.providers.measured import Measured
from tests.streams.pipeline.support import WithoutTask
from tests.streams.providers.labs import FakeLab
from tests.suites.provider import ask

NUMBERS = itertools.count()


@pytest.fixture
def model() -> str:
    """A label of its own, since the registry is everybody's."""
    return f"measured-{next(NUMBERS)}"


def request(model: str, **changes: Any) -> Any:
    return ask(FakeLab(), **changes, model=model)


def sample(name: str, model: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"penstock_{name}", {"provider": "fake", "model": model, **labels})


def in_flight() -> float:
    return REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) or 0.0


def measured(**step: object) -> Measured:
    ticks = itertools.count(0.0, 2.0)
    return Measured(Fake(FakeProvider(kind="fake", script=(step,))), clock=lambda: next(ticks))


async def test_an_answer_is_counted_timed_and_its_tokens_booked(model: str) -> None:
    answer = await measured().invoke(request(model))

    assert sample("fm_requests_total", model, outcome="ok") == 1
    assert sample("fm_request_duration_seconds_sum", model) == 2.0
    assert sample("fm_tokens_total", model, type="output") == answer.usage.output_tokens


async def test_the_tokens_of_a_call_that_was_billed_and_failed_are_booked(model: str) -> None:
    inner = Fake(FakeProvider(kind="fake"))

    async def refuse(request: InferenceRequest) -> InferenceAnswer:  # noqa: ARG001 - as Provider
        message = "no"
        raise billed(ContentBlocked(message), Usage(7, 2))

    inner.invoke = refuse  # type: ignore[method-assign]
    with pytest.raises(ContentBlocked):
        await Measured(inner).invoke(request(model))

    assert sample("fm_tokens_total", model, type="input") == 7
    assert sample("fm_tokens_total", model, type="output") == 2


async def test_a_failure_is_counted_by_its_reason(model: str) -> None:
    with pytest.raises(Throttled):
        await measured(error="throttled").invoke(request(model))

    assert sample("fm_requests_total", model, outcome="throttled") == 1


async def test_a_stream_is_one_call_with_its_tokens(model: str) -> None:
    pieces = [piece async for piece in measured().stream(request(model))]

    assert sample("fm_requests_total", model, outcome="ok") == 1
    assert pieces[-1].usage is not None
    assert sample("fm_tokens_total", model, type="input") == pieces[-1].usage.input_tokens


async def test_a_cancelled_call_is_counted_and_no_longer_in_flight(model: str) -> None:
    before = REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) or 0.0
    call = asyncio.create_task(measured(hang=True).invoke(request(model)))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)

    assert sample("fm_requests_total", model, outcome="cancelled") == 1
    assert REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) == before


async def test_a_call_whose_answer_has_come_is_no_longer_in_flight(model: str) -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"hang": True},)))
    fake.arrivals = arrivals = Arrivals()  # type: ignore[attr-defined]
    before = REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) or 0.0
    call = asyncio.create_task(Measured(fake).invoke(request(model)))
    await asyncio.sleep(0)

    assert REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) == before + 1

    arrivals.count = 1

    assert REGISTRY.get_sample_value("penstock_fm_inflight", {"provider": "fake"}) == before

    arrivals.count = 0
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_a_list_of_requests_is_one_call_with_the_tokens_of_all(model: str) -> None:
    several = await measured().invoke_many([request(model)] * 3, 5.0)

    assert sample("fm_requests_total", model, outcome="ok") == 1
    assert sample("fm_request_duration_seconds_sum", model) == 2.0
    assert sample("fm_tokens_total", model, type="input") == several.usage.input_tokens


@pytest.mark.parametrize("step", [{"answer": "ok"}, {"error": "throttled"}], ids=["ok", "throttled"])
async def test_a_call_without_a_task_is_counted_as_one_with_it(model: str, step: dict[str, Any]) -> None:
    provider = Measured(WithoutTask(Fake(FakeProvider(kind="fake", script=(step,)))))
    await provider.start()
    assert provider.direct is provider
    waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    before = in_flight()
    assert provider.begin(request(model), waiter)
    assert in_flight() == before + 1
    await asyncio.wait([waiter])
    outcome = waiter.exception() or waiter.result()
    with contextlib.suppress(Throttled):
        provider.read(outcome, request(model), 2.0)

    assert in_flight() == before
    assert sample("fm_requests_total", model, outcome="throttled" if waiter.exception() else "ok") == 1
    assert sample("fm_request_duration_seconds_sum", model) == 2.0
    tokens = None if waiter.exception() else waiter.result().usage.output_tokens
    assert sample("fm_tokens_total", model, type="output") == tokens


async def test_a_call_that_never_was_is_not_counted(model: str) -> None:
    wrapped = WithoutTask(Fake(FakeProvider(kind="fake", script=({"answer": "ok"},))))
    provider = Measured(wrapped)
    await provider.start()
    assert provider.direct is provider
    before = in_flight()
    assert provider.begin(request(model), asyncio.get_running_loop().create_future())
    with pytest.raises(NotAsked):
        provider.read(NotAsked(), request(model), 2.0)

    assert in_flight() == before
    assert [sample("fm_requests_total", model, outcome=outcome) for outcome in ("ok", "not_asked")] == [None, None]
