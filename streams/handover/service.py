"""The process behind `penstock hand-over`: gathers patient events, hands them over, and brings the answers back.

Reads: handovers, batch-jobs, results, retries. Writes: batch-jobs, results, retries. What is handed over is on the log
before the job is begun, so that a crash neither pays twice nor loses anything; so it also begins anew by itself when
Kafka was away, or when the disk was full. Blocking: until stopped.
See: docs/adr/0012.
"""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import msgspec

from contracts.batch_jobs import HandOver, job_record, kind_of
from contracts.codec import decode_json
from contracts.envelope import parse_time
from contracts.errors import DISK_ERRORS, LogUnavailable, Undecodable, is_of_disk
from contracts.logs import logger
from contracts.metrics import HANDOVER_OLDEST, HANDOVER_WAITING, HANDOVERS_OPEN
from contracts.settings import Settings
from contracts.topics import Topics
from producers.admin import Patience, differing
from producers.fenced import FencedProducer
from producers.kafka_client import start_thread
from producers.log_reader import Found, LogReader
from streams.handover.choosing import Ways
from streams.handover.delivery import Delivery, Desk, give_up
from streams.handover.gathering import Gathering, Log, check_folder, forgotten, note_rest
from streams.handover.settling import Outcomes

_POLL_S = 0.5
# The ends of the topic are asked for no more often.
_MEASURE_EVERY_S = 5.0
# Whether the topic is still the same log; asked before every hand-over as well.
_CONFIRM_EVERY_S = 30.0
# In so many looks in a row a log must end before what was handed over of it: its leader may still be settling.
_LOOKS, _LOOK_AGAIN_S = 3, 1.0
_log = logger("hand-over")


class _Ends:
    """Asks where the hand-over topic ends, beside the work, which no broker that is silent holds up for a figure.

    A context manager.

    Attributes:
        told: the last answer, by partition; empty before the first.
    """

    def __init__(self, desk: Desk, topic: str) -> None:
        self._desk = desk
        self._topic = topic
        self._is_closed = threading.Event()
        # Replaced, never changed.
        self.told: Sequence[int] = ()

    def __enter__(self) -> Self:
        start_thread(self._run, "hand-over-ends")
        return self

    def __exit__(self, *exc_info: object) -> None:
        # A request under way ends by itself; its client is no one else's.
        self._is_closed.set()

    def _run(self) -> None:
        is_warned = False
        while not self._is_closed.is_set():
            try:
                with self._desk.reader() as reader:
                    self._ask(reader)
            except LogUnavailable as error:
                # It cannot be made. A figure is no reason to begin anew.
                if not is_warned:
                    _log.warning("handover.ends_unknown", error=str(error), wait_s=_MEASURE_EVERY_S)
                is_warned = True
                self._is_closed.wait(_MEASURE_EVERY_S)

    def _ask(self, reader: LogReader) -> None:
        while not self._is_closed.is_set():
            with contextlib.suppress(LogUnavailable):
                self.told = reader.ends(self._topic)
            self._is_closed.wait(_MEASURE_EVERY_S)


