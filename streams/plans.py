"""What a route needs for a call, and what is booked for one; used by the two ways an event takes through the pipeline.

Reads: nothing. Writes: nothing.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

from contracts.errors import PenstockError
from contracts.metrics import FM_COST, FM_QUEUE_WAIT, FM_UNPRICED
from contracts.payloads import InferenceAnswer, InferenceRequest, Message, Provenance, Usage
from contracts.settings import ModelSettings, RouteSettings
from contracts.tallies import Tally
from streams.batching.caller import Caller, RouteCaller
from streams.engine.batcher import is_echo
from streams.engine.calls import Call
from streams.failures import Guard, Passes
from streams.job import Job, left_s
from streams.providers.base import Direct, NotAsked, Provider, add_usage
from streams.steps.invoke import cost_usd
from streams.steps.prompt import PromptTemplate
from streams.steps.validate import OutputContract

# A common rule of thumb for English text; only bounds of unknown costs are made with it.
_CHARS_PER_TOKEN = 4
_waits, _unpriced, _costs = Tally(None, FM_QUEUE_WAIT), Tally(FM_UNPRICED), Tally(FM_COST, adds=True)


@dataclass(frozen=True)
class Plan:
    """A route, ready to run.

    Attributes:
        direct: its provider, where a call for one event can be made without a task.
    """

    settings: RouteSettings
    template: PromptTemplate
    contract: OutputContract
    model: ModelSettings
    provider: Provider
    caller: RouteCaller
    guard: Guard
    direct: Direct | None = None

    @functools.cached_property
    def provider_name(self) -> str:
        """Return the provider's name; asked for several times per event, and it lies behind two wrappers."""
        return self.provider.name

    @property
    def streams(self) -> bool:
        """Tell whether an answer can be shown while it is made: one call for one event, of a chat model."""
        return self.settings.batch.kind == "none" and self.model.task == "chat"

    def request(self, job: Job, messages: tuple[Message, ...]) -> InferenceRequest:
        """Return what the model is asked."""
        model = self.model
        return InferenceRequest(
            event_id=job.event.id,
            model=model.model,
            messages=messages,
            system=self.template.system,
            max_tokens=model.max_tokens,
            temperature=model.temperature,
            output_schema=self.contract.schema,
            timeout_s=min(self.settings.attempt_timeout_s, left_s(job)),
            metadata={"event_id": job.event.id, "route": self.settings.name},
            task=model.task,
            reasoning=model.reasoning,
        )

    def provenance(self, answer: InferenceAnswer) -> Provenance:
        """Return where an answer came from."""
        return Provenance(
            provider=self.provider_name,
            model=answer.model,
            route=self.settings.name,
            prompt_digest=self.template.digest,
            response_id=answer.response_id,
        )

    def charge(self, usage: Usage | None) -> None:
        """Count the cost, once per call: a redelivered event may take part in a call that another one made."""
        if usage is None:
            return
        cost = cost_usd(usage, self.model)
        if cost is None:
            _unpriced[self.provider_name, self.model.model].append(1)
        else:
            _costs[self.provider_name, self.model.model, "reported"].append(cost)

    def book(self, job: Job, usage: Usage) -> None:
        """Add to what the event has cost."""
        job.usage = usage if job.attempts == 1 else add_usage(job.usage, usage)
        cost = cost_usd(usage, self.model)
        job.cost_usd = None if cost is None or job.cost_usd is None else job.cost_usd + cost

    def book_doubt(self, error: PenstockError, messages: tuple[Message, ...]) -> None:
        """Book what a failed call may have cost at most, once: its prompt, and an answer of full length.

        A redelivered event that waited for the call of another item fails with the same error.
        """
        is_booked = getattr(error, "is_booked", False)
        if getattr(error, "possibly_billed", False) and not is_booked and self.model.price is not None:
            error.is_booked = True  # type: ignore[attr-defined]
            # Of several events in one call the first one answers for the instructions, which were sent once.
            instructions = "" if is_echo(error) else self.template.system
            chars = len(instructions) + sum(len(message.content) for message in messages)
            bound = cost_usd(Usage(chars // _CHARS_PER_TOKEN, self.model.max_tokens), self.model)
            _costs[self.provider_name, self.model.model, "possibly_billed"].append(bound or 0.0)


class Begun(NamedTuple):
    """A call that was made without a task, for an event that needs one all the same.

    Attributes:
        passes: with which it was made.
        entry: of it among the paid calls.
        outcome: what came of it.
    """

    passes: Passes
    entry: Call[InferenceAnswer]
    outcome: InferenceAnswer | Exception

    async def answer(self, caller: Caller, request: InferenceRequest) -> InferenceAnswer:
        """Return the answer, or raise what came in its place; of a call that the server never had, make it."""
        if isinstance(self.outcome, NotAsked):
            return await caller(request)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def note_wait(job: Job, wait_s: float) -> None:
    """Note how long an event has waited for its first attempt."""
    _waits[job.route_name,].append(max(0.0, wait_s))
