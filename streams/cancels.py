"""Events that their senders do not want answered any more: heard from the log, told to whoever is at work on them.

Reads: cancels, all partitions, from an hour back. Blocking: the reader runs in a thread of its own; no call into Kafka
takes longer than 2 s. A cancel is a wish: the event ends in its one outcome all the same.
"""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from contracts.codec import Position
from contracts.deltas import read_cancel
from contracts.errors import Cancelled, LogUnavailable, Undecodable, as_unsent, is_unsent
from contracts.kafka_config import self_watching
from contracts.logs import logger
from contracts.metrics import CANCELS
from contracts.settings import KafkaSettings
from producers.kafka_client import client_config
from streams.engine.calls import let_go_of_cancelled
from streams.engine.item import Item, State

# Wishes for events that no worker has taken yet, 200 bytes each; the oldest are forgotten, and the events answered.
MAX_KEPT = 50_000
_LOOK_BACK_S = 3600.0
_CALL_TIMEOUT_S = 2.0
_REFRESH_S = 10.0
_RETRY_S = 1.0
_POLL_S = 0.25
_SETTLING_POLL_S = 0.1

_log = logger("worker")
T = TypeVar("T")


class Cancels:
    """Which events are cancelled; belongs to one event loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Position, None] = OrderedDict()
        self._at_work: dict[Position, asyncio.Future[None]] = {}

    def add(self, position: Position) -> None:
        """Hear that an event is cancelled."""
        self._kept[position] = None
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        stop = self._at_work.get(position)
        if stop is not None and not stop.done():
            stop.set_result(None)

    async def unless(self, position: Position, item: Item, work: Coroutine[Any, Any, T]) -> T:
        """Return what the work returns, or stop it.

        Args:
            position: of the event's own record.
            item: work that puts it somewhere else (State.SETTLING) is not stopped: one event, one place.
            work: not started yet.

        Raises:
            Cancelled: it was stopped; marked as unsent where that was before a call that waited was made.
        """
        if position in self._kept:
            work.close()
            raise _stopped()
        stop: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at_work[position] = stop
        task = asyncio.ensure_future(work)
        either: set[asyncio.Future[Any]] = {task, stop}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            while not task.done():
                if item.state is not State.SETTLING:
                    task.cancel()
                await asyncio.wait({task}, timeout=_SETTLING_POLL_S)
        except BaseException:
            task.cancel()
            await asyncio.wait({task})
            let_go_of_cancelled(task)
            raise
        finally:
            if self._at_work.get(position) is stop:
                del self._at_work[position]
        try:
            return task.result()
        except asyncio.CancelledError as cancelled:
            raise _stopped(cancelled) from None
        finally:
            # What is raised names this frame by its traceback, and the task names it, too.
            del task, either


def _stopped(cancelled: BaseException | None = None) -> Cancelled:
    CANCELS.labels("stopped").inc()
    error = Cancelled("cancelled by its sender")
    if cancelled is not None and is_unsent(cancelled):
        as_unsent(error)
    return error


class CancelReader:
    """Follows the topic of cancels.

    Args:
        kafka: the brokers.
        topic: of the cancels.
        cancels: what to tell, on the loop that runs now.

    Raises:
        ConfigError: the Kafka settings cannot be used.
    """

    def __init__(self, kafka: KafkaSettings, topic: str, cancels: Cancels) -> None:
        self._config = client_config(kafka) | {
            "client.id": "penstock-worker-cancels",
            # No offsets are committed under this name: partitions are assigned by hand.
            "group.id": "penstock-worker-cancels",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "log_level": 2,
        }
        self._topic = topic
        self._cancels = cancels
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cancels", daemon=True)
        self._followed: set[int] = set()
        self._is_warned = False

    def start(self) -> None:
        """Begin; returns at once also while the brokers are away."""
        self._thread.start()

    def close(self) -> None:
        """Stop following, without waiting for it."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._followed = set()
            try:
                consumer = Consumer(self._config | self_watching())
                try:
                    self._follow(consumer)
                finally:
                    consumer.close()
            except (LogUnavailable, KafkaException) as error:
                if not self._is_warned:
                    _log.warning("cancels.log_unavailable", error=str(error))
                self._is_warned = True
                self._stop.wait(_RETRY_S)

    def _follow(self, consumer: Consumer) -> None:
        refresh_at_s = 0.0
        while not self._stop.is_set():
            if time.monotonic() >= refresh_at_s:
                self._refresh(consumer)
                refresh_at_s = time.monotonic() + _REFRESH_S
            message = consumer.poll(_POLL_S)
            if message is None or message.error() is not None:
                continue
            with contextlib.suppress(Undecodable, RuntimeError):
                # The loop may be gone when the process ends.
                self._loop.call_soon_threadsafe(self._cancels.add, read_cancel(message.value()))

    def _refresh(self, consumer: Consumer) -> None:
        found = consumer.list_topics(self._topic, timeout=_CALL_TIMEOUT_S).topics.get(self._topic)
        if found is None or found.error is not None:
            return
        since_ms = int((time.time() - _LOOK_BACK_S) * 1000)
        new = [TopicPartition(self._topic, n, since_ms) for n in found.partitions if n not in self._followed]
        if new:
            consumer.incremental_assign(_starts(consumer, new))
            self._followed |= {one.partition for one in new}
        self._is_warned = False


def _starts(consumer: Consumer, asked: list[TopicPartition]) -> list[TopicPartition]:
    """Return where to begin; all of it where the broker cannot tell, as the embedded one."""
    # Before the question by time, so that nothing falls between the two.
    ends = [consumer.get_watermark_offsets(one, timeout=_CALL_TIMEOUT_S) for one in asked]
    everything = [TopicPartition(one.topic, one.partition, low) for one, (low, _) in zip(asked, ends, strict=True)]
    first = [TopicPartition(one.topic, one.partition, 0) for one in asked]
    try:
        found = consumer.offsets_for_times(asked, timeout=_CALL_TIMEOUT_S)
        oldest = consumer.offsets_for_times(first, timeout=_CALL_TIMEOUT_S)
    except KafkaException:
        return everything
    if all(one.offset < 0 for one in (*found, *oldest)):
        # Not even a first record: there is none, or this is the embedded broker, which says so of any time.
        return everything
    return [
        TopicPartition(one.topic, one.partition, one.offset if one.offset >= 0 else end)
        for one, (_, end) in zip(found, ends, strict=True)
    ]
