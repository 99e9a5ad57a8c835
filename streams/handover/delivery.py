"""One hand-over on its way: its jobs created, watched, and their answers brought back; each step can be done again.

Reads: handovers, results, retries. Writes: batch-jobs, results, retries. Blocking: S3, Bedrock, Kafka.
"""

import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from contracts.batch_jobs import DENIED, GIVEN_UP, UNSEEN, Asked, GivenUp, HandOver, HandOverPart, job_record
from contracts.codec import Record, source_position
from contracts.envelope import format_time, parse_time
from contracts.errors import DISK_ERRORS, LogUnavailable, ModelNotFound, PenstockError, Terminal, is_of_disk
from contracts.logs import logger
from contracts.metrics import FM_COST, HANDOVER_LAST, HANDOVER_RECORDS
from contracts.settings import Settings
from contracts.topics import Topics
from producers.fenced import FencedProducer, TakenOver
from producers.kafka_client import IsStopped
from producers.log_reader import Found, LogReader
from producers.window import record_bytes
from streams.handover.answers import Answers
from streams.handover.choosing import Ways, record_id
from streams.handover.gathering import Log, given_up_jobs, note_rest, status_of
from streams.handover.settling import PROVIDER, Outcomes
from streams.job import Job
from streams.providers.bedrock_jobs import ANSWERED, NOT_SHOWN, OVER, BedrockJobs, InputGone, read_output

# Of one transaction, which has 15 s, also through a slow network.
_GROUP, _GROUP_BYTES = 500, 8 * 2**20
_BACKOFF = 10
_REFUSED = "Refused"
_ENDED = OVER | {_REFUSED, GIVEN_UP}
# So much do clocks differ at most.
_CLOCKS_S = 60.0
_log = logger("hand-over")


@dataclass(frozen=True)
class Desk:
    """What every delivery works with."""

    settings: Settings
    topics: Topics
    ways: Ways
    producer: FencedProducer
    outcomes: Outcomes
    log: Log
    is_stopped: IsStopped

    def reader(self) -> LogReader:
        """Return a reader that a stop ends."""
        return LogReader(self.settings.kafka, self.is_stopped)


# Partition, offset and timestamp: an answer of a former log may have the offset of a record of this one.
_Place = tuple[int, int, int]


def _place(record: Found) -> _Place:
    return record.partition, record.offset, record.timestamp_ms


