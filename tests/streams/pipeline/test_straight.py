"""What goes without a task, what does not, and what becomes of it when something special happens on the way."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from contracts.codec import Position, encode_event
from contracts.envelope import Event
from contracts.errors import Busy, LogUnavailable, PenstockError
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceAnswer, InferenceRequest
from producers.window import Waiting
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.providers.base import NotAsked, Waiter
from streams.providers.fake import Fake
from streams.staged import Result
from streams.straight import _Run
from tests.streams.pipeline.support import EVENTS, PARTITION, SCHEMA, Bench, event, make_settings
from tests.streams.virtual_clock import now_at, settled

SLOW = {"latency_s": 5}


@pytest.fixture(autouse=True)
def way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ordinary events go without tasks."""
    monkeypatch.setattr(Bench, "is_straight", True)


async def under_way(bench: Bench, **changes: Any) -> Bench:
    await bench.start()
    await bench.send(event(**changes))
    await settled()
    return bench


async def redelivered(bench: Bench, one: Event, stamp_ms: int) -> Ledger:
    """Begin the next tenure with the event that the last one began with; return its book."""
    bench.tenure = Tenure(2)
    bench.engine.prepare(bench.tenure)
    ledger = Ledger(0)
    bench.engine.begin(bench.tenure, {TP(EVENTS, PARTITION): ledger})
    position = Position(EVENTS, PARTITION, 0, stamp_ms)
    await bench.engine.submit(bench.pipeline.item(position, one.key, one.data, encode_event(one), "standard"), 2)
    return ledger


def waits() -> float:
    return REGISTRY.get_sample_value("penstock_fm_queue_wait_seconds_count", {"route": "r"}) or 0.0


def tasks(bench: Bench) -> tuple[int, int]:
    """Return the numbers of items that run with and without a task."""
    dispatcher = bench.engine._dispatcher
    return len(dispatcher.tasks), len(dispatcher.running) - len(dispatcher.tasks)


async def test_an_ordinary_event_has_no_task() -> None:
    bench = await under_way(Bench([SLOW]))

    assert tasks(bench) == (0, 1)

    await bench.idle()
    assert (bench.result().attempts, bench.committed) == (1, 1)


async def test_an_event_that_has_ended_leaves_nothing_for_the_collection_of_garbage() -> None:
    bench = await Bench().start()
    gc.disable()
    try:
        await bench.send(event(77))
        await bench.idle()

        assert bench.result().attempts == 1
        left = [one for one in gc.get_objects() if isinstance(one, _Run | Result) and one.job.event.id == "e77"]
        assert left == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("route", "changes"),
    [
        ({}, {"extensions": {"partitionkey": "k", "delivery": "stream"}}),
        ({"batch": {"kind": "pack"}, "output_schema": SCHEMA}, {}),
        ({"prompt": {"user": "{{ data.nothing.more }}"}}, {}),
        ({"deadline_s": 0.001}, {}),
    ],
    ids=["streamed", "batched", "prompt", "deadline"],
)
async def test_what_is_not_as_usual_has_one(route: dict[str, Any], changes: dict[str, Any]) -> None:
    seen: list[str] = []
    bench = Bench([SLOW], make_settings(route))
    direct: Any = bench.pipeline._plans["r"].provider

    def begin(request: InferenceRequest, _waiter: Waiter) -> bool:
        seen.append(request.event_id)
        return True

    direct.begin = begin
    stamp_ms = int(now_at().timestamp() * 1000) - 1000 if "deadline_s" in route else None
    await bench.start()
    await bench.send(event(**changes), timestamp_ms=stamp_ms)
    await settled()

    assert seen == []


async def test_an_answer_that_does_not_keep_to_the_schema_is_repaired_in_a_task() -> None:
    script: list[dict[str, Any]] = [{"answer": "no", "times": 1}, {"answer": '{"n": 1}'}]
    bench = await Bench(script, make_settings({"output_schema": SCHEMA})).run(event())

    assert (bench.result().output, bench.result().attempts, bench.fake.calls) == ({"n": 1}, 2, {"e0": 2})
    assert bench.engine._dispatcher._free == 16


@pytest.mark.parametrize("outcome", [NotAsked(), KeyError("a bug")], ids=["not asked", "a bug"])
async def test_a_call_that_never_was_is_made_and_one_with_a_bug_ends_its_event_alone(outcome: Exception) -> None:
    bench = Bench()
    direct: Any = bench.pipeline._plans["r"].provider
    read: Callable[..., InferenceAnswer] = direct.read

    def first(_outcome: Any, request: InferenceRequest, took_s: float) -> InferenceAnswer:
        if request.event_id == "e0":
            raise outcome
        return read(_outcome, request, took_s)

    direct.read = first
    before = waits()
    await bench.run(event(0), event(1))

    expected = ({"e0": 2, "e1": 1}, 0) if isinstance(outcome, NotAsked) else ({"e0": 1, "e1": 1}, 1)
    assert (bench.fake.calls, len(bench.letters)) == expected
    plan = bench.pipeline._plans["r"]
    assert (plan.guard.gate.calling, plan.guard.breaker.calling, bench.engine._dispatcher._free) == (0, 0, 16)
    assert (bench.committed, bench.crashes) == (2, [])
    # Once per event, for the retry budget and the wait.
    assert (plan.guard.budget._counts.sums(), waits() - before) == ((2, 0), 2)


