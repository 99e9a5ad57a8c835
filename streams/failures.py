"""The failure half of the pipeline: gates before a call, and what follows after one that failed.

Reads: nothing. Writes: retries, through the settler. streams/outcome.py decides; this carries it out.

    before a call    the deadline, the route's breaker, the model's gate, a place for those that go alone
    after a failure  retry: rest outside the in-flight budget, inside the model's retry budget
                     hold: back to the gate that is closed
                     bury, expire: Ended, unless the route's breaker is closed
    a long rest      Parked: the event goes to the retry topic, where the route allows that
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import uniform
from typing import NamedTuple, assert_never

from contracts.codec import Position
from contracts.errors import AttemptsExhausted, PenstockError, Undecodable
from contracts.logs import logger
from contracts.metrics import FM_RETRIES, FM_RETRIES_DEFERRED
from contracts.settings import RouteSettings
from streams.engine.batcher import is_shared
from streams.engine.breaker import Breaker
from streams.engine.dispatcher import Slot
from streams.engine.gate import Gate, Pass
from streams.engine.item import Item, ResultRef, State
from streams.engine.retries import RetryBudget
from streams.engine.tenure import Tenure
from streams.job import FOR_GOOD, SHARED, Job, age_s, left_s, note
from streams.outcome import Bury, Decision, Expire, Hold, Retry, decide, failure_class

_BUDGET = "retry_budget"
# About how often an event looks whether there is something for it: of the budget, or of the calls for one event.
_POLL_S = 1.0
_ALONE = "goes_alone"
# What waits behind a closed gate is not written again and again in a moment, however short a route's waits are.
_LEAST_STAY_S = 5.0

# Puts an event on the retry topic: not before this instant, for this reason; None when it does not fit a record.
Park = Callable[[Job, Position, Tenure, datetime, str], Awaitable[ResultRef | None]]


class InternalError(PenstockError):
    """Stands for a bug that one event has met; that event is dead-lettered, the traceback is logged.

    Args:
        message: type and text of what was raised.
        unquoted: the same without the text, which may quote the event or its answer.
    """

    def __init__(self, message: str = "", unquoted: str = "") -> None:
        super().__init__(message)
        self.unquoted = unquoted


class Ended(Exception):
    """Carries how an event ends out of the attempts."""

    def __init__(self, decision: Bury | Expire, error: PenstockError | None = None) -> None:
        super().__init__(str(decision))
        self.decision = decision
        self.error = error or PenstockError(str(decision))


class Parked(Exception):
    """Carries where an event waits for its next attempt out of the attempts."""

    def __init__(self, ref: ResultRef) -> None:
        super().__init__(str(ref))
        self.ref = ref


class Passes(NamedTuple):
    """What a call needs of the gates in front of it."""

    route: Pass
    model: Pass

    @property
    def is_probe(self) -> bool:
        """Tell whether a gate waits for this call."""
        return self.route.is_probe or self.model.is_probe


_NO_PASSES = Passes(Pass(-1), Pass(-1))


@dataclass(frozen=True)
class Guard:
    """What stands in front of a route's calls; gate and budget are its model's.

    Attributes:
        alone: events that are in a call and share it with no others, because a shared one has failed.
    """

    route: RouteSettings
    gate: Gate
    breaker: Breaker
    budget: RetryBudget
    alone: set[Job] = field(default_factory=set)

    def passes(self) -> Passes | None:
        """Return both passes when both gates are open."""
        route, model = self.breaker.gate.ticket(), self.gate.ticket()
        return Passes(route, model) if route is not None and model is not None else None

    def is_current(self, passes: Passes) -> bool:
        """Tell whether both passes are still good."""
        return self.breaker.gate.is_current(passes.route) and self.gate.is_current(passes.model)

    def leave(self, passes: Passes, job: Job) -> None:
        """Give all back after a call, whatever became of it."""
        self.alone.discard(job)
        # A gate only waits for its probe.
        if passes.route.is_probe:
            self.breaker.gate.left(passes.route)
        if passes.model.is_probe:
            self.gate.left(passes.model)

    def admits(self, passes: Passes, job: Job) -> bool:
        """Tell whether a call may be made for an event now: for those that share none, half of the calls are there."""
        if job.goes_alone and not passes.is_probe and self.route.batch.kind != "none":
            if len(self.alone) >= max(1, self.route.batch.max_calls // 2):
                return False
            self.alone.add(job)
        return True

    @property
    def reason(self) -> str | None:
        """Return why the route is paused; None when it is not."""
        return self.gate.reason or self.breaker.gate.reason


class Failures:
    """See the module.

    Args:
        is_paid: tells whether an event's answer, or a call for it, is there already.
        park: puts an event on the retry topic.
    """

    def __init__(self, is_paid: Callable[[Position], bool], park: Park) -> None:
        self._is_paid = is_paid
        self._park = park
        self._log = logger("worker")

    async def enter(self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure) -> Passes:
        """Return when a call may be made, with a slot; raise Ended when the deadline passes first, or Parked."""
        if job.not_before is not None:
            await self._rest_on(guard, job, item, slot, tenure, job.not_before)
        rests_since_s = item.taken_at if job.origin else asyncio.get_running_loop().time()
        passes: Passes | None
        while True:
            # Also before a retry: nothing is started under a stale lease.
            if not tenure.may_work:
                await tenure.permission()
            if self._is_paid(item.position):
                # Paid for already, so it is taken also behind the deadline, and a closed gate does not matter.
                await slot.acquire()
                passes = guard.passes() or _NO_PASSES
                break
            if left_s(job) <= 0:
                raise Ended(Expire())
            passes = guard.passes() or await self._wait(guard, job, item, slot, rests_since_s)
            if passes is not None:
                # In the ordinary case it has its slot, and nothing can have closed meanwhile.
                has_slot = slot.is_held or await self._has_slot(guard, job, slot, passes)
                if has_slot and await self._is_admitted(guard, job, item, slot, passes):
                    break
            is_long = passes is None or asyncio.get_running_loop().time() - rests_since_s > _stay_s(guard, job)
            if is_long and left_s(job) > _stay_s(guard, job):
                await self._make_room(guard, job, item, slot, tenure)
                rests_since_s = asyncio.get_running_loop().time()
        if job.attempts == 0:
            guard.budget.first_call()
        enter_state(item, State.CALLING)
        return passes

    async def _make_room(self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure) -> None:
        """Have it wait somewhere else; return where it is too large for that, or in nobody's way here."""
        if job.origin is None or slot.is_in_the_way:
            # It has learned nothing new: as long again. Who waits at a gate, or for a call for it alone, owes the
            # budget nothing.
            wait_s, reason = _stay_s(guard, job), guard.reason or _ALONE
            await self._try_park(job, item, slot, tenure, wait_s, reason, has_retry=True)

    async def _rest_on(
        self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure, not_before: datetime
    ) -> None:
        """Wait for the instant before which a parked event is not to be tried, and for the retry budget."""
        job.not_before, stay_s = None, _stay_s(guard, job)
        if self._is_paid(item.position):
            return
        if job.attempts:
            job.prompt = ()
        while (wait_s := min((not_before - datetime.now(UTC)).total_seconds(), left_s(job))) > 0:
            job.prompt = ()
            await self._sleep(item, slot, "parked", wait_s, limit_s=stay_s)
            if wait_s > 2 * stay_s and slot.is_in_the_way:
                # Those behind it may have to wait for less.
                await self._try_park(job, item, slot, tenure, wait_s - stay_s, "parked", has_retry=job.has_retry)
        if job.attempts and not job.has_retry:
            # Many come back together out of an outage, and no retry was spent when this one was parked.
            await self._afford(guard, job, item, slot, tenure)

    @staticmethod
    async def _has_slot(guard: Guard, job: Job, slot: Slot, passes: Passes) -> bool:
        """Take a slot; False, without the passes, when a gate has closed or the deadline has passed meanwhile."""
        try:
            # To end as expired takes no slot: behind an outage there are many for whom the lane's turn comes too late.
            async with asyncio.timeout(max(0.0, left_s(job))):
                await slot.acquire()
        except TimeoutError:
            guard.leave(passes, job)
            return False
        except BaseException:
            guard.leave(passes, job)
            raise
        # Others' calls hold the slots for as long as they take, and a call behind the deadline would be paid for.
        if guard.is_current(passes) and left_s(job) > 0:
            return True
        guard.leave(passes, job)
        return False

    async def _is_admitted(self, guard: Guard, job: Job, item: Item, slot: Slot, passes: Passes) -> bool:
        """Tell whether the call may be made; False, without the passes and a while later, when it has to wait."""
        if guard.admits(passes, job):
            return True
        guard.leave(passes, job)
        if job.has_retry or not self._is_too_old(guard, job):
            await self._sleep(item, slot, _ALONE, self._poll_s(job))
        return False

    @staticmethod
    async def _wait(guard: Guard, job: Job, item: Item, slot: Slot, since_s: float) -> Passes | None:
        """Wait at both gates, the route's first: its probe must not keep the model's from other routes."""
        limit_s, stay_s, now_s = left_s(job), _stay_s(guard, job), asyncio.get_running_loop().time()
        if limit_s > stay_s:
            limit_s = max(0.0, since_s + stay_s - now_s)
        slot.release()
        # Many may wait here, and for long: prompts are not among the bytes that are held to a limit. And who has waited
        # here gets an attempt, however old by then.
        job.prompt, job.has_retry = (), True
        enter_state(item, State.RESTING, guard.reason or "")
        item.until = 0.0
        end_s = now_s + limit_s
        route = await guard.breaker.gate.enter(limit_s)
        if route is None:
            return None
        model: Pass | None = None
        try:
            model = await guard.gate.enter(max(0.0, min(left_s(job), end_s - asyncio.get_running_loop().time())))
        finally:
            if model is None:
                guard.breaker.gate.left(route)
        return Passes(route, model) if model is not None else None

    async def after(
        self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure, error: PenstockError, passes: Passes
    ) -> None:
        """Return when the next attempt may be made; raise Ended when there is none, or Parked."""
        note(job, error)
        job.has_retry = False
        kind = failure_class(error)
        failures = job.failed.get(kind, 0) + 1
        decision = decide(
            error,
            failures=failures,
            age_s=age_s(job),
            left_s=left_s(job),
            policy=guard.route.retry,
            gate_reason=guard.gate.reason,
        )
        self._log.info(
            "inference.attempted",
            event_id=job.event.id,
            route=job.route_name,
            attempt=job.attempts,
            reason=error.reason,
            error=error.for_log,
            outcome=type(decision).__name__.lower(),
            wait_s=round(getattr(decision, "wait_s", 0.0), 3),
        )
        if not isinstance(decision, Hold):
            # A held call never had a chance: it does not count against the policy; the gate says when to come back.
            job.failed[kind] = failures
            if is_shared(error):
                # Of a provider that fails now and then, calls come through together; a time-out is for all of them.
                job.failed[SHARED] = job.failed.get(SHARED, 0) + (FOR_GOOD if kind == "timeout" else 1)
        await self._carry_out(decision, guard, job, item, slot, tenure, error, passes)

    async def _carry_out(
        self,
        decision: Decision,
        guard: Guard,
        job: Job,
        item: Item,
        slot: Slot,
        tenure: Tenure,
        error: PenstockError,
        passes: Passes,
    ) -> None:
        match decision:
            case Retry(wait_s, reason):
                guard.leave(passes, job)
                FM_RETRIES.labels(job.route_name, reason).inc()
                await self._rest(guard, job, item, slot, tenure, wait_s, reason)
            case Hold():
                pass
            case Bury():
                self.bury(guard, decision, error, passes)
            case Expire():
                raise Ended(decision, error) from error
            case _:
                assert_never(decision)

    @staticmethod
    def bury(guard: Guard, decision: Bury, error: PenstockError, passes: Passes) -> None:
        """Raise Ended; return where the route's breaker keeps the event back, for another attempt behind its gate."""
        if isinstance(error, Undecodable) or guard.breaker.may_bury(passes.route):
            raise Ended(decision, error) from error

    async def _rest(
        self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure, wait_s: float, reason: str
    ) -> None:
        """Wait outside the in-flight budget, until the retry budget has something as well."""
        long_s = guard.route.retry.park_after_s
        if wait_s > long_s and guard.route.parks:
            await self._try_park(job, item, slot, tenure, wait_s, reason)
        await self._sleep(item, slot, reason, wait_s)
        await self._afford(guard, job, item, slot, tenure)

    async def _afford(self, guard: Guard, job: Job, item: Item, slot: Slot, tenure: Tenure) -> None:
        """Spend a retry, or return at the deadline; raise Parked when that takes long, Ended when it is too old."""
        long_s, waited_s = guard.route.retry.park_after_s, 0.0
        while left_s(job) > 0:
            if self._is_too_old(guard, job) or guard.budget.take():
                return
            if waited_s == 0.0:
                FM_RETRIES_DEFERRED.labels(job.route_name).inc()
            elif waited_s > long_s and guard.route.parks:
                await self._try_park(job, item, slot, tenure, long_s, _BUDGET)
                waited_s = 0.0
            poll_s = self._poll_s(job)
            await self._sleep(item, slot, _BUDGET, poll_s)
            waited_s += poll_s

    def _is_too_old(self, guard: Guard, job: Job) -> bool:
        """Raise Ended when no retry may begin any more; True where the route's breaker keeps the event back."""
        if age_s(job) <= (guard.route.retry.max_age_s or math.inf):
            return False
        if guard.reason is not None:
            return True  # It waits at the gate, where it owes nothing.
        error = AttemptsExhausted("no retry could begin within retry.max_age_s")
        ticket = guard.breaker.gate.ticket() or _NO_PASSES.route
        self.bury(guard, Bury(error.reason, "exhausted"), error, Passes(ticket, _NO_PASSES.model))
        return True

    @staticmethod
    def _poll_s(job: Job) -> float:
        return min(uniform(0.5, 1.5) * _POLL_S, left_s(job))  # noqa: S311 - spreads, hides nothing

    @staticmethod
    async def _sleep(item: Item, slot: Slot, reason: str, wait_s: float, limit_s: float = math.inf) -> None:
        """Rest, for that long or up to a limit: only the item's own chain waits with it."""
        slot.release()
        enter_state(item, State.RESTING, reason)
        item.until = asyncio.get_running_loop().time() + wait_s
        await asyncio.sleep(min(wait_s, limit_s))

    async def _try_park(
        self, job: Job, item: Item, slot: Slot, tenure: Tenure, wait_s: float, reason: str, *, has_retry: bool = False
    ) -> None:
        """Raise Parked; return when the event is too large for the retry topic."""
        slot.release()
        job.has_retry = has_retry
        enter_state(item, State.SETTLING)
        not_before = datetime.fromtimestamp(datetime.now(UTC).timestamp() + min(wait_s, left_s(job)), tz=UTC)
        ref = await self._park(job, item.position, tenure, not_before, reason)
        if ref is not None:
            raise Parked(ref)


def _stay_s(guard: Guard, job: Job) -> float:
    """Return after how long a wait an event makes room here; infinity where its route does not park.

    One that was taken up from the retry topic goes back there only while others wait behind it. So in an outage a
    worker writes an eighth of what it may hold in such a time at most.
    """
    if not guard.route.parks:
        return math.inf
    return guard.route.retry.park_after_s if job.origin is None else max(_LEAST_STAY_S, guard.route.retry.park_after_s)


def enter_state(item: Item, state: State, reason: str = "") -> None:
    """Note what an item is doing from now on."""
    item.state, item.reason, item.since = state, reason, asyncio.get_running_loop().time()
