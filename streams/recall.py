"""Reads what lies before the commit points of event partitions, to recognise its repetitions.

Reads: events.*. Blocking: runs in a thread; the figures are in docs/adr/0021.
"""

from collections.abc import Mapping

import confluent_kafka

from contracts.kafka_config import headers_of
from contracts.repetition import DEDUP, identity_of
from contracts.settings import KafkaSettings
from streams.engine.item import TP
from streams.engine.repeats import Repeats
from streams.large_pages import give_back
from streams.tail import ask, read_ranges

_REQUEST_TIMEOUT_S = 10.0


class Recall:
    """Fills the windows of repetitions, with a consumer of its own, outside any group.

    Args:
        kafka: connection.
        app_id: names the client.
        limit: events remembered, all partitions together; 0 = none, and nothing is read.
        event_topics: whose records may be repetitions.
    """

    def __init__(self, kafka: KafkaSettings, app_id: str, limit: int, event_topics: frozenset[str]) -> None:
        self._kafka = kafka
        self._name = f"{app_id}-recall"
        self._limit = limit
        self._event_topics = event_topics

    def read(self, wanted: Mapping[TP, tuple[int, int]]) -> dict[TP, Repeats]:
        """Return the window of each partition.

        Args:
            wanted: per partition, (floor, commit point): what lies below the floor was skipped by an operator.

        Raises:
            LogUnavailable: a broker did not answer, or reading made no progress.
        """
        wanted = {tp: span for tp, span in wanted.items() if tp.topic in self._event_topics}
        if not wanted or not self._limit:
            return {}
        limit = max(1, self._limit // len(wanted))
        windows = {tp: Repeats(limit) for tp in wanted}
        if any(end > floor for floor, end in wanted.values()):
            try:
                ask(
                    self._kafka,
                    self._name,
                    "read_committed",
                    "event topics",
                    lambda consumer: self._fill(consumer, wanted, windows, limit),
                )
            finally:
                give_back()
        return windows

    def _fill(
        self,
        consumer: confluent_kafka.Consumer,
        wanted: Mapping[TP, tuple[int, int]],
        windows: Mapping[TP, Repeats],
        limit: int,
    ) -> None:
        starts, ends = {}, {}
        for tp, (floor, end) in wanted.items():
            place = confluent_kafka.TopicPartition(tp.topic, tp.partition)
            low, high = consumer.get_watermark_offsets(place, timeout=_REQUEST_TIMEOUT_S)
            start = max(low, floor, end - limit)
            # A commit point above the end is that of an earlier topic of this name.
            if start < end <= high:
                starts[tp], ends[tp] = start, end
        if starts:
            read_ranges(consumer, starts, ends, lambda message: _note(message, windows, ends))


def _note(message: confluent_kafka.Message, windows: Mapping[TP, Repeats], ends: Mapping[TP, int]) -> None:
    headers = headers_of(message)
    tp, offset = TP(message.topic() or "", message.partition() or 0), message.offset() or 0
    if not headers or headers[-1][0] != DEDUP or offset >= ends[tp]:
        return
    event_id = next((raw for name, raw in headers if name == "ce_id"), None) or b""
    identity = identity_of(headers, event_id.decode("utf-8", "replace"))
    if identity is not None:
        windows[tp].meet(identity, offset, message.timestamp()[1])
