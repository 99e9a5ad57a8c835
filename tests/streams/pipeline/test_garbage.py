"""However an event ends, it leaves nothing for the collection of garbage: that comes rarely, and no limit sees it."""

import gc
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from contracts.errors import Busy
from contracts.payloads import InferenceAnswer, InferenceRequest
from contracts.settings import ProducerSettings
from streams.engine.item import Item
from streams.job import Job
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
