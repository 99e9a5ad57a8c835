"""What the watchdog is shown of a worker, and what GET /stuck says; engine and pipeline are real, the group is not."""

import asyncio
import contextlib
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from contracts.envelope import Event
from contracts.errors import LogUnavailable
from contracts.metrics import EVENTS_IN_STATE, LAG, REGISTRY, ROUTE_PAUSED
from contracts.settings import WatchdogSettings, WorkerSettings
from contracts.stuck import UnfinishedEvent
from streams import liveness, stuck
from streams.engine.item import TP, State
from streams.health import HealthServer
from streams.liveness import Liveness
from streams.log_ends import Reach
from streams.membership import Membership
from streams.stuck import shown_key
from streams.worker import Worker
from tests.streams.pipeline.support import EVENTS, PARTITION, Bench, event, make_settings
from tests.support import FakeClock, eventually_async

TP0, TP1 = TP(EVENTS, PARTITION), TP(EVENTS, PARTITION + 1)
# Its fetches are answered, and bring nothing; the same with something.
AT_END, IN_HAND = Reach(10, 10, fetched_s=1.0), Reach(3, 10, fetched_s=400.0, in_hand=True)
WORKER = WorkerSettings(
    max_in_flight=2, watchdog=WatchdogSettings(progress_timeout_s=60, commit_timeout_s=60, overdue_grace_s=10)
)


class FakeShell:
    """A consumer thread that ticks unless told otherwise."""

    def __init__(self) -> None:
        self.ticks = True
        self.found: dict[TP, Reach] = {}
        self.error: Exception | None = None
        self.asked = 0
        self.watermark: int | None = None
        self.read: dict[TP, tuple[int | None, int]] = {}

    def tick(self, ticked: Callable[[], None]) -> None:
        if self.ticks:
            ticked()

    async def reach(self, tps: frozenset[TP], _limit_s: float) -> dict[TP, Reach]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {tp: self.found[tp] for tp in tps}

    def read_to(self) -> dict[TP, tuple[int | None, int]]:
        return self.read

    def high_watermark(self, _tp: TP) -> int | None:
        return self.watermark


class FakeMembership:
    """A member of the group."""

    def __init__(self) -> None:
        self.shell = FakeShell()
        self.tail = SimpleNamespace(furthest=0)
        self.tps = frozenset({TP0})
        self.committed: dict[TP, tuple[int, str]] = {}
        self.is_member = True
        self.is_handing_over = False


class Lab:
    """A worker under watch; time of the watch moves only when told."""

    def __init__(self, *script: dict[str, Any], **route: Any) -> None:
        self.clock = FakeClock()
        self.settings = make_settings(route).model_copy(update={"worker": WORKER})
        self.bench = Bench(script, self.settings, in_flight=2)
        self.group = FakeMembership()
        self.lag_s = 0.0
        self.liveness = Liveness(
            self.settings,
            self.bench.engine,
            cast("Membership", self.group),
            self._probe,
            lambda: self.lag_s,
            self.clock,
        )
        self.liveness._is_wanted = True
        self.kafka_answers = True

    async def _probe(self, _limit_s: float) -> None:
        if not self.kafka_answers:
            message = "away"
            raise LogUnavailable(message)

    def pass_time(self, seconds: int) -> list[str]:
        """Look every second; return the checks that fail at the end."""
        for _ in range(seconds):
            self.clock.advance(1)
            if self.kafka_answers:
                self.liveness._answered_at_s = self.clock()
            self.liveness.look()
        return [problem.check for problem in self.liveness.problems]

    async def send(self, *events: Event) -> None:
        """Deliver events that were accepted just now; this folder's clock is the real one."""
        await self.bench.send(*events, timestamp_ms=int(time.time() * 1000))

    def oldest(self) -> UnfinishedEvent:
        found = next(one.oldest for one in self.liveness.report().partitions if one.oldest)
        assert found is not None
        return found


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    # A test of another file may have left a route paused, which explains a standstill.
    ROUTE_PAUSED.clear()
    made = Lab({"hang": True})
    await made.bench.start()
    yield made
    await _end(made)


