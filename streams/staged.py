"""A result on its way to the log, in steps taken for all results that came together; part of streams/settle.py.

An event touches so much code that each step of it finds the processor's caches and branch history full of the others'.
The same step for one event after the other costs a fraction of that: measured without a broker, the CPU from answer to
record falls from 84 us to 37 (docs/adr/0028).
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Any

from contracts.codec import Position, Record, encode_json
from contracts.errors import Busy, TooLarge
from contracts.logs import logger
from contracts.payloads import InferenceAnswer, InferenceResult, Provenance
from producers.base import Ack, Forbidden, Place, Producer
from streams.engine.tenure import Tenure
from streams.job import Job

_SAY_EVERY_S = 30.0
_SILENT_AFTER_S = 0.1
_LOOK_AGAIN_S = 0.02


class Stale(Exception):
    """Raise where the right to work was lost between two turns of the loop: it has to be asked for again."""


class Silent(Exception):
    """Raise where the log confirms nothing: the result waits until it does, and then asks for its right to work."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.place = place


class Unheard:
    """Silent places that something waits for.

    What the client has, it sends whenever a broker is there again, also when the partitions are somebody else's by
    then. So where no acks come it gets no more: what waits here is asked for its right to work before it is written.
    """

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: dict[Place, asyncio.Event] = {}

    def silent(self) -> frozenset[Place]:
        """Return the silent places."""
        return self._producer.silent(_SILENT_AFTER_S)

    def __contains__(self, place: Place) -> bool:
        return place in self._waiting or place in self.silent()

    async def heard(self, place: Place) -> None:
        """Return when a silent place is silent no more."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._listen)
        await self._waiting.setdefault(place, asyncio.Event()).wait()

    def _listen(self) -> None:
        """Look once for all that wait: each for itself, a thousand of them would keep a processor busy."""
        for place in self._waiting.keys() - self.silent():
            self._waiting.pop(place).set()
        if self._waiting:
            asyncio.get_running_loop().call_later(_LOOK_AGAIN_S, self._listen)


class Patience:
    """Waits for the log to take what it has refused: it is paid for, and is neither dropped nor a reason to end."""

    def __init__(self, unheard: Unheard) -> None:
        self._unheard = unheard
        self._quiet_until_s = float("-inf")

    async def after(self, refused: Exception) -> None:
        """Return when what was refused may be tried again; raise what is for good."""
        match refused:
            case Busy() | Forbidden():
                self._say(refused)
                await asyncio.sleep(refused.retry_after_s or 1.0)
            case Silent():
                await self._unheard.heard(refused.place)
            case Stale():
                pass
            case _:
                raise refused

    def _say(self, refused: Busy | Forbidden) -> None:
        """Say from time to time what an operator has to mend."""
        now_s = asyncio.get_running_loop().time()
        if isinstance(refused, Forbidden) and now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + _SAY_EVERY_S
            detail = "outcomes wait for it in the worker, and soon nothing more is called"
            logger("worker").error("topic.forbidden", error=str(refused), detail=detail)


class Result:
    """One result on its way to the log."""

    __slots__ = ("ack", "answer", "job", "output", "position", "provenance", "record", "tenure", "value")

    def __init__(
        self, job: Job, position: Position, tenure: Tenure, answer: InferenceAnswer, output: Any, provenance: Provenance
    ) -> None:
        self.job = job
        self.position = position
        self.tenure = tenure
        self.answer = answer
        self.output = output
        self.provenance = provenance
        self.value = b""
        self.record: Record
        self.ack: Ack

    def encode(self, now_s: float, now: str, stale: Collection[Tenure]) -> None:
        """Make the record's value; TooLarge where the output is nested too deeply, Stale under a tenure of `stale`."""
        if self.tenure in stale:
            raise Stale
        job, event = self.job, self.job.event
        result = InferenceResult(
            event_id=event.id,
            source=event.source,
            type=event.type,
            output=self.output,
            provenance=self.provenance,
            usage=job.usage,
            attempts=job.attempts,
            completed_at=now,
            duration_s=round(now_s - job.accepted_s, 3),
            finish_reason=self.answer.finish_reason,
            cost_usd=job.cost_usd,
        )
        try:
            self.value = encode_json(result)
        except RecursionError as error:
            # It was read with more of the stack free, and inside of nothing.
            message = "the output is nested too deeply to be written"
            raise TooLarge(message) from error


def each(results: Iterable[Result], step: Callable[..., None], *args: Any) -> list[Result]:
    """Take a step for every result; return those that go on. Who waits for one that does not is told why."""
    going = []
    for result in results:
        try:
            step(result, *args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this event's; the others go on
            if not result.ack.done():
                result.ack.set_exception(error)
        else:
            going.append(result)
    return going
