"""The engine and the group: books, claims, commits, hand-over."""

import asyncio
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest

from contracts.codec import Position
from contracts.errors import LogUnavailable
from contracts.metrics import REGISTRY
from contracts.repetition import identify
from contracts.settings import WorkerSettings
from streams import membership as membership_module
from streams.engine.dispatcher import Slot
from streams.engine.engine import Engine
from streams.engine.item import TP, Item, ResultRef
from streams.engine.mark import Mark, decode_mark
from streams.engine.repeats import First, Repeats
from streams.engine.tenure import Tenure
from streams.engine.work import Limits
from streams.log_ends import Run
from streams.membership import Membership
from streams.recall import Recall
from streams.shell import Shell
from streams.tail import Tail, TailReader
from tests.streams.engine.support import answers
from tests.support import eventually_async

TP0 = TP("events", 0)
RESULTS = "results"
IDENTITY = identify("", "s", "e", b"1", "id", 60)


class FakeShell:
    """The group's state, and what was committed in which order with everything else."""

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.offsets: dict[TP, tuple[int, str]] = {}
        self.refusals = 0
        self.is_member = True
        self.faults: list[Exception] = []
        self.positions: dict[TP, tuple[int | None, int]] = {}
        self.rejoins = 0
        self.end = 10
        self.epochs: dict[TP, tuple[Run, ...]] = {}
        self.epoch_end: dict[TP, int] = {}
        self.epoch_ends_told: list[int] = []
        self.epochs_asked: list[dict[TP, int]] = []
        self.read_before: dict[TP, tuple[int, int]] = {}

    def is_valid(self, _generation: int) -> bool:
        return self.is_member

    async def committed(self, tps: frozenset[TP]) -> dict[TP, tuple[int, str] | None]:
        if self.faults:
            raise self.faults.pop(0)
        return {tp: self.offsets.get(tp) for tp in tps}

    def let_read(self, restarts: Mapping[TP, int], read: Mapping[TP, tuple[int, int]]) -> None:
        self.read_before = dict(read)
        if restarts:
            self.log.append(("restart", dict(restarts)))

    def rejoin(self) -> None:
        self.rejoins += 1

    async def commit(self, offsets: Mapping[TP, tuple[int, str]]) -> bool:
        if self.refusals:
            self.refusals -= 1
            return False
        self.log.append(("commit", dict(offsets)))
        self.offsets.update(offsets)
        return True

    def high_watermark(self, _tp: TP) -> int | None:
        return self.end

    async def ends(self, tps: frozenset[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, self.end)

    def runs(self) -> dict[TP, tuple[Run, ...]]:
        return self.epochs

    async def epoch_ends(self, epochs: Mapping[TP, int]) -> dict[TP, int]:
        self.epochs_asked.append(dict(epochs))
        if self.epoch_ends_told:
            self.epoch_end = dict.fromkeys(epochs, self.epoch_ends_told.pop(0))
        return {tp: self.epoch_end[tp] for tp in epochs if tp in self.epoch_end}

    def read_to(self) -> dict[TP, tuple[int | None, int]]:
        return self.positions


class FakeTail:
    """What lies on the result topic."""

    def __init__(self, log: list[object]) -> None:
        self.log = log
        self.result_topics = frozenset({RESULTS})
        self.answered: dict[tuple[int, int], ResultRef] = {}
        self.furthest = 0
        self.limit = 2**63
        # From where on answers are looked for that lie behind no mark.
        self.since = 0
        # Partitions whose commit was not believed.
        self.begun_again: list[TP] = []
        self.source = (3, 1000)
        self.sources: list[tuple[int, int]] = []
        self.known: dict[str, int] = {}
        self.asked: list[frozenset[str]] = []
        # Of result partitions.
        self.now: dict[TP, int] = {}
        self.gate: threading.Event | None = None
        self.fault: Exception | None = None

    def read(self, wanted: Mapping[TP, tuple[int, dict[str, int] | None]]) -> dict[TP, Tail]:
        self.log.append(("tail", dict(wanted)))
        self.source = self.sources.pop(0) if self.sources else self.source
        return {
            tp: Tail(
                answers({place: ref for place, ref in self.answered.items() if place[0] >= offset}, self.limit),
                dict.fromkeys(self.result_topics, 30 if starts is None else 20),
                dict.fromkeys(self.result_topics, 30),
                self.source,
            )
            for tp, (offset, starts) in wanted.items()
        }

    def begins(self, logs: Mapping[TP, int], fresh: Container[TP]) -> dict[TP, dict[str, int]]:
        self.begun_again += [tp for tp in logs if tp not in fresh]
        return {tp: dict.fromkeys(self.result_topics, self.since) for tp in logs}

    def ids(self, topics: Iterable[str]) -> dict[str, int]:
        self.asked.append(frozenset(topics))
        return dict(self.known)

    def ends(self, places: Iterable[TP]) -> dict[TP, int]:
        self.log.append(("ends", tuple(places)))
        if self.fault:
            raise self.fault
        if self.gate:
            self.gate.wait(5)
        return self.now


class FakeRecall:
    """What lies before the commit points."""

    def __init__(self) -> None:
        self.asked: list[Mapping[TP, tuple[int, int]]] = []
        self.faults: list[Exception] = []
        self.window = Repeats(10)

    def read(self, wanted: Mapping[TP, tuple[int, int]]) -> dict[TP, Repeats]:
        self.asked.append(dict(wanted))
        if self.faults:
            raise self.faults.pop(0)
        return dict.fromkeys(wanted, self.window)


class Bench:
    """A membership over stand-ins; work is instant and noted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(membership_module, "_RETRY_S", 0.01)
        self.log: list[object] = []
        self.crashes: list[BaseException] = []
        self.shell = FakeShell(self.log)
        self.tail = FakeTail(self.log)
        self.replayed: list[int] = []
        self.engine = Engine(
            self._work,
            Limits(8, 100, 100, 10**6, 100),
            ("standard",),
            self.crashes.append,
            replayed=lambda item: self.replayed.append(item.position.offset),
        )
        self.blocked: asyncio.Event | None = None
        settings = WorkerSettings(drain_timeout_s=0.2, rebalance_timeout_s=5, commit_interval_s=0.05)
        self.recall = FakeRecall()
        self.open_at_probes: list[bool] = []
        self.probe_faults: list[Exception] = []
        self.membership = Membership(
            self.engine,
            cast("TailReader", self.tail),
            settings,
            self.crashes.append,
            cast("Recall", self.recall),
            self._probe,
        )
        self.membership.attach(cast("Shell", self.shell))

    async def _probe(self, _timeout_s: float) -> None:
        self.open_at_probes.append(self.engine.is_open)
        if self.probe_faults:
            raise self.probe_faults.pop(0)

    async def _work(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:  # noqa: ARG002 - the protocol
        if self.blocked is not None:
            await self.blocked.wait()
        self.log.append(("work", item.position.offset))
        return ResultRef(RESULTS, 30 + item.position.offset)

    def assign(self, generation: int = 1) -> None:
        self.membership.coming(generation)
        self.membership.assigned(frozenset({TP0}), generation)

    async def submit(self, offset: int, generation: int = 1) -> bool:
        return await self.engine.submit(Item(Position(*TP0, offset, 1000), None, "standard", 1, None), generation)

    async def idle(self) -> None:
        await eventually_async(lambda: not self.engine.held)

    async def work_on(self, *offsets: int, generation: int = 1) -> None:
        """Let events come, end, and be committed."""
        for offset in offsets:
            await self.submit(offset, generation)
        await self.idle()
        await self.membership.commit()

    async def opened(self, metadata: str = "", known: Mapping[str, int] | None = None) -> None:
        """Assign the partition and wait until it is worked on.

        Args:
            metadata: of the commit at offset 5; without one there is none.
            known: the topics' ids that are heard of meanwhile.
        """
        if metadata:
            self.shell.offsets[TP0] = (5, metadata)
        self.tail.known = dict(known or {})
        self.assign()
        await eventually_async(lambda: self.engine.is_open)

    async def mark_after(self, metadata: str, known: Mapping[str, int]) -> Mark:
        """Return what is committed behind the event at offset 5, whose commit had this metadata."""
        self.shell.offsets[TP0] = (5, metadata)
        self.tail.known = dict(known)
        self.assign()
        await self.work_on(5)
        offset, written = self.shell.offsets[TP0]
        mark = decode_mark(written)

        assert offset == 6
        assert mark is not None
        return mark

    async def rejoins_at(self, now: Mapping[str, int]) -> int:
        """Return how often the group is joined anew when topics have these ids by now."""
        self.tail.known = dict(now)
        await self.membership.look_for_new_logs()
        return self.shell.rejoins


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_a_partition_without_a_commit_is_claimed_before_the_first_call(bench: Bench) -> None:
    """A crash right after the first call then finds its answer."""
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    assert bench.log == [
        ("tail", {TP0: (0, None)}), ("tail", {TP0: (3, {RESULTS: 0})}),
        ("commit", {TP0: (3, "penstock1 !former=1 results=20")}),
        ("work", 3),
    ]  # fmt: skip


async def test_what_is_answered_is_not_called_again_where_commits_are_forgotten(bench: Bench) -> None:
    """As those of a group that was away for a week; an answer behind the end of the log is of a former one."""
    bench.tail.source = (3, 6)
    bench.tail.answered = {
        (3, 1000): ResultRef(RESULTS, 21),
        (5, 1000): ResultRef(RESULTS, 22),
        (9, 1000): ResultRef(RESULTS, 7),
    }
    bench.assign()
    await bench.work_on(3, 4, 5)

    assert [entry for entry in bench.log if entry[0] == "work"] == [("work", 4)]  # type: ignore[index]
    assert bench.shell.offsets[TP0] == (6, "penstock1 results=35")


async def test_answers_beyond_what_is_kept_are_looked_for_when_the_events_before_them_have_come(bench: Bench) -> None:
    """By a new assignment: from the commit on, and from where the first one lies that was left out."""
    bench.tail.limit = 1
    bench.tail.source = (3, 2000)
    bench.tail.answered = {(3, 1000): ResultRef(RESULTS, 21), (1500, 1000): ResultRef(RESULTS, 27)}
    bench.assign()
    await bench.work_on(3, 4)
    intake = asyncio.ensure_future(bench.submit(1500))
    running = asyncio.ensure_future(bench.membership.run())
    await eventually_async(lambda: bench.shell.rejoins > 0)
    running.cancel()
    await bench.membership.hand_over()

    assert await intake is False
    assert bench.shell.offsets[TP0] == (1500, "penstock1 !former=1 results=27")

    bench.assign(2)
    await bench.work_on(1500, 1501, generation=2)

    assert [entry for entry in bench.log if entry[0] == "work"] == [("work", 4), ("work", 1501)]  # type: ignore[index]


async def test_answers_of_a_former_log_are_forgotten_in_every_window_and_the_mark_does_not_wait_for_them(
    bench: Bench,
) -> None:
    """Window by window the commit is our own; only the mark tells whose answers may lie there."""
    bench.tail.limit, bench.tail.source = 1, (0, 1200)
    former = [(0, 500), (1030, -1), (1100, 500), (2048, 500), (4000, 500)]
    bench.tail.answered = {place: ResultRef(RESULTS, 21 + number) for number, place in enumerate(former)}
    await bench.opened("penstock1 !log=7 results=25", {"events": 8})
    await bench.work_on(0)
    running = asyncio.ensure_future(bench.membership.run())
    untimed = Item(Position(*TP0, 1030, -1), None, "standard", 1, None)
    intake = asyncio.ensure_future(bench.engine.submit(untimed, 1))
    await eventually_async(lambda: bench.shell.rejoins > 0)
    running.cancel()
    await bench.membership.hand_over()

    assert await intake is False
    assert bench.shell.offsets[TP0] == (1030, "penstock1 !log=8 !former=1 results=22")

    bench.assign(2)
    await bench.engine.submit(untimed, 2)
    await bench.work_on(1199, 2500, generation=2)

    assert [entry for entry in bench.log if entry[0] == "work"] == [  # type: ignore[index]
        ("work", 0), ("work", 1030), ("work", 1199), ("work", 2500),
    ]  # fmt: skip
    assert bench.shell.offsets[TP0] == (2501, "penstock1 !log=8 results=2531")
    assert len(bench.engine.idle()) == 1


async def test_of_a_log_that_was_cut_answers_behind_its_end_stay_in_every_window(bench: Bench) -> None:
    """It may still be that it only seemed so; those without a timestamp may be another event's all the same."""
    bench.tail.source, bench.tail.known = (0, 8), {"events": 7}
    bench.tail.answered = {(6, -1): ResultRef(RESULTS, 21), (9, 1000): ResultRef(RESULTS, 22)}
    await bench.opened("penstock1 !log=7 !former=2 results=20", {"events": 7})
    await bench.engine.submit(Item(Position(*TP0, 6, -1), None, "standard", 1, None), 1)
    await bench.work_on(8, 9)

    assert [entry for entry in bench.log if entry[0] == "work"] == [("work", 6), ("work", 8)]  # type: ignore[index]


@pytest.mark.parametrize(("cut_while", "kind"), [("former answers wait", 1), ("none waits", 2)])
async def test_a_log_that_is_cut_while_answers_of_a_former_one_wait_has_none_of_them_behind_its_end(
    bench: Bench, cut_while: str, kind: int
) -> None:
    bench.tail.source = (0, 10)
    bench.tail.answered = {(4, 500): ResultRef(RESULTS, 21)}
    await bench.opened("penstock1 !log=7 results=25", {"events": 8})
    await bench.work_on(*((0,) if kind == 1 else (0, 5)))
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins > 0)

    assert bench.shell.offsets[TP0] == (0, f"penstock1 !log=8 !former={kind} results=0"), cut_while


