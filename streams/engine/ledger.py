"""What of a partition is finished, and up to where it may be committed.

Invariant: the commit point never passes an unfinished offset (tests/streams/engine/test_ledger.py). Offsets may have
gaps (transaction markers, compaction): only what was delivered counts. See docs/adr/0005.
"""

import heapq
from collections.abc import Mapping
from operator import itemgetter

from streams.engine.item import TP, ResultRef
from streams.engine.repeats import Repeats


class Ledger:
    """One partition's book, for one tenure.

    Args:
        position: first offset that will be delivered (the committed one).
        result_ends: per result topic, the end of the matching result partition when the tenure began.
        answered: (offset, timestamp_ms) -> where the answer lies, found by the scan of the result topic.
        scan_starts: per result topic, where that scan began.
        replay_until: offsets below it are done again because an operator wants it.
        repeats: what is known of earlier events.

    Attributes:
        result_ends: per result topic, the known end of the matching result partition.
        taken: offsets taken so far.
        repeats: which events repeat earlier ones.
    """

    def __init__(
        self,
        position: int,
        result_ends: dict[str, int] | None = None,
        answered: dict[tuple[int, int], ResultRef] | None = None,
        scan_starts: dict[str, int] | None = None,
        replay_until: int = 0,
        repeats: Repeats | None = None,
    ) -> None:
        self.repeats = Repeats() if repeats is None else repeats
        self.taken = 0
        self._replay_until = replay_until
        self._newest: int | None = None
        self._next = position
        # Before `_next` where offsets without a record were passed over.
        self._behind = position
        self.result_ends = dict(result_ends or {})
        self._answered = dict(answered or {})
        # Its keys by falling offset: what the log passes is at the end. There may be a million of them, and the mark is
        # asked for every second.
        self._coming = sorted(self._answered, key=itemgetter(0), reverse=True)
        self._scan_starts = dict(scan_starts or {})
        self._unfinished: dict[int, int] = {}
        self._newest_stamp_ms = -1
        # Per result topic, (result offset, event offset) of what is finished and not committed yet; a heap, because
        # the mark is asked for every second, and far ahead of a straggler there may be 100,000 of them.
        self._finished: dict[str, list[tuple[int, int]]] = {}
        self._log = 0
        self._passed = position

    def take(self, offset: int, timestamp_ms: int = -1) -> int | None:
        """Note that an offset was delivered; offsets come in ascending order.

        Returns:
            Which log it is of: the number goes up when offsets start again. None for a record that is in hand already.
        """
        if offset < self._behind:
            if self._is_repeat(offset, timestamp_ms):
                return None
            # The topic was recreated, or a broker lost its end. What was taken before is not on this log any more, and
            # its offsets are other events' now.
            self._unfinished.clear()
            self._passed = offset
            self._finished.clear()
            self.repeats.clear()
            self._log += 1
        # A broker may have lost transaction markers and aborted records alone: events have their offsets then.
        self._passed = min(self._passed, offset)
        self._unfinished[offset] = timestamp_ms
        self._newest_stamp_ms = timestamp_ms
        self._newest = offset
        self._next = self._behind = offset + 1
        self.taken += 1
        return self._log

    def _is_repeat(self, offset: int, timestamp_ms: int) -> bool:
        if timestamp_ms < 0:
            return False
        is_newest = offset == self._newest and timestamp_ms == self._newest_stamp_ms
        return is_newest or self._unfinished.get(offset) == timestamp_ms

    def pass_gap(self, newest: int | None, position: int) -> None:
        """Move on over offsets without records: transaction markers, aborted records, what compaction removed.

        Args:
            newest: the last offset that was handed out in this assignment; None = none was.
            position: where reading goes on; nothing lies between.
        """
        if newest == self._newest and position > self._next:
            self._next = position

    def is_replay(self, offset: int) -> bool:
        """Tell whether an operator wants this offset done again."""
        return offset < self._replay_until

    def already_answered(self, offset: int, timestamp_ms: int) -> ResultRef | None:
        """Return where the answer of a redelivered event lies; None when there is none.

        Offset and timestamp must both match: a recreated topic starts its offsets again, and skipping by offset alone
        would lose its events.
        """
        return self._answered.get((offset, timestamp_ms))

    def finish(self, offset: int, result: ResultRef | None, log: int = 0) -> None:
        """Note that an offset's terminal record is confirmed; `log` is what `take` returned for it."""
        if result is not None:
            self.result_ends[result.topic] = max(self.result_ends.get(result.topic, 0), result.offset + 1)
        if log == self._log:
            del self._unfinished[offset]
            if result is not None:
                heapq.heappush(self._finished.setdefault(result.topic, []), (result.offset, offset))

    @property
    def position(self) -> int:
        """Return the offset behind the newest delivered one."""
        return self._next

    @property
    def commit_point(self) -> int:
        """Return the lowest offset that may not be committed yet: lowest unfinished, or the next to be delivered."""
        return next(iter(self._unfinished), self._next)

    @property
    def is_idle(self) -> bool:
        """Tell whether every delivered event is finished, and no answer waits for its event.

        Then the next event's result will lie behind everything that is in the result topics now.
        """
        return not self._unfinished and not self._answered

    @property
    def span(self) -> int:
        """Return how many offsets lie between the commit point and the newest delivered one."""
        return self._next - self.commit_point

    def is_ahead(self, limit: int) -> bool:
        """Tell whether `span` has reached a limit; cheaper than asking for the span, because this runs per event."""
        if self._next - self._passed < limit:
            return False
        self._passed = self.commit_point
        return self._next - self._passed >= limit

    @property
    def unfinished(self) -> int:
        """Return the number of offsets taken and not finished."""
        return len(self._unfinished)

    def mark(self) -> dict[str, int]:
        """Return, per result topic, the lowest result offset that can belong to an event that is not committed.

        Prunes what lies below the commit point.
        """
        point = self.commit_point
        self._forget_passed()
        marks = dict(self.result_ends)
        if self._answered:
            # Answers whose events have not been delivered yet lie anywhere behind the start of the scan.
            for topic, start in self._scan_starts.items():
                marks[topic] = min(marks.get(topic, start), start)
        for topic, finished in self._finished.items():
            while finished and finished[0][1] < point:
                heapq.heappop(finished)
            if finished:
                marks[topic] = min(marks[topic], finished[0][0])
        return marks

    def _forget_passed(self) -> None:
        """Forget the answers that the log has passed; costs no more than what is forgotten."""
        coming = self._coming
        while coming and coming[-1][0] < self._next:
            del self._answered[coming.pop()]
        if not coming:
            # A dictionary that is emptied key by key keeps its size.
            self._answered = {}


def advance_idle(ledgers: Mapping[TP, Ledger]) -> None:
    """Let idle partitions' marks follow: other lanes fill the same result partitions, and a scan starts there."""
    ends: dict[tuple[str, int], int] = {}
    for tp, ledger in ledgers.items():
        for topic, end in ledger.result_ends.items():
            place = (topic, tp.partition)
            ends[place] = max(end, ends.get(place, 0))
    for tp, ledger in ledgers.items():
        if ledger.is_idle:
            ledger.result_ends = {topic: end for (topic, partition), end in ends.items() if partition == tp.partition}
