"""Plays a plan: sends events of every kind, and disturbs the workers, the log and the model meanwhile."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from contracts.codec import Position, Record, encode_event
from contracts.envelope import Event
from contracts.errors import LogUnavailable
from contracts.repetition import dedup_header, identify
from streams.engine.item import TP
from streams.providers.measured import _calling
from tests.streams.storm.fleet import Fleet, Worker
from tests.streams.storm.log import Entry, Log
from tests.streams.storm.model import Shared, Weather
from tests.streams.storm.plan import LANES, OTHER, PARTITIONS, SOURCES, TOPICS, Plan
from tests.streams.virtual_clock import now_at

# By then everything has its end: the longest deadline is an hour.
_LIMIT_S = 20_000.0


class World:
    """See the module.

    Attributes:
        sent: by number, the first record of each event.
        coming: repetitions that are still to be sent.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.dice = plan.dice
        self.loop = asyncio.get_running_loop()
        self.log = Log(self.dice, self.dice.choice((0.0, 0.2)))
        self.shared = Shared(self.dice, self.loop.time)
        self.fleet = Fleet(plan, self.log, self.shared)
        self.sent: dict[int, tuple[Entry, Event]] = {}
        self.coming = 0
        self._kinds = [route.name for route in plan.settings.routes]
        self._keys = [None, *(f"k{number}" for number in range(self.dice.choice((2, 5, 100))))]
        self._faults: dict[str, Callable[[Worker], Awaitable[None] | None]] = {
            "rebalance": lambda _worker: self.fleet.rebalance(),
            "rebalance again": lambda _worker: self.fleet.rebalance(),
            "stale": lambda _worker: self.fleet.rebalance(is_stale=True),
            "lease": self._lease,
            "freeze": self._freeze,
            "forbid": self._forbid,
            "weather": lambda _worker: self._change(self._weather()),
            "weather again": lambda _worker: self._change(self._weather()),
            "denied": lambda _worker: self._change(Weather(is_denied=True, is_fast=self.dice.random() < 0.5)),
            "down": lambda _worker: self._change(Weather(is_down=True, is_fast=self.dice.random() < 0.5)),
        }
        if plan.crashes:
            self._faults |= {"kill": self._kill, "unconfirmed": self._unconfirmed, "join": self._join}
        _calling.clear()

    async def run(self) -> None:
        """Play."""
        plan, dice, fleet = self.plan, self.dice, self.fleet
        self.shared.poison = frozenset(number for number in range(plan.events) if dice.random() < plan.faults / 8)
        self._change(self._weather())
        for _ in range(plan.places):
            fleet.hire()
        await fleet.rebalance()
        keeper, disturber = (asyncio.ensure_future(work) for work in (fleet.look_after(), self._disturb()))
        for number in range(plan.events):
            self._send(number)
            if dice.random() < plan.rests:
                await asyncio.sleep(dice.uniform(0.0, plan.seconds / plan.events / plan.rests))
        await disturber
        self._calm()
        end_s = self.loop.time() + _LIMIT_S
        while (self.coming or not fleet.is_done) and self.loop.time() < end_s:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(1.0)
        await asyncio.sleep(3.0)
        keeper.cancel()
        await asyncio.wait([keeper])
        await fleet.retire()
        # What only looks from time to time ends as well.
        await asyncio.sleep(6.0)

    def deadline_s(self, number: int) -> float:
        """Return when an event expires, by the loop's clock."""
        entry, event = self.sent[number]
        deadline_s = entry.timestamp_ms / 1000 + self.plan.settings.routes[0].deadline_s
        if event.expires_at is not None:
            deadline_s = min(deadline_s, event.expires_at.timestamp())
        return deadline_s - now_at().timestamp() + self.loop.time()

    def _send(self, number: int) -> None:
        dice, event = self.dice, self._event(number)
        headers = list(encode_event(event))
        is_repeatable = dice.random() < 0.2
        if is_repeatable:
            headers.append(dedup_header(identify("", event.source, event.id, event.data, "id", 60), "new"))
        if dice.random() < 0.02:
            headers = [one for one in headers if one[0] != "ce_specversion"]
        tp = TP(SOURCES[dice.choice(LANES)], dice.randrange(PARTITIONS))
        record = Record(tp.topic, event.key, event.data, headers, tp.partition)
        entry = self.log.append(record, tp.partition, has_gaps=True)
        self.sent[number] = entry, event
        for _ in range(dice.choice((0, 1, 2)) if is_repeatable else 0):
            self.coming += 1
            self.loop.call_later(dice.choice((0.0, 1.0, 20.0)), self._again, record, tp)
        if "delivery" in event.extensions and dice.random() < 0.3:
            position = Position(*tp, entry.offset, entry.timestamp_ms)
            self.loop.call_later(dice.choice((0.0, 0.5, 5.0)), self._cancel, position)

    def _event(self, number: int) -> Event:
        dice = self.dice
        account, pad = dice.choice((1, "1", 2, None)), "x" * dice.choice((0, 10, 600))
        data = json.dumps({"n": number, "account": account, "pad": pad}).encode()
        extensions: dict[str, Any] = {}
        if key := dice.choice(self._keys):
            extensions["partitionkey"] = key
        if dice.random() < 0.15:
            extensions["delivery"] = "stream"
        if dice.random() < 0.1:
            at = now_at() + timedelta(seconds=dice.choice((0.5, 3.0, 30.0)))
            extensions["expirytime"] = at.isoformat().replace("+00:00", "Z")
        return Event(
            id=f"e{number}",
            source=dice.choice(("big", "small")),
            type=dice.choice(self._kinds) if dice.random() > 0.02 else "unroutable",
            data=data if dice.random() > 0.03 else b"{",
            extensions=extensions,
            datacontenttype="application/json",
        )

    def _again(self, record: Record, tp: TP) -> None:
        self.coming -= 1
        self.log.append(record, tp.partition, has_gaps=True)

    def _cancel(self, position: Position) -> None:
        self.fleet.say(f"cancel {position}")
        for worker in self.fleet.workers:
            worker.cancels.add(position)

    async def _disturb(self) -> None:
        end_s = self.loop.time() + self.plan.seconds
        while self.loop.time() < end_s:
            await asyncio.sleep(self.dice.uniform(0.0, self.plan.seconds / self.plan.pace))
            kind, worker = self.dice.choice(list(self._faults)), self.dice.choice(self.fleet.workers)
            self.fleet.say(f"{kind} (w{worker.number})")
            done = self._faults[kind](worker)
            if done is not None:
                await done

    def _calm(self) -> None:
        self.fleet.say("calm")
        self.fleet.is_calm = True
        self._change(Weather())
        for worker in self.fleet.workers:
            worker.outlet.forbidden.clear()
            worker.outlet.fails.clear()

    def _change(self, weather: Weather) -> None:
        self.shared.weather = weather

    def _weather(self) -> Weather:
        def share() -> float:
            return self.dice.choice((0.0, self.plan.faults))

        return Weather(
            throttled=share(),
            unavailable=share(),
            hang=share(),
            invalid=self.dice.choice((0.0, self.plan.faults, 0.3)),
            bug=share(),
            cancels=share(),
            refused=share(),
            unasked=share(),
            unmatched=self.dice.choice((0.0, self.plan.faults, 0.3)),
            slow_s=self.dice.choice((0.0, 0.1, 2.0, 5.0, 20.0)),
        )

    def _lease(self, worker: Worker) -> None:
        worker.stale_until_s = max(worker.stale_until_s, self.loop.time() + self.dice.uniform(0.1, 5.0))

    def _freeze(self, worker: Worker) -> None:
        worker.outlet.is_frozen = True
        self.loop.call_later(self.dice.choice((0.05, 1.0, 10.0)), worker.outlet.thaw)

    def _forbid(self, worker: Worker) -> None:
        topic = self.dice.choice((TOPICS.results, TOPICS.retries, TOPICS.dead_letters, OTHER, TOPICS.deltas))
        worker.outlet.forbidden.add(topic)
        self.loop.call_later(self.dice.choice((1.0, 10.0)), worker.outlet.forbidden.discard, topic)

    @staticmethod
    def _unconfirmed(worker: Worker) -> None:
        worker.outlet.fails.append(LogUnavailable("not confirmed"))

    async def _kill(self, worker: Worker) -> None:
        await self.fleet.kill(worker)
        await self.fleet.rebalance()

    async def _join(self, _worker: Worker) -> None:
        if len(self.fleet.workers) < self.plan.places:
            self.fleet.hire()
            await self.fleet.rebalance()
