"""From event to outcome: prompt, route, invoke, validate, with retries inside the deadline.

Reads: nothing. Writes: through streams/settle.py. The engine calls it per item; streams/outcome.py decides on failures.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar, assert_never

from contracts.codec import Headers, Position, encodable, format_time
from contracts.errors import ConfigurationFault, OutputInvalid, PenstockError, Retryable, Throttled
from contracts.logs import logger
from contracts.metrics import CONTRACT_FAILURES, FM_COST, FM_QUEUE_WAIT, FM_RETRIES, FM_UNPRICED, ROUTE_PAUSED
from contracts.payloads import FailureNote, InferenceAnswer, InferenceRequest, Message, Provenance, Usage
from contracts.settings import ModelSettings, RouteSettings, Settings
from streams.engine.calls import PaidCalls
from streams.engine.dispatcher import Slot
from streams.engine.gate import Gate
from streams.engine.item import Item, ResultRef, State
from streams.engine.tenure import Tenure
from streams.job import Job, make_job
from streams.outcome import Bury, Decision, Expire, Hold, Retry, decide, disposition
from streams.providers.base import Provider
from streams.settle import Settler
from streams.steps.invoke import add_usage, cost_usd, invoke
from streams.steps.prompt import PromptTemplate
from streams.steps.route import Router
from streams.steps.validate import OutputContract

# The first failure and the newest ones are worth keeping; a long outage makes many.
_MAX_FAILURES_NOTED = 10
# A common rule of thumb for English text; only bounds of unknown costs are made with it.
_CHARS_PER_TOKEN = 4
A = TypeVar("A")
T = TypeVar("T")


class InternalError(PenstockError):
    """Stands for a bug that one event has met; that event is dead-lettered, the traceback is logged."""


@dataclass(frozen=True)
class Plan:
    """A route, ready to run."""

    settings: RouteSettings
    template: PromptTemplate
    contract: OutputContract
    model: ModelSettings
    provider: Provider
    gate: Gate


class Pipeline:
    """The work that the engine does.

    Args:
        settings: the whole configuration.
        providers: started providers by the name of their section.
        settler: writes outcomes.

    Raises:
        ConfigError: a template or schema cannot be used.
    """

    def __init__(self, settings: Settings, providers: Mapping[str, Provider], settler: Settler) -> None:
        self._settler = settler
        self._router = Router(settings.routes)
        self._log = logger("worker")
        self.calls: PaidCalls[InferenceAnswer] = PaidCalls(
            lambda answer: len(answer.text.encode()), max_kept=max(1024, 2 * settings.worker.max_in_flight)
        )
        self._gates: dict[str, Gate] = {}
        self._plans = {route.name: self._plan(route, settings, providers) for route in settings.routes}

    def _plan(self, route: RouteSettings, settings: Settings, providers: Mapping[str, Provider]) -> Plan:
        model = settings.models[route.model]
        gate = self._gates.get(route.model)
        if gate is None:
            gate = Gate(lambda reason: self._gate_changed(route.model, reason), asyncio.get_running_loop().time)
            self._gates[route.model] = gate
        template = PromptTemplate(route.prompt, route.name)
        return Plan(route, template, OutputContract(route), model, providers[model.provider], gate)

    def _gate_changed(self, model: str, reason: str | None) -> None:
        ROUTE_PAUSED.clear()
        for plan in self._plans.values():
            if plan.gate.reason is not None:
                ROUTE_PAUSED.labels(plan.settings.name, plan.gate.reason).set(1)
        if reason is None:
            self._log.warning("model.resumed", model=model)
        else:
            self._log.error(
                "model.paused", model=model, reason=reason, detail="calls wait; a probe is made from time to time"
            )

    def item(self, position: Position, key: bytes | None, value: bytes | None, headers: Headers, lane: str) -> Item:
        """Decode a record, find its route, and make the engine's item of it."""
        job = make_job(position, key, value, headers, self._router)
        size_bytes = len(job.value) + sum(len(name) + len(raw or b"") for name, raw in headers) + len(key or b"")
        return Item(position, _chain(job, position), lane, size_bytes, job)

    async def __call__(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:
        """Work on an item; see streams.engine.engine.Work."""
        job: Job = item.work
        ref = await self._outcome(job, item, slot, tenure)
        self.calls.drop(item.position)
        return ref

    async def _outcome(self, job: Job, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:
        try:
            if job.fault is not None:
                raise job.fault
            answer, output, plan = await self._answer(job, item, slot, tenure)
        except _Ended as ended:
            self._settling(item, slot)
            if isinstance(ended.decision, Expire):
                return await self._settler.expire(job, item.position, tenure, ended.decision)
            return await self._settler.bury(job, item.position, tenure, ended.decision, ended.error)
        except PenstockError as error:
            self._settling(item, slot)
            return await self._settler.bury(job, item.position, tenure, Bury(error.reason, disposition(error)), error)
        self._settling(item, slot)
        provenance = Provenance(
            provider=plan.provider.name,
            model=answer.model,
            route=plan.settings.name,
            prompt_digest=plan.template.digest,
            response_id=answer.response_id,
        )
        return await self._settler.result(job, item.position, tenure, answer, output, provenance)

    @staticmethod
    def _settling(item: Item, slot: Slot) -> None:
        slot.settle()
        _enter(item, State.SETTLING)

    async def _answer(self, job: Job, item: Item, slot: Slot, tenure: Tenure) -> tuple[InferenceAnswer, Any, Plan]:
        """Return the validated answer, or raise _Ended with the decision how the event ends."""
        assert job.route is not None  # noqa: S101 - for the type checker: a job without a route has a fault
        plan = self._plans[job.route.name]
        messages = self._pure(job, plan.template.render, job.event)
        FM_QUEUE_WAIT.labels(job.route_name).observe(max(0.0, asyncio.get_running_loop().time() - item.taken_at))
        has_repaired = False
        while True:
            await self._pass_gate(plan, job, item, slot, tenure)
            try:
                answer = await self._attempt(plan, job, item, slot, messages)
                return answer, self._pure(job, plan.contract.check, answer.text), plan
            except OutputInvalid as error:
                CONTRACT_FAILURES.labels(job.route_name, error.reason).inc()
                self._note(job, error)
                if has_repaired:
                    raise _Ended(Bury(error.reason, "poison"), error) from error
                has_repaired = True
                messages = (*messages, Message("assistant", error.answer), _repair(error))
                self.calls.drop(item.position)
                await slot.acquire()
            except PenstockError as error:
                self._book_doubt(plan, error, messages)
                await self._after_failure(plan, job, item, slot, error)

    def _pure(self, job: Job, step: Callable[[A], T], argument: A) -> T:
        """Run a step that depends on the event alone: a fault that only this event meets ends it, not the worker."""
        try:
            return step(argument)
        except PenstockError:
            raise
        except Exception as error:
            self._log.exception("step.failed", event_id=job.event.id, route=job.route_name)
            message = f"{type(error).__name__}: {error}"
            raise InternalError(message) from error

    async def _pass_gate(self, plan: Plan, job: Job, item: Item, slot: Slot, tenure: Tenure) -> None:
        """Return when a call may be made; raise _Ended when the deadline passes first."""
        while True:
            # Also before a retry: nothing is started under a stale lease.
            await tenure.permission()
            left_s = _left_s(job)
            if item.position in self.calls:
                # Paid for already, so it is taken also behind the deadline.
                break
            if left_s <= 0:
                raise _Ended(Expire())
            if plan.gate.admits():
                break
            await self._rest(item, slot, plan.gate.reason or "", plan.gate.wait(left_s))
        _enter(item, State.CALLING)

    async def _rest(self, item: Item, slot: Slot, reason: str, wait: Any) -> None:
        """Wait outside the in-flight budget; only the item's own chain waits with it."""
        slot.release()
        _enter(item, State.RESTING, reason)
        await wait
        await slot.acquire()

    async def _attempt(
        self, plan: Plan, job: Job, item: Item, slot: Slot, messages: tuple[Message, ...]
    ) -> InferenceAnswer:
        job.attempts += 1
        item.attempts = job.attempts
        request = InferenceRequest(
            event_id=job.event.id,
            model=plan.model.model,
            messages=messages,
            system=plan.template.system,
            max_tokens=plan.model.max_tokens,
            temperature=plan.model.temperature,
            output_schema=plan.contract.schema,
            timeout_s=min(plan.settings.attempt_timeout_s, _left_s(job)),
            metadata={"event_id": job.event.id, "route": plan.settings.name},
        )
        answer = await self.calls.run(item.position, lambda: self._call(plan, request), slot.lend())
        job.usage = add_usage(job.usage, answer.usage)
        self._book(plan, job, answer)
        return answer

    @staticmethod
    async def _call(plan: Plan, request: InferenceRequest) -> InferenceAnswer:
        try:
            answer = await invoke(plan.provider, request)
        except (Retryable, ConfigurationFault) as error:
            if not isinstance(error, Throttled):
                plan.gate.failed(error.reason, is_fault=isinstance(error, ConfigurationFault))
            raise
        except PenstockError:
            # A refusal of this one event proves that the provider is there.
            plan.gate.succeeded()
            raise
        except Exception as error:
            logger("worker").exception("provider.failed", provider=plan.provider.name, event_id=request.event_id)
            message = f"{plan.provider.name}: {type(error).__name__}: {error}"
            raise InternalError(message) from error
        plan.gate.succeeded()
        return answer

    @staticmethod
    def _book(plan: Plan, job: Job, answer: InferenceAnswer) -> None:
        cost = cost_usd(answer.usage, plan.model)
        if cost is None:
            FM_UNPRICED.labels(plan.provider.name, plan.model.model).inc()
            job.cost_usd = None
            return
        FM_COST.labels(plan.provider.name, plan.model.model, "reported").inc(cost)
        if job.cost_usd is not None:
            job.cost_usd += cost

    @staticmethod
    def _book_doubt(plan: Plan, error: PenstockError, messages: tuple[Message, ...]) -> None:
        """Book what a failed call may have cost at most: its prompt, and an answer of full length."""
        if getattr(error, "possibly_billed", False) and plan.model.price is not None:
            chars = len(plan.template.system) + sum(len(message.content) for message in messages)
            bound = cost_usd(Usage(chars // _CHARS_PER_TOKEN, plan.model.max_tokens), plan.model)
            FM_COST.labels(plan.provider.name, plan.model.model, "possibly_billed").inc(bound or 0.0)

    async def _after_failure(self, plan: Plan, job: Job, item: Item, slot: Slot, error: PenstockError) -> None:
        """Return when the next attempt may be made; raise _Ended when there is none."""
        self._note(job, error)
        decision = decide(
            error,
            attempts=job.attempts,
            left_s=_left_s(job),
            policy=plan.settings.retry,
            gate_reason=plan.gate.reason,
        )
        self._log.info(
            "inference.attempted",
            event_id=job.event.id,
            route=job.route_name,
            attempt=job.attempts,
            reason=error.reason,
            error=str(error),
            outcome=type(decision).__name__.lower(),
            wait_s=round(getattr(decision, "wait_s", 0.0), 3),
        )
        await self._carry_out(decision, job, item, slot, error)

    async def _carry_out(self, decision: Decision, job: Job, item: Item, slot: Slot, error: PenstockError) -> None:
        match decision:
            case Retry(wait_s, reason):
                FM_RETRIES.labels(job.route_name, reason).inc()
                await self._rest(item, slot, reason, asyncio.sleep(wait_s))
            case Hold():
                # The call never had a chance: it does not count as an attempt, and the gate says when to come back.
                job.attempts -= 1
                await slot.acquire()
            case Bury() | Expire():
                raise _Ended(decision, error) from error
            case _:
                assert_never(decision)

    @staticmethod
    def _note(job: Job, error: PenstockError) -> None:
        if len(job.failures) >= _MAX_FAILURES_NOTED:
            del job.failures[1]
        job.failures.append(
            FailureNote(
                attempt=job.attempts,
                reason=error.reason,
                message=encodable(str(error))[:500],
                at=format_time(datetime.now(UTC)),
                possibly_billed=bool(getattr(error, "possibly_billed", False)),
            )
        )


class _Ended(Exception):
    """Carries how an event ends out of the attempts."""

    def __init__(self, decision: Bury | Expire, error: PenstockError | None = None) -> None:
        super().__init__(str(decision))
        self.decision = decision
        self.error = error or PenstockError(str(decision))


def _left_s(job: Job) -> float:
    return (job.deadline_at - datetime.now(UTC)).total_seconds()


def _enter(item: Item, state: State, reason: str = "") -> None:
    item.state, item.reason, item.since = state, reason, asyncio.get_running_loop().time()


def _repair(error: OutputInvalid) -> Message:
    return Message(
        "user", f"Your answer does not satisfy the required JSON Schema: {error}. Answer again, with the JSON only."
    )


def _chain(job: Job, position: Position) -> tuple[str, int, bytes] | tuple[str, int] | None:
    """Return the unit of order of an event, as its route wants it."""
    order = job.route.order if job.route else "none"
    if order == "partition":
        return position.topic, position.partition
    if order == "key" and job.key is not None:
        return position.topic, position.partition, job.key
    return None
