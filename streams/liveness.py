"""Watches the worker from its own event loop: takes the watchdog's snapshots, sets the metrics, fills GET /stuck.

Blocking: a question to a broker and one to the consumer thread every ten seconds, in tasks of their own.
"""

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import EVENTS_IN_STATE, FM_INFLIGHT, LAG, LAST_MOVE, OLDEST_IN_STATE, OLDEST_UNFINISHED, WATCHDOG
from contracts.settings import Settings
from contracts.stuck import Problem, StuckReport
from streams import stuck
from streams.engine.engine import Engine
from streams.engine.item import TP, Item, State
from streams.log_ends import Reach
from streams.membership import Membership
from streams.watchdog import CALL_SHARE, CHECKS, KAFKA_SILENCE_S, WATCH, Snapshot, Watchdog

_EVERY_S = 1.0
# Two questions in a row without an answer are within KAFKA_SILENCE_S.
_ASK_EVERY_S = 10.0
_ASK_LIMIT_S = 5.0
# Looks that fail for so long are told.
_BLIND_S = 30.0
# So many questions in a row about the ends may fail before what was told is dropped.
_MAX_UNANSWERED = 2
_CAN_WAIT = {
    State.CALLING: "calls are in flight",
    State.RESTING: "events rest until their next attempt",
    # The producer ends the worker itself when an ack does not come; a restart before that would pay again.
    State.SETTLING: "outcomes wait for the broker's ack",
}


