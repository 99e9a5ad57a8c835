"""Whether a log still has what was read of it, by the last record and by its epochs; and how far it is read.

Verified, like streams/shell.py, against its TESTED_VERSIONS.
"""

import asyncio
import math
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.engine.item import TP
from streams.losses import tell_deleted

# For so long a log must end before what was read of it until it counts as cut: its leader may still be settling.
_SETTLE_S = 3.0
# Leaders change seldom; of a commit that lies before the oldest of these an earlier epoch is known.
_MAX_RUNS = 8
# A partition without records is asked for every 1.5 s, whatever of it was fetched before having been handed out.
_FETCH_SILENCE_S = 30.0


class Run(NamedTuple):
    """Records of one leader's epoch that were handed out one behind the other.

    Attributes:
        first, last: their offsets.
        epoch: of the leader.
    """

    first: int
    last: int
    epoch: int


class Reach(NamedTuple):
    """How far a partition is read, and what there is.

    Attributes:
        position: of the next record that is handed out; None while it is being looked up.
        end: of what can be read; None while its leader does not tell.
        is_told: its leader has told the end just now.
        fetched_s: since a broker last answered a fetch of it without an error; infinite before the first.
        in_hand: records of it were fetched and wait to be handed out.
    """

    position: int | None
    end: int | None
    is_told: bool = True
    fetched_s: float = math.inf
    in_hand: bool = False

    @property
    def unread(self) -> int:
        """Return how many offsets lie ahead; not all of them need to have a record."""
        return 0 if self.position is None or self.end is None else max(0, self.end - self.position)

    @property
    def is_known(self) -> bool:
        """Tell whether it is known that something is unread, or that nothing is."""
        return self.unread > 0 or (self.is_told and self.position is not None)

    @property
    def is_fetched(self) -> bool:
        """Tell whether its fetches are answered."""
        return self.fetched_s < _FETCH_SILENCE_S