async def test_without_a_commit_answers_are_looked_for_from_the_time_of_the_first_event_on(bench: Bench) -> None:
    """Weeks of results lie before those of a lane that was switched on today."""
    bench.tail.since = 12
    await bench.opened()

    assert bench.log[:2] == [("tail", {TP0: (0, None)}), ("tail", {TP0: (3, {RESULTS: 12})})]


async def test_every_assignment_begins_to_count_what_it_has_looked_through(bench: Bench) -> None:
    bench.tail.furthest = 500
    bench.assign()

    assert bench.tail.furthest == 0


async def test_a_log_without_records_has_no_answers_to_look_for(bench: Bench) -> None:
    """A lane that is new beside others, whose results are many."""
    bench.tail.source = (3, 3)
    await bench.opened()

    assert bench.log == [("tail", {TP0: (0, None)}), ("commit", {TP0: (3, "penstock1 results=30")})]


async def test_a_commit_of_another_log_is_not_believed_and_what_is_answered_stays_answered(bench: Bench) -> None:
    """A commit that comes late, behind the end of a topic made anew: Faust would drop every record below it."""
    bench.shell.offsets[TP0] = (172, "penstock1 !replay=90 !floor=31 results=25")
    bench.tail.source = (0, 3)
    bench.tail.answered = {(1, 1000): ResultRef(RESULTS, 7)}
    bench.assign()
    await bench.work_on(0, 1, 2)

    assert bench.log == [
        *[("tail", {TP0: (172, {RESULTS: 25})})] * 3,
        ("tail", {TP0: (0, {RESULTS: 0})}),
        ("commit", {TP0: (0, "penstock1 !former=2 results=20")}),
        ("restart", {TP0: 0}),
        ("work", 0),
        ("work", 2),
        ("commit", {TP0: (3, "penstock1 results=33")}),
    ]