async def _end(lab: Lab) -> None:
    await lab.bench.engine.close()
    ROUTE_PAUSED.clear()


async def in_flight(lab: Lab, count: int) -> None:
    await eventually_async(
        lambda: sum(item.state is State.CALLING and item.attempts == 1 for item in lab.bench.engine.held) == count
    )


def _finish_uncommitted(lab: Lab) -> None:
    lab.group.committed = {TP0: (0, "")}
    ledger = lab.bench.engine._ledgers[TP0]
    ledger.take(0)
    ledger.finish(0, None)


def problems_of(lab: Lab) -> list[tuple[str, bool]]:
    return [(one.check, one.restart_helps) for one in lab.liveness.problems]


def _stop_taking(lab: Lab) -> None:
    lab.liveness._reach = {TP0: IN_HAND}
    ROUTE_PAUSED.labels("another", "access_denied").set(1)


# --- the snapshot


async def test_an_idle_worker_has_no_problem(lab: Lab) -> None:
    assert lab.pass_time(1000) == []


async def test_brokers_that_did_not_answer_are_asked_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    async def probe(limit_s: float) -> None:
        asked.append(limit_s)
        if len(asked) == 1:
            message = "no thread to ask in"
            raise LogUnavailable(message)

    monkeypatch.setattr(liveness, "_ASK_EVERY_S", 0.001)
    monkeypatch.setattr(lab.liveness, "_probe", probe)
    lab.liveness.start()
    try:
        await eventually_async(lambda: len(asked) > 1)
    finally:
        await lab.liveness.aclose()


async def test_calls_in_flight_are_a_reason_to_wait(lab: Lab) -> None:
    await lab.send(event(0))
    await in_flight(lab, 1)

    assert lab.pass_time(1000) == []


async def test_records_that_nobody_reads_are_no_progress(lab: Lab) -> None:
    """The consumer has stopped fetching, and its own high watermark with it: the broker was asked."""
    lab.liveness._reach = {TP0: Reach(3, 10)}

    assert lab.pass_time(60) == []
    assert lab.pass_time(2) == ["progress", "partition"]


async def test_one_partition_whose_broker_gives_nothing_is_named_while_others_go_on(lab: Lab) -> None:
    """Its leader is away, or its disk is damaged: it is not the worker's, and no restart would mend it."""
    lab.group.tps, failing = frozenset({TP0, TP1}), list[str]()
    for position in range(80):
        lab.liveness._reach = {TP0: Reach(position, 100, fetched_s=1.0), TP1: Reach(3, 1_000_003, fetched_s=7200.0)}
        lab.bench.engine.moves += 1
        failing = lab.pass_time(1)

    assert failing == ["partition"]
    assert problems_of(lab) == [("partition", False)]
    assert lab.liveness.problems[0].detail.startswith(f"{EVENTS}/{TP1.partition}: ")


@pytest.mark.parametrize("other", [AT_END, Reach(10, 10)])
async def test_a_leader_that_is_away_is_no_lack_of_progress(lab: Lab, other: Reach) -> None:
    """Nothing else is there to do, and the worker can do nothing about it."""
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: other, TP1: Reach(3, 10, is_told=False)}

    assert lab.pass_time(1000) == ["partition"]


async def test_a_broker_that_gives_nothing_of_one_partition_is_no_lack_of_progress(lab: Lab) -> None:
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: AT_END, TP1: Reach(3, 10)}

    assert lab.pass_time(1000) == ["partition"]


async def test_a_partition_that_has_no_records_is_not_asked_about(lab: Lab) -> None:
    """One that is asked about has a position and an end all the same."""
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: Reach(10, 10, fetched_s=7200.0), TP1: Reach(0, 0)}

    assert lab.pass_time(1000) == []


