"""However an event ends, it leaves nothing for the collection of garbage: that comes rarely, and no limit sees it."""

import asyncio
import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from contracts.codec import encode_event
from contracts.errors import Busy
from contracts.payloads import InferenceAnswer, InferenceRequest
from contracts.settings import ProducerSettings
from contracts.settings.models import FakeProvider
from streams.engine.item import Item
from streams.job import Job
from streams.providers.fake import Fake
from streams.providers.limited import Limited
from streams.staged import Result
from tests.streams.pipeline.support import SCHEMA, Bench, event, make_settings
from tests.streams.virtual_clock import settled

HEAVY = (Job, Item, InferenceRequest, InferenceAnswer, Result)
STREAMED: dict[str, Any] = {"extensions": {"partitionkey": "k", "delivery": "stream"}}
PACK: dict[str, Any] = {"output_schema": SCHEMA, "batch": {"kind": "pack"}}
GOOD: dict[str, Any] = {"answer": '{"n": 1}'}
POISON: dict[str, Any] = {"error": "invalid_request"}
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], dict[str, Any]]] = {
    "result": ([], {}, {}),
    "refused by the model": ([POISON], {}, {}),
    "second attempt": ([{"error": "throttled", "times_per_event": 1}], {}, {}),
    "second attempt after a timeout": ([{"hang": True, "times_per_event": 1}], {"attempt_timeout_s": 2}, {}),
    "repaired": ([{"answer": "no", "times_per_event": 1}, GOOD], {"output_schema": SCHEMA}, {}),
    "not repaired": ([{"answer": "no"}], {"output_schema": SCHEMA}, {}),
    "no prompt": ([], {"prompt": {"user": "{{ data.no.more }}"}}, {}),
    "no route": ([], {"match": {"source": "other"}}, {}),
    "expired": ([{"error": "throttled", "retry_after_s": 1000}], {"deadline_s": 20}, {}),
    "parked": ([{"error": "throttled", "retry_after_s": 100}], {"order": "none"}, {}),
    "streamed": ([], {}, STREAMED),
    "streamed and refused": ([POISON], {}, STREAMED),
    "packed": ([GOOD], PACK, {}),
    "packed and refused": ([POISON], PACK, {}),
    "packed, second attempt": ([{"error": "throttled", "times_per_event": 1}, GOOD], PACK, {}),
    "packed, second attempt after a timeout": (
        [{"hang": True, "times": 1}, GOOD],
        {**PACK, "attempt_timeout_s": 2},
        {},
    ),
    "packed, bug": ([{"answer": "no"}], PACK, {}),
    "too large for the log": ([{"answer": "x" * 3000}], {}, {}),
}


@pytest.fixture
def garbage() -> Iterator[list[Any]]:
    """Return what would have been collected; look with `gc.collect`."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.garbage.clear()
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


def heavy(found: list[Any]) -> dict[str, int]:
    gc.collect()
    return dict(Counter(type(one).__name__ for one in found if isinstance(one, HEAVY)))


@pytest.mark.parametrize("case", CASES)
async def test_an_event_ends_by_its_last_reference(case: str, garbage: list[Any]) -> None:
    script, route, changes = CASES[case]
    bench = await Bench(script, make_settings(route), limits=ProducerSettings(max_record_bytes=2500)).start()
    await bench.send(*(event(number, **changes) for number in range(3)))
    await bench.idle()
    await settled()

    assert heavy(garbage) == {}
    assert (len(bench.terminals) + len(bench.parked), bench.crashes) == (3, [])


async def test_a_result_that_had_to_wait_for_room_ends_by_its_last_reference(garbage: list[Any]) -> None:
    bench = Bench()
    bench.producer.fail_next(Busy("full", retry_after_s=1), Busy("full", retry_after_s=1))
    await bench.run(event())
    await settled()

    assert heavy(garbage) == {}
    assert len(bench.terminals) == 1


class Deaf(Fake):
    """Never ends a call by itself."""

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Hang, whatever the time limit."""
        await asyncio.Event().wait()
        return await super().invoke(request)


@pytest.mark.parametrize("batch", [{"kind": "none"}, {"kind": "pack"}, {"kind": "pack", "max_wait_s": 8.0}])
@pytest.mark.parametrize("limit", [1, 100])
async def test_events_that_give_up_a_call_end_by_their_last_reference(
    batch: dict[str, Any], limit: int, garbage: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None ends by itself; of the last ones of a batch nobody waits for the call, which is cut."""
    # A provider that calls without a task keeps its limits.
    monkeypatch.setattr(Bench, "is_straight", False)
    route = {"output_schema": SCHEMA, "order": "none", "attempt_timeout_s": 10, "batch": batch, "deadline_s": 30}
    deaf = Limited(Deaf(FakeProvider(kind="fake")), limit)
    bench = await Bench(settings=make_settings(route), provider=deaf).start()
    for number in range(3):
        await bench.send(event(number))
        await asyncio.sleep(0.5)
    await bench.idle()
    await asyncio.sleep(60)

    assert heavy(garbage) == {}
    assert (len(bench.terminals), bench.crashes) == (3, [])


@pytest.mark.parametrize("route", [{}, PACK, {"output_schema": SCHEMA}], ids=["streamed", "packed", "schema"])
@pytest.mark.parametrize("limit", [1, 100])
async def test_events_that_are_cancelled_in_their_call_end_by_their_last_reference(
    route: dict[str, Any], limit: int, garbage: list[Any]
) -> None:
    deaf = Limited(Fake(FakeProvider(kind="fake", script=({"latency_s": 1000},))), limit)
    bench = await Bench(settings=make_settings({**route, "order": "none"}), provider=deaf).start()
    for number in range(3):
        one = event(number, extensions={"delivery": "stream"})
        position = await bench.put(one.key, one.data, encode_event(one))
        asyncio.get_running_loop().call_later(1.0 + number, bench.cancels.add, position)
    await bench.idle()
    await settled()

    assert heavy(garbage) == {}
    assert (len(bench.letters), bench.crashes) == (3, [])


@pytest.mark.parametrize("batch", [{"kind": "none"}, {"kind": "pack"}])
@pytest.mark.parametrize("at_s", [0.0, 0.5, 1.5, 2.5])
async def test_events_that_are_given_up_end_by_their_last_reference(
    batch: dict[str, Any], at_s: float, garbage: list[Any]
) -> None:
    """Before they have started, in their call, between two attempts, and while their results wait for an ack."""
    script = [{"latency_s": 1.0, "error": "throttled", "retry_after_s": 1.0, "times": 1}, {"latency_s": 1.0, **GOOD}]
    bench = await Bench(script, make_settings({"output_schema": SCHEMA, "order": "none", "batch": batch})).start()
    bench.producer.hold_acks()
    await bench.send(*(event(number) for number in range(3)))
    await asyncio.sleep(at_s)
    await bench.engine.drain(0.0)
    await bench.engine.close()
    await asyncio.sleep(20)
    bench.producer.release_acks()
    await settled()
    for position in list(bench.pipeline.calls._calls):
        bench.pipeline.calls.drop(position)

    assert heavy(garbage) == {}
    assert bench.crashes == []