@pytest.mark.parametrize("short", [1, 2])
async def test_a_log_that_ends_before_its_commit_for_a_moment_is_read_on_at_the_commit(
    bench: Bench, short: int
) -> None:
    """As while its leader is settling, say; two moments in a row make no log that was cut."""
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 results=25")
    bench.tail.known = {"events": 7}
    bench.tail.sources = [(0, 3)] * short + [(0, 172)]
    bench.assign()
    await bench.work_on(172)

    assert bench.log[:-1] == [*[("tail", {TP0: (172, {RESULTS: 25})})] * (short + 1), ("work", 172)]
    assert bench.shell.offsets[TP0][0] == 173


async def test_answers_behind_the_end_of_a_log_that_was_cut_are_not_forgotten(bench: Bench) -> None:
    """It may be that it only seemed so: a longer scan costs less than a call."""
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 results=25")
    bench.tail.known = {"events": 7}
    bench.tail.source = (0, 3)
    bench.tail.answered = {(1, 1000): ResultRef(RESULTS, 7), (4, 1000): ResultRef(RESULTS, 8)}
    bench.assign()
    await bench.work_on(0, 1, 2, 3, 4)

    assert [entry for entry in bench.log if entry[0] == "work"] == [("work", 0), ("work", 2), ("work", 3)]  # type: ignore[index]


async def test_a_commit_of_a_former_topic_is_not_believed_however_long_the_new_log_is(bench: Bench) -> None:
    """The log has grown beyond the commit: only its id tells that it is another one."""
    bench.shell.offsets[TP0] = (172, "penstock1 !replay=190 !floor=31 !log=7 results=25")
    bench.tail.source = (0, 1000)
    bench.tail.known = {"events": 8}
    bench.tail.answered = {(1, 1000): ResultRef(RESULTS, 7), (1000, 1000): ResultRef(RESULTS, 8)}
    bench.assign()
    await bench.work_on(0, 1, 2)

    assert bench.log == [
        ("tail", {TP0: (172, {RESULTS: 25})}),
        ("tail", {TP0: (0, {RESULTS: 0})}),
        ("commit", {TP0: (0, "penstock1 !log=8 !former=1 results=20")}),
        ("restart", {TP0: 0}),
        ("work", 0),
        ("work", 2),
        ("commit", {TP0: (3, "penstock1 !log=8 results=33")}),
    ]
    assert bench.replayed == []


