"""Decides which items go out next, together, and to where: order, batches, fairness between destinations, breakers.

Pure: no I/O, no tasks; the clock is injected. What may not overtake each other is a unit: the items of one key, of one
partition, or a single item, by the door's order. A unit stands in the lane of its destination while it can go out.
"""

import heapq
import itertools
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping

from contracts.settings.egress import DoorSection
from gateways.egress.base import Item, Shape
from gateways.egress.breaker import Breaker
from gateways.egress.ledger import Entry, Ledger, UnitId
from gateways.egress.schedule import LATE_S, surplus


class _Unit:
    __slots__ = ("bytes", "entries", "id", "is_resting", "is_split", "rests_until_s")

    def __init__(self, unit_id: UnitId) -> None:
        self.id = unit_id
        self.entries: deque[Entry] = deque()
        self.bytes = 0
        self.is_resting = False
        self.is_split = False
        self.rests_until_s = float("-inf")


class Lane:
    """What goes to one destination.

    Attributes:
        owner: whose it is: an API key, or empty.
        in_flight: deliveries under way.
    """

    def __init__(self, destination: str, owner: str, breaker: Breaker) -> None:
        self.destination = destination
        self.owner = owner
        self.breaker = breaker
        self.ready: deque[_Unit] = deque()
        self.units: dict[UnitId, _Unit] = {}
        self.items = 0
        self.in_flight = 0

    @property
    def is_idle(self) -> bool:
        """Tell whether it can be forgotten."""
        return not self.units and not self.in_flight and self.breaker.is_pristine

    @property
    def waiting(self) -> list[Entry]:
        """Return what can go out, of each unit the first."""
        return [unit.entries[0] for unit in self.ready]


# Lanes of destinations that failed lately and have nothing to do; forgetting one forgets its failures.
_MAX_LANES = 10_000


