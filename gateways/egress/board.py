"""The board of endpoints' states on a compacted topic: survives restarts, and all processes and operators see the same.

Reads and writes: endpoints. Its memory is one small state per endpoint name. Blocking: reads in a thread of its own;
no call into Kafka takes longer than 2 s.

See: docs/callbacks.md.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from contracts.codec import Record, decode_json, encode_json
from contracts.errors import Busy, LogUnavailable, TooLarge, Undecodable
from contracts.kafka_config import self_watching
from contracts.logs import logger
from contracts.payloads import EndpointState
from gateways.egress.reading import LogIds, partitions_of, watermarks

_CALL_TIMEOUT_S = 2.0
_RETRY_S = 1.0
_POLL_S = 0.25
_POLL_RECORDS = 500
_LOOK_S = 0.02
# How often a topic that did not exist is looked for.
_REFRESH_S = 15.0

Produce = Callable[[Record], Awaitable[Any]]

_log = logger("egress")


class KafkaBoard:
    """Endpoints' states by name; `put` belongs to one event loop, everything else to any thread.

    Args:
        config: of a consumer that belongs to no group (gateways.egress.reading).
        topic: the compacted topic.
        produce: returns when the broker has confirmed a record.
        app_id: whose endpoints: another application on the same topics may have a door of the same name.
    """

    def __init__(self, config: Mapping[str, Any], topic: str, produce: Produce, app_id: str) -> None:
        self._config = dict(config)
        self._app_id = app_id
        self._topic = topic
        self._produce = produce
        self._log_ids = LogIds(config, (topic,))
        self._states: dict[str, EndpointState] = {}
        # Of the log before this one, until this one has been read.
        self._former: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoints-board", daemon=True)

    def start(self) -> None:
        """Begin to read; returns at once."""
        if self._thread.ident is None:
            self._thread.start()

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop reading; safe to call twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    async def ready(self, limit_s: float) -> bool:
        """Wait until everything written so far is known; False when the limit came first."""
        give_up_s = time.monotonic() + limit_s
        while not self._caught_up.is_set() and time.monotonic() < give_up_s:  # noqa: ASYNC110 - a thread sets it
            await asyncio.sleep(_LOOK_S)
        return self._caught_up.is_set()

    def get(self, name: str) -> EndpointState | None:
        """Return the newest state of an endpoint."""
        return self._states.get(name)

    def states(self) -> dict[str, EndpointState]:
        """Return every state."""
        return dict(self._states)

    async def put(self, state: EndpointState) -> None:
        """Write a state; it counts here from now on.

        Raises:
            LogUnavailable: it is not kept.
        """
        state = msgspec.structs.replace(state, app_id=self._app_id)
        self._states[state.name] = state
        key = f"{self._app_id}/{state.name}".encode()
        try:
            await self._produce(Record(self._topic, key, encode_json(state), []))
        except (Busy, TooLarge) as error:
            message = f"state of {state.name} not kept: {error}"
            raise LogUnavailable(message) from error

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow()
            except (LogUnavailable, KafkaException) as error:
                _log.warning("board.log_unavailable", error=str(error))
            except Exception:  # noqa: BLE001 - the edge of this thread: nobody above could do more than start again
                _log.exception("board.failed")
            self._stop.wait(_RETRY_S)

    def _follow(self) -> None:
        consumer = Consumer(self._config | self_watching())
        try:
            partitions = partitions_of(consumer, self._topic, _CALL_TIMEOUT_S)
            if not partitions:
                # Nobody has written a state yet.
                self._caught_up.set()
                self._stop.wait(_REFRESH_S)
                return
            starts = {one: watermarks(consumer, self._topic, one, _CALL_TIMEOUT_S)[0] for one in partitions}
            consumer.assign([TopicPartition(self._topic, one, low) for one, low in starts.items()])
            reached: set[int] = set()
            while not self._stop.is_set() and not self._is_made_anew():
                for message in consumer.consume(_POLL_RECORDS, _POLL_S):
                    self._take(message, reached)
                if len(reached) == len(partitions):
                    self._forget_former()
                    self._caught_up.set()
        finally:
            consumer.close()

    def _is_made_anew(self) -> bool:
        is_anew = bool(self._log_ids.made_anew())
        if is_anew:
            _log.warning("board.topic_made_anew", topic=self._topic)
            self._former = frozenset(self._states)
        return is_anew

    def _forget_former(self) -> None:
        """Forget the states that a topic had before it was made anew: every other process would not know them."""
        for name in self._former:
            self._states.pop(name, None)
        self._former = frozenset()

    def _take(self, message: KafkaMessage, reached: set[int]) -> None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's public constant
                reached.add(message.partition() or 0)
            return
        key, value = message.key(), message.value()
        app_id, _, name = (key.decode(errors="replace") if isinstance(key, bytes) else "").rpartition("/")
        known = self._states.get(name)
        is_older = not app_id and known is not None and known.app_id
        if app_id not in {"", self._app_id} or (is_older and name not in self._former):
            # Another application's; or what an older version wrote before we have said otherwise.
            return
        if value is None:
            self._states.pop(name, None)
            return
        try:
            state = decode_json(value, EndpointState)
        except Undecodable as problem:
            _log.warning("board.undecodable", error=str(problem), topic=self._topic, offset=message.offset())
            return
        if (state.app_id, state.name) == (app_id, name):
            self._states[name] = state
            self._former -= {name}