async def test_of_a_topic_that_was_made_anew_answers_are_looked_for_from_the_time_of_its_first_event_on(
    bench: Bench,
) -> None:
    """Weeks of results may lie before it, and events wait for the scan."""
    bench.tail.since, bench.tail.source = 12, (0, 3)
    await bench.opened("penstock1 !log=7 results=25", {"events": 8})

    assert bench.log[:2] == [("tail", {TP0: (5, {RESULTS: 25})}), ("tail", {TP0: (0, {RESULTS: 12})})]
    assert bench.tail.begun_again == [TP0]


async def test_a_topic_that_was_made_anew_and_is_empty_has_no_answers_to_look_for(bench: Bench) -> None:
    bench.tail.source = (0, 0)
    await bench.opened("penstock1 !log=7 results=25", {"events": 8})

    assert bench.log[1] == ("tail", {TP0: (0, {})})


async def test_of_a_log_that_was_cut_under_us_answers_are_looked_for_once_and_not_before_its_first_event(
    bench: Bench,
) -> None:
    bench.tail.since = 12
    await bench.opened("penstock1 !log=7 results=25", {"events": 7})
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins == 1)
    await bench.membership.hand_over()
    bench.log.clear()
    bench.assign(2)
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.log[:2] == [("tail", {TP0: (0, None)}), ("tail", {TP0: (3, {RESULTS: 12})})]


@pytest.mark.parametrize(
    ("metadata", "works"),
    [
        pytest.param("", True, id="no commit"),
        pytest.param("penstock1 !log=8 results=25", True, id="of a former topic"),
        pytest.param("penstock1 !log=7 !read=5 !epoch=4 results=25", True, id="of a log that was cut"),
        pytest.param("penstock1 !log=7 results=25", False, id="of this log"),
    ],
)
async def test_an_answer_without_a_timestamp_may_be_of_a_former_log_and_no_event_is_left_out_for_it(
    bench: Bench, metadata: str, *, works: bool
) -> None:
    """Old clients write none: nothing but the offset tells their events apart."""
    bench.tail.source, bench.shell.epoch_end = (5, 10), {TP0: 3}
    bench.tail.answered = {(5, -1): ResultRef(RESULTS, 27)}
    await bench.opened(metadata, {"events": 7})
    await bench.engine.submit(Item(Position(*TP0, 5, -1), None, "standard", 1, None), 1)
    await bench.idle()

    assert (("work", 5) in bench.log) is works


def lost() -> float:
    return REGISTRY.get_sample_value("penstock_kafka_lost_records_total", {"topic": "events"}) or 0.0


@pytest.mark.parametrize(
    ("now", "told", "counted"), [({"events": 7}, "lost this many records", 3), ({}, "or is another one", 0)]
)
async def test_a_log_that_loses_its_end_under_us_is_begun_again(
    bench: Bench, capsys: pytest.CaptureFixture[str], now: dict[str, int], told: str, counted: int
) -> None:
    """Committed at once: who comes after a crash may find a log that has grown beyond the former commit."""
    before = lost()
    await bench.opened("penstock1 !replay=90 !floor=4 !log=7 results=25", {"events": 7})
    await bench.work_on(5, 6, 7, 8)
    bench.shell.end = 6
    bench.tail.known = now
    bench.membership.went_back(TP0)
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins > 0)

    assert bench.shell.offsets == {TP0: (0, "penstock1 !log=7 !former=2 results=0")}
    assert not await bench.submit(9), "it has no books until they are loaded anew"
    await bench.membership.hand_over()
    output = "".join(capsys.readouterr())
    assert bench.shell.rejoins == 1
    assert bench.shell.offsets[TP0][0] == 0
    assert (output.count("log.cut"), output.count(told), lost() - before) == (1, 1, counted)


async def test_a_log_that_was_cut_and_has_grown_past_its_commit_is_read_from_its_beginning(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the epoch of its leader tells: the records below the commit are others by now."""
    before = lost()
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 !read=170 !epoch=4 results=25")
    bench.shell.epoch_end[TP0] = 160
    bench.tail.source, bench.tail.known = (0, 1000), {"events": 7}
    bench.tail.answered = {(1, 1000): ResultRef(RESULTS, 7)}
    bench.assign()
    await bench.work_on(0, 1, 2)

    assert bench.shell.epochs_asked == [{TP0: 4}] * 3
    assert bench.log == [
        *[("tail", {TP0: (172, {RESULTS: 25})})] * 3,
        ("tail", {TP0: (0, {RESULTS: 0})}),
        ("commit", {TP0: (0, "penstock1 !log=7 !former=2 results=20")}),
        ("restart", {TP0: 0}),
        ("work", 0),
        ("work", 2),
        ("commit", {TP0: (3, "penstock1 !log=7 results=33")}),
    ]
    output = "".join(capsys.readouterr())
    assert (output.count("log.cut"), "end=160 lost=10 offset=170" in output, lost() - before) == (1, True, 10)
    assert bench.shell.read_before == {}


async def test_a_log_whose_leader_tells_of_an_end_that_is_too_low_for_a_moment_is_read_on_at_the_commit(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that has just begun to lead may not know better yet."""
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 !read=170 !epoch=4 results=25")
    bench.shell.epoch_ends_told = [160, 160, 170]
    bench.tail.known = {"events": 7}
    bench.assign()
    await bench.work_on(172)

    assert ("work", 172) in bench.log
    assert "log.cut" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("end", [{TP0: 170}, {}])
async def test_a_log_that_has_what_was_read_of_it_or_may_have_is_read_on_at_the_commit(
    bench: Bench, end: dict[TP, int]
) -> None:
    bench.shell.epoch_end = end
    bench.tail.known = {"events": 7}
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 !read=170 !epoch=4 results=25")
    bench.assign()
    await bench.work_on(172)

    assert ("work", 172) in bench.log
    assert bench.shell.read_before == {TP0: (170, 4)}
    assert bench.shell.offsets[TP0] == (173, "penstock1 !log=7 !read=170 !epoch=4 results=203")


async def test_a_commit_carries_the_epoch_of_what_was_read_below_it(bench: Bench) -> None:
    await bench.opened("penstock1 !read=5 !epoch=1 results=25")
    bench.shell.epochs[TP0] = (Run(5, 5, 1), Run(6, 9, 3))
    await bench.work_on(5)
    first = bench.shell.offsets[TP0]
    await bench.work_on(6, 7)

    assert (first, bench.shell.offsets[TP0]) == (
        (6, "penstock1 !read=6 !epoch=1 results=36"),
        (8, "penstock1 !read=8 !epoch=3 results=38"),
    )


async def test_how_much_is_lost_of_a_log_that_has_grown_again_is_known_from_the_epoch(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    await bench.opened("penstock1 !log=7 results=25", {"events": 7})
    bench.shell.epochs[TP0], bench.shell.epoch_end[TP0] = (Run(5, 8, 3),), 6
    await bench.work_on(5, 6, 7, 8)
    bench.shell.end = 100
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins > 0)

    assert "end=6 lost=3 offset=9" in "".join(capsys.readouterr())


async def test_what_is_answered_of_a_log_that_lost_its_end_is_not_called_again(bench: Bench) -> None:
    """It begins where the log does now. An answer of an event that is gone holds the mark back until it is passed."""
    await bench.opened("penstock1 !log=7 results=25", {"events": 7})
    await bench.work_on(5, 6, 7, 8)
    bench.shell.end = 6
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins == 1)
    await bench.membership.hand_over()
    bench.tail.source = (3, 8)
    bench.tail.answered = {(offset, 1000): ResultRef(RESULTS, 20 + offset) for offset in (3, 4, 5, 7, 8)}
    bench.log.clear()
    bench.assign(2)
    await bench.work_on(3, 4, 5, 6, generation=2)
    await bench.engine.submit(Item(Position(*TP0, 7, 2000), None, "standard", 1, None), 2)
    await bench.work_on(generation=2)

    assert [entry for entry in bench.log if entry[0] != "commit"] == [  # type: ignore[index]
        ("tail", {TP0: (0, None)}), ("tail", {TP0: (3, {RESULTS: 0})}), ("restart", {TP0: 3}),
        ("work", 6), ("work", 7),
    ]  # fmt: skip
    assert bench.shell.offsets[TP0] == (8, "penstock1 !floor=3 !log=7 !former=2 results=23")