class Queue:
    """The items in hand of one door.

    Args:
        shape: how the door wants its items.
        splits: the door's.
        settings: limits.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        shape: Shape,
        splits: Callable[[Item, Item], bool],
        settings: DoorSection,
        clock: Callable[[], float],
    ) -> None:
        self._shape = shape
        self._splits = splits
        self._settings = settings
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        # There may be thousands of lanes: those with something that could go out, by owner, and those that are closed.
        self._ready: OrderedDict[str, OrderedDict[str, Lane]] = OrderedDict()
        self._under_way: Counter[str] = Counter()
        self._closed: dict[str, Lane] = {}
        self._resting: list[tuple[float, int, Lane, _Unit]] = []
        self._tie = itertools.count()
        self._per_lane = settings.max_in_flight
        if shape.many_destinations:
            self._per_lane = settings.max_in_flight_per_destination or max(1, settings.max_in_flight // 4)
        self._can_strand = shape.many_destinations and shape.order == "none"
        self._least_room = -(-settings.max_held_bytes // settings.max_held_items)
        self._room_under_way = 0
        self.in_flight = 0
        self.items = 0

    def add(self, entry: Entry) -> None:
        """Take an item behind the others of its unit."""
        entry.queued_at_s = self._clock()
        lane = self._lane(entry)
        unit = lane.units.get(entry.unit_id)
        if unit is None:
            unit = lane.units[entry.unit_id] = _Unit(entry.unit_id)
            self._make_ready(lane, unit)
        if unit.entries and not unit.is_split and self._shape.order == "partition":
            unit.is_split = self._splits(unit.entries[0].item, entry.item)
        unit.entries.append(entry)
        unit.bytes += entry.size_bytes
        lane.items += 1
        self.items += 1

    def _lane(self, entry: Entry) -> Lane:
        """Return the lane of an entry's destination, a new one when there is none."""
        destination = entry.destination
        lane = self._lanes.get(destination)
        if lane is None:
            if len(self._lanes) >= _MAX_LANES:
                # Before the new one is there, which has nothing to do yet either.
                self._forget_some()
            breaker = Breaker(self._settings.breaker, self._clock)
            lane = self._lanes[destination] = Lane(destination, entry.item.outcome.owner, breaker)
        return lane

    @property
    def open_breakers(self) -> int:
        """Return to how many destinations deliveries are stopped."""
        return len(self._closed)

    def next_batch(self, *, is_full: bool) -> tuple[Lane, list[Entry]] | None:
        """Take the next batch to deliver; None when none may go out now.

        Args:
            is_full: nothing more comes in, so that nobody need wait for company.
        """
        self._wake()
        if self.in_flight >= self._settings.max_in_flight:
            return None
        found = next(
            (
                (lane, batch)
                for lane in self._in_turn()
                if lane.in_flight < self._limit(lane) and (batch := self._from_lane(lane, is_full=is_full))
            ),
            None,
        )
        if found is not None:
            lane, batch = found
            lane.in_flight += 1
            self.in_flight += 1
            self._under_way[lane.owner] += 1
            self._room_under_way += sum(map(self._room, batch))
            # The next one looks at the other owners and destinations first.
            self._ready.move_to_end(lane.owner)
            self._ready[lane.owner].move_to_end(lane.destination)
            if not lane.ready:
                self._make_unready(lane)
        return found

    def _in_turn(self) -> Iterator[Lane]:
        """Yield the lanes that have something, of who has the fewest deliveries under way first.

        So nobody with many destinations that hang holds up those of others for longer than one delivery takes.
        """
        for owner in sorted(self._ready, key=self._under_way.__getitem__):
            yield from self._ready[owner].values()

    def wake_at_s(self) -> float | None:
        """Return when `next_batch` may have something that it has not now; None when only news can change that."""
        times = [self._resting[0][0]] if self._resting else []
        for lane in self._in_turn():
            if lane.in_flight >= (1 if lane.breaker.is_open else self._per_lane):
                continue
            heads = lane.ready if self._shape.order == "partition" else [lane.ready[0]]
            times.append(max(lane.breaker.retry_at_s, min(map(self._lingered_at_s, heads))))
        return min(times, default=None)

    def done(self, lane: Lane, batch: Iterable[Entry], again: Mapping[Entry, float]) -> None:
        """Take a batch back.

        Args:
            lane: as `next_batch` gave it.
            batch: the same.
            again: items of it that go out again, and how long each rests before; the others need nothing more.
        """
        lane.in_flight -= 1
        self.in_flight -= 1
        self._under_way[lane.owner] -= 1
        if not self._under_way[lane.owner]:
            del self._under_way[lane.owner]
        entries = list(batch)
        self._room_under_way -= sum(map(self._room, entries))
        for entry in reversed(entries):
            if entry in again:
                self._put_back(lane, lane.units[entry.unit_id], entry, again[entry])
        for unit_id in {entry.unit_id for entry in entries}:
            self._release(lane, lane.units[unit_id])
        self._settle(lane)

    def take_stranded(self, *, is_full: bool) -> list[tuple[Lane, Entry]]:
        """Take what should wait on the delay topics instead of here, where there are many destinations.

        That is what waits for a destination that is down, but for one item that tries; and while nothing more comes in,
        what is beyond a quarter of the items in hand for one destination, since others may wait behind it in the log.
        """
        if not self._can_strand:
            return []
        share = max(1, self._settings.max_held_items // 4) if is_full else self._settings.max_held_items
        stranded: list[tuple[Lane, Entry]] = []
        for lane in list((self._lanes if is_full else self._closed).values()):
            keep = 1 if lane.breaker.is_open else share
            if len(lane.ready) > keep:
                stranded += self._take_out(lane, set(lane.waiting[keep:]).__contains__)
        return stranded

    def take_crowding(self, floors: Mapping[Ledger, int], *, is_full: bool) -> list[tuple[Lane, Entry]]:
        """Take what has waited here for so long that others wait for it in the log, where there are many destinations.

        Args:
            floors: of partitions that may not run ahead any further: what lies in front of it is taken.
            is_full: nothing more comes in: of every owner what is late beyond an even share of half the room is taken.
        """
        late_s = self._clock() - LATE_S
        beyond = self._surplus(late_s) if is_full and self._can_strand else set[Entry]()

        def is_crowding(entry: Entry) -> bool:
            return entry in beyond or (entry.queued_at_s <= late_s and entry.offset < floors.get(entry.ledger, 0))

        lanes = list(self._lanes.values()) if self._can_strand and (floors or beyond) else []
        return [one for lane in lanes for one in self._take_out(lane, is_crowding)]

    def _surplus(self, late_s: float) -> set[Entry]:
        held = [[lane.waiting for lane in lanes.values()] for lanes in self._ready.values()]
        return surplus(held, late_s, (self._settings.max_held_bytes - 1) // 2 - self._room_under_way, self._room)

    def _take_out(self, lane: Lane, is_taken: Callable[[Entry], bool]) -> list[tuple[Lane, Entry]]:
        taken = {entry.unit_id: entry for entry in lane.waiting if is_taken(entry)}
        if taken:
            lane.ready = deque(unit for unit in lane.ready if unit.id not in taken)
            for unit_id in taken:
                del lane.units[unit_id]
            lane.items -= len(taken)
            self.items -= len(taken)
            self._settle(lane)
        return [(lane, entry) for entry in taken.values()]

    def _room(self, entry: Entry) -> int:
        # Of the room in hand, as a part of its bytes; one that is small takes its part of the items.
        return max(entry.size_bytes, self._least_room)

    def drop(self, is_dropped: Callable[[Entry], bool]) -> list[Entry]:
        """Forget what waits and is no longer ours, and return it; what is under way comes back by `done`."""
        gone: set[_Unit] = set()
        dropped: list[Entry] = []
        for lane in list(self._lanes.values()):
            waiting = [*lane.ready, *(unit for _, _, at, unit in self._resting if at is lane)]
            for unit in waiting:
                dropped += self._drop_from(lane, unit, is_dropped)
                if not unit.entries:
                    gone.add(unit)
                    del lane.units[unit.id]
            # Of units under way only what waits behind.
            for unit in lane.units.values():
                dropped += self._drop_from(lane, unit, is_dropped)
            lane.ready = deque(unit for unit in lane.ready if unit not in gone)
            self._settle(lane)
        self._resting = [rest for rest in self._resting if rest[3] not in gone]
        heapq.heapify(self._resting)
        return dropped

    def _drop_from(self, lane: Lane, unit: _Unit, is_dropped: Callable[[Entry], bool]) -> list[Entry]:
        dropped = [entry for entry in unit.entries if is_dropped(entry)]
        if dropped:
            unit.entries = deque(entry for entry in unit.entries if not is_dropped(entry))
            unit.bytes = sum(entry.size_bytes for entry in unit.entries)
            lane.items -= len(dropped)
            self.items -= len(dropped)
            self._look_for_split(unit)
        return dropped

    def _limit(self, lane: Lane) -> int:
        if not lane.breaker.is_open:
            return self._per_lane
        return 1 if self._clock() >= lane.breaker.retry_at_s else 0

    def _from_lane(self, lane: Lane, *, is_full: bool) -> list[Entry]:
        is_trial = lane.breaker.is_open
        if self._shape.order == "partition":
            # Also the one that tries is whole: that is how it went out before, and it may have arrived.
            return self._run_of(lane, is_full=is_full or is_trial)
        if is_trial:
            # One item tries for all.
            return self._take_from(lane, lane.ready.popleft(), 1)
        may_wait = len(lane.ready) < self._shape.max_batch and not is_full
        if may_wait and self._lingered_at_s(lane.ready[0]) > self._clock():
            return []
        batch: list[Entry] = []
        room_bytes = self._shape.max_batch_bytes
        while lane.ready and len(batch) < self._shape.max_batch:
            head = lane.ready[0].entries[0]
            if batch and (head.size_bytes > room_bytes or self._splits(batch[0].item, head.item)):
                break
            room_bytes -= head.size_bytes
            batch += self._take_from(lane, lane.ready.popleft(), 1)
        return batch

    def _run_of(self, lane: Lane, *, is_full: bool) -> list[Entry]:
        """Take a run of the first unit that has a full one, or has waited long enough."""
        shape = self._shape
        for _ in range(len(lane.ready)):
            unit = lane.ready.popleft()
            is_due = len(unit.entries) >= shape.max_batch or unit.bytes >= shape.max_batch_bytes or unit.is_split
            if is_due or self._lingered_at_s(unit) <= self._clock():
                return self._take_from(lane, unit, shape.max_batch)
            lane.ready.append(unit)
        if not is_full:
            return []
        # The longest run makes the most room, and the best object.
        longest = max(lane.ready, key=lambda unit: unit.bytes)
        lane.ready.remove(longest)
        return self._take_from(lane, longest, shape.max_batch)

    def _take_from(self, lane: Lane, unit: _Unit, count: int) -> list[Entry]:
        taken: list[Entry] = []
        room_bytes = self._shape.max_batch_bytes
        while unit.entries and len(taken) < count:
            head = unit.entries[0]
            if taken and (head.size_bytes > room_bytes or self._splits(taken[0].item, head.item)):
                break
            taken.append(unit.entries.popleft())
            room_bytes -= head.size_bytes
            unit.bytes -= head.size_bytes
        self._look_for_split(unit)
        lane.items -= len(taken)
        self.items -= len(taken)
        return taken

    def _look_for_split(self, unit: _Unit) -> None:
        if self._shape.order == "partition":
            entries = unit.entries
            unit.is_split = any(self._splits(entries[0].item, entry.item) for entry in entries)

    def _put_back(self, lane: Lane, unit: _Unit, entry: Entry, rest_s: float) -> None:
        unit.entries.appendleft(entry)
        unit.bytes += entry.size_bytes
        unit.rests_until_s = max(unit.rests_until_s, self._clock() + rest_s)
        unit.is_resting = True
        lane.items += 1
        self.items += 1

    def _release(self, lane: Lane, unit: _Unit) -> None:
        """Let the rest of a unit go out, now or after its rest, or forget it."""
        self._look_for_split(unit)
        if unit.is_resting:
            heapq.heappush(self._resting, (unit.rests_until_s, next(self._tie), lane, unit))
        elif unit.entries:
            self._make_ready(lane, unit)
        else:
            del lane.units[unit.id]

    def _wake(self) -> None:
        now_s = self._clock()
        while self._resting and self._resting[0][0] <= now_s:
            _, _, lane, unit = heapq.heappop(self._resting)
            unit.is_resting = False
            unit.rests_until_s = float("-inf")
            self._make_ready(lane, unit)

    def _make_ready(self, lane: Lane, unit: _Unit) -> None:
        lane.ready.append(unit)
        self._ready.setdefault(lane.owner, OrderedDict())[lane.destination] = lane

    def _make_unready(self, lane: Lane) -> None:
        if lanes := self._ready.get(lane.owner):
            lanes.pop(lane.destination, None)
            if not lanes:
                del self._ready[lane.owner]

    def _settle(self, lane: Lane) -> None:
        """Put a lane where it belongs now."""
        name = lane.destination
        if not lane.ready:
            self._make_unready(lane)
        if lane.breaker.is_open:
            self._closed[name] = lane
        else:
            self._closed.pop(name, None)
        if lane.is_idle:
            self._lanes.pop(name, None)

    def _lingered_at_s(self, unit: _Unit) -> float:
        return unit.entries[0].queued_at_s + self._shape.linger_s

    def _forget_some(self) -> None:
        for destination in [name for name, lane in self._lanes.items() if not lane.units and not lane.in_flight]:
            del self._lanes[destination]
            self._closed.pop(destination, None)
