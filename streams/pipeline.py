"""From event to outcome: prompt, route, invoke, validate, with retries inside the deadline.

Reads: nothing. Writes: through streams/settle.py. The engine calls it per item; streams/outcome.py decides on failures.
"""

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from contracts.codec import REDRIVE, Position, RecordHeaders
from contracts.envelope import OWNER
from contracts.errors import (
    Cancelled,
    CertificateRefused,
    ConfigurationFault,
    LogUnavailable,
    OutputInvalid,
    OutputTruncated,
    PenstockError,
    ProviderUnavailable,
    Retryable,
    Throttled,
    is_unsent,
)
from contracts.logs import logger
from contracts.metrics import CONTRACT_FAILURES
from contracts.payloads import DeltaEnding, InferenceAnswer, InferenceRequest, Message
from contracts.repetition import identity_of
from contracts.settings import RouteSettings, Settings
from contracts.topics import RETRY_LANE
from producers.window import size_bytes_of
from streams.batching.caller import Batched, Caller, call_one, create_caller
from streams.cancels import Cancels
from streams.deltas import Deltas
from streams.engine.batcher import is_echo
from streams.engine.calls import PaidCalls, let_go
from streams.engine.dispatcher import Slot
from streams.engine.item import Item, ResultRef, State
from streams.engine.tenure import Tenure, TenureLostError
from streams.failures import Ended, Failures, InternalError, Parked, Passes, enter_state
from streams.guards import Guards
from streams.job import Job, is_for_another, make_job, note, restart_deadline
from streams.outcome import Bury, Expire, disposition
from streams.parking import take_up
from streams.plans import Plan, note_wait
from streams.providers.base import Provider, carried_usage, carry_usage, direct_of
from streams.settle import Settler
from streams.staged import Result
from streams.steps.invoke import invoke_streamed
from streams.steps.order import order_of
from streams.steps.prompt import PromptTemplate
from streams.steps.route import Router
from streams.steps.validate import OutputContract, repair_turns
from streams.straight import Straightway

A = TypeVar("A")
T = TypeVar("T")


