"""What of a partition is finished, and up to where it may be committed.

Invariant: the commit point never passes an unfinished offset (tests/streams/engine/test_ledger.py). Offsets may have
gaps (transaction markers, compaction): only what was delivered counts. See docs/adr/0005.
"""

import heapq
import struct
from collections.abc import Iterator, Mapping

from streams.engine.item import TP, ResultRef
from streams.engine.repeats import Repeats

_PAGE_BITS = 10
_PAGE = 2**_PAGE_BITS
# Of one answer: the event's offset within its page, the number of the result topic, timestamp, offset of the result.
_ANSWER = struct.Struct("<HHqq")
_NO_END = 2**63


class Answers:
    """Answers to events of one partition that have not come yet; packed, for there may be millions of them.

    They lie in pages of 1,024 offsets of events, each as it was found: 20 bytes, 22 with what a page keeps ready to
    grow. Only the page whose events come is unpacked.

    Args:
        limit: answers kept at most, and one page in any case. Where more are found, those of the highest offsets are
            left out: they are to be looked for again when the events before them have come.

    Attributes:
        known_to: from this offset on answers were left out.
    """

    def __init__(self, limit: int = _NO_END) -> None:
        self.known_to = _NO_END
        self._limit = limit
        self._count = 0
        self._pages = dict[int, bytearray]()
        # Of each page, per result topic, where the first of its answers lies.
        self._firsts = dict[int, dict[str, int]]()
        self._topics = dict[str, int]()
        # None is lower than the one, all have passed behind the other.
        self._passed, self._highest = 0, -1
        # Per result topic, where the first one lies that was left out.
        self._left_out = dict[str, int]()
        self._unpacked: tuple[int, dict[tuple[int, int], ResultRef]] = (-1, {})
        # Pages with an answer to an event without a timestamp.
        self._untimed = set[int]()

    def __len__(self) -> int:
        """Return how many are kept; one to an event that was answered again counts as well."""
        return self._count

    def __iter__(self) -> Iterator[tuple[tuple[int, int], ResultRef]]:
        """Return each as ((offset, timestamp_ms), where it lies): by page, and within it as they were found."""
        return (entry for number in sorted(self._pages) for entry in self._of_page(number))

    def add(self, offset: int, timestamp_ms: int, result: ResultRef) -> None:
        """Note an answer; of several to one event the last one counts. All are there before the first is asked for."""
        if not (0 <= offset < _NO_END and -_NO_END <= timestamp_ms < _NO_END):
            # No record of Kafka's has such a place: whoever wrote it answers no event.
            return
        if offset >= self.known_to:
            _note(self._left_out, result.topic, result.offset)
            return
        number = offset >> _PAGE_BITS
        page = self._pages.get(number)
        if page is None:
            page, self._firsts[number] = bytearray(), {}
            self._pages[number] = page
        _note(self._firsts[number], result.topic, result.offset)
        topic = self._topics.setdefault(result.topic, len(self._topics))
        page += _ANSWER.pack(offset % _PAGE, topic, timestamp_ms, result.offset)
        self._highest = max(self._highest, offset)
        self._count += 1
        if timestamp_ms < 0:
            self._untimed.add(number)
        if self._count > self._limit and len(self._pages) > 1:
            number = max(self._pages)
            self.known_to, self._highest = number * _PAGE, number * _PAGE - 1
            for name, first in self._firsts[number].items():
                _note(self._left_out, name, first)
            self._drop(number)

    def _drop(self, number: int) -> None:
        self._count -= len(self._pages.pop(number, b"")) // _ANSWER.size
        self._firsts.pop(number, None)

    def _of_page(self, number: int) -> Iterator[tuple[tuple[int, int], ResultRef]]:
        topics, first = list(self._topics), number * _PAGE
        for low, topic, timestamp_ms, at in _ANSWER.iter_unpack(self._pages.get(number, b"")):
            yield (first + low, timestamp_ms), ResultRef(topics[topic], at)

    def get(self, offset: int, timestamp_ms: int) -> ResultRef | None:
        """Return where the answer to an event lies that was not passed; None when there is none."""
        if not self._passed <= offset <= self._highest:
            return None
        number = offset >> _PAGE_BITS
        if self._unpacked[0] != number:
            self._unpacked = number, dict(self._of_page(number))
        return self._unpacked[1].get((offset, timestamp_ms))

    def pass_to(self, offset: int) -> None:
        """Forget the answers below an offset; costs no more than what is forgotten."""
        if offset <= self._passed:
            return
        before, now = self._passed >> _PAGE_BITS, offset >> _PAGE_BITS
        self._passed = offset
        is_far = now - before > len(self._pages)
        for number in [number for number in self._pages if number < now] if is_far else range(before, now):
            self._drop(number)
        if self._highest < offset:
            self._pages, self._firsts, self._count, self._unpacked = {}, {}, 0, (-1, {})

    def keep(self, end: int) -> None:
        """Forget the answers from an offset on, and those to events without a timestamp."""
        for number in [number for number in self._pages if (number + 1) * _PAGE > end or number in self._untimed]:
            kept = [one for one in self._of_page(number) if one[0][0] < end and one[0][1] >= 0]
            self._drop(number)
            for (at, timestamp_ms), ref in kept:
                self.add(at, timestamp_ms, ref)
        self._unpacked = -1, {}
        if self.known_to >= end:
            self.known_to, self._left_out = _NO_END, {}
        if not self.are_cut:
            self._highest = max((at for (at, _), _ in self._of_page(max(self._pages, default=-1))), default=-1)

    @property
    def are_cut(self) -> bool:
        """Tell whether some were left out."""
        return self.known_to < _NO_END

    @property
    def are_waiting(self) -> bool:
        """Tell whether an answer waits for its event, or was left out."""
        return self._highest >= self._passed or self.are_cut

    def starts(self) -> dict[str, int]:
        """Return, per result topic, from where on the answers lie that wait or were left out."""
        found = dict(self._left_out)
        for topic, first in (one for firsts in self._firsts.values() for one in firsts.items()):
            _note(found, topic, first)
        return found