async def test_a_position_that_is_being_looked_up_is_waited_for(lab: Lab) -> None:
    """After its retention has deleted what was unread, say."""
    lab.liveness._reach = {TP0: Reach(None, 10, fetched_s=7200.0)}
    assert lab.pass_time(60) == []
    lab.liveness._reach = {TP0: Reach(10, 10, fetched_s=1.0)}

    assert lab.pass_time(1000) == []


@pytest.mark.parametrize(
    "reach",
    [Reach(None, 10**6), Reach(5, None, is_told=False), Reach(5, 5, is_told=False), Reach(None, 9, in_hand=True)],
)
async def test_a_partition_of_which_nobody_knows_what_is_unread_is_named(lab: Lab, reach: Reach) -> None:
    """What was told before may be behind by now; a restart would ask the same broker again."""
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: reach, TP1: AT_END}

    assert lab.pass_time(60) == []
    assert lab.pass_time(2) == ["partition"]
    assert problems_of(lab) == [("partition", False)]
    assert lab.liveness.problems[0].detail.endswith(
        "gives no records, and there are some, or nobody knows whether there are"
    )


async def test_an_unknown_end_of_a_partition_whose_fetches_are_answered_hides_nothing(lab: Lab) -> None:
    lab.liveness._reach = {TP0: Reach(5, None, is_told=False, fetched_s=1.0)}

    assert lab.pass_time(1000) == []


async def test_a_gap_at_the_end_that_nothing_passes_is_no_standstill(lab: Lab) -> None:
    """Compaction has removed the last marker: fetches are answered, and there is nothing to bring."""
    lab.liveness._reach = {TP0: Reach(3, 10, fetched_s=1.0)}

    assert lab.pass_time(1000) == []


async def test_fetched_records_that_nobody_takes_are_named_although_a_route_is_paused(lab: Lab) -> None:
    lab.liveness._reach = {TP0: IN_HAND}
    ROUTE_PAUSED.labels("another", "access_denied").set(1)

    assert lab.pass_time(60) == []
    assert lab.pass_time(2) == ["untaken"]
    assert lab.liveness.problems[0].restart_helps


async def test_fetched_records_may_wait_behind_one_that_waits_for_room(lab: Lab) -> None:
    """Of whatever partition, topic or lane: all wait behind a full queue."""
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: AT_END, TP1: IN_HAND}
    for _ in range(10):
        lab.bench.engine.moves += 1
        lab.bench.engine.look_at = lab.bench.engine.moves + 1

        assert lab.pass_time(59) == []


async def test_one_look_at_which_somebody_waits_for_room_starts_the_time_anew(lab: Lab) -> None:
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: AT_END, TP1: IN_HAND}
    lab.bench.engine.moves = 1
    lab.pass_time(50)
    lab.bench.engine.look_at = 3
    lab.pass_time(1)
    lab.bench.engine.look_at, lab.bench.engine.moves = math.inf, 2

    assert lab.pass_time(59) == []
    assert lab.pass_time(2) == ["progress", "untaken"]


@pytest.mark.parametrize(("is_read", "failing"), [(False, ["untaken"]), (True, [])])
async def test_records_that_are_not_taken_are_named_although_somebody_waits_for_room_now_and_then(
    lab: Lab, *, is_read: bool, failing: list[str]
) -> None:
    """A worker under load has such a look each minute; a partition that comes to its turn moves meanwhile."""
    lab.group.tps = frozenset({TP0, TP1})
    found = list[str]()
    for second in range(5 * 60):
        position = 3 + second // 200 if is_read else 3
        lab.liveness._reach = {TP0: AT_END, TP1: Reach(position, 10, fetched_s=400.0, in_hand=True)}
        lab.bench.engine.moves = second
        lab.bench.engine.look_at = second + 1 if second % 30 == 29 else math.inf
        found = lab.pass_time(1)
        # Four times its limit, of the time in which there is room: lanes that wait for their share are spared.
        assert second >= 4 * 60 or not found

    assert found == failing


