"""Ties the engine to the consumer group: loads the books of assigned partitions, commits, hands over.

Reads: results (the tail, for pay-once), events.* (what may be repeated). Writes: offset commits. The ten rules are in
docs/pay-once.md.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import COMMITTED, LAG
from contracts.settings import WorkerSettings
from producers.kafka_client import in_thread
from streams.engine.engine import Engine
from streams.engine.item import TP, by_topic
from streams.engine.ledger import Ledger
from streams.engine.mark import CUT, FOREIGN, Mark, decode_mark, encode_mark, former_topics, journal_id, journal_of
from streams.engine.repeats import Repeats
from streams.engine.tenure import Tenure
from streams.log_ends import read_below
from streams.losses import Losses
from streams.recall import Recall
from streams.shell import Shell
from streams.tail import Tail, TailReader

_RETRY_S, _PROBE_TIMEOUT_S = 1.0, 5.0
# How often marks of idle partitions follow what others write: a restart scans no more than this much for nothing.
_FOLLOW_INTERVAL_S = 30.0
# Per partition, its commit, and from where on each result topic is scanned; None = not at all.
_Positions = dict[TP, tuple[int, dict[str, int] | None]]


class Membership:
    """What the shell tells, done with the engine; see streams.shell.Listener.

    Args:
        engine: whose intake is opened and closed.
        tail: reads what is answered already.
        settings: drain limit, commit interval.
        on_crash: told what ends the worker.
        recall: reads what earlier events may be repeated; None = no repetition is recognised.
        probe: has the producer's client ask for metadata, within seconds; raises LogUnavailable.
    """

    def __init__(
        self,
        engine: Engine,
        tail: TailReader,
        settings: WorkerSettings,
        on_crash: Callable[[BaseException], None],
        recall: Recall | None = None,
        probe: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self._probe, self._on_crash = probe, on_crash
        self._engine, self.tail, self._settings = engine, tail, settings
        self._shell: Shell | None = None
        self._loading: asyncio.Task[None] | None = None
        self._handing: asyncio.Task[None] | None = None
        self._committed: dict[TP, tuple[int, str]] = {}
        self._replays, self._floors = dict[TP, int](), dict[TP, int]()
        # Where partitions are begun again whose log has lost its end; not given up before it is committed.
        self._anew: dict[TP, tuple[int, str]] = {}
        self._beginning: asyncio.Task[None] | None = None
        # Of these, the offset behind what was read, until it is told.
        self._cut = dict[TP, int]()
        self._losses = Losses()
        # As of the commits: the offset behind the last record that was read, and the epoch of its leader.
        self._read: dict[TP, tuple[int, int]] = {}
        # By topic, the id that its log had at the assignment; by partition, the one that our commits belong to.
        self._ids: dict[str, int] = {}
        self._logs: dict[TP, int] = {}
        # By partition and result topic, the id (see journal_id) that the log had which our marks belong to.
        self._journals: dict[TP, dict[str, int]] = {}
        # Whose answers may lie before the ends of a scan, besides our own (see Mark.former), and these ends.
        self._former = dict[TP, tuple[int, dict[str, int]]]()
        self._recall, self._log = recall, logger("worker")
        self.tps, self.is_member = frozenset[TP](), False

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
        self.tps, self.is_member = tps, True
        self._ids, self._read, self.tail.furthest = {}, {}, 0
        self._losses.assigned()
        self._anew = {tp: commit for tp, commit in self._anew.items() if tp in tps}
        if self._loading is not None:
            # Who had no partitions had nothing to hand over. What is still being loaded for it would end in our books.
            self._loading.cancel()
        self._log.info("partitions.assigned", generation=generation, partitions=by_topic(tps))
        self._loading = asyncio.ensure_future(self._load(self._engine.tenure, tps))
        self._loading.add_done_callback(self._loaded)

    def _loaded(self, loading: "asyncio.Task[None]") -> None:
        if not loading.cancelled() and (error := loading.exception()) is not None:
            # Without books nothing would ever be taken, and nobody would know why.
            self._on_crash(error)

    async def _load(self, tenure: Tenure, tps: frozenset[TP]) -> None:
        while not tenure.is_over:
            try:
                ledgers, restarts = await self._ledgers(tps)
                if self._probe is not None:
                    # It would refuse the outcomes of a partition it has not heard of; by itself it looks every 30 s.
                    await self._probe(_PROBE_TIMEOUT_S)
            except LogUnavailable as error:
                # Without the books an event might be paid for twice: better wait.
                self._log.warning("journal.unreadable", error=str(error), wait_s=_RETRY_S)
                await asyncio.sleep(_RETRY_S)
            else:
                if not tenure.is_over:
                    self.shell.let_read(restarts, self._read)
                    self._engine.begin(tenure, ledgers)
                    self._anew = {}
                return

    async def _ledgers(self, tps: frozenset[TP]) -> tuple[dict[TP, Ledger], dict[TP, int]]:
        """Return the books, and from where partitions are read that are not read from their commit."""
        topics = {tp.topic for tp in tps} | self.tail.result_topics
        asked = asyncio.ensure_future(in_thread(self.tail.ids, topics))
        commits = await self.shell.committed(tps) | self._anew
        self._committed = {tp: commit for tp, commit in commits.items() if commit is not None}
        # A commit without our mark is an operator's reset: a replay is wanted, and what lies before it was left out.
        marks = {tp: decode_mark(metadata) for tp, (_, metadata) in self._committed.items()}
        self._replays = replays = await self._find_replays(marks)
        # The first answer stays: what is asked for later may be the id of another log than the one that is read. And
        # it comes before the scan: a mark with the id of an earlier log than its offsets is not believed, which costs
        # a scan; one with the id of a later log would be believed.
        self._ids = await asked | self._ids
        self._logs = {tp: self._ids.get(tp.topic, mark.log if (mark := marks.get(tp)) else 0) for tp in tps}
        self._journals = {tp: journal_of(marks.get(tp), self._ids, self.tail.result_topics) for tp in tps}
        starts = self._starts(marks)
        offsets = {tp: commit[0] if commit else 0 for tp, commit in commits.items()}
        # The commit of a log that was cut under us has all answers looked through; below it is known from where on.
        positions: _Positions = {tp: (at, None if tp in self._anew else starts.get(tp)) for tp, at in offsets.items()}
        self._floors = {tp: mark.floor if (mark := marks.get(tp)) else offset for tp, offset in offsets.items()}
        tails, repeats = await self._books(positions)
        # Nothing was committed, or no more: Kafka forgets commits of a group that was away for a week, and those of a
        # topic that is deleted. The log is read from where it begins, and what lies there may be answered.
        fresh = {tp for tp, commit in commits.items() if commit is None}
        other = {tp for tp, mark in marks.items() if mark is not None and mark.log not in {0, self._logs[tp]}}
        ours = {tp: mark for tp, mark in marks.items() if mark is not None and tp not in other | self._anew.keys()}
        anew = other | self._anew.keys() | await self._lost(ours, tails)
        self._read = {tp: mark.read for tp, mark in ours.items() if mark.read and tp not in anew}
        for tp in other:
            detail = "the topic was made anew: the commit is of the former one, and the log is read from its beginning"
            self._log.warning("commit.foreign", **tp._asdict(), offset=self._committed[tp][0], detail=detail)
        begun = {tp: tails[tp].log for tp in fresh | anew}
        logs = {tp: begin for tp, (begin, end) in begun.items() if begin < end}
        found = {tp: dict[str, int]() for tp in other} | await in_thread(self.tail.begins, logs, fresh)
        positions |= {tp: (begun[tp][0], found.get(tp)) for tp in fresh}
        positions |= {tp: self._start_anew(tp, begun[tp][0], found.get(tp)) for tp in anew}
        if found or anew:
            tails.clear()  # two looks would be twice the memory
            tails, repeats = await self._books(positions)
        # Also where a mark lacks a topic: a scan of that would begin at its end, and miss what is answered by then.
        are_known = self.tail.result_topics.issubset
        claimed = {tp: at for tp, (at, mark) in positions.items() if tp in begun or not are_known(mark or ())}
        # The mark keeps it for the windows that follow, and for a restart in one: their commits are of this log.
        told = {tp: mark.former for tp, mark in marks.items() if mark is not None and mark.former}
        former = dict.fromkeys(anew, CUT) | told | dict.fromkeys(fresh | other, FOREIGN)
        self._former = {tp: (kind, tails[tp].ends) for tp, kind in former.items()}
        await self._claim(claimed, tails)
        for tp, kind in former.items():
            tails[tp].forget_former(is_cut=kind == CUT)
        ledgers = {
            tp: Ledger(positions[tp][0], tail.ends, tail.answered, replays.get(tp, 0), repeats.get(tp))
            for tp, tail in tails.items()
        }
        return ledgers, {tp: positions[tp][0] for tp in anew}

    async def _books(self, positions: _Positions) -> tuple[dict[TP, Tail], dict[TP, Repeats]]:
        """Return what is answered already, and what may be repeated; read side by side, since both take a second."""
        return await asyncio.gather(in_thread(self.tail.read, positions), self._remembered(positions))

    def _starts(self, marks: Mapping[TP, Mark | None]) -> dict[TP, dict[str, int]]:
        """Return, per partition with a mark, from where on each result topic is scanned."""
        known = {tp: (mark, former_topics(mark, self._journals[tp])) for tp, mark in marks.items() if mark is not None}
        starts = {tp: mark.starts | dict.fromkeys(former, 0) for tp, (mark, former) in known.items()}
        if former := frozenset[str]().union(*(former for _, former in known.values())):
            detail = "the topics were made anew: marks are of the former ones, and all answers are looked through"
            self._log.warning("mark.foreign", topics=sorted(former), detail=detail)
        return starts

    async def _lost(self, marks: Mapping[TP, Mark], tails: Mapping[TP, Tail]) -> set[TP]:
        """Return the partitions whose log has lost records below our own commit."""
        offsets = {tp: self._committed[tp][0] for tp in marks}
        read = {tp: mark.read for tp, mark in marks.items() if mark.read is not None}
        ahead = {tp for tp, offset in offsets.items() if offset > tails[tp].log[1]}
        kept = await self.shell.epoch_ends({tp: epoch for tp, (_, epoch) in read.items()})
        # A log that is long enough may have grown again.
        lost = {tp for tp, end in kept.items() if end < read[tp][0]}
        self._losses.look(ahead | lost)
        for tp in ahead | lost:
            event, is_same = "commit.ahead" if tp in ahead else "log.cut", self._ids.get(tp.topic) == marks[tp].log
            read_to, end = (read[tp][0], kept[tp]) if tp in lost else (offsets[tp], tails[tp].log[1])
            self._losses.tell(event, tp, read_to, end, is_exact=tp in lost, is_same=is_same)
        return ahead | lost

    def went_back(self, tp: TP) -> None:
        """Begin a partition again whose log has lost its end under us, and join the group anew to load its books.

        Where the end was lost is not known, for the log may have grown again: it is read from its beginning.
        """
        if (ledger := self._engine.forget(tp)) is None:
            return
        self._cut[tp] = ledger.position
        self._former[tp] = self._former.get(tp, (CUT,))[0], dict.fromkeys(self.tail.result_topics, 2**63)
        begin, starts = self._start_anew(tp, 0)
        self._anew[tp] = begin, self._encode(tp, begin, starts)
        if self._beginning is None or self._beginning.done():
            self._beginning = asyncio.ensure_future(self._begin_again())
            self._beginning.add_done_callback(self._loaded)

    async def _begin_again(self) -> None:
        while self._cut:
            cut, self._cut = self._cut, {}
            # At once: after a crash, the log may have grown beyond the commit that is there.
            await self.commit()
            read = {tp: found for tp, offset in cut.items() if (found := self._read_below(tp, offset))}
            ids, ends, kept = dict[str, int](), dict[TP, int](), dict[TP, int]()
            with contextlib.suppress(LogUnavailable):
                ids = await in_thread(self.tail.ids, {tp.topic for tp in cut})
                ends = await self.shell.ends(frozenset(cut))
                kept = await self.shell.epoch_ends({tp: epoch for tp, (_, epoch) in read.items()})
            for tp, offset in cut.items():
                read_to, end = (read[tp][0], kept[tp]) if tp in kept else (offset, ends.get(tp, offset))
                is_same = ids.get(tp.topic) == self._logs.get(tp)
                self._losses.tell("log.cut", tp, read_to, end, is_exact=tp in kept, is_same=is_same)
        if self._anew and self._engine.is_open and not self.is_handing_over:
            self.shell.rejoin()

    def _start_anew(self, tp: TP, begin: int, starts: dict[str, int] | None = None) -> tuple[int, dict[str, int]]:
        """Begin a partition again whose commit was made on another log: the events below it would be lost.

        Answers are looked through from where they can be on, all of them where that is not known: events of this log
        may have been answered before anybody noticed, and what is the same event is not paid again.

        Returns:
            Where reading goes on, and from where on the result topics are scanned.
        """
        self._floors[tp] = begin
        self._replays.pop(tp, None)
        return begin, dict.fromkeys(self.tail.result_topics, 0) if starts is None else starts

    async def _find_replays(self, marks: Mapping[TP, Mark | None]) -> dict[TP, int]:
        """Return up to where partitions are done again: what was there at the reset, also after a crash meanwhile."""
        going_on = {tp: mark.replay_until for tp, mark in marks.items() if mark is not None}
        return going_on | await self.shell.ends(frozenset(marks) - going_on.keys())

    async def _remembered(self, positions: Mapping[TP, tuple[int, object]]) -> dict[TP, Repeats]:
        """Return what earlier events may be repeated."""
        if self._recall is None:
            return {}
        spans = {tp: (self._floors[tp], offset) for tp, (offset, _) in positions.items()}
        return await in_thread(self._recall.read, spans)

    def _encode(self, tp: TP, offset: int, mark: dict[str, int]) -> str:
        until = self._replays.get(tp, 0)
        until = until if offset < until else 0
        journal, read = self._journals.get(tp, {}), self._read_below(tp, offset)
        kind, ends = self._former.get(tp, (0, {}))
        if not any(at < ends.get(topic, at) for topic, at in mark.items()):
            # A scan from here on meets nothing that was there before us.
            self._former.pop(tp, None)
            kind = 0
        return encode_mark(mark, until, self._floors.get(tp, 0), self._logs.get(tp, 0), journal, read, kind)

    def _read_below(self, tp: TP, offset: int) -> tuple[int, int] | None:
        """Return the offset behind the last record that was read below an offset, and its epoch; None = not known."""
        before = self._read.get(tp)
        return read_below(self.shell.runs().get(tp, ()), offset) or (before if before and before[0] <= offset else None)

    async def _claim(self, offsets: dict[TP, int], tails: dict[TP, Tail]) -> None:
        """Commit (position, mark) before the first call, so that a crash right after it finds what it answered."""
        claims = {tp: (offset, self._encode(tp, offset, tails[tp].starts)) for tp, offset in offsets.items()}
        if claims and not await self.shell.commit(claims):
            message = "the claim of the partitions could not be committed"
            raise LogUnavailable(message)
        self._committed |= claims

    async def commit(self) -> None:
        """Commit what has changed, if the partitions are still ours."""
        if not self._engine.tenure.may_work:
            return
        self._engine.pass_gaps(self.shell.read_to())
        points = self._engine.commits()
        wanted = {tp: (offset, self._encode(tp, offset, mark)) for tp, (offset, mark) in points.items()} | self._anew
        changed = {tp: commit for tp, commit in wanted.items() if self._committed.get(tp) != commit}
        if changed and await self.shell.commit(changed):
            self._committed |= changed
            for tp, (offset, _) in changed.items():
                COMMITTED.labels(tp.topic, str(tp.partition)).set(offset)

    async def run(self) -> None:
        """Commit from time to time, for ever."""
        await asyncio.gather(self._keep_committing(), self._keep_following())

    async def _keep_following(self) -> None:
        while True:
            await asyncio.sleep(_FOLLOW_INTERVAL_S)
            await self.follow()
            await self.look_for_new_logs()

    async def look_for_new_logs(self) -> None:
        """Join the group anew when a topic was recreated under us: the assignment finds that our commits are foreign.

        The consumer goes by the name: where the new log is long enough, it has read on at the offset of the former one.
        Of a result topic, the books know the ends of the former log: marks stay behind them until they are loaded anew.
        """
        tenure = self._engine.tenure
        # Where ids were not known at the assignment, partitions of one topic may have commits of different logs.
        known = {(tp.topic, log) for tp, log in self._logs.items() if log}
        journals = {place for journal in self._journals.values() for place in journal.items()}
        if not known | journals or not self._engine.is_open or not tenure.may_work:
            return
        try:
            found = await in_thread(self.tail.ids, {topic for topic, _ in known | journals})
        except LogUnavailable as error:
            self._log.info("journal.unreadable", error=str(error), wait_s=_FOLLOW_INTERVAL_S)
            return
        anew = {topic for topic, log in known if found.get(topic, log) != log}
        topics = sorted(anew | {topic for topic, log in journals if journal_id(found.get(topic, log)) != log})
        if topics and tenure is self._engine.tenure and tenure.may_work:
            detail = "joins the group anew to read them from their beginning"
            self._log.warning("topic.recreated", topics=topics, detail=detail)
            self.shell.rejoin()

    async def follow(self) -> None:
        """Let the marks of idle partitions follow what other workers write to the same result partitions."""
        idle, topics = self._engine.idle(), self.tail.result_topics
        if not idle or not self._engine.tenure.may_work:
            return
        try:
            ends = await in_thread(self.tail.ends, {TP(topic, tp.partition) for tp in idle for topic in topics})
        except LogUnavailable as error:
            self._log.info("journal.unreadable", error=str(error), wait_s=_FOLLOW_INTERVAL_S)
        else:
            self._engine.follow(idle, ends)

    async def _keep_committing(self) -> None:
        while True:
            await asyncio.sleep(self._settings.commit_interval_s)
            await self.commit()
            if self._engine.wants_answers and not self.is_handing_over:
                self.shell.rejoin()

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
        held = self._engine.holds
        await self._engine.drain(self._settings.drain_timeout_s)
        await self.commit()
        await self._engine.close()
        self.tps, self._committed = frozenset(), {}
        LAG.clear()
        self._log.info("partitions.released", generation=tenure.generation, held=held)
