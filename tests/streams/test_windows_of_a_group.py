"""Members of one group that look for more answers than they keep: real books, scans and marks over a log in memory."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import confluent_kafka
import pytest

from contracts.codec import Position, position_headers
from contracts.settings import KafkaSettings, WorkerSettings
from streams.engine.dispatcher import Slot
from streams.engine.engine import Engine
from streams.engine.item import TP, Item, ResultRef
from streams.engine.tenure import Tenure, TenureLostError
from streams.engine.work import Limits
from streams.membership import Membership
from streams.shell import Shell
from streams.tail import TailReader
from tests.support import eventually_async

APP, EVENTS, RESULTS = "app", "events", "results"
TPS = tuple(TP(EVENTS, number) for number in range(3))
# Ten events to a page of offsets; every 13th was not answered before the commits were lost.
OFFSETS = range(0, 5_000, 100)
OPEN = frozenset((tp, offset) for tp in TPS for offset in OFFSETS if offset % 1300 == 0)
# A partition keeps one page or two: three to five windows each.
LIMITS = (30, 10)


class Reader:
    """A consumer outside the group, of the events' ends and of the results."""

    def __init__(self, cluster: "Cluster") -> None:
        self._results = cluster.results
        self._at: dict[int, int] = {}
        self._count = cluster.read

    def list_topics(self, _topic: str, timeout: float) -> None:
        assert timeout > 0

    def get_watermark_offsets(self, place: Any, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        return 0, len(self._results[place.partition]) if place.topic == RESULTS else OFFSETS[-1] + 1

    def assign(self, places: list[confluent_kafka.TopicPartition]) -> None:
        self._at = {place.partition: place.offset for place in places}

    def consume(self, count: int, timeout: float) -> list[Any]:
        assert timeout > 0
        found = []
        for number, start in self._at.items():
            places = range(start, min(start + count, len(self._results[number])))
            found += [self._message(number, at) for at in places]
            self._at[number] = places.stop
        self._count.append(len(found))
        return found

    def _message(self, number: int, at: int) -> Any:
        headers = list(position_headers(APP, self._results[number][at]))
        return SimpleNamespace(error=lambda: None, topic=lambda: RESULTS, offset=lambda: at, headers=lambda: headers)

    def position(self, places: list[confluent_kafka.TopicPartition]) -> list[confluent_kafka.TopicPartition]:
        return [confluent_kafka.TopicPartition(RESULTS, one.partition, self._at[one.partition]) for one in places]

    def close(self) -> None:
        pass


class Member:
    """A worker as its group sees it, and the shell of its own membership."""

    def __init__(self, cluster: "Cluster") -> None:
        self.cluster = cluster
        self.crashes: list[BaseException] = []
        self.generation = -1
        self.tps = frozenset[TP]()
        self.restarts: asyncio.Future[Mapping[TP, int]] = asyncio.get_running_loop().create_future()
        self.engine = Engine(self._work, Limits(8, 100, 100, 10**6, 10**6), ("standard",), self.crashes.append)
        settings = WorkerSettings(drain_timeout_s=2, rebalance_timeout_s=5, commit_interval_s=0.01)
        # Embedded: nobody is asked for ids of topics and times of events.
        tail = TailReader(KafkaSettings(embedded=True), APP, frozenset({RESULTS}), LIMITS)
        self.membership = Membership(self.engine, tail, settings, self.crashes.append)
        self.membership.attach(cast("Shell", self))
        self.running = asyncio.ensure_future(self.membership.run())
        self.feeding: asyncio.Future[None] | None = None

    async def _work(self, item: Item, slot: Slot, tenure: Tenure) -> ResultRef:  # noqa: ARG002 - the protocol
        await self.cluster.some_turns()
        if self.generation < 0:
            raise TenureLostError
        return self.cluster.answer(item.position)

    def assign(self, tps: frozenset[TP], generation: int) -> None:
        self.generation, self.tps = generation, tps
        self.restarts = asyncio.get_running_loop().create_future()
        self.membership.coming(generation)
        self.membership.assigned(tps, generation)
        self.feeding = asyncio.ensure_future(self._feed(tps, generation))

    async def _feed(self, tps: frozenset[TP], generation: int) -> None:
        restarts = await self.restarts
        starts = {tp: restarts.get(tp, self.cluster.commits[tp][0]) for tp in sorted(tps)}
        for offset in OFFSETS:
            for tp in [tp for tp, start in starts.items() if offset >= start]:
                item = Item(Position(*tp, offset, 1000 + offset), None, "standard", 1, None)
                if not await self.engine.submit(item, generation):
                    return
                await self.cluster.some_turns()

    def die(self) -> None:
        """End as a killed process: nothing is handed over or committed."""
        self.generation = -1
        self.cluster.members.remove(self)
        for task in (self.running, self.feeding):
            if task is not None:
                task.cancel()
        self.engine.tenure.end()

    # What the shell is asked.

    def is_valid(self, generation: int) -> bool:
        return generation == self.generation == self.cluster.generation

    async def committed(self, tps: frozenset[TP]) -> dict[TP, tuple[int, str] | None]:
        return {tp: self.cluster.commits.get(tp) for tp in tps}

    def let_read(self, restarts: Mapping[TP, int], _read: Mapping[TP, tuple[int, int]]) -> None:
        self.restarts.set_result(dict(restarts))

    def rejoin(self) -> None:
        self.cluster.wanted.set()

    async def commit(self, offsets: Mapping[TP, tuple[int, str]]) -> bool:
        if self.generation != self.cluster.generation or not self.tps >= offsets.keys():
            return False
        self.cluster.commits.update(offsets)
        return True

    def high_watermark(self, _tp: TP) -> int | None:
        return None

    async def ends(self, tps: frozenset[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, 0)

    def runs(self) -> dict[TP, Any]:
        return {}

    async def epoch_ends(self, _epochs: Mapping[TP, int]) -> dict[TP, int]:
        return {}

    def read_to(self) -> dict[TP, Any]:
        return {}


class Cluster:
    """A log of events that were answered, in any order, before the group's commits were lost.

    Attributes:
        calls: of each event, since then.
        generation: as often as the partitions were handed out, each time to others.
        read: results that were looked through, by bundle.
        wanted: somebody wants to join anew.
    """

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.results: dict[int, list[Position]] = defaultdict(list)
        for tp in TPS:
            answered = [offset for offset in OFFSETS if (tp, offset) not in OPEN]
            # Nearly in order, as calls that run side by side end.
            answered.sort(key=lambda offset: offset + dice.randrange(1500))
            self.results[tp.partition] = [Position(*tp, offset, 1000 + offset) for offset in answered]
        self.calls = Counter[tuple[TP, int]]()
        self.commits: dict[TP, tuple[int, str]] = {}
        self.generation = 0
        self.members: list[Member] = []
        self.read: list[int] = []
        self.wanted = asyncio.Event()

    def hire(self) -> list[BaseException]:
        """Have one more member join; return what ends it."""
        self.members.append(Member(self))
        self.wanted.set()
        return self.members[-1].crashes

    async def some_turns(self) -> None:
        """Let others get on; at times the group is joined anew for some reason of its own."""
        if self.dice.random() < 0.01:
            self.wanted.set()
        for _ in range(self.dice.choice((0, 1, 20))):
            await asyncio.sleep(0)

    def answer(self, position: Position) -> ResultRef:
        self.calls[TP(position.topic, position.partition), position.offset] += 1
        results = self.results[position.partition]
        results.append(position)
        return ResultRef(RESULTS, len(results) - 1)

    async def run(self) -> None:
        """Hand the partitions out as often as somebody wants it."""
        while True:
            await self.wanted.wait()
            self.wanted.clear()
            await asyncio.gather(*(member.membership.hand_over() for member in self.members))
            self.generation += 1
            shares: dict[Member, set[TP]] = {member: set() for member in self.members}
            for tp in TPS:
                shares[self.members[(tp.partition + self.generation) % len(self.members)]].add(tp)
            for member, tps in shares.items():
                member.assign(frozenset(tps), self.generation)

    @property
    def is_done(self) -> bool:
        return all(self.commits.get(tp, (0, ""))[0] == OFFSETS[-1] + 1 for tp in TPS)


@pytest.fixture(params=range(5))
async def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    """Run two members; none of them may crash."""
    cluster = Cluster(random.Random(request.param))  # noqa: S311 - not secret, and repeatable
    monkeypatch.setattr(confluent_kafka, "Consumer", lambda *_, **__: Reader(cluster))
    crashes = [cluster.hire(), cluster.hire()]
    handing = asyncio.ensure_future(cluster.run())
    yield cluster
    handing.cancel()
    for member in tuple(cluster.members):
        await member.membership.hand_over()
        member.die()

    assert crashes == [[], []]


async def test_members_that_go_by_windows_and_change_partitions_pay_for_no_answer_twice(cluster: Cluster) -> None:
    await eventually_async(lambda: cluster.is_done)

    assert cluster.calls == Counter(OPEN)
    # A window each, at least.
    assert cluster.generation >= len(OFFSETS) // 20


async def test_who_takes_over_in_a_window_of_a_killed_member_pays_for_no_answer_twice(cluster: Cluster) -> None:
    """It has the mark of its last commit; what it answered behind that lies among what is looked through."""
    await eventually_async(lambda: cluster.generation >= 2 and cluster.members[0].engine.is_open)
    cluster.members[0].die()
    cluster.hire()
    await eventually_async(lambda: cluster.is_done)

    assert cluster.calls == Counter(OPEN)
