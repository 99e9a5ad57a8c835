"""The scan of the result topics: in which order it asks, and that a client which cannot be made ends nobody."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import confluent_kafka
import pytest
from structlog.testing import capture_logs

from contracts.codec import Position, position_headers
from contracts.errors import LogUnavailable
from contracts.settings import KafkaSettings
from producers import admin
from streams import tail
from streams.engine.item import TP, ResultRef
from streams.tail import Tail, TailReader
from tests.streams.engine.support import answers


class Asked:
    """A consumer that notes whose ends are asked for; every partition is empty."""

    def __init__(self) -> None:
        self.topics: list[str] = []

    def list_topics(self, _topic: str, timeout: float) -> None:
        assert timeout > 0

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        self.topics.append(place.topic)
        return 0, 0


def test_the_end_of_a_source_is_asked_for_behind_those_of_the_results() -> None:
    """An answer for an event behind that end would be taken for one of an event that its broker has lost."""
    consumer = Asked()
    reader = TailReader(KafkaSettings(), "app", frozenset({"results", "retries"}))
    reader._scan(cast("Any", consumer), {TP("events", 0): (5, {"results": 0}), TP("events", 1): (5, None)})

    assert consumer.topics[-2:] == ["events", "events"]
    assert consumer.topics.count("events") == 2


class Unheard:
    """A consumer that may not ask where its group is, says so first, and has one record."""

    def __init__(self) -> None:
        self.at = 0

    def assign(self, places: list[confluent_kafka.TopicPartition]) -> None:
        assert [place.offset for place in places] == [0]

    def consume(self, _count: int, timeout: float) -> list[Any]:
        assert timeout > 0
        error = confluent_kafka.KafkaError(confluent_kafka.KafkaError.GROUP_AUTHORIZATION_FAILED)
        found = [error, None][self.at : self.at + 1]
        self.at += 1
        return [SimpleNamespace(error=lambda one=one: one) for one in found]

    def position(self, places: list[confluent_kafka.TopicPartition]) -> list[confluent_kafka.TopicPartition]:
        return [confluent_kafka.TopicPartition(one.topic, one.partition, max(0, self.at - 1)) for one in places]


def test_results_are_read_without_the_right_to_ask_for_a_group_that_is_never_joined() -> None:
    """A worker would begin where nothing is answered yet, and never again after that."""
    taken: list[Any] = []
    place = TP("results", 0)

    tail.read_ranges(cast("Any", Unheard()), {place: 0}, {place: 1}, taken.append)

    assert len(taken) == 1


class Shared(Asked):
    """A result partition with an answer to the event of its own offset, for each of the first hundred of one lane."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        super().get_watermark_offsets(place, timeout)
        return 0, 100

    def assign(self, places: list[confluent_kafka.TopicPartition]) -> None:
        self.at = places[0].offset

    def consume(self, _count: int, timeout: float) -> list[Any]:
        assert timeout > 0
        found = range(self.at, 100)
        self.at = 100
        return [
            SimpleNamespace(
                error=lambda: None,
                topic=lambda: "results",
                offset=lambda at=at: at,
                headers=lambda at=at: list(position_headers("app", Position("standard", 0, at, 1000))),
            )
            for at in found
        ]

    def position(self, places: list[confluent_kafka.TopicPartition]) -> list[confluent_kafka.TopicPartition]:
        return [confluent_kafka.TopicPartition(one.topic, one.partition, self.at) for one in places]


def test_no_answer_before_the_own_mark_is_found_where_another_lane_begins_further_back() -> None:
    """It is one that an operator wants again: his reset put the mark at the end, the retry lane's was left behind."""
    reader = TailReader(KafkaSettings(), "app", frozenset({"results"}))
    standard, retries = TP("standard", 0), TP("retries", 0)

    found = reader._scan(cast("Any", Shared()), {standard: (0, {"results": 90}), retries: (7, {"results": 20})})

    assert len(found[standard].answered) == 10


def refused(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._CRIT_SYS_RESOURCE))


def test_a_consumer_that_cannot_be_made_is_a_log_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a container's limit of threads, say; the worker asks again later."""
    monkeypatch.setattr(confluent_kafka, "Consumer", refused)

    with pytest.raises(LogUnavailable, match="result topics cannot be read"):
        TailReader(KafkaSettings(), "app", frozenset({"results"})).read({TP("events", 0): (0, None)})


