"""A log in memory that outlives its workers, and the producer through which one worker writes to it."""

import asyncio
import bisect
import random
from collections import defaultdict
from typing import NamedTuple

from contracts.codec import Record, source_position
from contracts.errors import PenstockError
from contracts.repetition import identity_of
from contracts.settings import ProducerSettings
from producers.base import Ack, Delivered, Forbidden, Place
from producers.window import Waiting, Window
from streams.engine.item import TP, ResultRef
from streams.engine.repeats import Repeats
from streams.tail import Tail
from tests.streams.virtual_clock import now_at


class Entry(NamedTuple):
    """A record on the log; `number` orders all of them."""

    offset: int
    timestamp_ms: int
    record: Record
    number: int


class Log:
    """All topics, and what the group has committed.

    Args:
        dice: for gaps.
        gaps: how often an offset is left out, as by a transaction's marker.
    """

    def __init__(self, dice: random.Random, gaps: float) -> None:
        self._dice = dice
        self._gaps = gaps
        self._number = 0
        self.records: dict[TP, list[Entry]] = defaultdict(list)
        self.ends: dict[TP, int] = defaultdict(int)
        self.commits: dict[TP, tuple[int, dict[str, int]]] = {}

    def append(self, record: Record, partition: int, *, has_gaps: bool = False) -> Entry:
        """Write a record."""
        tp = TP(record.topic, partition)
        if has_gaps and self._dice.random() < self._gaps:
            self.ends[tp] += self._dice.randint(1, 3)
        entry = Entry(self.ends[tp], int(now_at().timestamp() * 1000), record, self._number)
        self._number += 1
        self.ends[tp] = entry.offset + 1
        self.records[tp].append(entry)
        if has_gaps and self._dice.random() < self._gaps:
            self.ends[tp] += 1
        return entry

    def since(self, tp: TP, offset: int) -> list[Entry]:
        """Return the records from an offset on."""
        records = self.records[tp]
        return records[bisect.bisect_left(records, offset, key=lambda entry: entry.offset) :]

    def tail(self, tp: TP, offset: int, marks: dict[str, int] | None, topics: frozenset[str]) -> Tail:
        """Return what is answered already, as streams.tail does."""
        tail = Tail()
        for topic in topics:
            place = TP(topic, tp.partition)
            end = self.ends[place]
            start = end if marks is None else min(marks.get(topic, end), end)
            tail.starts[topic], tail.ends[topic] = start, end
            for entry in self.records[place]:
                found = source_position(entry.record.headers)
                if entry.offset < start or found is None or marks is None:
                    continue
                if TP(found[1].topic, found[1].partition) == tp and found[1].offset >= offset:
                    tail.answered.add(found[1].offset, found[1].timestamp_ms, ResultRef(topic, entry.offset))
        return tail

    def repeats(self, tp: TP, end: int, limit: int) -> Repeats:
        """Return what earlier events may be repeated, as streams.recall does."""
        window = Repeats(limit)
        for entry in self.records[tp]:
            if end - limit <= entry.offset < end:
                name = next((raw for key, raw in entry.record.headers if key == "ce_id"), None) or b""
                identity = identity_of(entry.record.headers, name.decode())
                if identity is not None:
                    window.meet(identity, entry.offset, entry.timestamp_ms)
        return window


class Outlet:
    """One worker's producer: bounded, slow, refused and silent at times.

    Attributes:
        is_frozen: nothing is written.
        forbidden: topics that may not be written to.
        fails: what the next records get, once each; they may be on the log all the same.
    """

    def __init__(self, log: Log, dice: random.Random, limits: ProducerSettings, slow_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._log = log
        self._dice = dice
        self._slow_s = slow_s
        self._window = Window(limits, clock=loop.time)
        self._queue: list[Waiting] = []
        self._unacked: list[tuple[Waiting, int, int, int]] = []
        self._is_due = False
        self.is_dead = False
        self.is_frozen = False
        self.forbidden: set[str] = set()
        self.fails: list[PenstockError] = []

    async def start(self) -> None:
        """Do nothing."""

    async def aclose(self, timeout_s: float = 10.0) -> None:
        """Do nothing."""

    async def produce(self, record: Record) -> Delivered:
        """Return where the record lies."""
        ack: asyncio.Future[Delivered] = self._loop.create_future()
        self.post(record, ack)
        try:
            return await ack
        finally:
            del ack

    def post(self, record: Record, ack: Ack) -> None:
        """Have a record written in a moment, and its ack given in another one."""
        if self.is_dead:
            return
        waiting = self._window.admit(record, ack)
        if self.fails:
            self._loop.call_later(0.01, waiting.fail, self.fails.pop())
            if self._dice.random() < 0.5:
                self._queue.append(waiting)
                self._soon()
        elif record.topic in self.forbidden:
            self._loop.call_later(0.01, waiting.fail, Forbidden(record.topic))
        else:
            self._queue.append(waiting)
            self._soon()

    def _soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(self._dice.choice((0.0, 0.001, self._slow_s)), self._write)

    def _write(self) -> None:
        self._is_due = False
        if self.is_frozen:
            return
        self.flush()
        self._loop.call_later(self._dice.choice((0.0, 0.0, self._slow_s)), self._ack)

    def thaw(self) -> None:
        """Go on."""
        self.is_frozen = False
        self._write()

    def flush(self) -> None:
        """Have everything that the client has on the log, without an ack yet."""
        queue, self._queue = self._queue, []
        for waiting in queue:
            record = waiting.record
            # Only dead letters have no place of their own.
            partition = record.partition or 0
            entry = self._log.append(record, partition)
            self._unacked.append((waiting, partition, entry.offset, entry.timestamp_ms))

    def _ack(self) -> None:
        unacked, self._unacked = self._unacked, []
        if not self.is_dead:
            for waiting, *place in unacked:
                waiting.confirm(*place)

    def die(self) -> None:
        """End as the process does: of what the client has, some arrives."""
        self.is_dead = True
        self._queue = self._queue[: self._dice.randint(0, len(self._queue))]
        self.flush()

    @property
    def buffered_bytes(self) -> int:
        """Return bytes of records without an ack."""
        return self._window.buffered_bytes

    @property
    def is_full(self) -> bool:
        """Tell whether the buffer is nearly full."""
        return self._window.is_full

    @property
    def is_stalled(self) -> bool:
        """Say no: that is for gateways."""
        return False

    def silent(self, after_s: float) -> frozenset[Place]:
        """Return where acks are missing."""
        return self._window.silent(after_s)

    async def probe(self, timeout_s: float) -> None:
        """Answer."""
