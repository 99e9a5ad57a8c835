"""Micro-batches: several events of one route in one model call."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from contracts.payloads import Task
from contracts.settings.models import EMBEDDED_MODELS, ModelSettings, ProviderSettings
from contracts.settings.section import Section

# What each kind of provider can be asked for.
TASKS: Mapping[str, frozenset[Task]] = {
    "embedded": frozenset({"chat", "embedding"}),
    "bedrock": frozenset({"chat"}),
    "openai": frozenset({"chat", "completion", "embedding"}),
    "fake": frozenset({"chat", "completion", "embedding"}),
}


class Batch(Section):
    """Gathers events of the route into one model call; see docs/batching.md."""

    kind: Literal["none", "inputs", "pack"] = "none"
    """`none`: one event, one call. `inputs`: one call with a list of inputs, for models whose task is embedding or
    completion. `pack`: one chat call whose prompt holds several events and whose answer is an array, matched by id;
    for classification and extraction with long instructions. Needs an output schema."""
    max_events: int = Field(default=8, ge=2, le=2048)
    """Events of one call."""
    max_bytes: int = Field(default=32_768, ge=1, le=16 * 2**20)
    """Bytes of the events' prompts in one call; a larger event goes alone. Instructions count where they go out with
    every prompt: with completions."""
    max_wait_s: float = Field(default=0.05, ge=0, le=60)
    """How long the first event of a call waits for others, seconds; less than the route's attempt_timeout_s and
    deadline_s, in which an event has to be answered."""
    max_calls: int = Field(default=16, ge=1, le=4096)
    """Calls of the route at a time; while all are taken, events go on gathering. Half of them at most are for
    events that go alone, because a call that they shared has failed."""
    max_answer_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    """Longest answer of a packed call; the model's `max_tokens` for each of its events when absent."""

    @property
    def events_per_call(self) -> int:
        """Return how many events a full call is for."""
        return 1 if self.kind == "none" else self.max_events

    @model_validator(mode="after")
    def _answer_of_a_pack(self) -> "Batch":
        if self.max_answer_tokens is not None and self.kind != "pack":
            message = "max_answer_tokens is for kind pack only"
            raise ValueError(message)
        return self


def misfits(
    batch: Batch,
    model: ModelSettings,
    provider: ProviderSettings,
    *,
    has_schema: bool,
    max_in_flight: int,
    patience_s: float,
) -> Iterator[tuple[str, Any, str]]:
    """Yield what does not fit a route, its model and worker: key in the section, what was found, what is allowed.

    `patience_s` is how long an event waits for its answer at most.
    """
    if batch.kind == "none":
        return
    if batch.max_events > max_in_flight:
        yield "max_events", batch.max_events, f"at most worker.max_in_flight ({max_in_flight})"
    if batch.max_wait_s >= patience_s:
        # One that finds no company would never be sent, and be buried in the end.
        allowed = f"less than {patience_s:g}: then an event gives up waiting (attempt_timeout_s, deadline_s)"
        yield "max_wait_s", batch.max_wait_s, allowed
    if batch.kind == "pack":
        if model.task != "chat":
            yield "kind", batch.kind, f"inputs for a model whose task is {model.task}"
        elif not has_schema:
            yield "kind", batch.kind, "pack with an output_schema, by which the answers can be told apart"
    elif model.task == "chat":
        yield "kind", batch.kind, "inputs with a model whose task is embedding or completion: chat calls take one"
    elif provider.kind == "bedrock":
        yield "kind", batch.kind, "none: bedrock takes one input per call"


def task_misfits(model: ModelSettings, provider: ProviderSettings) -> Iterator[tuple[str, Any, str]]:
    """Yield what does not fit a model's provider, in the same way."""
    tasks = TASKS[provider.kind]
    if model.task not in tasks:
        yield "task", model.task, f"what a provider of kind {provider.kind} can do: {', '.join(sorted(tasks))}"
    elif provider.kind == "embedded" and model.model != (only := EMBEDDED_MODELS[model.task]):
        # Found by a worker it would hold the route until somebody looks.
        yield "model", model.model, f"{only}, the only one that a provider of kind embedded has"