class Pipeline:
    """The work that the engine does.

    Args:
        settings: the whole configuration.
        providers: started providers by the name of their section.
        settler: writes outcomes.
        deltas: shows answers of streamed events while they are made; None = never.
        cancels: streamed events that nobody wants answered any more; None = there are none.
        spills: tells which events go to the provider's batch API instead.

    Raises:
        ConfigError: a template or schema cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        providers: Mapping[str, Provider],
        settler: Settler,
        deltas: Deltas | None = None,
        cancels: Cancels | None = None,
        spills: Callable[[Item, Job], bool] = lambda _item, _job: False,
    ) -> None:
        self._settler = settler
        self._deltas = deltas
        self._cancels = cancels
        self._spills = spills
        self._router = Router(settings.routes)
        self._log = logger("worker")
        self.calls: PaidCalls[InferenceAnswer] = PaidCalls(
            lambda answer: len(answer.text.encode()), max_kept=max(1024, 2 * settings.worker.max_in_flight)
        )
        self._app_id = settings.worker.app_id
        self._guards = Guards(settings)
        self._failures = Failures(self.calls.__contains__, settler.park)
        self._orders = {route.name: order_of(route) for route in settings.routes}
        self._plans = {route.name: self._plan(route, settings, providers) for route in settings.routes}
        self.straight = Straightway(self._plans, self.calls, settler, self, self._is_special)

    def _plan(self, route: RouteSettings, settings: Settings, providers: Mapping[str, Provider]) -> Plan:
        model = settings.models[route.model]
        template = PromptTemplate(route.prompt, route.name)
        guard = self._guards.of(route)
        contract, provider = OutputContract(route, model.task), providers[model.provider]
        caller = create_caller(route, provider, contract.schema)
        plan = Plan(route, template, contract, model, provider, caller, guard)
        return replace(plan, direct=direct_of(provider)) if plan.streams else plan

    def item(
        self, position: Position, key: bytes | None, value: bytes | None, headers: RecordHeaders, lane: str
    ) -> Item:
        """Decode a record, find its route, and make the engine's item of it."""
        is_retry, router = lane == RETRY_LANE, self._router
        record = position, key, value, headers
        job = take_up(*record, self._app_id, router) if is_retry else make_job(*record, router)
        # Asked of every event, and true of next to none.
        if headers and headers[-1][0] == REDRIVE:
            job.is_foreign = is_for_another(headers, self._app_id)
        size_bytes = size_bytes_of(key, job.value, headers)
        # Undecodable events and those without a route are free of order.
        order = self._orders[job.route.name] if job.route else None
        return Item(
            position,
            order(position, job.key, job.event.data) if order else None,
            lane,
            size_bytes,
            job,
            tenant=job.event.extensions.get(OWNER) or job.event.source,
            deadline=job.deadline_s,
            identity=identity_of(headers, job.event.id) if job.fault is None else None,
        )

    def prepare(self, items: Sequence[Item]) -> None:
        """Render the prompts of items that start next, one after the other: see streams/staged.py."""
        for item in items:
            job: Job = item.work
            if job.fault is None and job.route is not None:
                try:
                    job.prompt = self._plans[job.route.name].template.render(job.event)
                except Exception:  # noqa: BLE001 - what fails here fails again where it is dealt with
                    job.prompt = ()

    @staticmethod
    def replay(item: Item) -> None:
        """Have an event that an operator wants done again expire by the time of this try, not of the first."""
        restart_deadline(item.work)
        item.deadline = item.work.deadline_s

    async def __call__(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef | None:
        """Work on an item; see streams.engine.engine.Work."""
        job: Job = item.work
        if job.is_foreign:
            if job.origin is None:
                self._log.info("event.passed_over", event_id=job.event.id, reason="put back for another application")
            return None
        if item.first is not None and item.position not in self.calls:
            self._settling(item, slot)
            return await self._settler.duplicate(job, item.position, tenure, item.first)
        ref: ResultRef | None = None
        # Never one whose call is being paid for already.
        if self._spills(item, job) and item.position not in self.calls:
            ref = await self._spilled(job, item, slot, tenure)
        ref = ref or await self._outcome(job, item, slot, tenure)
        self.calls.drop(item.position)
        return ref

    def _is_special(self, item: Item, job: Job) -> bool:
        """Tell whether an event worth a call is for more than one call and its result, or for none."""
        return job.is_foreign or self._spills(item, job) or Deltas.wanted(job)

    async def settle(self, result: Result, refused: Exception) -> ResultRef:
        """Go on with a result that was refused; see Settler.settled."""
        ref = await self._settler.settled(result, refused)
        self.calls.drop(result.position)
        return ref

    async def _spilled(self, job: Job, item: Item, slot: Slot, tenure: Tenure) -> ResultRef | None:
        """Hand an event over to the batch API; None when it does not fit there."""
        # Not settled: it goes on here then, and takes a slot again.
        slot.release()
        enter_state(item, State.SETTLING)
        return await self._settler.spill(job, item.position, tenure)

    async def _outcome(self, job: Job, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:
        try:
            if job.fault is not None:
                raise job.fault
            work = self._answer(job, item, slot, tenure)
            if self._cancels is not None and Deltas.wanted(job):
                answer, output, plan = await self._cancels.unless(job.origin or item.position, item, work)
            else:
                answer, output, plan = await work
        except Parked as parked:
            let_go(parked)
            self._end_parked(job)
            return parked.ref
        except Ended as ended:
            let_go(ended)
            self._settling(item, slot)
            await self._end_preview(job, "expired" if isinstance(ended.decision, Expire) else "dead_letter")
            if isinstance(ended.decision, Expire):
                return await self._settler.expire(job, item.position, tenure, ended.decision)
            return await self._settler.bury(job, item.position, tenure, ended.decision, ended.error)
        except LogUnavailable:
            # It was to be parked, and may be or not: as with any outcome, only the log knows, and a restart reads it.
            raise
        except PenstockError as error:
            let_go(error)
            is_called = bool(item.attempts) or item.position in self.calls
            if isinstance(error, Cancelled) and is_called and item.state is State.CALLING and not is_unsent(error):
                job.cost_usd = None  # what a call costs that was cut is not known
            self._settling(item, slot)
            await self._end_preview(job, "dead_letter")
            return await self._settler.bury(job, item.position, tenure, Bury(error.reason, disposition(error)), error)
        self._settling(item, slot)
        if job.preview is not None:
            await self._end_preview(job, "succeeded")
        return await self._settler.result(job, item.position, tenure, answer, output, plan.provenance(answer))

    @staticmethod
    def _end_parked(job: Job) -> None:
        """Say in the deltas that it is tried again, without waiting for them: its record is on the log already.

        It is to be booked before what lies behind it. A commit in between would name a place behind it from which to
        look for answers, and who gets the event next would pay for it again.
        """
        if job.preview is not None:
            job.preview.end("retried")

    @staticmethod
    async def _end_preview(job: Job, ending: DeltaEnding) -> None:
        """Say in the deltas how it ended; the terminal record follows them."""
        if job.preview is not None:
            job.preview.end(ending)
            await job.preview.settled()

    @staticmethod
    def _settling(item: Item, slot: Slot) -> None:
        slot.settle()
        enter_state(item, State.SETTLING)

    async def _answer(self, job: Job, item: Item, slot: Slot, tenure: Tenure) -> tuple[InferenceAnswer, Any, Plan]:
        """Return the validated answer, or raise Ended with the decision how the event ends, or Parked."""
        assert job.route is not None  # noqa: S101 - for the type checker: a job without a route has a fault
        plan = self._plans[job.route.name]
        guard = plan.guard
        if job.begun is None:
            note_wait(job, asyncio.get_running_loop().time() - item.taken_at)
        messages: tuple[Message, ...] = ()
        has_repaired = False
        while True:
            # With a call that was made already it is inside.
            passes = job.begun.passes if job.begun else await self._failures.enter(guard, job, item, slot, tenure)
            try:
                messages = messages or self._render(plan, job, passes)
                if not messages:
                    continue
                answer = await self._attempt(plan, job, item, slot, tenure, messages, passes)
                output = self._pure(job, plan.contract.read, answer)
                guard.breaker.answered(passes.route)
            except OutputInvalid as error:
                _still_ours(tenure)
                repair = self._after_invalid(plan, job, error, passes, has_repaired=has_repaired)
                messages, has_repaired = ((*messages, *repair), True) if repair else ((), False)
                self.calls.drop(item.position)
            except PenstockError as error:
                let_go(error)
                plan.book_doubt(error, messages)
                _still_ours(tenure)
                await self._failures.after(guard, job, item, slot, tenure, error, passes)
            else:
                return answer, output, plan
            finally:
                guard.leave(passes, job)

    def _render(self, plan: Plan, job: Job, passes: Passes) -> tuple[Message, ...]:
        """Return the prompt; nothing when it cannot be rendered and the route's breaker keeps the event back."""
        prompt, job.prompt = job.prompt, ()
        try:
            return prompt or self._pure(job, plan.template.render, job.event)
        except PenstockError as error:
            self._failures.bury(plan.guard, Bury(error.reason, disposition(error)), error, passes)
            return ()

    def _after_invalid(
        self, plan: Plan, job: Job, error: OutputInvalid, passes: Passes, *, has_repaired: bool
    ) -> tuple[Message, ...]:
        """Return the turns that ask for a repair, once; then raise Ended, or return nothing: the event is kept back."""
        CONTRACT_FAILURES.labels(job.route_name, error.reason).inc()
        note(job, error)
        # A vector cannot be talked about, and what the limit cut off once it cuts off again.
        if not (has_repaired or plan.model.task == "embedding" or isinstance(error, OutputTruncated)):
            return repair_turns(error)
        self._failures.bury(plan.guard, Bury(error.reason, "poison"), error, passes)
        return ()

    def _pure(self, job: Job, step: Callable[[A], T], argument: A) -> T:
        """Run a step that depends on the event alone: a fault that only this event meets ends it, not the worker."""
        try:
            return step(argument)
        except PenstockError:
            raise
        except Exception as error:
            self._log.exception("step.failed", event_id=job.event.id, route=job.route_name)
            message = f"{type(error).__name__}: {error}"
            raise InternalError(message, type(error).__name__) from error

    async def _attempt(
        self,
        plan: Plan,
        job: Job,
        item: Item,
        slot: Slot,
        tenure: Tenure,
        messages: tuple[Message, ...],
        passes: Passes,
    ) -> InferenceAnswer:
        entry = job.begun.entry if job.begun else None
        if entry is None:
            job.attempts += 1
            item.attempts = job.attempts
            plan.guard.breaker.calling += 1
        request = plan.request(job, messages)
        try:
            answer = await self.calls.run(
                item.position, self._call, slot.lend(), plan, request, passes, job, item, tenure, entry=entry
            )
        except PenstockError as error:
            if (spent := carried_usage(error)) is not None:
                plan.book(job, spent)
            raise
        finally:
            plan.guard.breaker.calling -= 1
        plan.book(job, answer.usage)
        return answer

    def _caller(self, plan: Plan, job: Job, item: Item, tenure: Tenure, passes: Passes) -> Caller:
        """Return how this attempt reaches the provider."""

        def is_wanted() -> bool:
            # Who gets the partition next calls what has not been sent by then.
            return not tenure.is_over or self.calls.is_awaited(item.position)

        if isinstance(plan.caller, Batched):
            # A probe goes alone: of a call with events from before the gate closed, those would tell how it went.
            return functools.partial(plan.caller, is_wanted=is_wanted, alone=passes.is_probe or job.goes_alone)
        if self._deltas is None or not self._deltas.wanted(job) or not plan.streams:
            return functools.partial(plan.caller, is_wanted=is_wanted)
        preview = self._deltas.begin(job, item.position, tenure)
        return functools.partial(
            call_one, plan.provider, functools.partial(invoke_streamed, on_text=preview.add), is_wanted=is_wanted
        )

    async def _call(
        self, plan: Plan, request: InferenceRequest, passes: Passes, job: Job, item: Item, tenure: Tenure
    ) -> InferenceAnswer:
        begun, job.begun = job.begun, None
        caller, gate = self._caller(plan, job, item, tenure, passes), plan.guard.gate
        gate.calling += 0 if begun else 1
        try:
            try:
                answer = await (begun.answer(caller, request) if begun else caller(request))
            finally:
                gate.calling -= 1
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is not None and task.cancelling() and not is_unsent(cancelled):
                # Its sender does not want it any more. What the model has made until then is paid for, and never told.
                plan.book_doubt(ProviderUnavailable("cut off", possibly_billed=True), request.messages)
            raise
        except PenstockError as error:
            plan.charge(carried_usage(error))
            if not isinstance(error, (Retryable, ConfigurationFault)):
                # A refusal of this one event proves that the provider is there.
                gate.succeeded(passes.model)
            elif not isinstance(error, Throttled) and not (tenure.is_over and is_echo(error)):
                # One failure, for however many events the call was. A certificate may be of one machine of several.
                is_fault = isinstance(error, ConfigurationFault) and not isinstance(error, CertificateRefused)
                gate.failed(error.reason, passes.model, is_fault=is_fault, cause=error.for_log, is_echo=is_echo(error))
            raise
        except Exception as error:
            plan.charge(carried_usage(error))
            logger("worker").exception("provider.failed", provider=plan.provider.name, event_id=request.event_id)
            unquoted = f"{plan.provider.name}: {type(error).__name__}"
            raise carry_usage(InternalError(f"{unquoted}: {error}", unquoted), carried_usage(error)) from error
        plan.charge(answer.usage)
        gate.succeeded(passes.model)
        return answer


def _still_ours(tenure: Tenure) -> None:
    """Let an event go whose call outlived its tenure: whoever gets it next decides what comes after the call."""
    if tenure.is_over:
        raise TenureLostError