class Service:
    """Works on the hand-overs of one installation; a second process takes over from the first.

    Args:
        settings: the whole configuration.

    Raises:
        ConfigError: nothing can be handed over by this configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = Topics(settings.kafka.topic_prefix)
        self._ways = Ways(settings)
        self._outcomes = Outcomes(self._topics, settings.worker.app_id, settings.producer.max_record_bytes)
        self._max_open = min(api.batch.max_open_jobs for api in self._ways.apis.values())
        self._stop = threading.Event()
        self._patience = Patience(settings.kafka, "hand-over", self._stop)
        self._is_serving = False
        self._rests_for = ""
        self._open: list[Delivery] = []
        self._gathering: Gathering | None = None
        self._folder: Path | None = None
        self._confirm_at_s = 0.0
        # As they were noted last, whatever becomes of the jobs topic.
        self._noted: dict[str, HandOver] = {}
        self._jobs_id = ""
        self._has_looked = False
        # Partitions that were read from an earlier offset again, until it is known what is left of them.
        self._went_back: set[int] = set()

    def stop(self) -> None:
        """End soon; what is under way is taken up by the next start."""
        self._stop.set()

    def abandon(self) -> None:
        """Remove the working files of a process that ends at once; what is needed is on Kafka and S3."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def unready(self) -> list[str]:
        """Return why nothing is handed over now."""
        if self._stop.is_set():
            return ["shutting_down"]
        if self._patience.waits_for:
            return self._patience.reasons
        if self._rests_for:
            return [f"disk: {self._rests_for}"]
        return [] if self._is_serving else ["reads what was handed over before"]

    def run(self) -> None:
        """Work until `stop`; wait while Kafka is away, and while the disk is full.

        Raises:
            ConfigError: the work folder cannot be used.
            TakenOver: another process has taken over.
            OSError, sqlite3.OperationalError: of what does not pass by waiting.
        """
        try:
            check_folder(self._settings.batch_jobs.work_dir)
            self._patience.run(self._sessions)
        finally:
            self._ways.close()

    def _sessions(self) -> None:
        """Begin anew whenever the disk has failed: the records of the files that it lost are on the log."""
        while not self._stop.is_set():
            try:
                self._session()
            except DISK_ERRORS as error:
                if not is_of_disk(error):
                    raise
                self._rests_for = str(error)
                note_rest(error)
                self._stop.wait(self._settings.batch_jobs.retry_pause_s)
            else:
                return

    def _session(self) -> None:
        """Work until `stop`, or until Kafka does not do what is needed, or what was written is not known."""
        settings = self._settings
        is_stopped, name = self._stop.is_set, f"{self._topics.prefix}.hand-over"
        # Somebody may have tidied it away.
        if settings.batch_jobs.work_dir is not None:
            _made(Path(settings.batch_jobs.work_dir))
        with tempfile.TemporaryDirectory(prefix="penstock-hand-over-", dir=settings.batch_jobs.work_dir) as work:
            self._folder = Path(work)
            # Behind what a full disk refuses: a client is threads and connections.
            producer = FencedProducer(settings.kafka, settings.producer, name, is_stopped)
            try:
                producer.take_over()
                self._look_at_topics()
                log = Log(settings, is_stopped)
                self._work(
                    Desk(settings, self._topics, self._ways, producer, self._outcomes, log, is_stopped), self._folder
                )
            finally:
                self._is_serving = False
                if self._gathering is not None:
                    self._gathering.abandon()
                producer.close()

    def _look_at_topics(self) -> None:
        """Say once what is wrong with the topics that remember, before anything relies on them."""
        if not self._has_looked:
            names = self._topics.batch_jobs, self._topics.handovers
            if problems := differing(self._settings, names, self._stop.is_set):
                _log.warning("handover.topics_differ", problems=problems)
            if not self._ways.by_route:
                reason = "no route uses a model of a provider with batch_api"
                _log.warning("handover.for_workers", reason=f"{reason}: what comes goes to the workers")
            self._has_looked = True

    def _work(self, desk: Desk, work: Path) -> None:
        history = self._history(desk)
        with desk.reader() as reader, _Ends(desk, self._topics.handovers) as ends:
            known = self._shortened(desk, reader, [state for state in history if desk.log.holds(state)])
            self._note(known)
            starts, behind = self._starts(reader, known)
            reader.begin({self._topics.handovers: starts})
            # What was asked for is of one log, though it was made anew between two of the questions.
            desk.log.confirm()
            for state in history:
                if state.state != "finished" and not desk.log.holds(state):
                    give_up(desk, state)
            self._open = self._deliveries(desk, known, work)
            _log.info("handover.serving", under_way=len(self._open), models=sorted(self._ways.by_alias))
            gathering = self._gather(work / "0")
            self._is_serving, self._rests_for = True, ""
            while not self._stop.is_set():
                # Before anything is gathered: on a full disk it may get no further, and this is what makes room.
                self._step()
                self._measure(reader, gathering, ends.told)
                if len(self._open) < self._max_open:
                    for record in reader.poll(_POLL_S):
                        self._follow(desk, behind, record)
                        gathering.take(record)
                        if gathering.is_due:
                            gathering = self._hand_over(desk, gathering, reader, work)
                    if gathering.is_due:
                        gathering = self._hand_over(desk, gathering, reader, work)
                else:
                    self._stop.wait(_POLL_S)
                reader.widen()
                self._confirm(desk)

    def _deliveries(self, desk: Desk, known: Sequence[HandOver], work: Path) -> list[Delivery]:
        # Also where sessions end every few seconds, as on a full disk, the provider is asked no more often for that.
        paces = {delivery.state.id: delivery.pace for delivery in self._open}
        open_states = [state for state in known if state.state != "finished"]
        return [Delivery(desk, one, _made(work / one.id), pace=paces.get(one.id)) for one in open_states]

    def _gather(self, folder: Path) -> Gathering:
        self._gathering = gathering = Gathering(self._ways, _made(folder))
        return gathering

    def _hand_over(self, desk: Desk, gathering: Gathering, reader: LogReader, work: Path) -> Gathering:
        """Put on the log what is handed over: from then on it is this hand-over's, whatever happens; gather anew."""
        # All of it was read before this, so from the log whose id is noted.
        desk.log.confirm()
        files = gathering.close()
        results = self._topics.result_topics(route.output_topic for route in self._settings.routes)
        topics = sorted(results | {self._topics.retries})
        logs = reader.logs(topics)
        ends = {topic: reader.ends(topic) for topic in topics}
        state = gathering.hand_over(list(files), ends, logs, desk.log.id)
        desk.producer.write([job_record(self._topics, state)])
        self._note([state])
        self._open.append(Delivery(desk, state, _made(work / state.id), files))
        return self._gather(work / f"after-{state.id}")

    def _step(self) -> None:
        for delivery in self._open:
            if not self._stop.is_set():
                delivery.step()
                self._note([delivery.state])
        self._open = [delivery for delivery in self._open if not delivery.is_over]

    def _note(self, states: Iterable[HandOver]) -> None:
        self._noted |= {state.id: state for state in states}

    def _confirm(self, desk: Desk) -> None:
        if time.monotonic() >= self._confirm_at_s:
            self._confirm_at_s = time.monotonic() + _CONFIRM_EVERY_S
            desk.log.confirm()

    def _measure(self, reader: LogReader, gathering: Gathering, ends: Sequence[int]) -> None:
        now = datetime.now(UTC)
        ages_s = [(now - (parse_time(one.state.gathered_at) or now)).total_seconds() for one in self._open]
        HANDOVERS_OPEN.set(len(self._open))
        HANDOVER_OLDEST.set(max([0.0, *ages_s]))
        if not ends:
            return
        behind = [reader.position(self._topics.handovers, number) for number in range(len(ends))]
        HANDOVER_WAITING.set(waiting(ends, behind, gathering.ranges))

    def _history(self, desk: Desk) -> list[HandOver]:
        found: dict[str, HandOver] = {}
        with desk.reader() as reader:
            reader.begin({self._topics.batch_jobs: ()})
            for record in reader.to_the_end():
                if kind_of(record.key) is HandOver and record.value is not None:
                    try:
                        state = decode_json(record.value, HandOver)
                    except Undecodable:
                        continue
                    found[state.id] = state
        if not desk.log.id:
            # Nobody can say whether what is remembered is of this broker, or of one that was set up anew since.
            return list(found.values())
        # Made anew, the topic knows nothing of what is under way, nor of what must not be handed over again.
        is_anew = not found or self._jobs_id not in {"", desk.log.jobs_id}
        if lost := forgotten(self._noted, found, is_anew=is_anew):
            _log.warning("handover.jobs_topic_made_anew", noted_again=len(lost))
            desk.producer.write([job_record(self._topics, state) for state in lost])
        self._noted, self._jobs_id = found | {state.id: state for state in lost}, desk.log.jobs_id
        return list(self._noted.values())

    def _starts(self, reader: LogReader, history: Sequence[HandOver]) -> tuple[list[int], dict[int, int]]:
        """Return where each partition goes on, behind what was ever handed over; and those that do, by number."""
        starts, behind = [], {}
        for number, (begins, end) in enumerate(reader.spans(self._topics.handovers)):
            starts.append(max(begins, _handed_over(history, number)))
            if starts[-1] <= end:
                behind[number] = starts[-1]
        return starts, behind

    def _follow(self, desk: Desk, behind: dict[int, int], record: Found) -> None:
        """Note how far a partition was read.

        Raises:
            LogUnavailable: its log has lost its end, and is read from its beginning: begin anew.
        """
        if desk.log.id and record.offset < behind.get(record.partition, 0):
            self._went_back.add(record.partition)
            place = f"{record.topic}/{record.partition}"
            message = f"{place} was read up to offset {behind[record.partition]}, and {record.offset} came again"
            raise LogUnavailable(message)
        behind[record.partition] = record.offset + 1

    def _shortened(self, desk: Desk, reader: LogReader, known: list[HandOver]) -> list[HandOver]:
        """Take out of hand-overs what their log has lost: other records get these offsets.

        They would be passed over, or get the answers to those that are gone. And who reads on behind the end of a log
        is led to its beginning: all of it would be handed over once more. A log without an id may be another one, of
        which nothing was handed over yet.
        """
        ours = [state for state in known if desk.log.id and state.log == desk.log.id]
        cut = self._cut(reader, ours) if ours else {}
        changed: dict[str, HandOver] = {}
        for number, end in cut.items():
            name = str(number)
            having = [state for state in ours if name in state.ranges]
            # The newest first: below one that has all of its records nothing is lost.
            for state in sorted(having, key=lambda one: one.ranges[name][1], reverse=True):
                first, last = state.ranges[name]
                kept = max(first, self._kept(desk, state, number, min(last, end)))
                if kept == last:
                    break
                _log.error("handover.cut", hand_over=state.id, partition=number, offset=kept, lost=last - kept)
                others = {other: span for other, span in changed.get(state.id, state).ranges.items() if other != name}
                ranges = others | ({name: (first, kept)} if kept > first else {})
                changed[state.id] = msgspec.structs.replace(state, ranges=ranges)
        if changed:
            desk.producer.write([job_record(self._topics, state) for state in changed.values()])
        self._went_back.clear()
        return [changed.get(state.id, state) for state in known]

    def _cut(self, reader: LogReader, ours: Sequence[HandOver]) -> dict[int, int]:
        """Return the partitions that have lost records which were handed over, or may have, and where they end."""
        cut: dict[int, int] = {}
        for look in range(_LOOKS):
            if look and (not cut or self._stop.wait(_LOOK_AGAIN_S)):
                return {}
            ends = enumerate(reader.ends(self._topics.handovers))
            cut = {n: end for n, end in ends if n in self._went_back or end < _handed_over(ours, n)}
        return cut

    def _kept(self, desk: Desk, state: HandOver, number: int, end: int) -> int:
        """Return up to where a partition that ends there has what was handed over: what is younger has come since."""
        gathered_at, first = parse_time(state.gathered_at), state.ranges[str(number)][0]
        if gathered_at is not None and first < end:
            with desk.reader() as reader:
                for record in reader.read(self._topics.handovers, {number: (first, end)}):
                    if record.timestamp_ms > gathered_at.timestamp() * 1000:
                        return record.offset
        return end


def _handed_over(history: Sequence[HandOver], number: int) -> int:
    """Return the offset behind what was ever handed over of a partition."""
    return max([0, *(state.ranges[str(number)][1] for state in history if str(number) in state.ranges)])


def waiting(ends: Sequence[int], positions: Sequence[int], gathered: Mapping[str, tuple[int, int]]) -> int:
    """Return how many offsets are in no hand-over yet.

    Args:
        ends: of all partitions.
        positions: up to where each was read.
        gathered: by partition, first offset of what was read and not handed over, and the one behind the last.
    """
    starts = [gathered[str(number)][0] if str(number) in gathered else at for number, at in enumerate(positions)]
    return sum(max(0, end - start) for end, start in zip(ends, starts, strict=True))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
