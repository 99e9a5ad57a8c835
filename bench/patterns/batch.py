"""The batch pattern: a file of 10,000 lines through `penstock batch`, its worker killed three times on the way.

Blocking: bounded by `LIMIT_S`. Starts processes and ends only those.
"""

import contextlib
import json
import random
import signal
import tempfile
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Figure
from bench.runs import RunFailedError
from contracts.topics import LANES, Topics
from tests.support import ChildProcess, NotReachedError, eventually

LINES = 10_000
KILLS = 3
IN_FLIGHT = 64
LIMIT_S = 240.0
_PARTITIONS = 16
_LATENCY_S = 0.07


@dataclass
class _Site:
    """One installation, with a model server and a folder."""

    bootstrap: str
    topics: Topics
    folder: Path
    stub: str

    @property
    def config(self) -> Path:
        return self.folder / "penstock.yaml"

    def write(self) -> None:
        """Write the configuration and the input, and make the topics."""
        document = {
            "version": 1,
            "kafka": {"bootstrap_servers": self.bootstrap, "topic_prefix": self.topics.prefix},
            "providers": {"p": {"kind": "openai", "base_url": f"{self.stub}/v1"}},
            "models": {"m": {"provider": "p", "model": "m-1"}},
            "routes": [{"name": "r", "prompt": {"user": "{{ data.text }}"}, "model": "m", "deadline_s": 3600}],
            "worker": {
                "app_id": self.topics.prefix, "max_in_flight": IN_FLIGHT, "session_timeout_s": 6,
                "rebalance_timeout_s": 20, "drain_timeout_s": 10, "health_port": 0,
            },
            "logging": {"level": "warning"},
        }  # fmt: skip
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")
        with (self.folder / "in.jsonl").open("w", encoding="utf-8") as file:
            for number in range(LINES):
                line = {"recordId": f"r{number}", "text": f"ticket {number} " + "x" * 400}
                file.write(json.dumps(line) + "\n")
        topics = self.topics
        names = [*map(topics.events, LANES), topics.results, topics.dead_letters, topics.retries, topics.batch_jobs]
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        for made in admin.create_topics([NewTopic(name, _PARTITIONS, 1) for name in names]).values():
            made.result(15)

    def stats(self) -> dict[str, Any]:
        """Return what the model server has served."""
        with urllib.request.urlopen(f"{self.stub}/_stub/stats", timeout=10) as answer:  # noqa: S310 - our own server
            found: dict[str, Any] = json.load(answer)
            return found

    def worker(self) -> ChildProcess:
        """Return a worker, not started yet."""
        return ChildProcess("streams", "worker", "--config", str(self.config), grace_s=15)


def batch(bootstrap: str, seed: int) -> list[Figure]:
    """Run the job; what counts is that each line has one outcome.

    Raises:
        RunFailedError: it did not come to its end.
    """
    dice = random.Random(seed)  # noqa: S311 - a seeded benchmark
    moments = sorted(dice.sample(range(LINES // 20, LINES * 8 // 10), KILLS))
    with _site(bootstrap, seed) as site:
        began_s = time.monotonic()
        arguments = ("submit", str(site.folder / "in.jsonl"), "--job", "bench", "--wait", "-o", "out.jsonl")
        command = ("gateways.cli", "batch", *arguments, "--config", str(site.config))
        try:
            with ChildProcess(*command, cwd=site.folder) as submit:
                submit.wait_for("lines, .* events", LIMIT_S)
                submitted_s = time.monotonic() - began_s
                in_flight = _kill(site, moments)
                with site.worker():
                    if submit.wait(LIMIT_S) != 0:
                        raise RunFailedError(submit.output)
        except NotReachedError as error:
            raise RunFailedError(str(error)) from error
        total_s = time.monotonic() - began_s
        return _figures(site, in_flight, submitted_s, total_s)


def _kill(site: _Site, moments: list[int]) -> int:
    """Kill a worker at each moment, counted in calls; return how many calls were in flight, in all."""
    in_flight = 0
    for moment in moments:
        with site.worker() as worker:
            eventually(lambda: site.stats()["billed"] >= moment and site.stats()["in_flight"] > 0, LIMIT_S)  # noqa: B023 - awaited at once
            in_flight += site.stats()["in_flight"]
            worker.signal(signal.SIGKILL)
            worker.wait()
    return in_flight


def _figures(site: _Site, in_flight: int, submitted_s: float, total_s: float) -> list[Figure]:
    lines = [json.loads(line) for line in (site.folder / "out.jsonl").read_text("utf-8").splitlines()]
    ids = Counter(line["recordId"] for line in lines)
    succeeded = sum(line["status"] == "succeeded" for line in lines)
    missing = sum(f"r{number}" not in ids for number in range(LINES))
    on_topic = _results(site)
    repeated = len(lines) - len(ids) + on_topic.total() - len(on_topic)
    extra = site.stats()["billed"] - LINES
    return [
        Figure("output lines", len(lines), "lines", f"== {LINES}", len(lines) == LINES, is_strict=True),
        Figure("of them succeeded", succeeded, "lines", f"== {LINES}", succeeded == LINES, is_strict=True),
        Figure("duplicates, file and result topic", repeated, "lines", "== 0", repeated == 0, is_strict=True),
        Figure("missing", missing, "lines", "== 0", missing == 0, is_strict=True),
        # Lines without a key free their slot at the answer, so what waited for its ack is lost at a kill as well.
        Figure("calls in flight just before the kills", in_flight, "calls"),
        Figure("calls made again: in flight, or their answer not confirmed", extra, "calls"),
        Figure("submitted", round(LINES / submitted_s), "lines/s"),
        Figure("whole job, three restarts included", round(total_s, 1), "s"),
    ]


def _results(site: _Site) -> Counter[str]:
    """Count the terminal records by event."""
    consumer = Consumer(
        {
            "bootstrap.servers": site.bootstrap,
            "group.id": f"{site.topics.prefix}-bench",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    found: Counter[str] = Counter()
    try:
        consumer.assign([TopicPartition(site.topics.results, number, 0) for number in range(_PARTITIONS)])
        still_open = set(range(_PARTITIONS))
        while still_open:
            for message in consumer.consume(1000, 0.5):
                if message.error() is not None:
                    still_open.discard(message.partition() or 0)
                else:
                    headers: dict[str, Any] = dict(message.headers() or [])
                    found[headers["ce_eventid"].decode()] += 1
    finally:
        consumer.close()
    return found


@contextlib.contextmanager
def _site(bootstrap: str, seed: int) -> Iterator[_Site]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        folder = Path(name)
        port_file = folder / "stub.port"
        options = ("--latency", str(_LATENCY_S), "--latency-sigma", "0.2", "--seed", str(seed))
        with ChildProcess("streams", "fm-stub", *options, "--port-file", str(port_file)):
            port = eventually(lambda: port_file.exists() and port_file.read_text("utf-8").strip(), 30)
            site = _Site(bootstrap, Topics(f"b{uuid.uuid4().hex[:8]}"), folder, f"http://127.0.0.1:{port}")
            site.write()
            yield site
