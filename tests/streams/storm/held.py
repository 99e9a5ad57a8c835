"""What a worker still holds when it has nothing to do any more: nothing may be left, of whatever kind."""

from collections.abc import Iterator, Mapping
from typing import Any

from streams.batching.caller import Batched
from streams.engine.gate import Gate
from tests.streams.storm.fleet import Worker
from tests.streams.storm.plan import Plan


def held(plan: Plan, worker: Worker) -> Iterator[str]:
    """Yield what is left, and how much of it."""
    counts = {**_engine(plan, worker), **_calls(plan, worker), **_routes(worker)}
    yield from (f"{name}: {count}" for name, count in counts.items() if count)
    yield from (f"task {task}" for task in worker.tasks if not task.done())


def _engine(plan: Plan, worker: Worker) -> Mapping[str, int]:
    engine, dispatcher = worker.engine, worker.engine._dispatcher
    return {
        "events": engine.holds,
        "slots taken": plan.limits.in_flight - dispatcher._free,
        "waits for an ack": dispatcher.settling,
        "chains": len(dispatcher._chains),
        "waits for a slot again": sum(map(_open, dispatcher._resuming.values())),
        "runs": len(dispatcher.running) + len(dispatcher._slots),
        "queued": dispatcher.queued,
        "limit of events": engine._events.held + abs(engine._events._used),
        "limit of bytes": engine._bytes.held + abs(engine._bytes._used),
    }


def _calls(plan: Plan, worker: Worker) -> Mapping[str, int]:
    calls, pipeline = worker.pipeline.calls, worker.pipeline
    is_alone = plan.places == 1
    return {
        # Answers of events that others have answered since are kept, within their bounds.
        "kept answers": calls.kept if is_alone else 0,
        "answers that are not kept": len(calls._calls.keys() - calls._kept.keys()),
        "kept without an answer": len(calls._kept.keys() - calls._calls.keys()),
        "calls that never end": sum(not call.is_done for call in calls._calls.values()),
        "cancels": len(worker.cancels._at_work),
        "silent places": len(pipeline._settler._unheard._waiting),
        "results": len(pipeline._settler._results),
        "answers and acks": len(pipeline.straight._arrived) + len(pipeline.straight._acked),
        "bytes at the producer": worker.outlet.buffered_bytes,
        "places at the model": sum(one._taken + _open(one._waiters) for one in worker.limited),
        "answers that have come": sum(one.arrivals.count for one in worker.limited),
    }


def _routes(worker: Worker) -> Mapping[str, int]:
    counts = dict[str, int]()
    for name, plan in worker.pipeline._plans.items():
        guard = plan.guard
        counts[f"calls of {name}"] = guard.gate.calling + guard.breaker.calling
        counts[f"gates of {name}"] = _gate(guard.gate) + _gate(guard.breaker.gate)
        if isinstance(plan.caller, Batched):
            batcher = plan.caller._batcher
            counts[f"batches of {name}"] = batcher.waiting + batcher.running + abs(batcher._gathered_bytes)
    return counts


def _gate(gate: Gate) -> int:
    return _open(gate._waiters) + (gate._probe is not None)


def _open(waiters: Any) -> int:
    return sum(not waiter.done() for waiter in waiters)
