"""One run: topics, model server and backlog, then the side under test until every event has its result.

Blocking: bounded by `LIMIT_S` and by the size of the job. Starts processes and ends only those.
"""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import confluent_kafka
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from bench.model_plan import Plan
from bench.outcomes import Outcomes, Steady, steady
from bench.processes import Sample, Sampler
from bench.sides import ROOT, Side, Work
from contracts.codec import encode_event
from contracts.envelope import Event
from contracts.settings import environment
from contracts.topics import LANES, Topics
from tests.support import Leash, end_group, eventually

PARTITIONS = 16
LIMIT_S = 150.0
# A side that has begun and writes nothing for so long has ended, or lost the rest; the slowest to begin is the JVM.
_QUIET_S, _START_S = 30.0, 60.0
# Ours drains for up to 50 s; peers are cut earlier, since nothing is measured any more.
_STOP_S, _STOP_PEER_S = 60.0, 10.0
_PADDING = "x" * 400
_SETTLE_READS = 3
_serial = itertools.count()


class RunFailedError(Exception):
    """The side under test did not do the job; the text says why, from the second line on with the end of its output.

    Attributes:
        done: results until then.
    """

    def __init__(self, text: str, done: int = 0) -> None:
        super().__init__(text)
        self.done = done


@dataclass(frozen=True)
class Job:
    """What is done: events with keys in turn, so many calls at a time, and what the model does."""

    in_flight: int
    events: int
    keys: int = 500
    plan: Plan = field(default_factory=Plan)


@dataclass(frozen=True)
class Run:
    """What one run showed.

    Attributes:
        total_s: from the first call at the model to the last result.
        model: the model server's own account; its `cpu_share` is of one core.
        notes: what a scenario has noted in the middle of it: a kill, the starts.
    """

    job: Job
    outcomes: Outcomes
    samples: list[Sample]
    model: dict[str, Any]
    total_s: float
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def steady(self) -> Steady:
        """The steady part of the run."""
        return steady(self.outcomes.stamps, self.samples)

    @property
    def efficiency(self) -> float:
        """Rate / (in flight / latency), in the steady part."""
        return self.steady.rate * self.job.plan.latency_s / self.job.in_flight

    @property
    def healthy_rate(self) -> float:
        """Results that are no refusal, per second of the steady part."""
        return steady(self.outcomes.healthy_stamps, self.samples).rate

    @property
    def lost(self) -> int:
        """Events without a result."""
        return self.job.events - len(self.outcomes.counts)


class Worker:
    """The process under test, which can be killed and started again."""

    def __init__(self, side: Side, work: Work) -> None:
        self._command, self._folder, self._tree = side.command(work), work.folder, side.tree
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None

    @property
    def pid(self) -> int:
        """Process id, also of its session."""
        return self._process.pid if self._process else 0

    def start(self) -> None:
        """Start it in a session of its own, its output in a file."""
        with (self._folder / "output.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._tree,
                env={**environment(), "PYTHONPATH": str(self._tree)},
                start_new_session=True,
            )
        self._leash = Leash(self._process.pid)

    def end(self, grace_s: float) -> None:
        """SIGTERM, after `grace_s` seconds SIGKILL; at once with 0."""
        if self._process is not None:
            if grace_s <= 0:
                os.killpg(self._process.pid, signal.SIGKILL)
            end_group(self._process, grace_s)
        if self._leash is not None:
            self._leash.release()

    def has_ended(self) -> bool:
        """Return whether it ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def output_tail(self) -> str:
        """Return the last lines of its output."""
        text = (self._folder / "output.log").read_text("utf-8", errors="replace")
        return "\n".join(text.splitlines()[-8:])


@dataclass
class Stage:
    """A run under way, for what a scenario does in the middle of it."""

    worker: Worker
    work: Work
    outcomes: Outcomes
    sampler: Sampler
    notes: dict[str, float] = field(default_factory=dict)

    def model_stats(self) -> dict[str, Any]:
        """Ask the model server what it did so far."""
        return stats(self.work.model_url)


def run(bootstrap: str, side: Side, job: Job, during: Callable[[Stage], None] = lambda _: None) -> Run:
    """Run the job on one side, over a backlog; `during` is called with every batch of results.

    Raises:
        RunFailedError: it ended by itself, wrote nothing at all, or the time was up.
    """
    topics = new_topics()
    with model_server(job.plan) as url, topics_of(bootstrap, topics):
        produce(bootstrap, topics.events("standard"), range(job.events), job.keys)
        return run_on(bootstrap, topics, side, job, url, during)


def run_on(
    bootstrap: str,
    topics: Topics,
    side: Side,
    job: Job,
    model_url: str,
    during: Callable[[Stage], None] = lambda _: None,
) -> Run:
    """Run a side until so many results are on the topics; the events are somebody else's to write.

    Raises:
        RunFailedError: as `run`.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Work(bootstrap, topics, job.in_flight, model_url, Path(folder), run=f"r{next(_serial)}")
        worker = Worker(side, work)
        starts = ends_of(bootstrap, topics.results)
        worker.start()
        stage = Stage(worker, work, Outcomes(job.keys), Sampler(worker.pid))
        try:
            is_over = read_results(stage, starts, job.events, during)
            model = stats(model_url)
            _check(stage, side, job, is_over=is_over)
        finally:
            stage.sampler.stop()
            worker.end(_STOP_S if side.is_ours else _STOP_PEER_S)
    total_s = max(stage.outcomes.stamps) - model["first_call_at"]
    return Run(job, stage.outcomes, stage.sampler.samples, model, total_s, stage.notes)


