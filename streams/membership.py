"""Ties the engine to the consumer group: loads the books of assigned partitions, commits, hands over.

Reads: results (the tail, for pay-once), events.* (what may be repeated). Writes: offset commits. The ten rules are in
docs/pay-once.md.
"""

import asyncio
from collections.abc import Callable, Mapping

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import COMMITTED, LAG
from contracts.settings import WorkerSettings
from streams.engine.engine import Engine
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.mark import Mark, decode_mark, encode_mark
from streams.engine.repeats import Repeats
from streams.engine.tenure import Tenure
from streams.recall import Recall
from streams.shell import Shell
from streams.tail import Tail, TailReader

_RETRY_S = 1.0
# How often marks of idle partitions follow what others write: a restart scans no more than this much for nothing.
_FOLLOW_INTERVAL_S = 30.0


class Membership:
    """What the shell tells, done with the engine; see streams.shell.Listener.

    Args:
        engine: whose intake is opened and closed.
        tail: reads what is answered already.
        settings: drain limit, commit interval.
        on_crash: told what ends the worker.
        recall: reads what earlier events may be repeated; None = no repetition is recognised.
    """

    def __init__(
        self,
        engine: Engine,
        tail: TailReader,
        settings: WorkerSettings,
        on_crash: Callable[[BaseException], None],
        recall: Recall | None = None,
    ) -> None:
        self._on_crash = on_crash
        self._engine = engine
        self._tail = tail
        self._settings = settings
        self._shell: Shell | None = None
        self._loading: asyncio.Task[None] | None = None
        self._handing: asyncio.Task[None] | None = None
        self._committed: dict[TP, tuple[int, str]] = {}
        self._replays: dict[TP, int] = {}
        self._floors: dict[TP, int] = {}
        self._recall = recall
        self._log = logger("worker")
        self.tps: frozenset[TP] = frozenset()
        self.is_member = False

    def attach(self, shell: Shell) -> None:
        """Name the shell; once, before the app starts."""
        self._shell = shell

    @property
    def committed(self) -> dict[TP, tuple[int, str]]:
        """Return, per partition, what the group has of this assignment: offset and metadata."""
        return self._committed

    @property
    def is_handing_over(self) -> bool:
        """Tell whether partitions are being given up right now."""
        return self._handing is not None and not self._handing.done()

    @property
    def shell(self) -> Shell:
        """Return the shell."""
        if self._shell is None:
            message = "attach() comes first"
            raise RuntimeError(message)
        return self._shell

    def coming(self, generation: int) -> None:
        """Open a tenure whose records wait until the books are loaded."""
        shell = self.shell
        self._engine.prepare(Tenure(generation, lambda: shell.is_valid(generation)))

    def assigned(self, tps: frozenset[TP], generation: int) -> None:
        """Load the books in the background: no heartbeat is sent while this callback runs."""
        self.tps = tps
        self.is_member = True
        self._log.info("partitions.assigned", generation=generation, partitions=_by_topic(tps))
        self._loading = asyncio.ensure_future(self._load(self._engine.tenure, tps))
        self._loading.add_done_callback(self._loaded)

    def _loaded(self, loading: "asyncio.Task[None]") -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            # Without books nothing would ever be taken, and nobody would know why.
            self._on_crash(error)

    async def _load(self, tenure: Tenure, tps: frozenset[TP]) -> None:
        while not tenure.is_over:
            try:
                self._engine.begin(tenure, await self._ledgers(tps))
            except LogUnavailable as error:
                # Without the books an event might be paid for twice: better wait.
                self._log.warning("journal.unreadable", error=str(error), wait_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    async def _ledgers(self, tps: frozenset[TP]) -> dict[TP, Ledger]:
        commits = await self.shell.committed(tps)
        self._committed = {tp: commit for tp, commit in commits.items() if commit is not None}
        # A commit without our mark is an operator's reset: a replay is wanted, and what lies before it was left out.
        marks = {tp: decode_mark(metadata) for tp, (_, metadata) in self._committed.items()}
        positions: dict[TP, tuple[int, dict[str, int] | None]] = {}
        self._floors = {}
        # No commit: nothing is answered yet.
        beginnings = await self.shell.beginnings(tps - self._committed.keys())
        for tp in tps:
            commit, mark = commits[tp], marks.get(tp)
            offset = commit[0] if commit else beginnings[tp]
            positions[tp] = (offset, mark.starts if mark else None)
            self._floors[tp] = mark.floor if mark else offset if commit else 0
        self._replays = await self._find_replays(marks)
        tails, repeats = await self._books(positions)
        if ahead := {tp for tp, mark in marks.items() if mark is not None and positions[tp][0] > tails[tp].log[1]}:
            for tp in ahead:
                positions[tp] = await self._start_anew(tp, positions[tp][0], tails[tp])
            tails, repeats = await self._books(positions)
        await self._claim({tp: offset for tp, (offset, marks) in positions.items() if marks is None}, tails)
        return {
            tp: Ledger(
                positions[tp][0], tail.ends, tail.answered, tail.starts, self._replays.get(tp, 0), repeats.get(tp)
            )
            for tp, tail in tails.items()
        }

    async def _books(
        self, positions: Mapping[TP, tuple[int, dict[str, int] | None]]
    ) -> tuple[dict[TP, Tail], dict[TP, Repeats]]:
        """Return what is answered already, and what may be repeated; read side by side, since both take a second."""
        return await asyncio.gather(asyncio.to_thread(self._tail.read, positions), self._remembered(positions))

    async def _start_anew(self, tp: TP, committed: int, tail: Tail) -> tuple[int, dict[str, int]]:
        """Begin a partition again whose log ends before our own commit: that commit was made on another log.

        The topic was recreated, and a commit of the former one came late; or the broker lost its end. Faust would drop
        every record below the commit. All answers are looked through, so that what is the same event is not paid again.

        Returns:
            Where reading goes on, and from where on the result topics are scanned.
        """
        begin, end = tail.log
        detail = f"the log ends at {end}: it is not the one of the commit, and is read from its beginning"
        self._log.warning("commit.ahead", topic=tp.topic, partition=tp.partition, offset=committed, detail=detail)
        await self.shell.seek(tp, begin)
        self._floors[tp] = begin
        self._replays.pop(tp, None)
        return begin, dict.fromkeys(tail.ends, 0)

    async def _find_replays(self, marks: Mapping[TP, Mark | None]) -> dict[TP, int]:
        """Return up to where partitions are done again: what was there at the reset, also after a crash meanwhile."""
        going_on = {tp: mark.replay_until for tp, mark in marks.items() if mark is not None}
        return going_on | await self.shell.ends(frozenset(marks) - going_on.keys())

    async def _remembered(self, positions: Mapping[TP, tuple[int, object]]) -> dict[TP, Repeats]:
        """Return what earlier events may be repeated."""
        if self._recall is None:
            return {}
        spans = {tp: (self._floors[tp], offset) for tp, (offset, _) in positions.items()}
        return await asyncio.to_thread(self._recall.read, spans)

    def _encode(self, tp: TP, offset: int, mark: dict[str, int]) -> str:
        replay_until = self._replays.get(tp, 0)
        return encode_mark(mark, replay_until if offset < replay_until else 0, self._floors.get(tp, 0))

    async def _claim(self, offsets: dict[TP, int], tails: dict[TP, Tail]) -> None:
        """Commit (position, mark) before the first call, so that a crash right after it finds what it answered."""
        claims = {tp: (offset, self._encode(tp, offset, tails[tp].ends)) for tp, offset in offsets.items()}
        if claims and not await self.shell.commit(claims):
            message = "the claim of the partitions could not be committed"
            raise LogUnavailable(message)
        self._committed |= claims

    async def commit(self) -> None:
        """Commit what has changed, if the partitions are still ours."""
        tenure = self._engine.tenure
        if not tenure.may_work:
            return
        self._engine.pass_gaps(self.shell.read_to())
        wanted = {tp: (offset, self._encode(tp, offset, mark)) for tp, (offset, mark) in self._engine.commits().items()}
        changed = {tp: commit for tp, commit in wanted.items() if self._committed.get(tp) != commit}
        if changed and await self.shell.commit(changed):
            self._committed |= changed
            for tp, (offset, _) in changed.items():
                COMMITTED.labels(tp.topic, str(tp.partition)).set(offset)

    def observe(self) -> None:
        """Set the lag gauges."""
        for tp, (point, _) in self._engine.spans().items():
            end = self.shell.high_watermark(tp)
            if end is not None:
                LAG.labels(tp.topic, str(tp.partition)).set(max(0, end - point))

    async def run(self) -> None:
        """Commit from time to time, for ever."""
        await asyncio.gather(self._keep_committing(), self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_INTERVAL_S)
            await self.follow()

    async def follow(self) -> None:
        """Let the marks of idle partitions follow what other workers write to the same result partitions."""
        idle = self._engine.idle()
        if not idle or not self._engine.tenure.may_work:
            return
        try:
            ends = await asyncio.to_thread(self._tail.ends, tuple(idle))
        except LogUnavailable as error:
            self._log.info("journal.unreadable", error=str(error), wait_s=_FOLLOW_INTERVAL_S)
        else:
            self._engine.follow(idle, ends)

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            await self.commit()
            self.observe()

    async def hand_over(self) -> None:
        """Finish, commit once, let go; who calls while it goes on waits for the same."""
        if self._handing is None or self._handing.done():
            self._handing = asyncio.ensure_future(self._hand_over())
        await asyncio.shield(self._handing)

    async def _hand_over(self) -> None:
        tenure = self._engine.tenure
        if tenure.is_over:
            return
        if self._loading is not None:
            self._loading.cancel()
        held = len(self._engine.held)
        await self._engine.drain(self._settings.drain_timeout_s)
        await self.commit()
        await self._engine.close()
        self.tps = frozenset()
        self._committed = {}
        LAG.clear()
        self._log.info("partitions.released", generation=tenure.generation, held=held)


def _by_topic(tps: frozenset[TP]) -> dict[str, list[int]]:
    topics: dict[str, list[int]] = {}
    for tp in sorted(tps):
        topics.setdefault(tp.topic, []).append(tp.partition)
    return topics
