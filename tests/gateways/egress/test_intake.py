"""What a door's consumer makes of the client's errors; its records are for the tests on real Kafka."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition, Uuid
from structlog.testing import capture_logs

from contracts.errors import LogUnavailable
from contracts.settings.egress import MAX_DRAIN_S, EgressProcess
from gateways.egress import intake as module
from gateways.egress.group import group_config
from gateways.egress.intake import Intake, Receiver
from gateways.egress.ledger import Ledger
from gateways.egress.reading import LogIds
from producers.kafka_client import SILENT
from producers.mock_cluster import MockCluster
from tests.support import eventually_async


@pytest.fixture
def intake() -> Intake:
    """A consumer's side that has joined its group."""
    made = Intake("door", {}, ["results"], {}, cast("Receiver", None))
    made._is_answered = True
    return made


def meet(intake: Intake, error: KafkaError | None) -> None:
    """Let the client hand over an error, or a record of a partition that is not ours."""
    message: Any = SimpleNamespace(
        error=lambda: error, topic=lambda: "results", partition=lambda: 0, offset=lambda: 0, timestamp=lambda: (1, 0)
    )
    intake._take(message, {})


@pytest.mark.parametrize("session_timeout_s", [1, 300])
@pytest.mark.parametrize("drain_timeout_s", [0.001, MAX_DRAIN_S])
def test_a_consumer_can_be_made_with_whatever_the_settings_allow(
    session_timeout_s: float, drain_timeout_s: float
) -> None:
    process = EgressProcess(session_timeout_s=session_timeout_s, drain_timeout_s=drain_timeout_s)

    Consumer(group_config({"bootstrap.servers": "localhost:1"}, "test", process, 0.0) | {"logger": SILENT}).close()


@pytest.mark.parametrize(
    ("drain_timeout_s", "timeout_s", "interval_s"), [(30, 30, 300), (290, 30, 350), (30, 600.5, 661), (4000, 30, 4060)]
)
def test_the_group_waits_for_a_drain_and_the_delivery_that_cannot_be_cut_short(
    drain_timeout_s: float, timeout_s: float, interval_s: int
) -> None:
    config = group_config({}, "test", EgressProcess(drain_timeout_s=drain_timeout_s), timeout_s)

    assert config["max.poll.interval.ms"] == interval_s * 1000


def test_a_session_that_the_brokers_do_not_allow_is_told_with_its_setting(intake: Intake) -> None:
    intake._config["session.timeout.ms"] = 2500
    with capture_logs() as lines:
        meet(intake, KafkaError(KafkaError.INVALID_SESSION_TIMEOUT, "JoinGroup failed"))

    assert [line["error"].partition(", the brokers")[0] for line in lines] == [
        "JoinGroup failed: egress_process.session_timeout_s is 2.5"
    ]
    assert not intake.is_reachable


def test_a_client_that_will_get_nothing_any_more_is_given_up(intake: Intake) -> None:
    # What librdkafka says of a static member whose id another one has taken.
    error = KafkaError(KafkaError._FATAL, "Fatal error: Static consumer fenced", True)

    with pytest.raises(LogUnavailable, match="door is broken: Fatal error: Static consumer fenced"):
        meet(intake, error)
    assert not intake.is_reachable


@pytest.mark.parametrize("code", [KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED])
def test_a_door_that_may_not_read_says_so_once_and_is_not_ready(intake: Intake, code: int) -> None:
    with capture_logs() as lines:
        meet(intake, KafkaError(code, "no"))
        meet(intake, KafkaError(code, "no"))
    is_reachable = intake.is_reachable
    meet(intake, None)

    assert [(line["event"], line["error"]) for line in lines] == [("egress.log_error", "no")]
    assert (is_reachable, intake.is_reachable) == (False, True)


def test_one_broker_of_several_that_is_away_is_said_and_no_more(intake: Intake) -> None:
    with capture_logs() as lines:
        meet(intake, KafkaError(KafkaError._TRANSPORT, "one is away"))

    assert len(lines) == 1
    assert intake.is_reachable