def _check(stage: Stage, side: Side, job: Job, *, is_over: bool) -> None:
    """Raise unless there is something to measure."""
    done = len(stage.outcomes.counts)
    if done >= job.events:
        return
    if stage.worker.has_ended():
        msg = f"{side.name} ended by itself after {done} of {job.events} results:\n{stage.worker.output_tail()}"
    elif not is_over:
        msg = f"{side.name} did not finish within {LIMIT_S:g} s: {done} of {job.events} results"
    elif not done:
        msg = f"{side.name} wrote no result within {_START_S:g} s:\n{stage.worker.output_tail()}"
    else:
        return
    raise RunFailedError(msg, done)


def new_topics() -> Topics:
    """Return names that no other run has."""
    return Topics(f"bench{os.getpid()}x{next(_serial)}")


@contextlib.contextmanager
def model_server(plan: Plan) -> Iterator[str]:
    """Run the model and give its base URL."""
    command = (sys.executable, "-m", "bench.model_server", plan.to_text())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, start_new_session=True)
    leash = Leash(process.pid)
    try:
        port = process.stdout.readline().decode().strip() if process.stdout else ""
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end_group(process, 5.0)
        leash.release()


def stats(url: str) -> dict[str, Any]:
    """Ask the model server what it did."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/stats", timeout=10) as answer:  # noqa: S310 - our own server
        return dict(json.load(answer))


@contextlib.contextmanager
def topics_of(bootstrap: str, topics: Topics) -> Iterator[None]:
    """Create the job's topics, and delete them afterwards."""
    names = [*(topics.events(lane) for lane in LANES), topics.results, topics.dead_letters, topics.retries]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)
    try:
        yield
    finally:
        for future in admin.delete_topics(names).values():
            future.result(30)


def produce(bootstrap: str, topic: str, numbers: Iterable[int], keys: int) -> None:
    """Write events of some 500 bytes."""
    feeder = Feeder(bootstrap, topic, keys)
    for number in numbers:
        feeder.send(number)
    feeder.flush()


class Feeder:
    """Writes events of some 500 bytes, which compress well.

    Attributes:
        sent: how many.
    """

    def __init__(self, bootstrap: str, topic: str, keys: int) -> None:
        self._topic, self._keys = topic, keys
        self.sent = 0
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "compression.type": "lz4",
            }
        )

    def send(self, number: int) -> None:
        """Write event number n; waits while the producer is full."""
        event = Event(
            id=f"e{number}",
            source="bench",
            type="bench.event",
            data=msgspec.json.encode({"n": number, "text": _PADDING}),
            datacontenttype="application/json",
            extensions={"partitionkey": f"k{number % self._keys}"},
        )
        headers: list[tuple[str, str | bytes | None]] = [*encode_event(event)]
        while True:
            with contextlib.suppress(BufferError):
                self._producer.produce(self._topic, key=event.key, value=event.data, headers=headers)
                self.sent += 1
                return
            self._producer.poll(0.05)

    def flush(self) -> None:
        """Return when the broker has all of it."""
        self._producer.flush(120)


def ends_of(bootstrap: str, topic: str) -> list[confluent_kafka.TopicPartition]:
    """Return where each partition of a topic ends; a new one may be without a leader for a moment."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": f"{topic}.bench"})

    def end(number: int) -> confluent_kafka.TopicPartition | None:
        place = confluent_kafka.TopicPartition(topic, number)
        try:
            place.offset = consumer.get_watermark_offsets(place, timeout=_START_S)[1]
        except confluent_kafka.KafkaException:
            return None
        return place

    try:
        found = [eventually(lambda number=number: end(number), _START_S) for number in range(PARTITIONS)]  # type: ignore[misc]
    finally:
        consumer.close()
    return [place for place in found if place is not None]


def read_results(
    stage: Stage,
    starts: list[confluent_kafka.TopicPartition],
    events: int,
    during: Callable[[Stage], None],
) -> bool:
    """Read until every event has a result, none comes any more, or the limit is over; then a little for repeats.

    Returns:
        False when the limit was over while results still came.
    """
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": stage.work.bootstrap, "group.id": f"{stage.work.group}.bench"}
    )
    consumer.assign(starts)
    end, quiet_at = time.monotonic() + LIMIT_S, time.monotonic() + _START_S
    settle = _SETTLE_READS
    try:
        while settle and time.monotonic() < min(end, quiet_at) and not stage.worker.has_ended():
            messages = [message for message in consumer.consume(2000, 0.2) if message.error() is None]
            for message in messages:
                note(stage.outcomes, message)
            if messages:
                quiet_at = time.monotonic() + _QUIET_S
                during(stage)
            settle -= len(stage.outcomes.counts) >= events
    finally:
        consumer.close()
    return time.monotonic() < end


def note(outcomes: Outcomes, message: confluent_kafka.Message) -> None:
    """Count a result; Penstock's names its event in a header, a peer's in its value."""
    headers = dict(message.headers() or ())
    event_id = headers.get("ce_eventid")
    at = message.timestamp()[1] / 1000
    if event_id is not None:
        outcomes.note(int(event_id[1:]), at, healthy=headers.get("ce_type") == b"penstock.result.v1")
        return
    value = msgspec.json.decode(message.value() or b"{}")
    outcomes.note(value["n"], at, healthy=value["error"] is None)
