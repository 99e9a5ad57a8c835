"""The Kafka producer: one idempotent confluent-kafka client, driven by its event loop instead of a thread of its own.

Writes: any topic.
Blocking: the loop only while it handles what has arrived; creating a client takes some milliseconds.
See: docs/adr/0008 for the tick.
"""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Message as KafkaMessage
from confluent_kafka import Producer as ConfluentProducer

from contracts import tallies
from contracts.codec import Record
from contracts.errors import Busy, LogUnavailable
from contracts.kafka_config import self_watching
from contracts.logs import logger, tell_left_out
from contracts.metrics import PRODUCER_BUFFER_BYTES, PRODUCER_BUFFER_LIMIT, PRODUCER_REBUILDS
from contracts.settings import KafkaSettings, ProducerSettings
from producers.base import Ack, Delivered, Place
from producers.kafka_client import ClientLog, error_of, in_thread, is_fatal, made, producer_config, translate_error
from producers.window import CLOSED, Waiting, Window

# Measured inside Faust at 1,024 in flight: a 5 ms tick costs 104 us CPU an event, a poll thread 148 to 168.
_TICK_S = 0.005
# With nothing in flight only log lines and a fatal error can be waiting.
_IDLE_TICK_S = 1.0
# How often what happened is counted: what is counted together costs one update.
_COUNT_EVERY_S = 0.25
_REBUILD_PAUSE_S = 1.0
_DISPOSE_LIMIT_S = 2.0
_ANY_PARTITION = -1
_LOG_APPEND_TIME = 2
# The mock cluster reports 1234 as append time and keeps the producer's stamp; no real log's clock is before 2001.
_PLAUSIBLE_MS = 10**12

_log = logger("producer")