class EndWatch:
    """Finds logs that have lost their end, in one assignment; on the consumer's thread.

    aiokafka goes to the beginning of a log that ends before the place where it reads on. With this it goes back to the
    last record that was handed out, as it does when its broker was away: who comes back, or takes its place, may have
    lost it. Is that record there, all is well. The log was cut when another one has its place: nothing more of it is
    handed out then. And when it ends before that place for `_SETTLE_S`.

    A log that was cut unseen goes on under a new epoch: where one begins, it is to be asked where the former one ends.

    Args:
        tell: called with the partition of a log that was cut; again and again until it is assigned anew.

    Attributes:
        newest: per partition, offset and timestamp of the last record that was handed out.
        runs: per partition, the epochs of what was handed out, where they are known; the last `_MAX_RUNS`.
        cut: the logs that are known to be cut.
    """

    def __init__(self, tell: Callable[[Any], object]) -> None:
        self.newest: dict[Any, tuple[int, int]] = {}
        self.runs: dict[Any, tuple[Run, ...]] = {}
        self.cut: set[Any] = set()
        self._tell = tell
        self._begun: dict[Any, int] = {}
        self._out_of_range: dict[Any, int] = {}
        self._doubted: dict[Any, float] = {}
        self._compared: set[Any] = set()
        # Of these, since when their broker has answered without the last record, or was asked last.
        self._missed: dict[Any, float] = {}
        self._short: dict[Any, tuple[int, int]] = {}

    def after_failure(self, assignment: Any, topics: Sequence[Any]) -> None:
        """Look at the last record again of what a broker was asked for in vain."""
        for topic, partitions in topics:
            for partition, offset, _ in partitions:
                tp = TopicPartition(topic, partition)
                state = assignment.state_value(tp)
                self._begun.setdefault(tp, offset)
                self._missed.pop(tp, None)
                if state.has_valid_position and state.position == offset:
                    self._look_back(tp, state, offset)

    def after_fetch(self, assignment: Any, topics: Sequence[Any]) -> None:
        """Note what was asked for of logs that do not reach so far, or begin behind it."""
        for topic, partitions in topics:
            for partition, offset, _ in partitions:
                tp = TopicPartition(topic, partition)
                self._begun.setdefault(tp, offset)
                if assignment.state_value(tp).awaiting_reset:
                    self._out_of_range[tp] = offset
                elif tp in self._compared:
                    self._missed.setdefault(tp, time.monotonic())

    def after_reset(self, tp: Any, state: Any) -> bool:
        """Look at the last record again where aiokafka has gone back; tell whether it was so."""
        if tp not in self._out_of_range or not state.has_valid_position:
            return False
        asked = self._out_of_range.pop(tp)
        if state.position >= asked or tp in self.cut:
            # What lies before has been deleted after its retention.
            self._passed_deleted(tp, asked, state.position)
            self.moved(tp)
            return False
        now_s = time.monotonic()
        if now_s >= self._doubted.setdefault(tp, now_s) + _SETTLE_S:
            self._tell(tp)
        self._look_back(tp, state, asked)
        return True

    def _passed_deleted(self, tp: Any, asked: int, begin: int) -> None:
        """Tell of what nobody has read of what was deleted."""
        newest = self.newest.get(tp)
        unread = asked if newest is None else max(asked, newest[0] + 1)
        # A log that was cut is committed at 0 by the worker that found it, and begins where it begins.
        if 0 < unread < begin and tp not in self.cut:
            tell_deleted(TP(tp.topic, tp.partition), unread, begin)

    def _look_back(self, tp: Any, state: Any, asked: int) -> None:
        newest = self.newest.get(tp)
        # Not where it looks back already, nor where the last record is to be read again anyway.
        if newest and newest[0] < asked:
            self._compared.add(tp)
            asked = newest[0]
        elif newest is None:
            # What was passed over held no record; if it is lost, what has its offsets now may.
            asked = min(asked, self._begun.get(tp, asked))
        state.seek(asked)

    def moved(self, tp: Any) -> None:
        """Forget what was found: the partition is read from somewhere else."""
        self._out_of_range.pop(tp, None)
        self._doubted.pop(tp, None)
        self._missed.pop(tp, None)
        self._compared.discard(tp)

    def take(self, records: Mapping[Any, Sequence[Any]]) -> dict[Any, Sequence[Any]]:
        """Return what may be handed out of what was fetched."""
        kept = dict(records)
        for tp in self._compared & kept.keys():
            self.moved(tp)
            first, newest = kept[tp][0], self.newest.get(tp)
            if (first.offset, first.timestamp) == newest:
                kept[tp] = kept[tp][1:]
            elif newest and first.offset == newest[0]:
                self.found_cut(tp)
        kept = {tp: found for tp, found in kept.items() if found and tp not in self.cut}
        self.newest |= {tp: (found[-1].offset, found[-1].timestamp) for tp, found in kept.items()}
        for tp, found in kept.items():
            self._note_epochs(tp, found, _epochs_of(records[tp]))
        return kept

    def missed(self) -> dict[Any, tuple[int, int]]:
        """Return what is to be asked for because the last record does not come; again after `_SETTLE_S`.

        A log that ends just in front of it is as long as what is asked for: nothing says that it is too short.

        Returns:
            As `doubted`.
        """
        now_s = time.monotonic()
        due = [tp for tp, since_s in self._missed.items() if now_s >= since_s + _SETTLE_S and tp not in self.cut]
        self._missed |= dict.fromkeys(due, now_s)
        return {tp: (runs[-1].last + 1, runs[-1].epoch) for tp in due if (runs := self.runs.get(tp))}

    def found_missing(self, tp: Any) -> None:
        """Take a log for cut whose last record has still not come, and is not there, as its leader says."""
        if tp in self._missed:
            self.found_cut(tp)

    def found_short(self, tp: Any, state: Any, offset: int) -> None:
        """Look at the last record again, if there is one, before a log counts as cut because its leader says so.

        Args:
            tp: the partition.
            state: aiokafka's, of it.
            offset: of the first record that was fetched, which is not handed out.
        """
        newest = self.newest.get(tp)
        if newest is None or newest[0] >= offset or tp in self._compared:
            self.found_cut(tp)
        elif self._short.get(tp) != newest:
            self._short[tp] = newest
            self._look_back(tp, state, offset)
        # Else it was looked at, and is there: its leader is wrong.

    def found_cut(self, tp: Any) -> None:
        """Hand out nothing more of a log that has lost what was read of it."""
        self.cut.add(tp)
        self._tell(tp)

    def sought(self, tp: Any) -> None:
        """Forget a partition that is told where to be read from."""
        self.moved(tp)
        self.runs.pop(tp, None)
        self._begun.pop(tp, None)

    def read_again(self, tp: Any, state: Any, offset: int) -> None:
        """Have what was fetched from an offset on fetched again."""
        if not is_read_again(state, offset):
            # aiokafka has asked for more meanwhile; where it would be led back to lies behind.
            self._out_of_range.pop(tp, None)
            state.seek(offset)

    def doubted(
        self, records: Mapping[Any, Sequence[Any]], before: Mapping[Any, tuple[int, int]]
    ) -> dict[Any, tuple[int, int]]:
        """Return what is to be asked for before records are handed out: another leader wrote what follows.

        Args:
            records: what was fetched.
            before: per partition, as below, what was read before this assignment.

        Returns:
            Per partition, the offset behind the last record that was read, and the epoch of that record.
        """
        found: dict[Any, tuple[int, int]] = {}
        for tp, fetched in records.items():
            runs, epochs = self.runs.get(tp), _epochs_of(fetched)
            last = (runs[-1].last + 1, runs[-1].epoch) if runs else before.get(tp)
            if last and epochs and last[1] != epoch_at(epochs, fetched[0].offset) and tp not in self.cut:
                found[tp] = last
        return found

    def _note_epochs(self, tp: Any, found: Sequence[Any], epochs: Sequence[tuple[int, int]]) -> None:
        runs = list(self.runs.get(tp, ()))
        for run in _runs(found, epochs):
            if runs and runs[-1].epoch == run.epoch:
                runs[-1] = Run(runs[-1].first, run.last, run.epoch)
            else:
                runs.append(run)
        if runs:
            self.runs[tp] = tuple(runs[-_MAX_RUNS:])