async def test_partitions_that_are_given_up_are_not_read_on(lab: Lab) -> None:
    lab.group.tps = frozenset({TP0, TP1})
    lab.liveness._reach = {TP0: Reach(3, 10), TP1: IN_HAND}
    lab.group.is_handing_over = True

    assert lab.pass_time(1000) == []


async def _ask(lab: Lab, monkeypatch: pytest.MonkeyPatch, times: int = 3) -> None:
    """Have the ends asked for that many times."""
    left = times

    async def sleep(_s: float) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise asyncio.CancelledError

    with monkeypatch.context() as patched, contextlib.suppress(asyncio.CancelledError):
        patched.setattr(liveness, "asyncio", SimpleNamespace(sleep=sleep))
        await lab.liveness._ask_reach()


async def test_what_was_unread_is_forgotten_when_nobody_tells_any_more(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been done since: a worker with nothing to do was restarted because a broker was away."""
    lab.liveness._reach = {TP0: Reach(3, 10)}
    lab.group.shell.error = LogUnavailable("the leader of another partition is away")
    await _ask(lab, monkeypatch)

    assert lab.pass_time(1000) == []


@pytest.mark.parametrize("reach", [Reach(3, 10), Reach(None, 10)])
async def test_one_question_without_an_answer_does_not_start_the_time_of_a_partition_anew(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, reach: Reach
) -> None:
    lab.group.tps = frozenset({TP0, TP1})
    lab.group.shell.found = {TP0: reach, TP1: AT_END}
    for second in range(0, 60, 10):
        lab.group.shell.error = LogUnavailable("late") if second % 30 == 20 else None
        await _ask(lab, monkeypatch, times=1)
        assert lab.pass_time(10) == []

    assert lab.pass_time(1) == ["partition"]


async def test_where_a_question_was_not_answered_nothing_is_known_to_wait(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been done since: neither `progress` nor `untaken` restarts a worker for what was there before."""
    lab.liveness._reach = {TP0: IN_HAND}
    lab.group.shell.error = LogUnavailable("late")
    await _ask(lab, monkeypatch, times=2)

    assert lab.pass_time(1000) == []


async def test_what_is_not_ours_any_more_is_forgotten_when_nobody_tells(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.liveness._reach = {TP0: Reach(3, 10), TP1: Reach(3, 10)}
    lab.group.shell.error = LogUnavailable("late")
    await _ask(lab, monkeypatch, times=1)

    assert lab.liveness._reach == {TP0: Reach(3, 10, is_told=False)}


async def test_the_last_end_of_a_partition_whose_leader_is_away_is_kept(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.liveness._reach = {TP0: Reach(3, 10)}
    lab.group.shell.found = {TP0: Reach(5, None, is_told=False)}
    await _ask(lab, monkeypatch)

    assert lab.liveness._reach == {TP0: Reach(5, 10, is_told=False)}


async def test_a_question_that_fails_in_an_unknown_way_is_asked_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.group.shell.error = KeyError("x")
    await _ask(lab, monkeypatch)

    assert lab.group.shell.asked == 3


async def test_a_probe_that_fails_in_an_unknown_way_is_made_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the brokers would count as silent from then on, and nothing that needs them would be looked at."""
    asked: list[float] = []

    async def probe(limit_s: float) -> None:
        asked.append(limit_s)
        message = "y"
        raise RuntimeError(message)

    monkeypatch.setattr(liveness, "_ASK_EVERY_S", 0.001)
    monkeypatch.setattr(lab.liveness, "_probe", probe)
    asking = asyncio.ensure_future(lab.liveness._ask_kafka())
    await eventually_async(lambda: len(asked) > 2)
    asking.cancel()


async def test_a_watch_that_fails_is_told_and_ends_no_worker(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        message = "z"
        raise ValueError(message)

    with monkeypatch.context() as patched:
        patched.setattr(lab.liveness, "snapshot", fail)
        lab.clock.advance(29)
        lab.liveness.try_to_look()
        assert lab.liveness.problems == ()
        lab.clock.advance(2)
        lab.liveness.try_to_look()
        lab.liveness.try_to_look()

        assert problems_of(lab) == [("watch", False)]
        assert REGISTRY.get_sample_value("penstock_watchdog_problem", {"check": "watch"}) == 1

    lab.liveness._answered_at_s = lab.clock()
    lab.liveness.try_to_look()
    assert lab.liveness.problems == ()
    assert REGISTRY.get_sample_value("penstock_watchdog_problem", {"check": "watch"}) == 0


@pytest.mark.parametrize(
    ("watermark", "reach", "lag"), [(40, Reach(3, 100), 100), (40, Reach(3, None), 40), (None, None, None)]
)
async def test_the_lag_follows_the_end_that_the_leader_tells_where_nothing_is_fetched(
    lab: Lab, watermark: int | None, reach: Reach | None, lag: int | None
) -> None:
    LAG.clear()
    lab.group.shell.watermark = watermark
    lab.liveness._reach = {TP0: reach} if reach else {}
    lab.pass_time(1)

    labels = {"topic": EVENTS, "partition": str(PARTITION)}
    assert REGISTRY.get_sample_value("penstock_kafka_consumer_lag_records", labels) == lag


async def test_a_transaction_marker_at_the_end_is_not_an_event_that_waits(lab: Lab) -> None:
    """The consumer has passed it; the commit point, which knows events only, has not."""
    lab.liveness._reach = {TP0: Reach(10, 10)}

    assert lab.pass_time(1000) == []


async def test_events_of_a_paused_route_may_wait(lab: Lab) -> None:
    lab.liveness._reach = {TP0: IN_HAND}
    lab.bench.engine.look_at = 3
    ROUTE_PAUSED.labels("r", "access_denied").set(1)

    assert lab.pass_time(1000) == []


async def test_partitions_that_are_given_up_are_neither_loading_nor_without_progress(lab: Lab) -> None:
    lab.liveness._reach = {TP0: Reach(3, 10)}
    lab.group.is_handing_over = True
    lab.bench.engine._opened.clear()

    assert lab.pass_time(1000) == []


async def test_books_that_do_not_open_are_the_journal(lab: Lab) -> None:
    lab.bench.engine._opened.clear()

    assert lab.pass_time(122) == ["journal"]


async def test_books_whose_results_are_still_looked_through_are_waited_for(lab: Lab) -> None:
    """Weeks of them, say, of a group whose commits Kafka forgot."""
    lab.bench.engine._opened.clear()
    lab.pass_time(119)
    lab.group.tail.furthest = 500

    assert lab.pass_time(119) == []
    assert lab.pass_time(120) == ["journal"]


async def test_a_tenure_that_is_over_is_the_rebalance(lab: Lab) -> None:
    lab.bench.tenure.end()

    assert lab.pass_time(122) == ["rebalance"]


async def test_a_consumer_thread_that_does_not_tick_is_named(lab: Lab) -> None:
    lab.group.shell.ticks = False

    assert lab.pass_time(32) == ["consumer"]


async def test_finished_offsets_that_are_not_committed_are_the_commits(lab: Lab) -> None:
    _finish_uncommitted(lab)

    assert lab.pass_time(62) == ["commits"]
    lab.group.committed = {TP0: (1, "")}
    assert lab.pass_time(1) == []


async def test_brokers_that_are_silent_are_told_and_fail_no_probe(lab: Lab) -> None:
    lab.kafka_answers = False

    assert lab.pass_time(26) == ["kafka"]
    assert [problem.restart_helps for problem in lab.liveness.problems] == [False]


async def test_silent_brokers_are_a_warning_with_its_time_until_one_answers(lab: Lab) -> None:
    lab.kafka_answers = False
    lab.pass_time(24)
    assert lab.liveness.warnings == []

    lab.pass_time(16)
    [warning] = lab.liveness.warnings
    said, _, since = warning.partition(" since ")
    assert said == "kafka_unreachable: no broker has answered"
    ago_s = (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()
    assert 40 <= ago_s < 60

    lab.kafka_answers = True
    lab.pass_time(1)
    assert lab.liveness.warnings == []


async def test_a_late_loop_is_the_loop(lab: Lab) -> None:
    lab.lag_s = 6.0

    assert lab.pass_time(1) == ["loop"]


async def test_a_call_past_one_and_a_half_of_its_limit_is_overdue(lab: Lab) -> None:
    await lab.send(event(0))
    await in_flight(lab, 1)
    (item,) = lab.bench.engine.held
    loop_s = asyncio.get_running_loop().time()
    item.since = loop_s - 90
    assert lab.pass_time(10) == []
    item.since = loop_s - 1.5 * 60 - 11

    assert lab.pass_time(6) == ["overdue"]
    assert lab.liveness.problems[0].detail.startswith(f"event e0 ({EVENTS}/2/0) has been calling for 101 s")


@pytest.mark.parametrize(
    ("act", "check"),
    [
        (lambda lab: lab.bench.tenure.end(), "rebalance"),
        (lambda lab: lab.bench.engine._opened.clear(), "journal"),
        (lambda lab: setattr(lab.group.shell, "ticks", False), "consumer"),
        (lambda lab: setattr(lab, "lag_s", 9.0), "loop"),
        (lambda lab: setattr(lab.liveness, "_reach", {TP0: Reach(3, 10)}), "progress"),
        (_stop_taking, "untaken"),
        (lambda lab: setattr(lab.liveness, "_overdue", lambda _held: "event e0"), "overdue"),
        (_finish_uncommitted, "commits"),
    ],
)
async def test_the_health_page_fails_by_name_and_the_metric_says_so(
    lab: Lab, act: Callable[[Lab], None], check: str
) -> None:
    worker = Worker(lab.settings)
    worker._liveness = lab.liveness
    act(lab)
    lab.pass_time(130)
    server = HealthServer("worker", "127.0.0.1", 0, worker._problems, list)
    await server.start()
    try:
        status, body = await asyncio.to_thread(_get, f"{server.address}/healthz")
    finally:
        await server.aclose()

    assert status == 503
    assert [problem.partition(":")[0] for problem in json.loads(body)["problems"]] == [check]
    assert REGISTRY.get_sample_value("penstock_watchdog_problem", {"check": check}) == 1


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own server
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


# --- the report


async def test_the_oldest_unfinished_event_is_named_with_what_it_does(lab: Lab) -> None:
    await lab.send(event(0))
    await in_flight(lab, 1)
    oldest = lab.oldest()

    assert (oldest.offset, oldest.event_id, oldest.key, oldest.route) == (0, "e0", "k", "r")
    assert (oldest.state, oldest.attempts) == ("calling", 1)
    assert oldest.deadline_s is not None
    assert 290 < oldest.deadline_s <= 300


async def test_waiting_behind_its_key_is_not_waiting_for_a_slot(lab: Lab) -> None:
    keys = [{"partitionkey": name} for name in ("a", "a", "b", "c")]
    await lab.send(*(event(n, extensions=key) for n, key in enumerate(keys)))
    await in_flight(lab, 2)
    found = [stuck.event(item, lab.bench.engine, 0.0) for item in lab.bench.engine.held]

    assert [one.state for one in found] == ["calling", "waiting_key", "calling", "waiting_slot"]
    assert [one.behind_offset for one in found] == [None, 0, None, None]


async def test_a_rest_says_why_and_until_when() -> None:
    lab = Lab({"error": "throttled", "retry_after_s": 100})
    await lab.bench.start()
    await lab.send(event(0))
    await eventually_async(lambda: lab.oldest().state == "resting")
    oldest = lab.oldest()
    await _end(lab)

    assert oldest.reason == "throttled"
    assert oldest.next_try_s is not None
    assert 90 < oldest.next_try_s < 101


async def test_counts_of_each_state_are_a_metric(lab: Lab) -> None:
    await lab.send(*(event(n, extensions={"partitionkey": str(n)}) for n in range(5)))
    await in_flight(lab, 2)
    lab.liveness.look()

    assert EVENTS_IN_STATE.labels("queued")._value.get() == 3
    assert EVENTS_IN_STATE.labels("calling")._value.get() == 2


async def test_the_report_tells_position_end_and_commit(lab: Lab) -> None:
    lab.liveness._reach = {TP0: Reach(3, 10)}
    lab.group.committed = {TP0: (0, "mark")}
    report = lab.liveness.report()
    partition = next(one for one in report.partitions if (one.topic, one.partition) == TP0)

    assert (partition.position, partition.end, partition.committed, partition.lag) == (3, 10, 0, 10)
    assert (report.state, report.lease, report.generation) == ("working", "valid", 1)


@pytest.mark.parametrize(("reach", "check"), [(Reach(3, 10), "partition"), (IN_HAND, "untaken"), (AT_END, "")])
async def test_the_report_tells_what_is_not_read_and_for_how_long(lab: Lab, reach: Reach, check: str) -> None:
    lab.liveness._reach = {TP0: reach}
    lab.pass_time(41)
    [partition] = (one for one in lab.liveness.report().partitions if (one.topic, one.partition) == TP0)

    assert (partition.stands_by, partition.stands_s) == (check, 40 if check else 0)


@pytest.mark.parametrize(
    ("newest", "untaken"), [pytest.param(19, 20, id="records"), pytest.param(None, 0, id="nothing but a gap")]
)
async def test_records_that_were_handed_out_and_have_not_arrived_are_in_the_report(
    lab: Lab, newest: int | None, untaken: int
) -> None:
    lab.group.shell.read = {TP0: (newest, 20)}
    lab.liveness._reach = {TP0: Reach(20, 20, fetched_s=1.0)}
    [partition] = (one for one in lab.liveness.report().partitions if (one.topic, one.partition) == TP0)

    assert (partition.untaken, partition.lag) == (untaken, 20)


async def test_records_that_have_arrived_are_not_handed_out_any_more(lab: Lab) -> None:
    lab.group.shell.read = {TP0: (0, 1)}
    await lab.send(event(0))
    await in_flight(lab, 1)
    [partition] = (one for one in lab.liveness.report().partitions if (one.topic, one.partition) == TP0)

    assert (partition.untaken, partition.unfinished) == (0, 1)


async def test_what_waits_behind_a_full_queue_does_not_stand_in_the_report(lab: Lab) -> None:
    lab.liveness._reach, lab.bench.engine.look_at = {TP0: IN_HAND}, 3
    lab.pass_time(41)
    [partition] = (one for one in lab.liveness.report().partitions if (one.topic, one.partition) == TP0)

    assert (partition.stands_by, partition.stands_s) == ("", 0)


async def test_no_payload_is_in_the_report(lab: Lab) -> None:
    await lab.send(event(0, data=b'{"secret": "hunter2"}'))
    await in_flight(lab, 1)
    assert b"hunter2" not in msgspec.json.encode(lab.liveness.report())


async def test_a_worker_that_has_not_begun_says_what_it_waits_for() -> None:
    worker = Worker(make_settings())
    worker._waits_for = ["topic t is missing"]
    report = worker._report()

    assert (report.state, report.waits_for, report.lease) == ("starting", ("topic t is missing",), "none")
    assert worker._unready() == ["waits: topic t is missing"]


@pytest.mark.parametrize(
    ("key", "shown"),
    [(None, None), (b"", ""), (b"k\n\xff", "k\\n\\xff"), (b"x" * 100, "x" * 61 + "...")],
)
def test_keys_are_shown_printable_and_short(key: bytes | None, shown: str | None) -> None:
    assert shown_key(key) == shown
