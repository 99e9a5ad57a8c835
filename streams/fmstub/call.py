"""Serves one model call, whatever its protocol: counts it, lets it fail or wait as the knobs say, answers."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import InvalidRequest
from streams.fmstub.faults import FAULTS, CallFailedError
from streams.fmstub.knobs import Knobs
from streams.fmstub.plan import FaultPlan
from streams.fmstub.quota import Quotas
from streams.fmstub.stats import Stats
from streams.providers.extract.answer import answer, cut, estimate_tokens

_PIECE = re.compile(r"\s*\S+|\s+")
_IN_THE_LOOP_CHARS = 16 * 1024


@dataclass(frozen=True)
class Ask:
    """One call as both protocols ask it."""

    operation: str
    model: str
    user_texts: tuple[str, ...]
    other_text: str = ""
    max_tokens: int = 4096
    schema: dict[str, Any] | None = None
    stop: tuple[str, ...] = ()
    event_id: str = ""

    @property
    def prompt(self) -> str:
        """Everything the model reads."""
        return "\n".join([self.other_text, *self.user_texts])


@dataclass(frozen=True)
class Reply:
    """What is answered.

    Attributes:
        ending: `end_turn`, `max_tokens`, `stop_sequence` or `blocked`.
        fault: a failure that shows while answering: `cut`, `stream_error`, `malformed`; empty for none.
    """

    text: str
    ending: str
    input_tokens: int
    output_tokens: int
    latency_s: float
    fault: str = ""

    @property
    def pieces(self) -> list[str]:
        """The text in words, as a stream sends it."""
        return _PIECE.findall(self.text)


@dataclass
class Backend:
    """The state behind all handlers of one server."""

    start_knobs: Knobs
    seed: int = 0
    knobs: Knobs = field(init=False)
    stats: Stats = field(default_factory=Stats)
    quotas: Quotas = field(default_factory=Quotas)
    plan: FaultPlan = field(init=False)

    def __post_init__(self) -> None:
        """Begin with the knobs of the start."""
        self.knobs = self.start_knobs
        self.plan = FaultPlan(self.seed)

    @asynccontextmanager
    async def serve(self, ask: Ask, key: str | None, *, is_stream: bool) -> AsyncIterator[Reply]:
        """Yield the reply when it is time for its first byte; the call counts as in flight until the block ends.

        Raises:
            CallFailedError: the call is to fail.
        """
        self.stats.begin(ask.operation, ask.model, ask.event_id)
        try:
            reply = await self._reply(ask, key)
            wait_s = reply.latency_s + (0.0 if is_stream else self.knobs.per_token_s * reply.output_tokens)
            await asyncio.sleep(wait_s)
            yield reply
        except CallFailedError as error:
            self.stats.errors[error.kind] += 1
            raise
        finally:
            self.stats.end()

    async def _reply(self, ask: Ask, key: str | None) -> Reply:
        knobs = self.knobs
        if knobs.require_key is not None and key != knobs.require_key:
            raise CallFailedError(kind="access_denied", message="The key is missing or wrong.")
        latency_s = self.plan.latency_s(knobs)
        kind = self.plan.choose(knobs, ask.model, ask.prompt)
        input_tokens = estimate_tokens(ask.prompt)
        if kind == "hang":
            self.stats.errors[kind] += 1
            await asyncio.Event().wait()
        if kind in FAULTS and kind != "blocked":
            raise CallFailedError(kind=str(kind), retry_after_s=knobs.retry_after_s)
        if knobs.context_tokens is not None and input_tokens > knobs.context_tokens:
            raise CallFailedError(kind="too_long")
        self._reserve(ask, input_tokens)
        text, ending = await self._text(ask)
        if kind == "blocked":
            text, ending = "", "blocked"
        elif kind:
            self.stats.errors[kind] += 1
        output_tokens = estimate_tokens(text)
        used = input_tokens + knobs.output_burndown * output_tokens
        self.quotas.settle(ask.model, input_tokens + ask.max_tokens - used, knobs.tpm)
        self.stats.bill(ask.event_id, input_tokens, output_tokens)
        fault = kind if kind in ("cut", "stream_error", "malformed") else ""
        return Reply(text, ending, input_tokens, output_tokens, latency_s, str(fault))

    def _reserve(self, ask: Ask, input_tokens: int) -> None:
        knobs = self.knobs
        wait_s = self.quotas.reserve(ask.model, input_tokens + ask.max_tokens, knobs.rpm, knobs.tpm)
        if wait_s:
            raise CallFailedError(kind="throttling", retry_after_s=knobs.retry_after_s or round(wait_s, 3))

    async def _text(self, ask: Ask) -> tuple[str, str]:
        """Return the answer's text and how it ended, in Bedrock's words."""
        full = self.knobs.answer
        if full is None:
            try:
                if len(ask.prompt) <= _IN_THE_LOOP_CHARS:
                    full = answer(ask.user_texts, ask.schema)
                else:
                    full = await asyncio.to_thread(answer, ask.user_texts, ask.schema)
            except InvalidRequest as error:
                raise CallFailedError(message=str(error)) from error
        stops = [place for place in (full.find(stop) for stop in ask.stop if stop) if place >= 0]
        if stops:
            return full[: min(stops)], "stop_sequence"
        text, is_cut = cut(full, ask.max_tokens)
        return text, "max_tokens" if is_cut else "end_turn"

    async def pause(self) -> None:
        """Wait as long as a stream waits before its next piece."""
        wait_s = self.knobs.stream_pause_s + self.knobs.per_token_s
        if wait_s:
            await asyncio.sleep(wait_s)