async def test_the_claim_of_a_log_that_lost_its_end_is_not_given_up_before_the_group_has_it(bench: Bench) -> None:
    await bench.opened("penstock1 results=25")
    await bench.work_on(5, 6, 7, 8)
    bench.shell.refusals = 2
    bench.membership.went_back(TP0)
    await eventually_async(lambda: bench.shell.rejoins == 1)
    await bench.membership.hand_over()
    at_the_hand_over = bench.shell.offsets[TP0][0]
    bench.assign(2)
    await bench.work_on(3, generation=2)

    # The consumer itself goes to what the group had.
    assert ("restart", {TP0: 3}) in bench.log
    assert at_the_hand_over == 9
    assert bench.shell.offsets[TP0][0] == 4
    assert bench.membership._anew == {}


async def test_a_log_that_loses_its_end_again_in_the_next_assignment_is_begun_again_too(bench: Bench) -> None:
    """The question for the ids of the first time is still under way: the second must not wait for nobody."""
    await bench.opened("penstock1 !log=7 results=25", {"events": 7})
    await bench.work_on(5, 6)
    asked, answer = threading.Event(), threading.Event()
    usual = bench.tail.ids

    def slow(topics: Iterable[str]) -> dict[str, int]:
        asked.set()
        answer.wait(5)
        return usual(topics)

    bench.tail.ids = slow  # type: ignore[method-assign]
    bench.membership.went_back(TP0)
    await eventually_async(asked.is_set)
    bench.tail.ids = usual  # type: ignore[method-assign]
    await bench.membership.hand_over()
    bench.assign(2)
    await bench.work_on(3, 4, 5, generation=2)
    bench.membership.went_back(TP0)
    answer.set()

    await eventually_async(lambda: bench.shell.rejoins == 1)


async def test_a_commit_behind_the_end_of_a_known_log_says_how_much_is_lost(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lost()
    bench.tail.source = (0, 3)
    # The same loss is found again then, and is no further one.
    bench.shell.refusals = 2
    await bench.opened("penstock1 !log=7 results=25", {"events": 7})

    assert lost() - before == 2
    assert "lost this many records" in "".join(capsys.readouterr())


async def test_the_restart_is_committed_before_anything_is_read(bench: Bench) -> None:
    """Faust goes to the commits by itself, and the next owner does."""
    bench.shell.offsets[TP0] = (172, "penstock1 !log=7 results=25")
    bench.tail.known = {"events": 8}
    bench.shell.refusals = 1
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    kinds = [entry[0] for entry in bench.log]  # type: ignore[index]
    assert kinds == ["tail", "tail", "tail", "tail", "commit", "restart", "work"]


@pytest.mark.parametrize(
    ("metadata", "known", "written"),
    [
        ("penstock1 results=17", {"events": 8}, 8),
        ("penstock1 !log=8 results=17", {"events": 8}, 8),
        ("penstock1 !log=8 results=17", {}, 8),
        ("penstock1 results=17", {}, 0),
        ("", {"events": 8}, 8),
    ],
)
async def test_a_commit_of_this_log_or_of_an_unknown_one_is_believed(
    bench: Bench, metadata: str, known: dict[str, int], written: int
) -> None:
    assert (await bench.mark_after(metadata, known)).log == written


async def test_a_commit_carries_the_id_that_the_log_had_at_the_assignment(bench: Bench) -> None:
    """What was read belongs to that one, whatever the topic is by now."""
    bench.tail.known = {"events": 7}
    bench.shell.faults = [LogUnavailable("away")]
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)
    bench.tail.known = {"events": 8}
    await bench.submit(3)
    await bench.idle()
    await bench.membership.hand_over()

    assert bench.shell.offsets[TP0] == (4, "penstock1 !log=7 results=34")


async def test_each_assignment_asks_which_log_a_topic_is(bench: Bench) -> None:
    bench.tail.known = {"events": 7}
    bench.assign()
    await bench.submit(3)
    await bench.idle()
    await bench.membership.hand_over()
    bench.tail.known = {"events": 8}
    bench.assign(2)
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.log[-1] == ("restart", {TP0: 3})
    assert bench.shell.offsets[TP0] == (3, "penstock1 !floor=3 !log=8 !former=1 results=20")


