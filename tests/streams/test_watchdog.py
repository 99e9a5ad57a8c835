"""The watchdog's rules: what must hold for how long, and whether a restart would help."""

from dataclasses import replace

import pytest

from contracts.settings import WatchdogSettings, WorkerSettings
from contracts.stuck import Problem
from streams.watchdog import CHECKS, WATCH, Snapshot, Watchdog
from tests.support import FakeClock

WORKER = WorkerSettings(
    rebalance_timeout_s=90,
    drain_timeout_s=50,
    watchdog=WatchdogSettings(
        rebalance_grace_s=30,
        journal_timeout_s=120,
        progress_timeout_s=300,
        commit_timeout_s=100,
        consumer_timeout_s=30,
        loop_lag_s=5,
    ),
)
SOUND = Snapshot()
STANDS = {"t/0": 10}


class Watched:
    """A watchdog that looks every second."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._watchdog = Watchdog(WORKER, self._clock)

    def look(self, seen: Snapshot, for_s: float = 0.0) -> dict[str, bool]:
        """Return the failing checks at the end of a time: name -> whether a restart helps."""
        found = self._watchdog.look(seen)
        for _ in range(round(for_s)):
            self._clock.advance(1)
            found = self._watchdog.look(seen)
        return {problem.check: problem.restart_helps for problem in found}


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_nothing_is_wrong_with_a_sound_worker(watched: Watched) -> None:
    assert watched.look(SOUND, 10_000) == {}


# What is wrong, for how many seconds it may last, what it is called.
CASES = [
    (Snapshot(may_work=False), 120, "rebalance"),
    (Snapshot(is_loading=True), 120, "journal"),
    (Snapshot(overdue="event e"), 5, "overdue"),
    (Snapshot(waiting=1), 300, "progress"),
    (Snapshot(untaken=STANDS), 300, "untaken"),
    (Snapshot(uncommitted=STANDS), 100, "commits"),
]


@pytest.mark.parametrize(("seen", "limit_s", "check"), CASES)
def test_a_standstill_is_a_fault_at_its_limit_and_not_before(
    watched: Watched, seen: Snapshot, limit_s: int, check: str
) -> None:
    assert watched.look(seen, limit_s - 1) == {}
    assert watched.look(seen, 1) == {check: True}


@pytest.mark.parametrize(("seen", "limit_s", "check"), CASES)
def test_a_moment_without_the_condition_starts_its_time_anew(
    watched: Watched, seen: Snapshot, limit_s: int, check: str
) -> None:
    watched.look(seen, limit_s)
    assert watched.look(SOUND) == {}
    assert watched.look(seen, limit_s - 1) == {}
    assert watched.look(seen, 1) == {check: True}


@pytest.mark.parametrize(
    ("seen", "check"),
    [(Snapshot(loop_lag_s=5.1), "loop"), (Snapshot(consumer_age_s=31), "consumer")],
)
def test_what_measures_its_own_time_is_a_fault_at_once(watched: Watched, seen: Snapshot, check: str) -> None:
    assert watched.look(seen) == {check: True}
    assert watched.look(SOUND) == {}


def test_silence_of_the_brokers_is_told_and_no_restart_helps_whatever_stands_still(watched: Watched) -> None:
    seen = Snapshot(
        kafka_silent_s=25, may_work=False, is_loading=True, waiting=5, unread=STANDS, untaken=STANDS, uncommitted=STANDS
    )

    assert watched.look(seen, 10_000) == {"kafka": False}


def test_the_silence_of_the_brokers_counts_from_their_last_answer() -> None:
    [problem] = Watchdog(WORKER, FakeClock()).look(Snapshot(kafka_silent_s=41.0))

    assert problem.for_s == 41


@pytest.mark.parametrize(
    "seen",
    [
        Snapshot(waiting=5, excuse="route r is paused: provider_unavailable"),
        Snapshot(waiting=0),
        Snapshot(waiting=5, is_wanted=False),
    ],
)
def test_events_that_have_a_reason_to_wait_are_no_fault(watched: Watched, seen: Snapshot) -> None:
    assert watched.look(seen, 10_000) == {}


def test_a_limit_shorter_than_the_knowledge_of_the_brokers_silence_waits_for_it() -> None:
    """The lease ends before it is known that no broker answers; that is not the worker's fault."""
    watchdog = Watchdog(WORKER.model_copy(update={"rebalance_timeout_s": -30.0}), clock := FakeClock())
    watchdog.look(Snapshot(may_work=False))
    clock.advance(29)

    assert watchdog.look(Snapshot(may_work=False)) == ()
    assert [one.check for one in watchdog.look(Snapshot(may_work=False, kafka_silent_s=25))] == ["kafka"]


def test_one_event_that_starts_or_ends_is_progress(watched: Watched) -> None:
    watched.look(Snapshot(waiting=9, moves=1), 299)
    assert watched.look(Snapshot(waiting=9, moves=2), 299) == {}
    assert watched.look(Snapshot(waiting=9, moves=2), 1) == {"progress": True}