def _note(firsts: dict[str, int], topic: str, offset: int) -> None:
    firsts[topic] = min(offset, firsts.get(topic, offset))


class Ledger:
    """One partition's book, for one tenure.

    Args:
        position: first offset that will be delivered (the committed one).
        result_ends: per result topic, the end of the matching result partition when the tenure began.
        answered: found by the scan of the result topic; the book makes it its own.
        replay_until: offsets below it are done again because an operator wants it.
        repeats: what is known of earlier events.

    Attributes:
        result_ends: per result topic, the known end of the matching result partition.
        taken: offsets taken so far.
        repeats: which events repeat earlier ones.
        answered: answers to events that have not come yet.
    """

    def __init__(
        self,
        position: int,
        result_ends: dict[str, int] | None = None,
        answered: Answers | None = None,
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
        self.answered = Answers() if answered is None else answered
        self._is_lacking = False
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
        return self.answered.get(offset, timestamp_ms)

    @property
    def wants_answers(self) -> bool:
        """Tell whether the next record waits for its answer to be looked for, and nothing before it is unfinished."""
        return self._is_lacking and not self._unfinished

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
        return not self._unfinished and not self.answered.are_waiting

    @property
    def span(self) -> int:
        """Return how many offsets lie between the commit point and the newest delivered one."""
        return self._next - self.commit_point

    def limit_reached(self, offset: int, uncommitted: int) -> str | None:
        """Return why the next record may not be taken yet; None when it may. Notes that it waits for its answer.

        Args:
            offset: of that record.
            uncommitted: limit of `span`.
        """
        if self.is_ahead(uncommitted):
            return "uncommitted"
        if offset < self.answered.known_to:
            return None
        # It may be answered where nobody has looked yet. Nothing lies before it any more: what is found next begins
        # with its own answer.
        self._next = max(self._next, offset)
        self._is_lacking = True
        return "answers"

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
        self.answered.pass_to(self._next)
        marks = dict(self.result_ends)
        for topic, start in self.answered.starts().items():
            marks[topic] = min(marks.get(topic, start), start)
        for topic, finished in self._finished.items():
            while finished and finished[0][1] < point:
                heapq.heappop(finished)
            if finished:
                marks[topic] = min(marks[topic], finished[0][0])
        return marks


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