async def test_the_first_id_that_is_heard_of_stays_while_the_books_are_waited_for(bench: Bench) -> None:
    bench.tail.known = {"events": 7}
    bench.shell.refusals = 1_000_000
    bench.assign()
    await eventually_async(lambda: len(bench.tail.asked) > 1)
    bench.tail.known = {"events": 8}
    asked = len(bench.tail.asked)
    await eventually_async(lambda: len(bench.tail.asked) > asked + 1)
    bench.shell.refusals = 0
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.shell.offsets[TP0] == (3, "penstock1 !log=7 !former=1 results=20")


async def test_the_ids_of_all_topics_are_one_question(bench: Bench) -> None:
    tps = frozenset(TP(topic, number) for number in range(16) for topic in ("events", "retries"))
    bench.membership.coming(1)
    bench.membership.assigned(tps, 1)
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.tail.asked == [frozenset({"events", "retries", RESULTS})]


@pytest.mark.parametrize(("now", "rejoins"), [({"events": 8}, 1), ({"events": 7}, 0), ({}, 0)])
async def test_a_topic_that_is_made_anew_under_us_is_assigned_anew(
    bench: Bench, now: dict[str, int], rejoins: int
) -> None:
    await bench.opened(known={"events": 7})

    assert await bench.rejoins_at(now) == rejoins


async def test_a_topic_whose_id_was_not_heard_of_at_the_assignment_is_compared_with_the_mark(bench: Bench) -> None:
    await bench.opened("penstock1 !log=7 results=17")

    assert await bench.rejoins_at({"events": 8}) == 1


@pytest.mark.parametrize("logs", [(7, 8), (8, 7)])
async def test_commits_of_different_logs_of_one_topic_are_each_compared(bench: Bench, logs: tuple[int, int]) -> None:
    """No id was heard of at the assignment, and only one partition has a commit of the topic that was made anew."""
    tps = (TP0, TP("events", 1))
    for tp, log in zip(tps, logs, strict=True):
        bench.shell.offsets[tp] = (5, f"penstock1 !log={log} results=17")
    bench.membership.coming(1)
    bench.membership.assigned(frozenset(tps), 1)
    await eventually_async(lambda: bench.engine.is_open)

    assert await bench.rejoins_at({"events": 8}) == 1


