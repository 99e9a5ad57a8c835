"""Reads what is on the topics of a run."""

import contextlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any, cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from contracts.codec import Headers, RecordHeaders, dead_letter, parked_event, source_position
from contracts.payloads import DUPLICATE_TYPE, TERMINAL_TYPES
from tests.chaos.lab import FREE, Lab
from tests.chaos.ledger import Letter, LogEvent, Outcome, Place
from tests.support import eventually

READ_LIMIT_S = 60.0
_BATCH = 1000
_WAIT_S = 0.2


class Reader:
    """Reads topics from their beginning, again and again, with a consumer outside of any group.

    Attributes:
        outcomes: in order; what ends a record of the retry topic ends the event that waited there.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._config = {"bootstrap.servers": lab.bootstrap, "group.id": f"{lab.prefix}-ledger", "log_level": 0}
        self._results = Consumer(self._config)
        self._topics = lab.topics.results, lab.topics.retries
        places = [TopicPartition(topic, number, 0) for topic in self._topics for number in range(lab.partitions)]
        self._results.assign(places)
        self.outcomes: list[Outcome] = []
        # By the place of a record on the retry topic; and outcomes whose record has not been read yet.
        self._origins: dict[Place, Place] = {}
        self._unknown: list[Outcome] = []

    def close(self) -> None:
        """Close its connections."""
        self._results.close()

    def events(self, incarnation: int) -> list[LogEvent]:
        """Return everything on the event topics as they are now."""
        found = []
        for message in self._all(self._lab.sources):
            place = _place(message)
            with contextlib.suppress(ValueError):
                name = json.loads(message.value() or b"{}")["id"]
                found.append(LogEvent(place, _key(message), name, incarnation, _digest(message, _headers(message))))
        return found

    def letters(self) -> dict[Place, list[Letter]]:
        """Return the dead letters by the place of their event, each without the header that was added to it."""
        found = defaultdict(list)
        for message in self._all((self._lab.topics.dead_letters,)):
            headers = _headers(message)
            letter = dead_letter(headers)
            place = Place(letter.topic, letter.partition, letter.offset, letter.timestamp_ms)
            found[place].append(Letter(_digest(message, headers[:-1]), letter.reason))
        return found

    def poll(self, timeout_s: float = 0.1) -> None:
        """Read new terminal records."""
        for message in self._results.consume(_BATCH, timeout_s):
            if message.error() is None and message.topic() == self._lab.topics.retries:
                self._origins[_place(message)] = _origin(message)
            elif message.error() is None and (outcome := _outcome(message)) is not None:
                self._unknown.append(outcome)
        waiting, self._unknown = self._unknown, []
        for outcome in waiting:
            source = self._origins.get(outcome.source, outcome.source)
            known = source.topic != self._lab.topics.retries
            (self.outcomes if known else self._unknown).append(replace(outcome, source=source))

    @property
    def parked(self) -> frozenset[Place]:
        """Return the events that have waited on the retry topic."""
        return frozenset(self._origins.values())

    def catch_up(self) -> dict[int, int]:
        """Read all there is, and return where each result partition ended."""
        ends = self.ends()
        everywhere = {
            (topic, number): self._end(self._results, topic, number) for topic in self._topics for number in ends
        }

        def is_there() -> bool:
            self.poll()
            at = self._results.position([TopicPartition(*place) for place in everywhere])
            return all(
                tp.offset >= everywhere[tp.topic, tp.partition] or not everywhere[tp.topic, tp.partition] for tp in at
            )

        eventually(is_there, READ_LIMIT_S)
        return ends

    def ends(self) -> dict[int, int]:
        """Return the ends of the result partitions."""
        return {
            number: self._end(self._results, self._lab.topics.results, number) for number in range(self._lab.partitions)
        }

    def _all(self, topics: tuple[str, ...]) -> Iterator[Message]:
        consumer = Consumer(self._config)
        try:
            ends = {(t, n): self._end(consumer, t, n) for t in topics for n in range(self._lab.partitions)}
            waiting = {place for place, end in ends.items() if end > 0}
            consumer.assign([TopicPartition(*place, 0) for place in waiting])
            limit_s = time.monotonic() + READ_LIMIT_S
            while waiting:
                if time.monotonic() > limit_s:
                    text = f"cannot read to the end of {sorted(waiting)}"
                    raise TimeoutError(text)
                # It waits for a whole batch, or for so long.
                for message in consumer.consume(_BATCH, _WAIT_S):
                    place = (message.topic() or "", message.partition() or 0)
                    if message.error() is None and place in waiting:
                        yield message
                        if (message.offset() or 0) + 1 >= ends[place]:
                            waiting.discard(place)
        finally:
            consumer.close()

    @staticmethod
    def _end(consumer: Consumer, topic: str, number: int) -> int:
        def watermarks() -> Any:
            with contextlib.suppress(KafkaException):
                return consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=5)
            return None

        high: int = eventually(watermarks, READ_LIMIT_S)[1]
        return max(high, 0)


def _place(message: Message) -> Place:
    return Place(message.topic() or "", message.partition() or 0, message.offset() or 0, message.timestamp()[1])


def _headers(message: Message) -> RecordHeaders:
    return cast("list[tuple[str, bytes | None]]", message.headers() or [])


def _digest(message: Message, headers: RecordHeaders) -> str:
    return sha256(repr((message.key(), message.value(), list(headers))).encode()).hexdigest()


def _origin(message: Message) -> Place:
    _, note, _ = parked_event(_headers(message))
    return Place(note.topic, note.partition, note.offset, note.timestamp_ms)


def _outcome(message: Message) -> Outcome | None:
    headers = cast("Headers", message.headers() or [])
    found = source_position(_headers(message))
    kind = dict(headers).get("ce_type", b"").decode()
    if found is None or kind not in {*TERMINAL_TYPES, DUPLICATE_TYPE}:
        return None
    value = json.loads(message.value() or b"{}")
    return Outcome(
        Place(*found[1]),
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        kind,
        message.timestamp()[1],
        value.get("provenance", {}).get("model", ""),
    )


def _key(message: Message) -> bytes | None:
    # What cannot be decoded, and what has no route, is free of order (streams/pipeline.py).
    headers = dict(cast("Headers", message.headers() or []))
    return message.key() if "ce_specversion" in headers and headers["ce_type"] != FREE.encode() else None