class Delivery:
    """One hand-over.

    Args:
        desk: what it works with.
        state: as it is on the log.
        folder: its own.
        files: the records of its jobs by alias; None after a restart, when they are on S3 or have to be made again.
        pace: of the one that this takes up; None = a look is due now.
    """

    def __init__(
        self,
        desk: Desk,
        state: HandOver,
        folder: Path,
        files: Mapping[str, Path] | None = None,
        pace: tuple[float, float] | None = None,
    ) -> None:
        self._desk = desk
        self.state = state
        self._folder = folder
        self._files = files
        # After a restart somebody may have written a part of the answers.
        self._is_resumed = files is None
        gathered_at = parse_time(state.gathered_at)
        self._youngest_ms = (gathered_at.timestamp() + _CLOCKS_S) * 1000 if gathered_at else math.inf
        self._pause_s, self._look_at_s = pace or (self._first_pause_s, 0.0)

    @property
    def _first_pause_s(self) -> float:
        return min(api.batch.poll_s for api in self._desk.ways.apis.values())

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.state.state == "finished"

    @property
    def pace(self) -> tuple[float, float]:
        """Return the pause between two looks, and when the next one is due, monotonic: for whoever takes this up."""
        return self._pause_s, self._look_at_s

    def step(self) -> None:
        """Go on where it is due; what may pass is tried again later.

        Raises:
            TakenOver, LogUnavailable: this process has to begin anew.
            OSError, sqlite3.OperationalError: of what does not pass by waiting.
        """
        if time.monotonic() < self._look_at_s:
            return
        before = (self.state.state, self._statuses())
        try:
            if self.state.state == "gathered":
                self._begin()
            self._look()
        except (TakenOver, LogUnavailable):
            raise
        except PenstockError as error:
            note_rest(error, hand_over=self.state.id)
        except DISK_ERRORS as error:
            if not is_of_disk(error):
                raise
            note_rest(error, hand_over=self.state.id)
            # Half a file, or one that somebody has removed; and others need the room meanwhile.
            self._remove_files()
        is_news = before != (self.state.state, self._statuses())
        self._pause_s = self._first_pause_s if is_news else min(2 * self._pause_s, _BACKOFF * self._first_pause_s)
        self._look_at_s = time.monotonic() + self._pause_s

    def _statuses(self) -> list[str]:
        return [part.status for part in self.state.parts.values()]

    def _begin(self) -> None:
        """Create the jobs, and send what is in none of them to the workers."""
        missing = {
            alias
            for alias, part in self.state.parts.items()
            if not part.arn and not self._jobs(alias).has(part.input_uri)
        }
        files = self._files if self._files is not None else self._again(missing)
        parts = {alias: self._created(alias, part, files, missing) for alias, part in self.state.parts.items()}
        ids = self._ids(parts)
        known = self._known() if self._is_resumed else set()
        waiting = (
            self._desk.outcomes.retry(record, job, "batch_not_for")
            for record, job, name in self._records()
            if name not in ids and _place(record) not in known
        )
        # Should a write fail from here on, a part of them is on the log.
        is_resumed, self._is_resumed = self._is_resumed, True
        sent = self._write(waiting)
        self._note(msgspec.structs.replace(self.state, parts=parts, state="running"))
        self._is_resumed = is_resumed
        self._remove_files()
        _log.info("handover.running", hand_over=self.state.id, jobs=len(parts), records=len(ids), to_workers=sent)

    def _remove_files(self) -> None:
        """Remove the records of the jobs, also those of an attempt before: they are on S3, or can be made again."""
        for path in (*(self._files or {}).values(), *self._folder.glob("*.jsonl")):
            path.unlink(missing_ok=True)
        self._files = None

    def _created(self, alias: str, part: HandOverPart, files: Mapping[str, Path], missing: set[str]) -> HandOverPart:
        if part.arn or part.status == _REFUSED:
            return part
        jobs, asked = self._jobs(alias), self._asked(alias)
        if alias in missing:
            jobs.put(part.input_uri, files[alias])
            # An earlier process may have had other prompts; whom it was going to ask it may have asked.
            asked = msgspec.structs.replace(asked, prompts=self._desk.ways.prompts(alias))
        part = msgspec.structs.replace(part, asked=asked)
        try:
            arn = jobs.create(asked.model, part.token, part.input_uri, part.output_uri, may_exist=self._is_resumed)
        except (Terminal, ModelNotFound) as error:
            # Whatever is wrong with it, the workers can still answer its records, or say why not.
            _log.warning("handover.job_refused", hand_over=self.state.id, model=asked.model, error=str(error))
            return msgspec.structs.replace(part, status=_REFUSED, message=str(error))
        return msgspec.structs.replace(part, arn=arn, status="Submitted")

    def _jobs(self, alias: str) -> BedrockJobs:
        return self._desk.ways.jobs(self._asked(alias), alias)

    def _asked(self, alias: str) -> Asked:
        """Return whom a job asks: as it was handed over, whatever the alias stands for since."""
        return self.state.parts[alias].asked or self._desk.ways.asked(alias)

    def _again(self, aliases: set[str]) -> dict[str, Path]:
        """Make the records of jobs again that are not on S3: nothing was handed over or sent to the workers yet."""
        # It may be days old, and empty: what tidies a machine's temporary files removes such folders.
        self._folder.mkdir(parents=True, exist_ok=True)
        files = {alias: self._folder / f"{alias}.jsonl" for alias in aliases}
        for path in files.values():
            path.write_bytes(b"")
        if files:
            for _, job, name in self._records():
                found = self._desk.ways.line(job, name)
                if found is not None and found[0].route.model in files:
                    with files[found[0].route.model].open("ab") as file:
                        file.write(found[1])
        return files

    def _ids(self, parts: Mapping[str, HandOverPart]) -> set[str]:
        """Return the ids of the records that were handed over: the inputs on S3 are the truth.

        Raises:
            InputGone: somebody has removed one.
        """
        return {name for alias, part in parts.items() for name in self._jobs(alias).record_ids(part.input_uri)}

    def _ids_left(self) -> set[str] | None:
        """Return the same once the jobs are over; None where an input is gone: then all that was not sent to workers.

        What was handed over does not get its outcome by waiting for an object that a lifecycle rule has removed.
        """
        try:
            return self._ids(self.state.parts)
        except InputGone as error:
            _log.error("handover.input_gone", hand_over=self.state.id, error=str(error))
            return None

    def _look(self) -> None:
        """Ask for the jobs' states; when all have ended, bring their answers back."""
        parts, unseen, given_up = dict(self.state.parts), list[PenstockError](), dict[str, GivenUp]()
        for alias, part in parts.items():
            if part.status in _ENDED:
                continue
            try:
                status, message = self._jobs(alias).status(part.arn)
            except NOT_SHOWN as error:
                unseen.append(error)
                given_up = given_up or given_up_jobs(self._desk.reader(), self._desk.topics, self.state.id)
                status, message = status_of(error, given_up.get(part.arn)), str(error)
            parts[alias] = msgspec.structs.replace(part, status=status, message=message)
        before, self.state = self.state, msgspec.structs.replace(self.state, parts=parts)
        if _unseen(before) != _unseen(self.state):
            # `penstock batch give-up` and `penstock why-stuck` read it there.
            self._note(self.state)
        if all(part.status in _ENDED for part in parts.values()):
            self._settle()
        elif unseen:
            raise unseen[0]

    def _settle(self) -> None:
        ids = self._ids_left()
        # Without the inputs only the log knows what was sent to the workers instead.
        known = self._known(is_input_gone=ids is None) if self._is_resumed or ids is None else set()
        counts: Counter[str] = Counter()
        # By model.
        costs: defaultdict[str, float] = defaultdict(float)
        # As in `_again`.
        self._folder.mkdir(parents=True, exist_ok=True)
        with Answers(self._folder / "answers.db") as answers:
            for alias, part in self.state.parts.items():
                if part.arn:
                    outputs = self._jobs(alias).outputs(part.arn, part.input_uri, part.output_uri)
                    self._take(answers, part, outputs)
            # Should a write fail from here on, a part of the answers is on the log.
            self._is_resumed = True
            self._write(self._answers(answers, ids, known, counts, costs))
        ended_at, cost_usd = format_time(datetime.now(UTC)), round(sum(costs.values()), 6)
        self._note(
            msgspec.structs.replace(
                self.state, state="finished", ended_at=ended_at, counts=dict(counts), cost_usd=cost_usd
            )
        )
        for outcome, count in counts.items():
            HANDOVER_RECORDS.labels(outcome).inc(count)
        for model, spent_usd in costs.items():
            FM_COST.labels(PROVIDER, model, "reported").inc(spent_usd)
        HANDOVER_LAST.set_to_current_time()
        statuses = [f"{part.status} {part.message}".strip() for part in self.state.parts.values()]
        _log.info("handover.finished", hand_over=self.state.id, statuses=statuses, cost_usd=cost_usd, **counts)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self, answers: Answers, part: HandOverPart, outputs: Iterator[tuple[str, bytes]]) -> None:
        if not answers.take(part.arn, outputs) and part.status in ANSWERED:
            # Paid for, and put where somebody, or a lifecycle rule, has removed it: the workers answer once more.
            _log.error("handover.output_gone", hand_over=self.state.id, job=part.arn, output=part.output_uri)

    def _answers(
        self,
        answers: Answers,
        ids: set[str] | None,
        known: set[_Place],
        counts: Counter[str],
        costs: dict[str, float],
    ) -> Iterator[Record]:
        asked = {part.arn: self._asked(alias) for alias, part in self.state.parts.items() if part.arn}
        for record, job, name in self._records():
            if ids is not None and name not in ids:
                continue
            # Also of what an earlier process has written: that one has told nobody what it has cost.
            # What is younger lies at the offset of a record that its broker has lost, and the answer is to that one.
            answer = answers.get(name) if record.timestamp_ms <= self._youngest_ms else None
            if answer is None:
                kind = "unanswered" if ids is not None else "input_gone"
                made = self._desk.outcomes.retry(record, job, f"batch_{kind}")
            else:
                kind, made = self._outcome(record, job, answer, asked[answer[1]], costs)
            if _place(record) in known:
                counts["answered_before"] += 1
                continue
            counts[kind] += 1
            yield made

    def _outcome(
        self, record: Found, job: Job, answer: tuple[bytes, str], asked: Asked, costs: dict[str, float]
    ) -> tuple[str, Record]:
        ended = read_output(answer[0], asked.model, answer[1])
        kind, made = self._desk.outcomes.of(record, job, self._desk.ways.readings.get(job.route_name), ended, asked)
        costs[asked.model] += job.cost_usd or 0.0
        return kind, made

    def _records(self) -> Iterator[tuple[Found, Job, str]]:
        """Walk over the records of this hand-over that are ours.

        Raises:
            LogUnavailable: they cannot be read, or the topic is not the one any more on which they lay.
        """
        # In a log that was made anew others lie at their offsets, and would get their answers.
        self._desk.log.confirm()
        ranges = {int(number): (span[0], span[1]) for number, span in self.state.ranges.items()}
        with self._desk.reader() as reader:
            for record in reader.read(self._desk.topics.handovers, ranges):
                job = self._desk.ways.job(record)
                if not job.is_foreign:
                    yield record, job, record_id(record.partition, record.offset)

    def _known(self, *, is_input_gone: bool = False) -> set[_Place]:
        """Return the places of records that have an answer: an outcome, or a retry that the workers take up."""
        # Of a result topic that a route was given since, nothing was noted: it is read from its first record.
        desk = self._desk
        outputs = desk.topics.result_topics(route.output_topic for route in desk.settings.routes)
        starts: dict[str, tuple[int, ...]] = dict.fromkeys(sorted(outputs), ())
        with desk.reader() as reader:
            reader.begin(starts | self.state.answer_starts, self.state.answer_logs)
            if is_input_gone and reader.shortened:
                # Nobody knows any more what they have said: without an answer of the job it is sent once more.
                _log.error("handover.answers_forgotten", hand_over=self.state.id, topics=sorted(reader.shortened))
            return set(self._answered(reader.to_the_end()))

    def _answered(self, records: Iterable[Found]) -> Iterator[_Place]:
        for record in records:
            found = source_position(record.headers.items())
            if found is not None and found[0] == self._desk.settings.worker.app_id:
                position = found[1]
                begin, end = self.state.ranges.get(str(position.partition), (0, 0))
                # Of other hand-overs, which end meanwhile, there may be any number.
                if position.topic == self._desk.topics.handovers and begin <= position.offset < end:
                    yield position.partition, position.offset, position.timestamp_ms

    def _write(self, records: Iterator[Record]) -> int:
        """Produce records in groups; return how many."""
        count, group, size_bytes = 0, list[Record](), 0
        for record in records:
            group.append(record)
            size_bytes += record_bytes(record)
            if len(group) >= _GROUP or size_bytes >= _GROUP_BYTES:
                self._desk.producer.write(group)
                count, group, size_bytes = count + len(group), [], 0
        if group:
            self._desk.producer.write(group)
        return count + len(group)

    def _note(self, state: HandOver) -> None:
        self._desk.producer.write([job_record(self._desk.topics, state)])
        self.state = state


def _unseen(state: HandOver) -> list[tuple[str, str]]:
    return [(part.arn, part.status) for part in state.parts.values() if part.status in {UNSEEN, DENIED}]


def give_up(desk: Desk, state: HandOver) -> None:
    """End a hand-over whose records are gone with their topic: without them nobody can be answered.

    Raises:
        TakenOver, LogUnavailable: it could not be noted.
    """
    count = sum(end - first for first, end in state.ranges.values())
    over = msgspec.structs.replace(
        state, state="finished", ended_at=format_time(datetime.now(UTC)), counts={"gone": count}
    )
    desk.producer.write([job_record(desk.topics, over)])
    HANDOVER_RECORDS.labels("gone").inc(count)
    # Their jobs may still cost something.
    jobs = [part.arn for part in state.parts.values() if part.arn and part.status not in OVER]
    _log.error("handover.gone", hand_over=state.id, records=count, jobs=jobs, reason="its topic was made anew")
