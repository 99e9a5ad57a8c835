"""Workers on one log, and what a consumer group does to them: partitions given up, lost and handed out; crashes."""

import asyncio
import contextvars
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.codec import Position
from contracts.topics import RETRY_LANE
from streams.cancels import Cancels
from streams.deltas import Deltas
from streams.engine.engine import Engine
from streams.engine.item import TP, Item
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.pipeline import Pipeline
from streams.providers.limited import Limited
from streams.providers.measured import Measured
from streams.settle import Settler
from tests.streams.storm.log import Log, Outlet
from tests.streams.storm.model import Model, Shared
from tests.streams.storm.plan import APP_ID, JOURNAL, LANES, SOURCES, TOPICS, TPS, Plan
from tests.streams.virtual_clock import now_at

# In whose process a task runs.
_owner: contextvars.ContextVar[int] = contextvars.ContextVar("owner", default=-1)


@dataclass(eq=False)
class Worker:
    """One process.

    Attributes:
        crash: what has ended it.
        tps: its partitions.
        newest, next: per partition, the last offset that was handed out, and where reading goes on.
        stale_until_s: its lease is not good before.
        lost_s: when it has given up partitions.
    """

    number: int
    outlet: Outlet
    models: list[Model]
    limited: list[Limited]
    cancels: Cancels
    pipeline: Pipeline
    engine: Engine = field(init=False)
    crash: BaseException | None = None
    is_dead: bool = False
    tps: frozenset[TP] = frozenset()
    newest: dict[TP, int] = field(default_factory=dict)
    next: dict[TP, int] = field(default_factory=dict)
    stale_until_s: float = 0.0
    tasks: dict["asyncio.Task[Any]", None] = field(default_factory=dict)
    lost_s: list[float] = field(default_factory=list)

    def die(self, now_s: float) -> None:
        """End: nothing of it does anything any more."""
        self.is_dead = True
        self.lost_s.append(now_s)
        self.outlet.die()
        self.engine.tenure.end()
        for model in self.models:
            model.is_dead = True