@pytest.mark.parametrize(
    ("stamp_ms", "taken_at_s"), [(-1, 1000), (1_000_000, 1060), (1_001_000, 1060), (1_000_000_000_000, 1060)]
)
def test_what_a_clock_far_ahead_has_stamped_waits_no_longer_than_its_tier(stamp_ms: int, taken_at_s: float) -> None:
    now_s = 1000.0
    taken: list[Any] = []
    receiver: Any = SimpleNamespace(is_ours=lambda _raw: True, take_waiting=lambda _ledger, raw: taken.append(raw))
    intake = Intake("door", {}, ["results"], {"later": 60.0}, receiver, clock=lambda: now_s)
    intake._ledgers["later", 0] = Ledger("later", 0)
    message: Any = SimpleNamespace(
        error=lambda: None, topic=lambda: "later", partition=lambda: 0, offset=lambda: 5, key=lambda: None,
        timestamp=lambda: (1, stamp_ms), value=lambda: b"{}", headers=list,
    )  # fmt: skip
    while not taken and now_s < 1100:
        intake._take(message, {})
        now_s += 5

    assert now_s - 5 == taken_at_s


def test_many_that_a_clock_far_ahead_has_stamped_hold_up_nobody_for_more_than_one_tier() -> None:
    """What is put there meanwhile, ahead as well, waits once more."""
    now_s, far_ms, end = 1000.0, 1_000_000_000, 4
    stamps_ms = {0: far_ms, 1: far_ms, 2: 999_000, 3: 1_020_000, 4: far_ms, 5: far_ms, 6: 1_070_000}
    taken_at_s: dict[int, float] = {}
    receiver: Any = SimpleNamespace(
        is_ours=lambda _raw: True, take_waiting=lambda _ledger, raw: taken_at_s.update({raw.position.offset: now_s})
    )
    intake = Intake("door", {}, ["results"], {"later": 60.0}, receiver, clock=lambda: now_s)
    intake._consumer = cast("Consumer", SimpleNamespace(get_watermark_offsets=lambda _one, cached: (0, end * cached)))
    intake._ledgers["later", 0] = Ledger("later", 0)

    def message(offset: int) -> Any:
        return SimpleNamespace(
            error=lambda: None, topic=lambda: "later", partition=lambda: 0, offset=lambda: offset, key=lambda: None,
            timestamp=lambda: (1, stamps_ms[offset]), value=lambda: b"{}", headers=list,
        )  # fmt: skip

    while len(taken_at_s) < len(stamps_ms) and now_s < 1500:
        rewinds: dict[tuple[str, int], int] = {}
        for offset in sorted(stamps_ms.keys() - taken_at_s.keys()):
            intake._take(message(offset), rewinds)
        now_s, end = now_s + 5, 7

    assert taken_at_s == {0: 1060, 1: 1060, 2: 1060, 3: 1060, 4: 1120, 5: 1120, 6: 1120}


@pytest.mark.parametrize("may_read", [True, False])
def test_a_door_that_may_read_again_is_ready_though_nothing_comes(may_read: bool) -> None:
    watch: Any = SimpleNamespace(made_anew=frozenset, may_read=may_read, ids={}, forget=lambda: None)
    intake = Intake("door", {}, ["results"], {}, cast("Receiver", None), watch=watch)
    intake._is_answered = True
    meet(intake, KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED, "no"))
    assert not intake.is_reachable

    intake._look_at_topics()

    assert intake.is_reachable is may_read


FORMER, NOW = str(Uuid(1, 2)), str(Uuid(3, 4))


class Watch:
    """What the brokers say of the topic: made anew since the door began."""

    may_read = True

    def __init__(self, ids: dict[str, str] | None) -> None:
        self.ids = {"results": FORMER}
        self._ids = ids

    def made_anew(self) -> frozenset[str]:
        """Hear of none."""
        return frozenset()

    def start(self) -> None:
        """Hear of the ids, or of nothing."""
        if self._ids is None:
            message = "away"
            raise LogUnavailable(message)
        self.ids = self._ids