def is_read_again(state: Any, offset: int) -> bool:
    """Tell whether aiokafka reads on at an offset that was fetched, or before it."""
    return bool(state.has_valid_position and state.position <= offset)


def read_below(runs: Sequence[Run], offset: int) -> tuple[int, int] | None:
    """Return what was read before an offset: the offset behind the last record, and its epoch; None = not known."""
    run = next((run for run in reversed(runs) if run.first < offset), None)
    return (min(run.last + 1, offset), run.epoch) if run else None


def epoch_at(epochs: Sequence[tuple[int, int]], offset: int) -> int:
    """Return the epoch of an offset, of (offset from where, epoch) in order."""
    return epochs[max(0, bisect_right(epochs, offset, key=lambda found: found[0]) - 1)][1]


def _epochs_of(records: Sequence[Any]) -> Sequence[tuple[int, int]]:
    return getattr(records, "epochs", ())


def _runs(found: Sequence[Any], epochs: Sequence[tuple[int, int]]) -> Iterator[Run]:
    """Yield the runs among records; their ends are records, for what lies between two batches may belong to either."""
    begin = 0
    while epochs and begin < len(found):
        epoch = epoch_at(epochs, found[begin].offset)
        behind = next((start for start, _ in epochs if start > found[begin].offset), None)
        end = len(found) if behind is None else bisect_left(found, behind, key=lambda record: record.offset)
        yield Run(found[begin].offset, found[end - 1].offset, epoch)
        begin = end


async def reach(consumer: Any, tps: Sequence[Any], limit_s: float) -> dict[TP, Reach]:
    """Return how far those partitions are read that are assigned; on the consumer's thread.

    Each leader is asked by itself: what one of them does not tell says nothing of the others' partitions.
    """
    client, by_leader = consumer._client, defaultdict[Any, list[Any]](list)  # noqa: SLF001
    for tp in tps:
        by_leader[client.cluster.leader_for_partition(tp)].append(tp)

    async def ask(led: Sequence[Any]) -> dict[Any, int]:
        try:
            async with asyncio.timeout(limit_s):
                return dict(await consumer.end_offsets(led))
        except (KafkaError, TimeoutError):
            return {}

    ends: dict[Any, int] = {}
    for told in await asyncio.gather(*map(ask, by_leader.values())):
        ends |= told
    subscription = consumer._subscription.subscription  # noqa: SLF001
    assignment = subscription.assignment if subscription is not None else None
    if assignment is None:
        return {}
    held, now_s = consumer._fetcher._records, time.time()  # noqa: SLF001
    found = {}
    for tp in (tp for tp in tps if tp in assignment.tps):
        state = assignment.state_value(tp)
        position = state.position if state.has_valid_position else None
        fetched_s = math.inf if state.timestamp is None else now_s - state.timestamp / 1000
        if fetched_s < 0:
            # The clock was set back: else what has stopped would count as fetched until it has caught up.
            fetched_s = math.inf
        found[TP(tp.topic, tp.partition)] = Reach(position, ends.get(tp), tp in ends, fetched_s, tp in held)
    return found


__all__ = ["EndWatch", "Reach", "Run", "epoch_at", "is_read_again", "reach", "read_below"]