async def test_a_mark_of_a_former_result_topic_has_all_answers_of_this_one_looked_through(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    """They may lie below the offset that the mark has in the former one."""
    bench.shell.offsets[TP0] = (5, "penstock1 !log=7 !log:results=1 results=17")
    bench.tail.known = {"events": 7, RESULTS: 2}
    bench.tail.answered = {(5, 1000): ResultRef(RESULTS, 3)}
    bench.assign()
    await bench.work_on(5, 6)

    assert bench.log == [
        ("tail", {TP0: (5, {RESULTS: 0})}),
        ("work", 6),
        ("commit", {TP0: (7, "penstock1 !log=7 !log:results=2 results=37")}),
    ]
    assert sum("mark.foreign" in line for line in "".join(capsys.readouterr()).splitlines()) == 1


async def test_only_the_result_topic_that_was_made_anew_is_read_from_its_beginning(bench: Bench) -> None:
    bench.tail.result_topics = frozenset({RESULTS, "own"})
    bench.shell.offsets[TP0] = (5, "penstock1 !log:own=3 !log:results=1 own=9 results=17")
    bench.tail.known = {RESULTS: 2, "own": 3}
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.log == [("tail", {TP0: (5, {RESULTS: 0, "own": 9})})]


@pytest.mark.parametrize(
    ("metadata", "known", "written"),
    [
        ("penstock1 results=17", {RESULTS: 2}, {RESULTS: 2}),
        ("penstock1 !log:results=2 results=17", {RESULTS: 2}, {RESULTS: 2}),
        ("penstock1 !log:results=2 results=17", {RESULTS: 2**32 + 2}, {RESULTS: 2}),
        ("penstock1 !log:results=2 results=17", {}, {RESULTS: 2}),
        ("penstock1 !log:gone=2 gone=4 results=17", {RESULTS: 2, "gone": 3}, {RESULTS: 2}),
        ("penstock1 results=17", {}, {}),
    ],
)
async def test_a_mark_of_this_result_topic_or_of_an_unknown_one_is_believed(
    bench: Bench, metadata: str, known: dict[str, int], written: dict[str, int]
) -> None:
    mark = await bench.mark_after(metadata, known)
    scanned = bench.log[0][1][TP0][1]  # type: ignore[index]

    assert (scanned[RESULTS], mark.journal) == (17, written)


async def test_the_ids_are_known_before_the_answers_are_looked_for(bench: Bench) -> None:
    """A mark with the id of a later log than its offsets would be believed."""
    ids, gate = bench.tail.ids, threading.Event()

    def late(topics: Iterable[str]) -> dict[str, int]:
        gate.wait(5)
        bench.log.append(("ids",))
        return ids(topics)

    bench.tail.ids = late  # type: ignore[method-assign]
    bench.shell.offsets[TP0] = (5, "penstock1 results=17")
    bench.assign()
    threading.Timer(0.05, gate.set).start()
    await eventually_async(lambda: bench.engine.is_open)

    assert [entry[0] for entry in bench.log] == ["ids", "tail"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("metadata", "first", "now", "rejoins"),
    [
        ("penstock1 results=17", {RESULTS: 2}, {RESULTS: 3}, 1),
        ("penstock1 results=17", {RESULTS: 2}, {RESULTS: 2}, 0),
        ("penstock1 results=17", {RESULTS: 2}, {}, 0),
        ("penstock1 !log:results=2 results=17", {}, {RESULTS: 3}, 1),
        ("penstock1 !log:results=2 results=17", {}, {RESULTS: 2**32 + 2}, 0),
        ("penstock1 results=17", {}, {RESULTS: 3}, 0),
    ],
)
async def test_a_result_topic_that_is_made_anew_under_us_has_the_books_loaded_anew(
    bench: Bench, metadata: str, first: dict[str, int], now: dict[str, int], rejoins: int
) -> None:
    await bench.opened(metadata, first)

    assert await bench.rejoins_at(now) == rejoins


async def test_where_ids_are_not_known_nobody_looks_for_new_ones(bench: Bench) -> None:
    await bench.opened()
    await bench.membership.look_for_new_logs()

    assert (len(bench.tail.asked), bench.shell.rejoins) == (1, 0)


async def test_a_claim_that_is_refused_is_tried_again_and_nothing_is_called_before(bench: Bench) -> None:
    bench.shell.refusals = 2
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    assert [entry[0] for entry in bench.log] == [*["tail"] * 6, "commit", "work"]  # type: ignore[index]


async def test_a_commit_with_a_mark_is_where_the_scan_begins(bench: Bench) -> None:
    bench.shell.offsets[TP0] = (5, "penstock1 results=17")
    bench.tail.answered = {(5, 1000): ResultRef(RESULTS, 22)}
    bench.assign()
    await bench.submit(5)
    await bench.submit(6)
    await bench.idle()

    assert bench.log == [("tail", {TP0: (5, {RESULTS: 17})}), ("work", 6)]


async def test_a_result_topic_that_the_mark_does_not_have_is_claimed_before_the_first_call(bench: Bench) -> None:
    """A route has got one since. A crash right after the first call would find no answer on it, and pay again."""
    bench.tail.result_topics = frozenset({RESULTS, "own"})
    bench.shell.offsets[TP0] = (5, "penstock1 !floor=2 results=17")
    bench.assign()
    await bench.submit(5)
    await bench.idle()

    assert bench.log == [
        ("tail", {TP0: (5, {RESULTS: 17})}),
        ("commit", {TP0: (5, "penstock1 !floor=2 own=20 results=20")}),
        ("work", 5),
    ]


async def test_a_commit_without_a_mark_is_an_operators_reset_and_nothing_is_skipped(bench: Bench) -> None:
    bench.shell.offsets[TP0] = (0, "")
    bench.assign()
    await bench.submit(0)
    await bench.idle()

    assert bench.log[:2] == [
        ("tail", {TP0: (0, None)}), ("commit", {TP0: (0, "penstock1 !replay=10 results=30")}),
    ]  # fmt: skip


async def test_a_replay_is_told_up_to_the_end_of_the_partition_at_the_reset(bench: Bench) -> None:
    bench.shell.offsets[TP0] = (8, "")
    bench.assign()
    for offset in range(8, 12):
        await bench.submit(offset)
    await bench.idle()

    assert bench.replayed == [8, 9]


async def test_a_replay_goes_on_after_a_crash_in_the_middle_and_ends_with_its_last_event(bench: Bench) -> None:
    bench.shell.offsets[TP0] = (8, "penstock1 !replay=10 results=17")
    bench.assign()
    await bench.work_on(8)

    assert (bench.replayed, bench.shell.offsets[TP0]) == ([8], (9, "penstock1 !replay=10 results=39"))

    await bench.work_on(9, 10)

    assert (bench.replayed, bench.shell.offsets[TP0]) == ([8, 9], (11, "penstock1 results=41"))


async def test_what_an_operator_left_out_is_never_taken_for_the_first_of_two(bench: Bench) -> None:
    """Otherwise neither of them would be done; also after the restarts that follow."""
    bench.shell.offsets[TP0] = (8, "")
    bench.assign()
    await bench.work_on(8, 9, 10)

    assert bench.recall.asked == [{TP0: (8, 8)}]
    assert bench.shell.offsets[TP0] == (11, "penstock1 !floor=8 results=41")

    await bench.membership.hand_over()
    bench.assign(2)
    await bench.work_on(11, generation=2)

    assert bench.recall.asked[1:] == [{TP0: (8, 11)}]
    assert bench.shell.offsets[TP0][1].startswith("penstock1 !floor=8 ")


async def test_nothing_is_taken_before_it_is_known_what_may_be_repeated(bench: Bench) -> None:
    bench.recall.faults = [LogUnavailable("away")]
    bench.recall.window.meet(IDENTITY, 1, 1000)
    bench.shell.offsets[TP0] = (5, "penstock1 results=17")
    bench.assign()
    item = Item(Position(*TP0, 5, 1000), "chain", "standard", 1, None, identity=IDENTITY)
    await bench.engine.submit(item, 1)
    await bench.idle()

    assert bench.recall.asked == [{TP0: (0, 5)}, {TP0: (0, 5)}]
    assert item.first == First(1, 1000, "")


async def test_the_first_start_of_a_group_is_no_replay(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    assert bench.replayed == []


async def test_offsets_without_a_record_are_committed_once_the_last_record_before_them_is_taken(bench: Bench) -> None:
    bench.shell.positions[TP0] = (4, 9)
    bench.assign()
    await bench.work_on(3)

    assert bench.shell.offsets[TP0][0] == 4

    await bench.work_on(4)

    assert bench.shell.offsets[TP0][0] == 9


async def test_the_mark_of_an_idle_partition_follows_what_others_write(bench: Bench) -> None:
    bench.tail.now = {TP(RESULTS, 0): 77}
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)
    await bench.membership.follow()
    await bench.membership.commit()

    assert bench.shell.offsets[TP0] == (3, "penstock1 results=77")


async def test_the_mark_does_not_follow_when_an_event_was_taken_while_the_ends_were_asked_for(bench: Bench) -> None:
    """Its result may lie below the end that was read after it."""
    bench.tail.now = {TP(RESULTS, 0): 77}
    bench.tail.gate = threading.Event()
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)
    following = asyncio.ensure_future(bench.membership.follow())
    await eventually_async(lambda: ("ends", (TP(RESULTS, 0),)) in bench.log)
    await bench.submit(3)
    await bench.idle()
    bench.tail.gate.set()
    await following
    await bench.membership.commit()

    assert bench.shell.offsets[TP0] == (4, "penstock1 results=34")


async def test_ends_that_cannot_be_read_leave_the_marks_alone(bench: Bench) -> None:
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)
    bench.tail.fault = LogUnavailable("away")
    await bench.membership.follow()
    await bench.membership.commit()

    assert bench.shell.offsets[TP0] == (3, "penstock1 results=30")


