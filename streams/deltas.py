"""Puts the pieces of an answer on the log while the model still makes it.

Writes: deltas, on the partition number of the event. The first piece goes at once, later ones in growing chunks, so
that the first token is fast and the records are few. Nothing here is awaited by the model call, and no fault here
fails an event: the terminal record is the answer, deltas are its preview. See docs/streaming.md.
"""

import asyncio
import random
import time
from collections.abc import Callable

from contracts.codec import Position, Record, encodable
from contracts.deltas import delta_headers, delta_record
from contracts.envelope import DELIVERY
from contracts.errors import PenstockError
from contracts.logs import logger
from contracts.metrics import DELTAS, FIRST_DELTA, Children
from contracts.payloads import Delta, DeltaEnding
from contracts.settings import KafkaSettings, ProducerSettings
from producers.base import Producer
from producers.producer import KafkaProducer
from streams.engine.tenure import Tenure
from streams.job import Job

# 1, 2, 4 ... pieces a record, up to this; pieces are about a token each.
MAX_PIECES = 20
# A slow model's pieces do not wait for company longer than this.
MAX_WAIT_S = 0.15
# Records of one answer without their ack; further text waits, which makes its records larger.
MAX_IN_FLIGHT = 32
# Far below the smallest producer.max_record_bytes in use, whatever JSON makes of the characters.
MAX_CHARS = 32_000
# Of all deltas that wait for their ack; beyond 80 % of it text waits in the previews.
BUFFER_BYTES = 16 * 2**20
# Nobody looks at an older preview.
DELIVERY_TIMEOUT_S = 30.0
# How long the terminal record waits for the deltas before it.
SETTLE_LIMIT_S = 1.0
_EPOCH_BITS = 10

_deltas = Children(DELTAS)
_firsts = Children(FIRST_DELTA)
_log = logger("worker")


def delta_producer(kafka: KafkaSettings, producer: ProducerSettings, app_id: str) -> KafkaProducer:
    """Return the producer of deltas, not started yet: a small one of its own, without linger.

    A preview must not take the room of paid answers in the buffer, nor wait for company as they do.
    """
    limits = producer.model_copy(update={"linger_s": 0.0, "max_buffer_bytes": BUFFER_BYTES})
    return KafkaProducer(
        kafka, limits, client_id=f"{app_id}-deltas", delivery_timeout_s=DELIVERY_TIMEOUT_S, is_main=False
    )


class Deltas:
    """Begins the preview of each attempt at a streamed event.

    Args:
        producer: for the records.
        topic: of the deltas.
        app_id: who makes them.
        clock: Unix seconds.
    """

    def __init__(self, producer: Producer, topic: str, app_id: str, clock: Callable[[], float] = time.time) -> None:
        self._producer = producer
        self._topic = topic
        self._app_id = app_id
        self._clock = clock
        self._last_epoch = 0

    @staticmethod
    def wanted(job: Job) -> bool:
        """Tell whether the event's sender wants to see its answer grow."""
        return job.event.extensions.get(DELIVERY) == "stream"

    def begin(self, job: Job, position: Position, tenure: Tenure) -> "Preview":
        """Return the preview of the event's next attempt; that of the attempt before is ended."""
        if job.preview is not None:
            job.preview.end("retried")
        headers = delta_headers(job.event, self._app_id, job.origin or position)
        preview = Preview(self._producer, self._topic, job, position.partition, headers, tenure, self._epoch())
        job.preview = preview
        return preview

    def _epoch(self) -> int:
        """Return a number that no other attempt has: the time, and dice, so that two workers do not meet in it."""
        dice = random.getrandbits(_EPOCH_BITS)
        self._last_epoch = max(self._last_epoch + 1, (int(self._clock() * 1000) << _EPOCH_BITS) + dice)
        return self._last_epoch


class Preview:
    """One attempt's deltas.

    Invariant: the numbers of an epoch lie on the log in order, 1 ... n. Where the log refused one, at most those follow
    that were under way already, so that a reader sees the gap and stops (tests/streams/pipeline/test_deltas.py).
    """

    def __init__(
        self,
        producer: Producer,
        topic: str,
        job: Job,
        partition: int,
        headers: list[tuple[str, bytes]],
        tenure: Tenure,
        epoch: int,
    ) -> None:
        self._producer = producer
        self._topic = topic
        # Not the job: it names the preview.
        self._event_id, self._key, self._route, self._accepted_s = job.event.id, job.key, job.route_name, job.accepted_s
        self._partition = partition
        self._headers = headers
        self._tenure = tenure
        self._epoch = epoch
        self._sequence = 0
        self._waiting: list[str] = []
        self._pieces = 1
        self._timer: asyncio.TimerHandle | None = None
        self._in_flight: set[asyncio.Task[None]] = set()
        self._is_over = False
        self._is_broken = False

    def add(self, text: str) -> None:
        """Take the next piece of the answer; returns at once."""
        if self._is_over or not text:
            return
        self._waiting.append(text)
        if len(self._waiting) >= self._pieces:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(MAX_WAIT_S, self._flush)

    def end(self, ending: DeltaEnding) -> None:
        """Put the rest on the log, and how the attempt ended; returns at once, the acks come later."""
        if self._is_over:
            return
        text = self._take()
        while len(text) > MAX_CHARS and not self._is_over:
            self._produce(text[:MAX_CHARS])
            text = text[MAX_CHARS:]
        if not self._is_over:
            self._produce(text, ending)
        self._is_over = True

    async def settled(self) -> None:
        """Return when the log has everything, or after a limit: the terminal record should be the last."""
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=SETTLE_LIMIT_S)

    def _flush(self) -> None:
        self._stop_timer()
        if self._is_over or not self._waiting:
            return
        if len(self._in_flight) >= MAX_IN_FLIGHT or self._producer.is_full:
            self._timer = asyncio.get_running_loop().call_later(MAX_WAIT_S, self._flush)
            return
        text = self._take()
        self._pieces = min(MAX_PIECES, 2 * self._pieces)
        while text and not self._is_over:
            self._produce(text[:MAX_CHARS])
            text = text[MAX_CHARS:]

    def _take(self) -> str:
        self._stop_timer()
        text, self._waiting = encodable("".join(self._waiting)), []
        return text

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _produce(self, text: str, ending: DeltaEnding | None = None) -> None:
        if not self._tenure.may_work:
            # Somebody else may be at it by now: whoever reads keeps to the epoch of the owner.
            self._give_up("withheld")
            return
        self._sequence += 1
        if self._sequence == 1:
            _firsts[self._route,].observe(max(0.0, time.time() - self._accepted_s))
        delta = Delta(
            event_id=self._event_id,
            epoch=self._epoch,
            sequence=self._sequence,
            text=text,
            is_final=ending is not None,
            ending=ending,
        )
        record = delta_record(self._topic, self._key, self._headers, self._partition, delta)
        # Tasks begin in the order in which they are made, and so do their records.
        task = asyncio.ensure_future(self._deliver(record))
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)

    async def _deliver(self, record: Record) -> None:
        if self._is_broken:
            return
        try:
            await self._producer.produce(record)
        except PenstockError as error:
            if not self._is_broken:
                _log.warning("deltas.failed", event_id=self._event_id, route=self._route, error=str(error))
            self._is_broken = True
            self._give_up("failed")
        else:
            _deltas[self._route, "confirmed"].inc()

    def _give_up(self, outcome: str) -> None:
        _deltas[self._route, outcome].inc()
        self._is_over = True
        self._waiting.clear()
        self._stop_timer()
