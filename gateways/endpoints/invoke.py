"""POST /v1/invoke: an event of an own system whose sender waits for the outcome. Writes: events.*.

The way is that of POST /v1/events, over the log; this process only waits for the copy of the outcome, or sees it on
the result topic. When the budget runs out, or will, the answer is 202 with the place of the result, and the work goes
on: an event that was accepted is never given up because nobody waits any more.
"""

import asyncio
import time
from typing import NamedTuple

import msgspec

from contracts.codec import Position, decode_json
from contracts.envelope import Event, result_id
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.metrics import SYNC_ANSWERS, SYNC_JOINED
from contracts.payloads import EXPIRED_TYPE, RESULT_TYPE, OutcomeMarker
from contracts.repetition import Identity
from gateways.asgi import Request, Response
from gateways.egress.forecast import Kind
from gateways.egress.outcomes import Outcome
from gateways.egress.waiting import Waiter
from gateways.endpoints.accepting import accepted, note_accepted, posted_by, status_url
from gateways.endpoints.results import finished
from gateways.endpoints.waiting import Budget, budget_of, look, wait_for_outcome
from gateways.ingress import posted
from gateways.ingress.admission import Admission
from gateways.ingress.callers import Caller
from gateways.ingress.claims import Claim
from gateways.ingress.once import Candidate, Placed, check_id, id_reused, produce_once
from gateways.parts import Parts
from gateways.problems import outcome_status, problem

# How long a repeated event may wait for a view that has just been started.
_RECOGNISE_S = 5.0
_RECOGNISE_EVERY_S = 0.05


class _Call(NamedTuple):
    """An invocation whose event, here without its data, is on the log."""

    event: Event
    position: Position
    kind: Kind
    is_repeated: bool


async def post_invoke(parts: Parts, request: Request, _parameter: bytes) -> Response:
    """Accept an event of an API caller, and wait for its outcome.

    Raises:
        Busy: too many wait already; nothing was accepted.
        IdReused: the caller sent another body under this id before; nothing was accepted.
        PenstockError: everything the steps raise before the event is accepted.
    """
    budget = budget_of(parts.settings, request.headers)
    caller, admission = await posted_by(parts, request)
    with parts.waiters.place() as waiter:
        call = await _begin(parts, request, caller, admission, waiter)
        outcome, why = await _outcome(parts, request, call, waiter, budget)
    request.notes["outcome"] = why
    SYNC_ANSWERS.labels(why).inc()
    if outcome is None:
        return _later(parts, call, budget)
    return _answer(outcome, status_url(parts, call.event, call.position), budget)


async def _begin(parts: Parts, request: Request, caller: Caller, admission: Admission, waiter: Waiter) -> _Call:
    """Return the call once its event is durable: produced now, or known from an earlier request with the same id."""
    settings = parts.settings
    address = parts.replies.address if parts.replies else None
    async with request.body(settings.max_body_bytes, settings.body_timeout_s, admission) as body:
        event, record, lane = sent = posted.accept(
            caller,
            request.headers,
            request.query,
            body,
            parts.topics,
            delivery="sync",
            usual_lane="interactive",
            reply_to=str(address) if address else None,
        )
        request.notes |= {
            "body_bytes": len(body),
            "event_id": event.id,
            "source": event.source,
            "type": event.type,
            "lane": lane,
            "topic": record.topic,
        }
        # Also one that repeats another: what it costs us is the same.
        parts.caller_limits.event(caller, len(body))
        waiter.expect(result_id(event.source, event.id), caller.id)
        kind = (lane, event.type)
        candidate = posted.candidate(sent, request.headers, settings.idempotency.window_s)
        # One after the other, so that the second of two equal requests finds the first.
        async with parts.waiters.turn(waiter.result_id, caller.id):
            wanted = None if candidate.is_redelivery else candidate.identity
            known = await _known(parts, caller, event, wanted) if wanted is not None else None
            if known is not None:
                SYNC_JOINED.inc()
                return _called(event, known, kind, is_repeated=True)
            check_id(parts.claims, candidate)
            placed = await _produce(parts, candidate, waiter.result_id, kind)
            position = placed.position
            note_accepted(parts, event, candidate, position)
    request.notes |= {"partition": position.partition, "offset": position.offset, "dedup": placed.dedup}
    return _called(event, position, kind, is_repeated=placed.is_duplicate)


def _called(event: Event, position: Position, kind: Kind, *, is_repeated: bool) -> _Call:
    # Half a minute may be waited, by as many as may wait: nobody does so with the body in hand.
    return _Call(msgspec.structs.replace(event, data=b""), position, kind, is_repeated)