class Fleet:
    """See the module.

    Attributes:
        workers: alive.
        everybody: those that have died as well.
        is_calm: nothing comes any more; looking rarely will do.
        trace: what has happened, for who looks into a seed.
    """

    def __init__(self, plan: Plan, log: Log, shared: Shared) -> None:
        self.plan = plan
        self.dice = plan.dice
        self.log = log
        self.shared = shared
        self.loop = asyncio.get_running_loop()
        self.workers: list[Worker] = []
        self.everybody: list[Worker] = []
        self.generation = 0
        self.is_calm = False
        self.trace: list[str] = []
        self.busy = asyncio.Lock()
        self.loop.set_task_factory(self._task)

    def say(self, text: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{self.loop.time():9.3f} {text}")

    def _task(self, loop: asyncio.AbstractEventLoop, coro: Any, **context: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **context)
        owner = _owner.get()
        if owner >= 0:
            tasks = self.everybody[owner].tasks
            tasks[task] = None
            task.add_done_callback(tasks.pop)
        return task

    def _as(self, worker: Worker, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do some work in a worker's process."""

        def begin() -> "asyncio.Task[Any]":
            _owner.set(worker.number)
            return asyncio.ensure_future(work)

        return contextvars.copy_context().run(begin)

    def hire(self) -> None:
        """Start a worker, without partitions."""
        worker = contextvars.copy_context().run(self._hire, len(self.everybody))
        self.everybody.append(worker)
        self.workers.append(worker)

    def _hire(self, number: int) -> Worker:
        _owner.set(number)
        plan, dice = self.plan, self.dice
        outlet = Outlet(self.log, dice, plan.outlet, dice.choice((0.01, 0.3)))
        models = [Model(self.shared, number, is_direct=is_direct) for is_direct in (True, False)]
        limited = [Limited(Measured(one, self.loop.time), dice.choice((2, 100))) for one in models]
        cancels = Cancels()
        pipeline = Pipeline(
            plan.settings,
            dict(zip("pq", limited, strict=True)),
            Settler(outlet, TOPICS, APP_ID),
            Deltas(outlet, TOPICS.deltas, APP_ID, clock=lambda: now_at().timestamp()),
            cancels,
            self._spills,
        )
        pipeline.calls._max_kept, pipeline.calls._max_kept_bytes = plan.max_kept, plan.max_kept_bytes
        worker = Worker(number, outlet, models, limited, cancels, pipeline)
        worker.engine = Engine(
            pipeline,
            plan.limits,
            (*LANES, RETRY_LANE),
            lambda error: self._crashed(worker, error),
            pipeline.calls.keep,
            pipeline.calls.drop,
            pipeline.replay,
            pipeline.prepare,
            lambda: sum(one.arrivals.count for one in limited),
            straight=pipeline.straight,
        )
        for one in limited:
            one.arrivals.listeners.append(worker.engine.hand_out)
        return worker

    def _spills(self, item: Item, _job: object) -> bool:
        return self.plan.spills and item.chain is None and item.lane == "bulk" and self.dice.random() < 0.3

    def _crashed(self, worker: Worker, error: BaseException) -> None:
        """End a process as it ends itself: in this turn of its loop."""
        if worker.crash is None:
            worker.crash = error
            self.say(f"w{worker.number} crashes: {error!r}")
            worker.die(self.loop.time())

    async def kill(self, worker: Worker) -> None:
        """End a process."""
        if not worker.is_dead:
            self.say(f"w{worker.number} is killed")
            worker.die(self.loop.time())
        if worker in self.workers:
            self.workers.remove(worker)
        for _ in range(20):
            for task in list(worker.tasks):
                task.cancel()
            if worker.tasks:
                await asyncio.wait(set(worker.tasks), timeout=0.01)

    async def rebalance(self, *, is_stale: bool = False) -> None:
        """Have all partitions given up, and hand them out anew.

        Args:
            is_stale: one of several workers gives up nothing: it was stopped, and finds out later.
        """
        async with self.busy:
            for worker in [one for one in self.workers if one.is_dead]:
                await self.kill(worker)
            if not self.workers:
                self.hire()
            stale = self.dice.choice(self.workers) if is_stale and len(self.workers) > 1 else None
            await asyncio.gather(*(self._give_up(one) for one in self.workers if one.tps and one is not stale))
            if stale is not None:
                stale.stale_until_s = float("inf")
                self.loop.call_later(self.dice.uniform(0.1, 5.0), self._wake, stale, stale.engine.tenure)
            for worker in self.everybody:
                # What a client still has when somebody else reads the tail may come twice: docs/pay-once.md.
                worker.outlet.flush()
            self._hand_out([one for one in self.workers if one is not stale and not one.is_dead])

    def _hand_out(self, takers: list[Worker]) -> None:
        self.generation += 1
        shares: dict[Worker, set[TP]] = {one: set() for one in takers}
        for tp in TPS if takers else ():
            shares[self.dice.choice(takers)].add(tp)
        for worker, tps in shares.items():
            self._assign(worker, frozenset(tps))

    def _wake(self, worker: Worker, tenure: Tenure) -> None:
        """Have a process go on that was stopped."""
        if worker.engine.tenure is tenure and not (tenure.is_over or worker.is_dead):
            self._as(worker, self._give_up(worker))

    async def _give_up(self, worker: Worker) -> None:
        limit_s = self.dice.choice((0.0, 0.1, 1.0, 10.0))
        self.say(f"w{worker.number} gives up within {limit_s} s")
        await worker.engine.drain(limit_s)
        self.commit(worker)
        await worker.engine.close()
        worker.lost_s.append(self.loop.time())
        worker.tps = frozenset()
        worker.stale_until_s = 0.0

    async def retire(self) -> None:
        """Have all workers give up their partitions, for good."""
        for worker in self.workers:
            await self._give_up(worker)
        self.generation += 1

    def _assign(self, worker: Worker, tps: frozenset[TP]) -> None:
        generation = self.generation
        self.say(f"w{worker.number} gets {sorted((*tp,) for tp in tps)} in generation {generation}")
        worker.tps, worker.newest, worker.stale_until_s = tps, {}, 0.0
        tenure = Tenure(generation, lambda: self.loop.time() >= worker.stale_until_s and not worker.is_dead)
        worker.engine.prepare(tenure)
        ledgers = {tp: self._ledger(worker, tp) for tp in sorted(tps)}
        self.loop.call_later(self.dice.choice((0.0, 0.5)), self._begin, worker, tenure, ledgers)
        for lane, topic in SOURCES.items():
            self._as(worker, self._feed(worker, lane, [tp for tp in sorted(tps) if tp.topic == topic], tenure))

    def _ledger(self, worker: Worker, tp: TP) -> Ledger:
        """Load a book, as streams.membership does."""
        offset, mark = self.log.commits.get(tp, (0, None))
        tail = self.log.tail(tp, offset, mark, JOURNAL)
        # Before the first call.
        self.log.commits.setdefault(tp, (0, tail.starts))
        worker.next[tp] = offset
        repeats = self.log.repeats(tp, offset, self.plan.remembered)
        return Ledger(offset, tail.ends, tail.answered, repeats=repeats)

    @staticmethod
    def _begin(worker: Worker, tenure: Tenure, ledgers: Mapping[TP, Ledger]) -> None:
        if not worker.is_dead:
            worker.engine.begin(tenure, dict(ledgers))

    async def _feed(self, worker: Worker, lane: str, tps: list[TP], tenure: Tenure) -> None:
        """Hand out the records of a lane, as its agent does."""
        while tps and not tenure.is_over:
            is_idle = True
            for tp in tps:
                for item in self._bundle(worker, lane, tp):
                    is_idle = False
                    if not await worker.engine.submit(item, tenure.generation):
                        return
                    worker.newest[tp] = item.position.offset
                    worker.next[tp] = item.position.offset + 1
            if is_idle:
                await asyncio.sleep(5.0 if self.is_calm else self.plan.seconds / 100)

    def _bundle(self, worker: Worker, lane: str, tp: TP) -> list[Item]:
        coming = self.log.since(tp, worker.next[tp])[: self.dice.choice((1, 3, 50))]
        return [
            worker.pipeline.item(
                Position(*tp, entry.offset, entry.timestamp_ms),
                entry.record.key,
                entry.record.value,
                entry.record.headers,
                lane,
            )
            for entry in coming
        ]

    def commit(self, worker: Worker) -> None:
        """Commit what is finished, unless the group has gone on without this worker."""
        tenure = worker.engine.tenure
        if not tenure.may_work or tenure.generation != self.generation:
            return
        read_to = {}
        for tp in worker.tps:
            coming = self.log.since(tp, worker.next[tp])
            read_to[tp] = worker.newest.get(tp), coming[0].offset if coming else self.log.ends[tp]
        worker.engine.pass_gaps(read_to)
        self.log.commits |= worker.engine.commits()

    async def look_after(self) -> None:
        """Commit from time to time, and replace what has crashed."""
        while True:
            await asyncio.sleep(1.0)
            for worker in self.workers:
                self.commit(worker)
            if not self.busy.locked() and any(worker.is_dead for worker in self.workers):
                await self.rebalance()

    @property
    def is_done(self) -> bool:
        """Tell whether everything on the log has ended, and is committed."""
        return (
            not self.busy.locked()
            and not any(worker.is_dead or worker.engine.in_flight for worker in self.workers)
            and all(self.log.commits[tp][0] >= self.log.ends[tp] for tp in TPS)
        )
