"""A model that answers with the event's number, and fails in every way that a provider may."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import (
    AccessDenied,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    Throttled,
)
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from streams.providers.base import Arrivals, NotAsked, Several, Waiter


@dataclass
class Call:
    """One call, as the model saw it."""

    worker: int
    numbers: tuple[int, ...]
    start_s: float
    end_s: float = float("inf")
    kind: str = ""
    good: frozenset[int] = frozenset()


@dataclass
class Weather:
    """What goes wrong at present, by probability; all workers meet the same."""

    throttled: float = 0.0
    unavailable: float = 0.0
    hang: float = 0.0
    invalid: float = 0.0
    bug: float = 0.0
    cancels: float = 0.0
    refused: float = 0.0
    unasked: float = 0.0
    unmatched: float = 0.0
    is_denied: bool = False
    slow_s: float = 0.05
    is_down: bool = False
    is_fast: bool = False


@dataclass
class Shared:
    """What all models have in common."""

    dice: random.Random
    clock: Callable[[], float]
    weather: Weather = field(default_factory=Weather)
    poison: frozenset[int] = frozenset()
    calls: list[Call] = field(default_factory=list)


def number_of(prompt: str) -> int:
    return int(prompt.split(maxsplit=1)[0])


class Model:
    """One worker's way to the model."""

    name = "model"

    def __init__(self, shared: Shared, worker: int, *, is_direct: bool) -> None:
        self.arrivals = Arrivals()
        self._loop = asyncio.get_running_loop()
        self._gathers = shared.dice.random() < 0.5
        self._shared = shared
        self._worker = worker
        self.direct = self if is_direct else None
        self.is_dead = False
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def _tell(self) -> None:
        for listener in self.arrivals.listeners:
            listener()

    def _weighs(self, share: float) -> bool:
        return self._shared.dice.random() < share

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        text = request.messages[-1].content
        is_repair = len(request.messages) > 1
        if text.startswith('{"events"'):
            events = json.loads(text)["events"]
            numbers = tuple(number_of(one["text"]) for one in events)
            call = await self._made(numbers, request.timeout_s)
            answers = [{"id": one["id"], "output": {"n": number_of(one["text"])}} for one in events]
            good = set(numbers)
            if self._weighs(self._shared.weather.unmatched):
                gone = self._shared.dice.randrange(len(answers))
                good = {number for number, one in zip(numbers, answers, strict=True) if one is not answers[gone]}
                what = self._shared.dice.choice(("missing", "twice", "foreign", "wrong"))
                if what == "missing":
                    del answers[gone]
                elif what == "twice":
                    answers.append(answers[gone])
                elif what == "foreign":
                    answers[gone]["id"], good = "zzzzzz", set()
                else:
                    answers[gone]["output"] = {"n": "x"}
            self._end(call, "ok", good)
            self._shared.dice.shuffle(answers)
            return InferenceAnswer(text=json.dumps({"answers": answers}), model="m", usage=Usage(10, 10))
        number = number_of(request.messages[0].content)
        call = await self._made((number,), request.timeout_s)
        if request.output_schema is None:
            self._end(call, "ok", {number})
            text = f"answer to {number} is long" + self._shared.dice.choice(("", "", " x" * 80))
            return InferenceAnswer(text=text, model="m", usage=Usage(1, 1))
        if self._weighs(self._shared.weather.invalid * (0.5 if is_repair else 1)):
            self._end(call, "invalid", set())
            return InferenceAnswer(text=self._shared.dice.choice(("no", '{"n": "x"}', "[" * 3000)), model="m")
        self._end(call, "ok", {number})
        return InferenceAnswer(text=json.dumps({"n": number}), model="m", usage=Usage(1, 1))

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        numbers = tuple(number_of(one.messages[-1].content) for one in requests)
        call = await self._made(numbers, timeout_s)
        answers: list[Any] = [InferenceAnswer(text=f"answer to {number} is long", model="m") for number in numbers]
        good = set(numbers)
        if self._weighs(self._shared.weather.unmatched):
            gone = self._shared.dice.randrange(len(answers))
            answers[gone] = self._shared.dice.choice((None, InvalidRequest("odd")))
            good -= {numbers[gone]}
        self._end(call, "ok", good)
        return Several(tuple(answers), Usage(len(numbers), len(numbers)))

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        answer = await self.invoke(request)
        for piece in answer.text.split(" "):
            yield DeltaChunk(text=f"{piece} ", model="m")
            if self._weighs(0.3):
                await asyncio.sleep(self._shared.dice.choice((0.0, 0.1, 0.3)))
        yield DeltaChunk(finish_reason="stop", usage=answer.usage, model="m")

    def _end(self, call: Call, kind: str, good: set[int]) -> None:
        call.end_s, call.kind, call.good = self._shared.clock(), kind, frozenset(good)

    async def _made(self, numbers: tuple[int, ...], timeout_s: float) -> Call:
        """Return a call whose time has passed without a fault, or raise the fault."""
        shared, weather, dice = self._shared, self._shared.weather, self._shared.dice
        call = Call(self._worker, numbers, shared.clock())
        shared.calls.append(call)
        error = self._fault(numbers, weather)
        latency_s = 0.0 if error is not None and weather.is_fast else dice.random() ** 3 * weather.slow_s
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(dice.choice((0.0, latency_s, latency_s, latency_s)))
                if self._weighs(weather.hang):
                    await asyncio.Event().wait()
        except TimeoutError as cause:
            self._end(call, "timeout", set())
            raise ProviderTimeout(str(numbers)) from cause
        except asyncio.CancelledError:
            self._end(call, "cancelled", set())
            raise
        if error is not None:
            self._end(call, type(error).__name__, set())
            raise error
        return call

    def _fault(self, numbers: tuple[int, ...], weather: Weather) -> BaseException | None:
        dice = self._shared.dice
        if weather.is_denied:
            return dice.choice((AccessDenied, QuotaExhausted))("denied")
        if weather.is_down:
            return ProviderUnavailable("down")
        if any(number in self._shared.poison for number in numbers):
            return InvalidRequest("poison")
        faults: list[tuple[float, Callable[[], BaseException]]] = [
            (weather.throttled, lambda: Throttled("slow", retry_after_s=dice.choice((None, 0.5, 5.0, 40.0)))),
            (weather.unavailable, lambda: ProviderUnavailable("away", possibly_billed=dice.random() < 0.3)),
            (weather.refused, lambda: dice.choice((InvalidRequest, ContentBlocked, ContextTooLong))("no")),
            (weather.bug, lambda: KeyError("bug")),
            (weather.cancels, asyncio.CancelledError),
        ]
        return next((make() for share, make in faults if self._weighs(share)), None)

    # Direct
    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        if self._weighs(0.1):
            return False

        async def call() -> None:
            if self._weighs(self._shared.weather.unasked):
                await asyncio.sleep(0.01)
                outcome: Any = NotAsked()
            else:
                try:
                    outcome = await self.invoke(request)
                except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001
                    outcome = error
                    if isinstance(error, asyncio.CancelledError):
                        outcome = ProviderUnavailable("cut")
            if isinstance(outcome, InferenceAnswer) and self._gathers:
                self.arrivals.count += 1
                self._loop.call_later(0.001, self._tell)
                await asyncio.sleep(0.008)
                self.arrivals.count -= 1
            if not self.is_dead and not waiter.done():
                waiter.set_result(outcome)

        task = asyncio.ensure_future(call())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def read(self, outcome: Any, _request: InferenceRequest, _took_s: float) -> InferenceAnswer:
        if isinstance(outcome, BaseException):
            raise outcome
        assert isinstance(outcome, InferenceAnswer)
        return outcome


__all__ = ["Call", "Model", "PenstockError", "Shared", "Weather", "number_of"]
