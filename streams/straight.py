"""The way of an event to which nothing special happens: no task, and each step taken for all that come together.

Reads: nothing. Writes: results, through streams/settle.py.

The call is made with a provider that needs no task for it; its answer, and then the result's ack, come back as calls of
functions. What does not fit here goes on in a task of its own, with all that is known by then, through
streams/pipeline.py, which alone decides what follows from it: a failure, an answer that does not keep to the schema, a
lease that is not good, a result that is refused. See docs/adr/0030.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from contracts.payloads import InferenceAnswer, InferenceRequest
from producers.base import Delivered
from streams.engine.calls import Call, PaidCalls
from streams.engine.dispatcher import Slot
from streams.engine.item import Item, ResultRef, State
from streams.engine.tenure import Tenure, without_right
from streams.engine.work import Way
from streams.failures import Passes, enter_state
from streams.job import Job, left_s
from streams.plans import Begun, Plan, note_wait
from streams.providers.base import Direct
from streams.settle import Settler
from streams.staged import Result
from streams.steps.invoke import clean


class WithTask(Protocol):
    """The other way."""

    async def __call__(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef | None:
        """Do all of the work; the outcome of a call that was made is in the job."""
        ...

    async def settle(self, result: Result, refused: Exception) -> ResultRef:
        """Write a result that was refused, or what stands for it."""
        ...


class _Run:
    """One event on its way; gets the outcome of its call."""

    __slots__ = (
        "_straight", "answer", "direct", "entry", "has_come", "is_cut", "item", "job", "outcome", "output", "passes",
        "plan", "request", "result", "since_s", "slot", "tenure",
    )  # fmt: skip

    def __init__(self, straight: "Straightway", item: Item, slot: Slot, tenure: Tenure) -> None:
        self._straight = straight
        self.item = item
        self.slot = slot
        self.tenure = tenure
        self.job: Job = item.work
        self.plan: Plan
        self.direct: Direct
        self.passes: Passes
        self.request: InferenceRequest
        self.entry: Call[InferenceAnswer]
        self.since_s = 0.0
        self.has_come = self.is_cut = False
        self.outcome: Any = None
        self.answer: InferenceAnswer
        self.output: Any = None
        self.result: Result

    def done(self) -> bool:
        """Tell whether its outcome is there."""
        return self.has_come

    def set_result(self, outcome: Any, /) -> None:
        """Take the outcome of the call, whatever it is."""
        self.has_come, self.outcome = True, outcome
        self._straight.came(self)

    set_exception = set_result

    def cancel(self) -> None:
        """Know that the provider was closed."""
        self.set_result(None)

    def cut(self) -> None:
        """Forget the event."""
        self.is_cut = True
        # It names the ack, which names this run and gets nothing any more.
        self.result = None  # type: ignore[assignment]  # nobody reads it of a run that is cut


class _Ack(msgspec.Struct, eq=False):
    """Gets where a run's result lies.

    Then it lets go of the run: with a cycle, all of an event would wait for the next collection of garbage.
    """

    _straight: "Straightway"
    _run: _Run | None

    def done(self) -> bool:
        """Tell whether nobody waits any more."""
        return self._run is None or self._run.is_cut

    def set_result(self, place: Delivered, /) -> None:
        """Take where it lies."""
        run, self._run = self._run, None
        if run is not None:
            self._straight.confirmed(run, place)

    def set_exception(self, error: Exception, /) -> None:
        """Take why it is not known to lie anywhere."""
        run, self._run = self._run, None
        if run is not None:
            self._straight.refused(run, error)


class Straightway:
    """See the module.

    Args:
        plans: by the name of the route.
        calls: paid calls, those of tasks included.
        settler: writes results.
        work: what is done with a task.
        is_special: tells that an event wants more than one call and its result.
    """

    def __init__(
        self,
        plans: Mapping[str, Plan],
        calls: PaidCalls[InferenceAnswer],
        settler: Settler,
        work: WithTask,
        is_special: Callable[[Item, Job], bool],
    ) -> None:
        self._plans = plans
        self._calls = calls
        self._settler = settler
        self._work = work
        self._is_special = is_special
        self._loop = asyncio.get_running_loop()
        self._way: Way
        self._arrived: list[_Run] = []
        self._acked: list[tuple[_Run, Delivered]] = []

    def follow(self, way: Way) -> None:
        """Take what to tell of items; see streams.engine.work.Straight."""
        self._way = way

    def begin(self, starts: Sequence[tuple[Item, Slot]], tenure: Tenure) -> Sequence[_Run | None]:
        """Make the calls of items whose turn it is; None for each that needs a task."""
        try:
            passes: dict[str, Passes | None] = {}
            runs = [self._fit(_Run(self, item, slot, tenure), passes) for item, slot in starts]
            return [run if run is not None and self._ask(run) else None for run in runs]
        except Exception as error:  # noqa: BLE001 - a bug; unseen, it would leave events behind that never end
            self._way.crash(error)
            return [None] * len(starts)

    def _fit(self, run: _Run, known: dict[str, Passes | None]) -> _Run | None:
        """Return a run with its request; None unless all about it is as usual.

        Args:
            run: of an item whose turn it is.
            known: the passes of routes, asked for once: no gate opens or closes between two items.
        """
        item, job = run.item, run.job
        # A prompt that could not be rendered is looked at where it can be dealt with.
        if job.fault is not None or job.route is None or not job.prompt or job.attempts or job.not_before is not None:
            return None
        name = job.route.name
        plan = self._plans[name]
        if plan.direct is None or item.first is not None or item.position in self._calls:
            return None
        if name not in known:
            known[name] = plan.guard.passes()
        passes = known[name]
        if passes is None or left_s(job) <= 0 or self._is_special(item, job):
            return None
        run.plan, run.direct, run.passes, run.request = plan, plan.direct, passes, plan.request(job, job.prompt)
        return run

    def _ask(self, run: _Run) -> bool:
        try:
            if not run.direct.begin(run.request, run):
                return False
        except Exception:  # noqa: BLE001 - what fails here fails again where it is dealt with
            return False
        item, job, guard = run.item, run.job, run.plan.guard
        run.since_s = self._loop.time()
        note_wait(job, run.since_s - item.taken_at)
        enter_state(item, State.CALLING)
        job.attempts = item.attempts = 1
        guard.budget.first_call()
        guard.breaker.calling += 1
        guard.gate.calling += 1
        run.entry = self._calls.begin(item.position)
        run.slot.lend()
        return True

    def came(self, run: _Run) -> None:
        """Take up an outcome, with the others of this turn of the loop."""
        if not self._arrived:
            self._loop.call_soon(self._go_on)
        self._arrived.append(run)

    def _go_on(self) -> None:
        runs, self._arrived = self._arrived, []
        now_s = self._loop.time()
        try:
            runs = [run for run in runs if self._is_answered(run, now_s)]
            stale = without_right({run.tenure for run in runs})
            runs = [run for run in runs if self._is_valid(run, stale)]
            for run in runs:
                self._book(run)
            for run in runs:
                self._post(run)
        except Exception as error:  # noqa: BLE001 - as above
            self._way.crash(error)

    def _is_answered(self, run: _Run, now_s: float) -> bool:
        try:
            run.answer = clean(run.direct.read(run.outcome, run.request, now_s - run.since_s), run.request)
        except Exception as error:  # noqa: BLE001 - the other way tells them apart
            self._needs_task(run, error)
        else:
            return True
        return False

    def _is_valid(self, run: _Run, stale: Collection[Tenure]) -> bool:
        try:
            if run.tenure not in stale:
                run.output = run.plan.contract.read(run.answer)
                return True
        except Exception:  # noqa: BLE001, S110 - found again there, where it is known what follows
            pass
        self._needs_task(run, run.answer)
        return False

    def _book(self, run: _Run) -> None:
        plan, job, usage, guard = run.plan, run.job, run.answer.usage, run.plan.guard
        guard.gate.calling -= 1
        guard.breaker.calling -= 1
        plan.charge(usage)
        guard.gate.succeeded(run.passes.model)
        self._calls.answered(run.item.position, run.entry, run.answer)
        plan.book(job, usage)
        guard.breaker.answered(run.passes.route)
        job.prompt = ()

    def _post(self, run: _Run) -> None:
        run.slot.settle()
        enter_state(run.item, State.SETTLING)
        provenance = run.plan.provenance(run.answer)
        run.result = Result(run.job, run.item.position, run.tenure, run.answer, run.output, provenance)
        self._settler.post(run.result, _Ack(self, run))

    def confirmed(self, run: _Run, place: Delivered) -> None:
        """Take up an ack, with the others of this turn of the loop."""
        if not self._acked:
            self._loop.call_soon(self._end)
        self._acked.append((run, place))

    def _end(self) -> None:
        acked, self._acked = self._acked, []
        try:
            acked = [(run, place) for run, place in acked if not run.is_cut]
            for run, _ in acked:
                self._settler.confirmed(run.result)
            for run, place in acked:
                self._calls.drop(run.item.position)
                self._way.ended(run.item, run.slot, run.tenure, ResultRef(place.topic, place.offset))
        except Exception as error:  # noqa: BLE001 - as above
            self._way.crash(error)

    def refused(self, run: _Run, error: Exception) -> None:
        """Go on with a result that the log has not taken."""
        self._way.goes_on(run.item, run.slot, run.tenure, lambda: self._work.settle(run.result, error))

    def _needs_task(self, run: _Run, outcome: InferenceAnswer | Exception) -> None:
        run.job.begun = Begun(run.passes, run.entry, outcome)
        self._way.goes_on(run.item, run.slot, run.tenure, lambda: self._work(run.item, run.slot, run.tenure))