class Liveness:
    """See the module.

    Args:
        settings: the whole configuration.
        engine, membership: watched; the membership has its shell.
        probe: asks a broker for anything; raises LogUnavailable.
        lag_s: how late the loop is.
        clock: monotonic seconds; safe to ask from any thread.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        membership: Membership,
        probe: Callable[[float], Awaitable[None]],
        lag_s: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._engine = engine
        self._membership = membership
        self._probe = probe
        self._lag_s = lag_s
        self._watchdog = Watchdog(settings.worker, clock)
        self._log = logger("worker")
        self._is_wanted = False
        self._answered_at_s = self._ticked_at_s = self._moved_at_s = self._looked_at_s = self._clock()
        self._moves = 0
        self._reach: dict[TP, Reach] = {}
        self._unanswered = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.problems: tuple[Problem, ...] = ()

    def start(self) -> None:
        """Expect the worker to become and stay a member of its group."""
        self._is_wanted = True
        self._answered_at_s = self._ticked_at_s = self._moved_at_s = self._looked_at_s = self._clock()
        self._tasks = [asyncio.ensure_future(work()) for work in (self._look_again, self._ask_kafka, self._ask_reach)]

    def stop(self) -> None:
        """Expect nothing of the group any more: the worker is stopping, with a bound of its own."""
        self._is_wanted = False

    async def aclose(self) -> None:
        """End the watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _look_again(self) -> None:
        while True:
            self.try_to_look()
            await asyncio.sleep(_EVERY_S)

    async def _ask_kafka(self) -> None:
        while True:
            try:
                await self._probe(_ASK_LIMIT_S)
                self._answered_at_s = self._clock()
            except LogUnavailable as error:
                self._log.debug("kafka.silent", error=str(error))
            except Exception:  # noqa: BLE001 - who does not ask any more would call the brokers silent for ever
                self._log.exception("watchdog.failed")
            await asyncio.sleep(_ASK_EVERY_S)

    async def _ask_reach(self) -> None:
        """Find the true ends: a consumer that has stopped fetching does not know that there is more."""
        while True:
            await asyncio.sleep(_ASK_EVERY_S)
            tps = self._membership.tps
            try:
                found = await self._membership.shell.reach(tps, _ASK_LIMIT_S) if tps else {}
                self._reach = {tp: _with_end(now, self._reach.get(tp)) for tp, now in found.items()}
                self._unanswered = 0
                continue
            except (LogUnavailable, AttributeError) as error:
                # AttributeError: Faust has no consumer yet, or none any more.
                self._log.debug("kafka.silent", error=repr(error))
            except Exception:  # noqa: BLE001 - as above
                self._log.exception("watchdog.failed")
            self._unanswered += 1
            # Else one failure would start the time of all partitions anew. Later, what was unread may have been done.
            kept = self._reach if self._unanswered <= _MAX_UNANSWERED else {}
            self._reach = {tp: one._replace(is_told=False) for tp, one in kept.items() if tp in tps}

    def _tick(self) -> None:
        def ticked() -> None:
            self._ticked_at_s = self._clock()

        try:
            self._membership.shell.tick(ticked)
        except (RuntimeError, AttributeError):
            # No thread yet, or its loop is closed: what is not there does not tick, and the age says so.
            if self._engine.tenure.generation < 0:
                ticked()

    def try_to_look(self) -> None:
        """Take a snapshot and judge it; watching must not end what it watches.

        A watch that fails is told, and is no reason to end a worker that works: the next one would have it, too.
        """
        try:
            self.look()
        except Exception:  # noqa: BLE001 - see above
            self._log.exception("watchdog.failed")
            blind_s = self._clock() - self._looked_at_s
            if blind_s >= _BLIND_S:
                others = tuple(one for one in self.problems if one.check != WATCH)
                detail = "the watch fails; the log lines watchdog.failed say where"
                blind = Problem(check=WATCH, detail=detail, for_s=round(blind_s, 1), restart_helps=False)
                self.problems = (*others, blind)
                WATCHDOG.labels(WATCH).set(1)
        else:
            self._looked_at_s = self._clock()

    def look(self) -> None:
        """Take a snapshot and judge it."""
        self._tick()
        self._engine.gauge()
        if self._engine.moves != self._moves:
            self._moves, self._moved_at_s = self._engine.moves, self._clock()
            LAST_MOVE.set(time.time())
        problems = self._watchdog.look(self.snapshot())
        for known in {one.check for one in problems} - {one.check for one in self.problems}:
            detail = next(one.detail for one in problems if one.check == known)
            self._log.error("watchdog.alarmed", reason=known, detail=detail)
        self.problems = problems
        failing = {one.check for one in problems}
        for check in CHECKS:
            WATCHDOG.labels(check).set(check in failing)
        self._show_lag()

    def _show_lag(self) -> None:
        for tp, (point, _) in self._engine.spans().items():
            # The consumer's own end is that of its last fetch, and stands while it fetches nothing.
            ends = self._membership.shell.high_watermark(tp), self._reach[tp].end if tp in self._reach else None
            known = [end for end in ends if end is not None]
            if known:
                LAG.labels(tp.topic, str(tp.partition)).set(max(0, max(known) - point))

    def snapshot(self) -> Snapshot:
        """Return what the watchdog looks at."""
        engine, membership, now_s = self._engine, self._membership, self._clock()
        started = engine.started
        counts = self._measure(started)
        spans = engine.spans()
        handing = membership.is_handing_over
        unread, untaken = ({}, {}) if handing else self._standing()
        return Snapshot(
            is_wanted=self._is_wanted,
            may_work=engine.tenure.may_work,
            is_loading=not engine.is_open and not handing,
            loaded=membership.tail.furthest,
            kafka_silent_s=now_s - self._answered_at_s,
            moves=engine.moves,
            waiting=engine.holds + self._waiting_unread(),
            excuse="partitions are being given up" if handing else self._excuse(counts),
            overdue=self._overdue(started),
            unread=unread,
            untaken=untaken,
            # Who waits for room in one topic may keep the records of all others waiting behind a full queue.
            waits_for_room=engine.look_at < math.inf or self._unanswered > 0,
            uncommitted={
                _place(tp): offset
                for tp, (offset, _) in membership.committed.items()
                if tp in spans and spans[tp][0] > offset
            },
            consumer_age_s=now_s - self._ticked_at_s,
            loop_lag_s=self._lag_s(),
        )

    def _mine(self) -> dict[TP, Reach]:
        """Return our partitions of which not everything is read, or of which that is not known."""
        mine = self._membership.tps
        return {tp: one for tp, one in self._reach.items() if tp in mine and (one.unread or not one.is_known)}

    def _waiting_unread(self) -> int:
        """Return the records that wait for this worker to read them.

        What lies ahead of a partition whose fetches bring nothing is none: markers of transactions, or what compaction
        has removed. And that one broker gives nothing of its own is not ours to mend, while others answer.
        What was unread before may have been done where nobody has told since.
        """
        fetches = any(one.is_fetched for one in self._reach.values())
        return sum(one.unread for one in self._mine().values() if one.is_told and (one.in_hand or not fetches))

    def _standing(self) -> tuple[Mapping[str, int | None], Mapping[str, int | None]]:
        """Return where reading stands: of what no broker gives (None = not known), of what is fetched and not taken."""
        unread, untaken = dict[str, int | None](), dict[str, int | None]()
        for tp, one in self._mine().items():
            if one.in_hand and one.unread:
                untaken[_place(tp)] = one.position
            elif not one.is_fetched:
                unread[_place(tp)] = one.position if one.is_known else None
        return unread, untaken

    def _measure(self, started: Sequence[Item]) -> Counter[State]:
        # Not over all that is held: with 1,024 calls that are 20,000, and the loop would stand still each second.
        engine, now_s = self._engine, asyncio.get_running_loop().time()
        counts = Counter([item.state for item in started])
        counts[State.QUEUED] = engine.holds - len(started)
        since: dict[State, float] = {}
        for item in started:
            if item.since < since.get(item.state, now_s):
                since[item.state] = item.since
        oldest, queued = engine.oldest(), engine.oldest(queued=True)
        if queued is not None:
            since[State.QUEUED] = queued.since
        for state in State:
            OLDEST_IN_STATE.labels(state.value).set(now_s - since.get(state, now_s))
            EVENTS_IN_STATE.labels(state.value).set(counts[state])
        OLDEST_UNFINISHED.set(now_s - oldest.taken_at if oldest is not None else 0.0)
        return counts

    @staticmethod
    def _excuse(counts: Counter[State]) -> str:
        """Return why nothing needs to start or end."""
        if paused := stuck.paused_routes():
            return f"route {paused[0].route} is paused: {paused[0].reason}"
        for state, words in _CAN_WAIT.items():
            if counts[state]:
                return words
        # Calls of partitions that were given up hold their slots until they end.
        calls = sum(sample.value for metric in FM_INFLIGHT.collect() for sample in metric.samples)
        return _CAN_WAIT[State.CALLING] if calls else ""

    def _overdue(self, started: Sequence[Item]) -> str:
        loop_s, now = asyncio.get_running_loop().time(), datetime.now(UTC)
        grace_s = self._settings.worker.watchdog.overdue_grace_s
        for item in started:
            job = item.work
            if job.route is None or item.state not in {State.CALLING, State.RESTING}:
                continue
            in_state_s = loop_s - item.since
            if item.state is State.CALLING:
                is_late = in_state_s > CALL_SHARE * job.route.attempt_timeout_s + grace_s
            else:
                is_late = min(in_state_s, (now - job.deadline_at).total_seconds()) > grace_s
            if is_late:
                place = f"{item.position.topic}/{item.position.partition}/{item.position.offset}"
                return f"event {job.event.id[:100]} ({place}) has been {item.state.value} for {in_state_s:.0f} s"
        return ""

    def report(self) -> StuckReport:
        """Return everything that explains a standstill."""
        engine, worker, now_s = self._engine, self._settings.worker, self._clock()
        tenure = engine.tenure
        counts = Counter(item.state.value for item in engine.held)
        lease = "none" if tenure.is_over else "valid" if tenure.may_work else "stale"
        return StuckReport(
            app_id=worker.app_id,
            instance_id=worker.instance_id,
            state=self._state(),  # type: ignore[arg-type]
            generation=tenure.generation,
            lease=lease,  # type: ignore[arg-type]
            kafka_answers=now_s - self._answered_at_s < KAFKA_SILENCE_S,
            max_in_flight=worker.max_in_flight,
            idle_s=round(now_s - self._moved_at_s, 3),
            events=dict(counts),
            paused=stuck.paused_intake(),
            paused_routes=stuck.paused_routes(),
            problems=self.problems,
            partitions=stuck.partitions(
                engine,
                self._membership.committed,
                self._reach,
                self._stands(),
                # Without books there need not be a consumer.
                self._membership.shell.read_to() if engine.spans() else {},
                asyncio.get_running_loop().time(),
            ),
        )

    def _stands(self) -> dict[TP, tuple[str, float]]:
        # What waits behind somebody who waits for room has its reason.
        checks = ("partition", "untaken") if self._engine.look_at == math.inf else ("partition",)
        lasting = {check: self._watchdog.lasting_s(check) for check in checks}
        found = ((tp, check, lasting[check].get(_place(tp))) for tp in self._reach for check in lasting)
        return {tp: (check, for_s) for tp, check, for_s in found if for_s is not None}

    @property
    def warnings(self) -> list[str]:
        """Return what somebody should look into although the worker keeps its place: a slug, and since when.

        The silence of Kafka is no reason to be not ready. A worker gets no traffic, so nobody would be spared by it;
        all workers would turn not ready at once, and an update would stop at workers that can do nothing about it.
        """
        if not any(one.check == "kafka" for one in self.problems):
            return []
        since = datetime.now(UTC) - timedelta(seconds=self._clock() - self._answered_at_s)
        return [f"kafka_unreachable: no broker has answered since {since:%Y-%m-%dT%H:%M:%SZ}"]

    def _state(self) -> str:
        if not self._is_wanted:
            return "stopping"
        if not self._membership.is_member:
            return "starting"
        if self._membership.is_handing_over or self._engine.tenure.is_over:
            return "rebalancing"
        return "working" if self._engine.is_open else "loading"


def _place(tp: TP) -> str:
    return f"{tp.topic}/{tp.partition}"


def _with_end(now: Reach, known: Reach | None) -> Reach:
    """Return what was found, with the end that was known before where the partition's leader does not tell."""
    return now if now.is_told or known is None else now._replace(end=known.end)