def test_one_commit_is_progress_of_its_partition(watched: Watched) -> None:
    watched.look(Snapshot(uncommitted={"t/0": 1}), 99)

    assert watched.look(Snapshot(uncommitted={"t/0": 2}), 99) == {}


def test_a_partition_whose_broker_gives_nothing_is_told_and_no_restart_helps(watched: Watched) -> None:
    seen = Snapshot(unread=STANDS)

    assert watched.look(seen, 299) == {}
    assert watched.look(seen, 1) == {"partition": False}
    assert watched.look(replace(seen, unread={"t/0": 11})) == {}


@pytest.mark.parametrize(
    ("field", "check"), [("unread", "partition"), ("untaken", "untaken"), ("uncommitted", "commits")]
)
def test_what_goes_on_elsewhere_is_no_progress_of_a_partition_that_stands(field: str, check: str) -> None:
    watchdog, problems = Watchdog(WORKER, clock := FakeClock()), tuple[Problem, ...]()
    for moved in range(301):
        seen = replace(Snapshot(moves=moved, waiting=9), **{field: {"t/0": 10, "t/1": moved}})  # type: ignore[arg-type]
        problems = watchdog.look(seen)
        clock.advance(1)

    assert [(one.check, one.detail.partition(":")[0]) for one in problems] == [(check, "t/0")]
    assert watchdog.lasting_s(check) == {"t/0": 301.0, "t/1": 1.0}


def test_partitions_that_stand_one_after_the_other_do_not_add_up(watched: Watched) -> None:
    assert watched.look(Snapshot(untaken={"t/0": 10}), 200) == {}
    assert watched.look(Snapshot(untaken={"t/1": 10}), 200) == {}


def test_time_in_which_somebody_waits_for_room_does_not_count(watched: Watched) -> None:
    seen, waits = Snapshot(untaken=STANDS), Snapshot(untaken=STANDS, waits_for_room=True)
    watched.look(seen, 299)
    assert watched.look(waits, 10_000) == {}
    assert watched.look(seen, 299) == {}
    assert watched.look(seen, 1) == {"untaken": True}


def test_time_between_waits_for_room_adds_up_to_four_times_the_limit(watched: Watched) -> None:
    seen, waits = Snapshot(untaken=STANDS), Snapshot(untaken=STANDS, waits_for_room=True)
    for _ in range(12):
        assert watched.look(seen, 99) == {}
        assert watched.look(waits, 1) == {}

    assert watched.look(seen, 11) == {}
    assert watched.look(seen, 1) == {"untaken": True}
    assert watched.look(waits, 1000) == {"untaken": True}
    assert watched.look(replace(seen, untaken={"t/0": 11}), 299) == {}


def test_several_partitions_that_stand_are_one_problem() -> None:
    watchdog = Watchdog(WORKER, clock := FakeClock())
    watchdog.look(Snapshot(unread={"t/0": 10}))
    clock.advance(1)
    seen = Snapshot(unread={"t/1": 10, "t/0": 10, "t/2": 10})
    watchdog.look(seen)
    clock.advance(300)
    [problem] = watchdog.look(seen)

    assert (problem.detail, problem.for_s) == ("t/0 and 2 more: its broker gives no records, and there are some", 301)


def test_without_a_place_in_the_group_only_that_is_told(watched: Watched) -> None:
    seen = Snapshot(
        may_work=False, is_loading=True, waiting=5, unread=STANDS, untaken=STANDS, uncommitted=STANDS, overdue="event e"
    )

    assert watched.look(seen, 10_000) == {"rebalance": True}


def test_a_worker_that_stops_is_not_expected_in_its_group(watched: Watched) -> None:
    seen = Snapshot(is_wanted=False, may_work=False, is_loading=True, consumer_age_s=1000)

    assert watched.look(seen, 10_000) == {}


def test_every_check_can_fail() -> None:
    seen = [case[0] for case in CASES] + [
        replace(SOUND, loop_lag_s=9), replace(SOUND, consumer_age_s=99), replace(SOUND, kafka_silent_s=25),
        replace(SOUND, unread=STANDS),
    ]  # fmt: skip

    # What watches the watch is no rule: see test_liveness.py.
    assert {check for one in seen for check in Watched().look(one, 1000)} == set(CHECKS) - {WATCH}


def test_results_that_are_looked_through_are_progress_of_the_books(watched: Watched) -> None:
    """A group whose commits Kafka forgot may have millions of them; a restart would begin with the first again."""
    watched.look(Snapshot(is_loading=True, loaded=500), 119)
    assert watched.look(Snapshot(is_loading=True, loaded=1000), 119) == {}
    assert watched.look(Snapshot(is_loading=True, loaded=1000), 1) == {"journal": True}