class KafkaProducer:
    """Produces to Kafka; `producers.base.Producer` states the contract.

    Args:
        kafka: the brokers.
        producer: limits and batching.
        client_id: name of this client in the brokers' logs.
        delivery_timeout_s: how long a record may wait for its ack; `producer.delivery_timeout_s` when None.
        is_main: the one whose buffer the process's metrics show.
        stall_after_s: when no record of a topic has been confirmed for so long, further ones fail at once; one in a
            second is tried. Never by default.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        producer: ProducerSettings,
        *,
        client_id: str,
        delivery_timeout_s: float | None = None,
        is_main: bool = True,
        stall_after_s: float = float("inf"),
    ) -> None:
        timeout_s = producer.delivery_timeout_s if delivery_timeout_s is None else delivery_timeout_s
        self._make_config = partial(producer_config, kafka, producer, client_id, timeout_s)
        self._limit_bytes = producer.max_buffer_bytes
        self._window = Window(producer, stall_after_s)
        self._is_main = is_main
        self._client: ConfluentProducer | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rebuild_at_s = self._count_at_s = float("-inf")
        # The client's constructor waits for its first token, in steps of a second: not on the loop.
        self._is_slow = kafka.is_sasl and kafka.sasl_mechanism == "AWS_MSK_IAM"
        self._building: asyncio.Task[None] | None = None
        self._is_open = False
        self._disposals: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Create the client; connecting goes on in the background.

        Raises:
            ConfigError: the Kafka settings cannot be used.
            LogUnavailable: its threads cannot be started now, or AWS_MSK_IAM gives it no token.
        """
        self._client = await in_thread(self._build) if self._is_slow else self._build()
        self._rebuild_at_s = time.monotonic() + _REBUILD_PAUSE_S
        self._is_open = True
        if self._is_main:
            PRODUCER_BUFFER_LIMIT.set(self._limit_bytes)
        self._schedule(_IDLE_TICK_S)

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Flush, at most `timeout_s`, then close; safe to call twice."""
        self._is_open = False
        await self._window.drained(timeout_s)
        if self._timer is not None:
            self._timer.cancel()
        self._window.fail_all(LogUnavailable(CLOSED))
        self._show(0)
        self._dispose()
        if self._disposals:
            await asyncio.wait(self._disposals, timeout=_DISPOSE_LIMIT_S)

    async def produce(self, record: Record) -> Delivered:
        """Return when the broker has confirmed the record.

        Raises:
            Busy: the byte limit is reached; nothing was buffered.
            TooLarge: the record is above the limit of this client or of its topic.
            LogUnavailable: not confirmed in time, refused, the client is not open, or nothing is confirmed at present.
        """
        ack: asyncio.Future[Delivered] = asyncio.get_running_loop().create_future()
        self.post(record, ack)
        try:
            return await ack
        finally:
            # An error names this frame by its traceback, and the ack names the error: a cycle that holds the record.
            del ack

    def post(self, record: Record, ack: Ack) -> None:
        """Hand a record to the client; the future gets where it lies, or an error.

        Raises:
            Busy: the byte limit is reached; nothing was buffered.
            TooLarge: the record is above the limit of this client; nothing was buffered.
            LogUnavailable: the client is not open, or nothing is confirmed at present.
        """
        client = self._client if self._is_open else None
        if client is None:
            client = self._usable_client()
        waiting = self._window.admit(record, ack)
        try:
            client.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=_ANY_PARTITION if record.partition is None else record.partition,
                timestamp=waiting.timestamp_ms,
                headers=headers if isinstance(headers := record.headers, list) else list(headers),
                on_delivery=partial(_report, waiting),
            )
        except BufferError:
            waiting.fail(Busy("the client's queue is full"))
        except KafkaException as error:
            self._refuse(waiting, error)
        except BaseException:
            # A record of a wrong type is a fault of the code, and must not hold its bytes for ever.
            self._window.remove(waiting)
            raise
        if len(self._window.waiting) == 1:
            self._schedule(_TICK_S)

    @property
    def buffered_bytes(self) -> int:
        """Return bytes of records not confirmed yet."""
        return self._window.buffered_bytes

    @property
    def is_full(self) -> bool:
        """Tell whether the buffer is above 80 % of its limit."""
        return self._window.is_full

    @property
    def is_stalled(self) -> bool:
        """Tell whether nothing is confirmed any more."""
        return self._window.stalls.is_stalled

    def silent(self, after_s: float) -> frozenset[Place]:
        """Return where a record has waited for so long while none of its topic was confirmed: topic and partition."""
        return self._window.silent(after_s)

    async def probe(self, timeout_s: float) -> None:
        """Ask the brokers for metadata.

        Raises:
            LogUnavailable: no answer in time, or the client is not open.
        """
        client = self._usable_client()
        try:
            await in_thread(client.list_topics, timeout=timeout_s)
        except KafkaException as error:
            message = f"Kafka does not answer: {error_of(error).str()}"
            raise LogUnavailable(message) from error

    def _usable_client(self) -> ConfluentProducer:
        if not self._is_open:
            message = "the producer is not open"
            raise LogUnavailable(message)
        if self._client is None:
            message = "the producer is being rebuilt after a fatal error"
            raise LogUnavailable(message, retry_after_s=_REBUILD_PAUSE_S)
        return self._client

    def _refuse(self, waiting: Waiting, exception: KafkaException) -> None:
        error = error_of(exception)
        waiting.fail(translate_error(error, waiting.record.topic, waiting.record.partition))
        if is_fatal(error):
            self._break(error.str())

    def _schedule(self, delay_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._tick)

    def _tick(self) -> None:
        """Let the client call its callbacks; the only place that does."""
        try:
            self._look()
        finally:
            # Whatever happens: nothing else begins it again.
            self._schedule(_TICK_S if self._window else _IDLE_TICK_S)

    def _look(self) -> None:
        if self._client is None:
            self._rebuild()
        else:
            try:
                self._client.poll(0)
            except (KafkaException, SystemError, LogUnavailable) as error:
                # The binding raises a fatal error here; a callback that runs behind it turns it into a SystemError.
                # A client without brokers is as useless, and cannot send any more what is given up with it.
                self._break(str(error.__cause__ or error))
        self._window.stalls.look()
        now_s = time.monotonic()
        if now_s >= self._count_at_s:
            self._count_at_s = now_s + _COUNT_EVERY_S
            # Of the whole process: where much happens, records are produced.
            tallies.flush()
            tell_left_out()
            self._show(self._window.buffered_bytes)

    def _show(self, buffered_bytes: int) -> None:
        if self._is_main:
            PRODUCER_BUFFER_BYTES.set(buffered_bytes)

    def _break(self, reason: str) -> None:
        """Give up a client that had a fatal error: it will never deliver anything again."""
        PRODUCER_REBUILDS.inc()
        _log.error("producer.broken", error=reason, waiting=len(self._window))
        self._window.fail_all(
            LogUnavailable("the producer had a fatal error and is rebuilt; the record may be on the log")
        )
        self._dispose()
        self._rebuild()

    def _rebuild(self) -> None:
        if not self._is_open or self._building is not None or time.monotonic() < self._rebuild_at_s:
            return
        if self._is_slow:
            self._building = asyncio.create_task(self._rebuild_aside())
            return
        with self._telling():
            self._client = self._build()

    async def _rebuild_aside(self) -> None:
        try:
            with self._telling():
                self._client = await in_thread(self._build)
        finally:
            self._building = None
        if not self._is_open:
            self._dispose()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell how making another client ends; one that cannot be made is tried again after the pause."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - no credentials, no thread, no file: all of it may pass
            PRODUCER_REBUILDS.inc()
            _log.error("producer.not_rebuilt", error=str(error) or type(error).__name__, wait_s=_REBUILD_PAUSE_S)
        else:
            _log.info("producer.rebuilt")
        # A fault that comes back at once must not make a loop of rebuilding.
        self._rebuild_at_s = time.monotonic() + _REBUILD_PAUSE_S

    def _build(self) -> ConfluentProducer:
        return made(lambda: ConfluentProducer(self._make_config() | self_watching(), logger=ClientLog()))

    def _dispose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            # Ending a client joins its threads.
            disposal = asyncio.create_task(asyncio.to_thread(_end_client, client))
            self._disposals.add(disposal)
            disposal.add_done_callback(self._disposals.discard)


def _report(waiting: Waiting, error: KafkaError | None, message: KafkaMessage) -> None:
    """Take a delivery report."""
    if error is not None:
        waiting.fail(translate_error(error, waiting.record.topic, waiting.record.partition))
        return
    offset = message.offset()
    if offset is None or offset < 0:
        # A repeated batch that the broker knows already is reported like this. Seen on new topics of a three-broker
        # cluster: the record was not on the log. An outcome and a 202 need a place to point at.
        waiting.fail(
            LogUnavailable(f"{waiting.record.topic}: delivered to an unknown offset; the record may be on the log")
        )
        return
    kind, stamp_ms = message.timestamp()
    if kind != _LOG_APPEND_TIME or stamp_ms < _PLAUSIBLE_MS:
        stamp_ms = waiting.timestamp_ms
    # The binding's types allow None, for messages that were never delivered.
    waiting.confirm(message.partition() or 0, offset, stamp_ms)


def _end_client(client: Any) -> None:
    with contextlib.suppress(KafkaException, SystemError, LogUnavailable):
        client.purge()
        client.close()