@pytest.mark.parametrize(
    ("told", "commits_of", "starts"),
    [
        ({"results": NOW}, NOW, []),
        ({"results": NOW}, FORMER, [OFFSET_BEGINNING]),
        (None, FORMER, []),
    ],
)
def test_commits_are_compared_with_the_ids_of_the_moment_of_the_assignment(
    told: dict[str, str] | None, commits_of: str, starts: list[int]
) -> None:
    """Another process of the door may have noticed first, and have committed what it delivered of the new log."""
    intake = Intake("door", {}, ["results"], {}, cast("Receiver", None), watch=cast("LogIds", Watch(told)))
    assigned: list[int] = []
    consumer: Any = SimpleNamespace(
        committed=lambda _places, timeout: [TopicPartition("results", 0, 7, commits_of)],  # noqa: ARG005
        assign=lambda places: assigned.extend(one.offset for one in places),
    )

    intake._on_assign(consumer, [TopicPartition("results", 0)])

    assert assigned == starts
    assert [ledger.log_id for ledger in intake.ledgers] == [FORMER if told is None else NOW]


def test_an_id_that_is_told_after_the_assignment_goes_with_the_commits() -> None:
    """A cluster may be slow in that moment; commits without an id are believed of any log."""
    watch = cast("Any", Watch(None))
    watch.ids = {}
    intake = Intake("door", {}, ["results"], {}, cast("Receiver", None), watch=watch)
    committed: list[str] = []
    consumer: Any = SimpleNamespace(
        commit=lambda offsets, asynchronous: committed.extend(one.metadata or "" for one in offsets)  # noqa: ARG005
    )
    intake._on_assign(consumer, [TopicPartition("results", 0)])
    (ledger,) = intake.ledgers

    for offset, ids in enumerate(({}, {"results": NOW}, {"results": FORMER})):
        watch.ids = ids
        intake._look_at_topics()
        ledger.skip(offset)
        intake._commit(consumer, intake.ledgers, is_last=True)

    assert committed == ["", NOW, NOW]


class Nobody:
    """A receiver that takes nothing."""

    async def let_go(self, ledgers: set[Ledger]) -> None:
        """Have nothing to forget."""


@pytest.mark.embedded
async def test_a_door_with_nothing_to_read_is_ready_again_when_the_brokers_are_back() -> None:
    with MockCluster() as cluster:
        cluster.create_topic("results")
        config = group_config({"bootstrap.servers": cluster.bootstrap}, "group", EgressProcess())
        intake = Intake("door", config, ["results"], {}, cast("Receiver", Nobody()))
        await intake.open()

        async def is_reachable() -> bool:
            await intake.poll(is_full=False)
            return intake.is_reachable

        async def is_away() -> bool:
            return not await is_reachable()

        try:
            assert await is_reachable()
            cluster.set_down()
            assert await eventually_async(is_away, 20.0)
            cluster.set_up()
            assert await eventually_async(is_reachable, 20.0)
        finally:
            cluster.set_up()
            await intake.aclose()


@pytest.mark.embedded
async def test_a_client_that_is_cut_off_is_left_to_its_last_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CLOSE_LIMIT_S", 0.5)
    with MockCluster() as cluster:
        cluster.create_topic("results")
        process = EgressProcess(session_timeout_s=60)
        config = group_config({"bootstrap.servers": cluster.bootstrap}, "group", process)
        intake = Intake("door", config, ["results"], {}, cast("Receiver", Nobody()))
        await intake.open()

        async def is_assigned() -> bool:
            await intake.poll(is_full=False)
            return bool(list(intake.ledgers))

        try:
            await eventually_async(is_assigned, 20.0)
            for ledger in intake.ledgers:
                ledger.skip(0)
            cluster.set_down()
            with capture_logs() as lines:
                begun_s = time.monotonic()
                await intake.aclose()
                took_s = time.monotonic() - begun_s
            assert took_s < 5
            assert [line["event"] for line in lines] == ["egress.not_committed"]
        finally:
            cluster.set_up()
            await eventually_async(lambda: not intake._thread.busy, 60.0)