def test_a_question_leaves_no_memory_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """With librdkafka's defaults a worker that looked through 25,000 results kept 60 MB for good."""
    events: list[object] = []

    class Noted(Asked):
        def __init__(self, config: dict[str, Any], **_: object) -> None:
            super().__init__()
            kbytes, backoff_ms = config["queued.max.messages.kbytes"], config["fetch.queue.backoff.ms"]
            # A full queue is looked at again after a second by default.
            events.append(kbytes <= 4096 and config["fetch.max.bytes"] <= 2**20 and backoff_ms <= 20)

        def close(self) -> None:
            events.append("closed")

    monkeypatch.setattr(confluent_kafka, "Consumer", Noted)
    monkeypatch.setattr(tail, "give_back", lambda: events.append("given back"))

    TailReader(KafkaSettings(), "app", frozenset({"results"})).read({TP("events", 0): (5, {"results": 0})})

    assert events == [True, "closed", "given back"]


def test_where_nobody_can_be_asked_no_id_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "AdminClient", refused)

    assert TailReader(KafkaSettings(), "app", frozenset({"results"})).ids(["events"]) == {}


def test_who_tells_ids_and_ends_is_kept_as_long_as_all_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new client asks for a token of its own; one that has lost all its brokers looks for none."""
    clients: list[object] = []
    place = TP("results", 0)
    ids, ends = [{"events": 7}, {"events": 7}, {}, {"events": 7}], [{place: 5}, {place: 6}, {place: 7}, {}]

    def made(*_: object) -> object:
        clients.append(SimpleNamespace(ids=lambda _names: ids.pop(0), ends=lambda _places: ends.pop(0)))
        return clients[-1]

    monkeypatch.setattr(tail, "TopicAdmin", made)
    reader = TailReader(KafkaSettings(bootstrap_servers=("kafka:9092",)), "app", frozenset({"results"}))
    told = [(reader.ids(["events"]), reader.ends({place}), len(clients)) for _ in range(4)]

    assert told == [
        ({"events": 7}, {place: 5}, 1), ({"events": 7}, {place: 6}, 1), ({}, {place: 7}, 2), ({"events": 7}, {}, 2),
    ]  # fmt: skip
    assert reader._admin is None


class Times(Asked):
    """A consumer whose broker answers questions by time."""

    def __init__(self, *told: int | Exception) -> None:
        super().__init__()
        self.told = list(told)

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        super().get_watermark_offsets(place, timeout)
        return 0, 90

    def offsets_for_times(self, places: list[Any], timeout: float) -> list[Any]:
        assert timeout > 0
        told = self.told.pop(0)
        if isinstance(told, Exception):
            raise told
        return [confluent_kafka.TopicPartition(place.topic, place.partition, told) for place in places]


SILENT = confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._TIMED_OUT))


@pytest.mark.parametrize(
    ("told", "begin"),
    [
        pytest.param([40, 0], 40, id="told"),
        pytest.param([-1, 0], 90, id="nothing since"),
        pytest.param([-1, -1], 0, id="no times, or no record"),
        pytest.param([SILENT], 0, id="no answer"),
        pytest.param([-1, SILENT], 0, id="no second answer"),
    ],
)
def test_where_a_broker_cannot_tell_by_time_everything_is_looked_through(
    told: list[int | Exception], begin: int
) -> None:
    """Taken for "nothing since", what is answered would be paid for again."""
    assert tail._first_since(cast("Any", Times(*told)), TP("results", 0), 5000) == begin


class Stamped:
    """An admin that knows when each partition began."""

    def __init__(self, told: tuple[int, int]) -> None:
        self.told = told

    def oldest(self, places: Any) -> dict[Any, tuple[int, int]]:
        return dict.fromkeys(places, self.told)


NOW_MS = 1_795_910_400_000


@pytest.mark.parametrize(
    ("told", "since_ms"),
    [
        pytest.param((7, NOW_MS), NOW_MS - 3_600_000, id="an hour for clocks"),
        pytest.param((7, NOW_MS + 3_600_001), None, id="of the future"),
        pytest.param((9, NOW_MS), None, id="of a later record"),
        pytest.param((7, 0), None, id="none"),
    ],
)
def test_answers_are_no_older_than_the_first_event_where_its_time_can_be_one(
    monkeypatch: pytest.MonkeyPatch, told: tuple[int, int], since_ms: int | None
) -> None:
    monkeypatch.setattr(tail, "TopicAdmin", lambda *_: Stamped(told))
    monkeypatch.setattr(time, "time", lambda: NOW_MS / 1000)
    first = TP("events", 0)
    kafka = KafkaSettings(bootstrap_servers=("kafka:9092",))

    found = TailReader(kafka, "app", frozenset({"results"}))._since_ms({first: 7})

    assert found == ({} if since_ms is None else {first: since_ms})


def test_the_embedded_broker_has_no_times_and_what_is_looked_through_is_logged() -> None:
    first, foreign = TP("events", 0), TP("events", 1)
    reader = TailReader(KafkaSettings(embedded=True), "app", frozenset({"results"}))

    with capture_logs() as lines:
        assert reader.begins({first: 3, foreign: 0}, {first}) == {first: {"results": 0}, foreign: {"results": 0}}

    [line] = lines
    assert (line["event"], line["topic"], line["partition"], line["results"]) == (
        "commit.none", "events", 0, {"results": 0},
    )  # fmt: skip


class Answered(Asked):
    """A consumer of results: one of each partition of the source, a page apart, and the last one twice."""

    def __init__(self, interrupt: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.interrupt = interrupt
        self.partitions = list[int]()
        self.at = 0

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        super().get_watermark_offsets(place, timeout)
        return 0, 5

    def assign(self, places: list[confluent_kafka.TopicPartition]) -> None:
        self.partitions = [place.partition for place in places]

    def consume(self, _count: int, timeout: float) -> list[Any]:
        assert timeout > 0
        self.interrupt()
        self.at += 1
        return [self.message(number) for number in self.partitions]

    def message(self, number: int) -> Any:
        event = Position("events", number, 1024 * (self.at - 1), 1000)
        return SimpleNamespace(
            error=lambda: None,
            topic=lambda: "results",
            offset=lambda at=self.at - 1: at,
            headers=lambda: list(position_headers("app", event)),
        )

    def position(self, places: list[confluent_kafka.TopicPartition]) -> list[confluent_kafka.TopicPartition]:
        return [confluent_kafka.TopicPartition(one.topic, one.partition, self.at) for one in places]


@pytest.mark.parametrize(
    ("limits", "kept", "known_to"),
    [((6, 1), 3, 3 * 1024), ((6, 4), 4, 4 * 1024), ((10, 1), 5, 2**63)],
    ids=["a share", "what one may have", "all"],
)
def test_partitions_share_what_is_kept_of_answers_and_what_is_left_out_is_told(
    limits: tuple[int, int], kept: int, known_to: int
) -> None:
    reader = TailReader(KafkaSettings(), "app", frozenset({"results"}), limits)
    wanted = {TP("events", 0): (0, {"results": 0}), TP("events", 1): (0, {"results": 0}), TP("events", 2): (0, None)}
    with capture_logs() as lines:
        tails = reader._scan(cast("Any", Answered()), wanted)

    found = [tails[tp].answered for tp in wanted]
    assert [(len(one), one.known_to) for one in found] == [(kept, known_to)] * 2 + [(0, 2**63)]
    told = [(line["partition"], line["answers"], line["known_to"]) for line in lines]
    assert told == [(number, kept, known_to) for number in range(2) if kept < 5]


def test_a_scan_that_nobody_waits_for_any_more_ends() -> None:
    """Its thread cannot be cancelled: each rebalance during the scan would leave one more, with its answers."""
    reader = TailReader(KafkaSettings(), "app", frozenset({"results"}))
    wanted = {TP("events", 0): (0, {"results": 0})}
    newer = Asked()

    with pytest.raises(LogUnavailable, match="assigned anew"):
        reader._scan(cast("Any", Answered(lambda: reader._scan(cast("Any", newer), wanted))), wanted)

    assert newer.topics == ["results", "events"]


class Short(Asked):
    """A consumer of result topics that have fewer partitions than the events."""

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        super().get_watermark_offsets(place, timeout)
        raise confluent_kafka.KafkaException(confluent_kafka.KafkaError(confluent_kafka.KafkaError._UNKNOWN_PARTITION))


def test_a_result_partition_that_is_missing_is_named() -> None:
    """Somebody has given the event topics more partitions, and not the result topics."""
    reader = TailReader(KafkaSettings(), "app", frozenset({"results"}))

    with pytest.raises(LogUnavailable, match="results has no partition 6, and a result or retry goes"):
        reader._scan(cast("Any", Short()), {TP("events", 6): (0, None)})


@pytest.mark.parametrize(("is_cut", "kept"), [(False, {(1, 1000)}), (True, {(1, 1000), (9, 1000)})])
def test_answers_that_may_be_to_events_of_a_former_log_are_forgotten(
    *, is_cut: bool, kept: set[tuple[int, int]]
) -> None:
    tail = Tail(answers({place: ResultRef("results", 5) for place in ((1, 1000), (2, -1), (9, 1000))}), log=(0, 3))
    tail.forget_former(is_cut=is_cut)

    assert {place for place, _ in tail.answered} == kept