async def _produce(parts: Parts, candidate: Candidate, wanted: str, kind: Kind) -> Placed:
    parts.backlog.check(candidate.record.topic)
    # Before the event is there: its outcome may be quicker than our ack.
    parts.waiters.forecast.begin(wanted, kind)
    try:
        placed = await produce_once(parts.claims, parts.producer, candidate, parts.settings.ack_timeout_s)
    except BaseException:
        parts.waiters.forecast.forget(wanted)
        raise
    if placed.is_duplicate:
        # Its outcome may have been told long ago: it would stand there as an event that takes for ever.
        parts.waiters.forecast.forget(wanted)
    return placed


async def _known(parts: Parts, caller: Caller, event: Event, identity: Identity) -> Position | None:
    """Return where an event lies that this caller sent before under this id; None for a new one.

    Raises:
        IdReused: what it sent before had another body.
    """
    give_up_s = time.monotonic() + _RECOGNISE_S
    # What is known here need not be read from a record.
    earlier = parts.claims.find(identity)
    while True:
        try:
            found = await parts.results.accepted(caller.id, event.id, event.source, within_memory=True)
            digest = await parts.results.digest(caller.id, event.id, found) if earlier is None else found.digest
        except (Busy, LogUnavailable):
            if earlier is not None:
                return earlier.position
            # A caller that repeats after our restart must not pay twice because we have not read up yet.
            # While Kafka confirms nothing there is nothing to read up to, and the answer is due at once.
            if parts.producer.is_stalled or time.monotonic() >= give_up_s:
                return None
            await asyncio.sleep(_RECOGNISE_EVERY_S)
        except UnknownResult:
            return None
        else:
            return _joined(found.position, digest, identity, earlier)


def _joined(position: Position, digest: bytes, identity: Identity, earlier: Claim | None) -> Position | None:
    """Return where the event lies whose outcome a call gets as well; None where it cannot be told to be the same.

    Raises:
        IdReused: it is another one.
    """
    if digest == identity.digest:
        return position
    if earlier is not None:
        # Of two under one id it repeats the earlier one.
        return earlier.position
    if digest:
        raise id_reused()
    # Its record is gone, and nobody knows what it was: the worker tells whether this one repeats it.
    return None


async def _outcome(
    parts: Parts, request: Request, call: _Call, waiter: Waiter, budget: Budget
) -> tuple[Outcome | None, str]:
    """Return the outcome, and why there is none: bounded slugs of the metric."""
    settings, forecast = parts.settings, parts.waiters.forecast
    if call.is_repeated and (outcome := await _look(parts, call)) is not None:
        return outcome, _label(outcome)
    if budget.is_async:
        return None, "requested"
    if settings.sync_predicts and not call.is_repeated and forecast.will_miss(call.kind, budget.left_s):
        return None, "predicted"
    outcome, is_there = await wait_for_outcome(request, waiter, budget)
    if not is_there:
        return None, "disconnected"
    # A reply may be lost (a worker that ended, Kafka that was away): the result topic is the truth.
    # Another event may have the id too, which this one may repeat or not; those who wait are woken by id.
    if outcome is None or outcome.is_of_another(call.position):
        outcome = await _look(parts, call)
    if outcome is not None:
        return outcome, _label(outcome)
    return None, "shutdown" if parts.waiters.is_ending else "budget"


async def _look(parts: Parts, call: _Call) -> Outcome | None:
    return await look(parts, call.event, call.position, parts.settings.sync_margin_s / 2)


def _label(outcome: Outcome) -> str:
    if outcome.type == RESULT_TYPE:
        return "succeeded"
    return "expired" if outcome.type == EXPIRED_TYPE else "dead_letter"


def _later(parts: Parts, call: _Call, budget: Budget) -> Response:
    """Return the 202 that says where the result will be."""
    waited_s = max(0.0, time.time() - call.position.timestamp_ms / 1000)
    retry_after_s = parts.waiters.forecast.retry_after_s(call.kind, waited_s)
    response = accepted(parts, call.event, call.position, source=call.event.source)
    return response._replace(
        headers=(*response.headers, (b"retry-after", b"%d" % round(retry_after_s)), *budget.headers)
    )


def _answer(outcome: Outcome, place: str, budget: Budget) -> Response:
    """Return what became of the event: 200 with the result, else a problem.

    422: the event itself is at fault. 502: the model is, or what it answered. 504: the event's own deadline passed. All
    three are final and recorded; none of them means that something is still running or lost.
    """
    headers = ((b"content-location", place.encode()), *budget.headers)
    if outcome.type == RESULT_TYPE:
        response = finished(outcome)
        return response._replace(headers=(*response.headers, *headers))
    marker = decode_json(outcome.value, OutcomeMarker)
    status = outcome_status(marker.reason, is_expired=outcome.type == EXPIRED_TYPE)
    return problem(
        status,
        marker.reason,
        marker.message,
        (*headers, (b"cache-control", b"no-store")),
        id=outcome.event_id,
        source=outcome.source,
        outcome=marker.status,
        attempts=marker.attempts,
        completed_at=marker.completed_at,
    )