async def test_books_that_cannot_be_read_are_waited_for(bench: Bench) -> None:
    bench.shell.faults = [LogUnavailable("away"), LogUnavailable("away")]
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    assert ("work", 3) in bench.log
    assert bench.crashes == []


async def test_the_producer_hears_of_new_partitions_before_anything_is_taken(bench: Bench) -> None:
    bench.probe_faults = [LogUnavailable("away")]
    bench.assign()
    await eventually_async(lambda: bench.engine.is_open)

    assert bench.open_at_probes == [False, False]


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Give what refuses the next thread, as a container at its limit does, and tells which were asked for since."""
    asked: list[str] = []
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        asked.append(thread.name)
        if len(asked) > 1:
            start(thread)
            return
        message = "can't start new thread"
        raise RuntimeError(message)

    def begin() -> list[str]:
        # An idle thread of an earlier question would do.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        monkeypatch.setattr(threading.Thread, "start", refuse)
        return asked

    return begin


async def test_books_are_waited_for_while_no_thread_can_be_started(
    bench: Bench, no_thread: Callable[[], list[str]]
) -> None:
    asked = no_thread()
    bench.assign()
    await bench.submit(3)
    await bench.idle()

    assert len(asked) > 1
    assert ("work", 3) in bench.log
    assert bench.crashes == []


async def test_marks_stay_as_they_are_while_no_thread_can_be_started(
    bench: Bench, no_thread: Callable[[], list[str]]
) -> None:
    bench.tail.now = {TP(RESULTS, 0): 77}
    await bench.opened()
    asked = no_thread()
    await bench.membership.follow()
    await bench.membership.commit()

    assert len(asked) == 1
    assert bench.shell.offsets[TP0] == (3, "penstock1 results=30")


async def test_new_logs_are_looked_for_later_when_no_thread_can_be_started(
    bench: Bench, no_thread: Callable[[], list[str]]
) -> None:
    await bench.opened("penstock1 results=17", {RESULTS: 2})
    no_thread()

    assert [await bench.rejoins_at({RESULTS: 3}) for _ in range(2)] == [0, 1]


async def test_a_bug_while_the_books_are_loaded_ends_the_worker_instead_of_a_silent_stall(bench: Bench) -> None:
    bench.shell.faults = [KeyError("bug")]
    bench.assign()
    await eventually_async(lambda: bench.crashes)

    assert isinstance(bench.crashes[0], KeyError)


async def test_what_is_finished_is_committed_with_its_mark_and_only_once(bench: Bench) -> None:
    bench.assign()
    await bench.work_on(3)
    await bench.membership.commit()

    assert bench.log[4:] == [("commit", {TP0: (4, "penstock1 results=34")})]


async def test_a_refused_commit_is_covered_by_the_next(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.idle()
    bench.shell.refusals = 1
    await bench.membership.commit()
    await bench.membership.commit()

    assert bench.shell.offsets[TP0][0] == 4


async def test_nothing_is_committed_without_a_valid_lease(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.idle()
    bench.shell.is_member = False
    await bench.membership.commit()

    assert bench.shell.offsets[TP0][0] == 3


async def test_a_hand_over_commits_what_was_finished_and_nothing_afterwards(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.membership.hand_over()
    await bench.membership.hand_over()
    await bench.membership.commit()

    assert bench.log[3:] == [("work", 3), ("commit", {TP0: (4, "penstock1 results=34")})]
    assert not await bench.submit(4)


async def test_a_hand_over_does_not_commit_past_what_it_had_to_cut(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.idle()
    bench.blocked = asyncio.Event()
    await bench.submit(4)
    await bench.membership.hand_over()
    offset, mark = bench.shell.offsets[TP0]

    assert (offset, decode_mark(mark)) == (4, Mark({RESULTS: 34}))


async def test_a_hand_over_while_the_books_are_loaded_ends_the_loading(bench: Bench) -> None:
    bench.shell.faults = [LogUnavailable("away")] * 1000
    bench.assign()
    intake = asyncio.ensure_future(bench.submit(3))
    await asyncio.sleep(0)
    await bench.membership.hand_over()

    assert await intake is False
    assert bench.crashes == []


async def test_the_next_generation_starts_from_the_group_not_from_memory(bench: Bench) -> None:
    bench.assign()
    await bench.submit(3)
    await bench.idle()
    await bench.membership.hand_over()
    bench.shell.offsets[TP0] = (9, "penstock1 results=40")
    bench.assign(2)
    await bench.submit(9, 2)
    await bench.idle()

    assert bench.log[-2:] == [("tail", {TP0: (9, {RESULTS: 40})}), ("work", 9)]


async def test_a_worker_without_partitions_is_a_member_that_is_ready(bench: Bench) -> None:
    bench.membership.coming(1)
    bench.membership.assigned(frozenset(), 1)
    await bench.membership.commit()

    assert (bench.membership.is_member, bench.membership.tps) == (True, frozenset())


async def test_books_of_no_partitions_that_come_late_leave_those_of_the_next_assignment_alone(bench: Bench) -> None:
    gate, read = threading.Event(), bench.recall.read

    def slow_without_partitions(wanted: Mapping[TP, tuple[int, int]]) -> dict[TP, Repeats]:
        if not wanted:
            gate.wait(5)
            late.append(None)
        return read(wanted)

    late: list[None] = []
    bench.recall.read = slow_without_partitions  # type: ignore[method-assign]
    bench.tail.known = {TP0.topic: 7}
    bench.membership.coming(1)
    # A standby: nothing is revoked from it when it gets its first partition, so nothing is handed over.
    bench.membership.assigned(frozenset(), 1)
    await eventually_async(lambda: bench.log and bench.log[-1] == ("tail", {}))
    bench.assign(2)
    await bench.submit(0, 2)
    gate.set()
    await eventually_async(lambda: late and not bench.engine.held)
    # What waited for the thread goes on in the turns behind it.
    await asyncio.gather(*(task for task in asyncio.all_tasks() if "_load" in repr(task)), return_exceptions=True)
    await bench.membership.commit()

    assert bench.shell.offsets[TP0][1].split()[:2] == ["penstock1", "!log=7"]