async def test_a_call_that_never_was_is_made_for_the_redelivered_event_that_waits_for_it() -> None:
    bench = Bench([SLOW], make_settings({"order": "none"}))
    direct: Any = bench.pipeline._plans["r"].provider

    def read(_outcome: Any, _request: InferenceRequest, _took_s: float) -> InferenceAnswer:
        raise NotAsked

    direct.read = read
    one, stamp_ms = event(), int(now_at().timestamp() * 1000)
    await bench.start()
    await bench.send(one, timestamp_ms=stamp_ms)
    await settled()
    await bench.engine.drain(0.1)
    await bench.engine.close()
    ledger = await redelivered(bench, one, stamp_ms)
    await bench.idle()

    # The one that never was, and the one made in its place.
    assert (bench.fake.calls, ledger.commit_point, len(bench.terminals)) == ({"e0": 2}, 1, 1)
    assert (bench.engine._dispatcher._free, bench.pipeline.calls.kept) == (16, 0)


async def test_a_call_that_never_was_gives_its_slot_back_when_the_partitions_are_lost_meanwhile() -> None:
    bench = Bench([SLOW])
    direct: Any = bench.pipeline._plans["r"].provider

    def read(_outcome: Any, _request: InferenceRequest, _took_s: float) -> InferenceAnswer:
        bench.tenure.end()
        raise NotAsked

    direct.read = read
    await under_way(bench)
    await bench.idle()

    assert bench.engine._dispatcher._free == 16


async def test_what_is_cut_while_it_waits_for_its_ack_keeps_its_answer_and_ends_nothing() -> None:
    bench = Bench()
    bench.producer.hold_acks()
    one, stamp_ms = event(), int(now_at().timestamp() * 1000)
    await bench.start()
    await bench.send(one, timestamp_ms=stamp_ms)
    await asyncio.sleep(0.1)
    assert tasks(bench) == (0, 1)
    await bench.engine.drain(0.1)
    await bench.engine.close()

    assert (bench.engine.holds, bench.engine.in_flight, bench.pipeline.calls.kept) == (0, 0, 1)

    bench.producer.release_acks()
    await settled()
    ledger = await redelivered(bench, one, stamp_ms)
    assert ledger.commit_point == 0
    await bench.idle()

    assert (bench.fake.calls, ledger.commit_point, bench.pipeline.calls.kept) == ({"e0": 1}, 1, 0)


async def test_what_is_cut_before_its_task_has_begun_keeps_its_answer_within_the_bounds() -> None:
    bench = Bench()
    bench.producer.fail_next(Busy("full"))
    await bench.start()
    await bench.send(event())
    for _ in range(20):
        # No turn further than to the making of the task.
        if tasks(bench) != (1, 0):
            await asyncio.sleep(0)
    assert tasks(bench) == (1, 0)
    await bench.engine.close()

    assert (bench.engine.holds, bench.engine.in_flight, bench.pipeline.calls.kept) == (0, 0, 1)


@pytest.mark.parametrize("error", [None, LogUnavailable("closed")], ids=["confirmed again", "failed behind it"])
async def test_an_ack_is_told_once(error: PenstockError | None, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    store = bench.producer._store

    def twice(waiting: Waiting) -> None:
        store(waiting)
        waiting.fail(error) if error else waiting.confirm(PARTITION, 7, 0)

    monkeypatch.setattr(bench.producer, "_store", twice)
    await bench.run(event())

    assert (bench.crashes, bench.committed) == ([], 1)


async def test_the_drain_ends_with_the_last_event_without_a_task() -> None:
    bench = await under_way(Bench([SLOW]))
    began_s = asyncio.get_running_loop().time()
    await bench.engine.drain(60)

    assert 4.9 < asyncio.get_running_loop().time() - began_s < 5.001
    assert bench.committed == 1


@pytest.mark.parametrize("error", [Busy("full"), LogUnavailable("not confirmed")], ids=["busy", "lost"])
async def test_a_result_that_the_log_refuses_is_written_later_or_ends_the_worker(error: PenstockError) -> None:
    bench = Bench()
    bench.producer.fail_next(error)
    await bench.run(event())

    crashed = isinstance(error, LogUnavailable)
    assert ([type(one) for one in bench.crashes], len(bench.terminals)) == (([type(error)], 0) if crashed else ([], 1))
    assert bench.committed == (0 if crashed else 1)


@pytest.mark.parametrize("is_called", [False, True], ids=["before the call", "behind the answer"])
async def test_a_bug_on_the_way_ends_the_worker_with_nothing_committed(
    monkeypatch: pytest.MonkeyPatch, *, is_called: bool
) -> None:
    bench = Bench()

    def broken(*_args: object) -> None:
        message = "a bug"
        raise KeyError(message)

    if is_called:
        monkeypatch.setattr(bench.pipeline.calls, "answered", broken)
    else:
        monkeypatch.setattr(bench.pipeline.straight, "_is_special", broken)
    await bench.start()
    await bench.send(event())
    await settled()

    assert ([type(error) for error in bench.crashes], bench.committed) == ([KeyError], 0)


async def test_a_closed_provider_leaves_no_event_behind() -> None:
    bench = Bench([SLOW])
    direct: Any = bench.pipeline._plans["r"].provider
    waiters: list[Waiter] = []

    def begin(_request: InferenceRequest, waiter: Waiter) -> bool:
        waiters.append(waiter)
        return True

    def read(outcome: Any, request: InferenceRequest, _took_s: float) -> InferenceAnswer:
        assert outcome is None
        return InferenceAnswer(text="late", model=request.model)

    direct.begin, direct.read = begin, read
    await under_way(bench)
    waiters[0].cancel()
    await bench.idle()

    assert waiters[0].done()
    assert bench.result().output == "late"


def test_the_fake_itself_needs_tasks() -> None:
    assert getattr(Fake, "direct", None) is None
