"""One worker against the control: throughput of the possible, and CPU per event, on real Kafka.

The model is a wait of fixed length inside the process, for both, so that the figures are those of the machinery around
the call. Penstock keeps order per key, one outcome per event and its journal; the control keeps nothing.
"""

import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka
import msgspec
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Figure, publish
from contracts.codec import encode_event
from contracts.envelope import Event
from contracts.settings import environment
from contracts.topics import LANES, Topics

PARTITIONS = 16
LATENCY_S = 0.2
KEYS = 500
_RUN_LIMIT_S = 120.0
_EFFICIENCY_GOAL = 0.9
_CONFIG = """
version: 1
worker: {{app_id: {prefix}, health_port: 0, max_in_flight: {in_flight}}}
kafka: {{bootstrap_servers: "{bootstrap}", topic_prefix: {prefix}}}
logging: {{level: info, format: json}}
providers: {{model: {{kind: fake, script: [{{answer: ok, latency_s: {latency_s}}}]}}}}
models: {{default: {{provider: model, model: fake}}}}
routes: [{{name: all, model: default, prompt: {{user: "{{{{ data.text }}}}"}}}}]
"""
_serial = itertools.count()


@dataclass(frozen=True)
class Run:
    """What one run showed: share of in_flight/latency reached, CPU per event, and what went wrong."""

    efficiency: float
    cpu_us: float
    lost: int
    duplicates: int
    disorder: int


def bench(bootstrap: str, in_flight: int, events: int, runs: int) -> int:
    """Run both in turn, print and write the figures; return the exit status."""
    found: dict[str, list[Run]] = {"penstock": [], "control": []}
    for _ in range(runs):
        for name, measured in found.items():
            measured.append(_run(name, bootstrap, in_flight, events))
    ours, control = found["penstock"], found["control"]
    cpu, control_cpu = (statistics.median(run.cpu_us for run in runs_) for runs_ in (ours, control))
    efficiency, control_efficiency = (statistics.median(run.efficiency for run in runs_) for runs_ in (ours, control))
    strict = {
        "lost events": sum(run.lost for run in ours),
        "duplicate results": sum(run.duplicates for run in ours),
        "results out of key order": sum(run.disorder for run in ours),
    }
    figures = [
        Figure(
            "rate / (in flight / latency), penstock",
            round(efficiency, 3),
            "ratio",
            f">= {_EFFICIENCY_GOAL}",
            efficiency >= _EFFICIENCY_GOAL,
        ),
        Figure("rate / (in flight / latency), control", round(control_efficiency, 3), "ratio"),
        Figure("CPU per event, penstock / control", round(cpu / control_cpu, 2), "ratio"),
        *(Figure(name, count, "events", "= 0", count == 0, is_strict=True) for name, count in strict.items()),
        Figure("results out of key order, control", sum(run.disorder for run in control), "events"),
    ]
    return publish("worker", f"make bench (in flight {in_flight}, {events} events)", runs, figures)


def _run(name: str, bootstrap: str, in_flight: int, events: int) -> Run:
    prefix = f"bench{os.getpid()}x{next(_serial)}"
    topics = Topics(prefix)
    _create(bootstrap, topics)
    _produce(bootstrap, topics.events("standard"), events)
    with tempfile.TemporaryDirectory() as folder:
        command = _command(name, Path(folder), bootstrap, topics, in_flight)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=dict(environment()))
        try:
            return _measure(process.pid, bootstrap, topics.results, in_flight, events)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _command(name: str, folder: Path, bootstrap: str, topics: Topics, in_flight: int) -> Sequence[str]:
    if name == "control":
        places = (bootstrap, topics.events("standard"), topics.results)
        return (sys.executable, "-m", "bench.control", *places, str(in_flight), str(LATENCY_S))
    config = folder / "penstock.yaml"
    text = _CONFIG.format(prefix=topics.prefix, in_flight=in_flight, bootstrap=bootstrap, latency_s=LATENCY_S)
    config.write_text(text, encoding="utf-8")
    return (sys.executable, "-m", "streams", "worker", "--config", str(config))


def _create(bootstrap: str, topics: Topics) -> None:
    names = [*(topics.events(lane) for lane in LANES), topics.results, topics.dead_letters]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)


def _produce(bootstrap: str, topic: str, events: int) -> None:
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4"}
    )
    for number in range(events):
        event = Event(
            id=f"e{number}",
            source="bench",
            type="bench.event",
            data=msgspec.json.encode({"n": number, "text": "x" * 400}),
            datacontenttype="application/json",
            extensions={"partitionkey": f"k{number % KEYS}"},
        )
        producer.produce(topic, key=event.key, value=event.data, headers=[*encode_event(event)])
        producer.poll(0)
    producer.flush(60)


def _measure(pid: int, bootstrap: str, results: str, in_flight: int, events: int) -> Run:
    """Read results to their end; rate and CPU between 15 and 85 per cent of them."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": f"{results}.bench"})
    consumer.assign([confluent_kafka.TopicPartition(results, number, 0) for number in range(PARTITIONS)])
    seen: Counter[int] = Counter()
    newest: dict[int, int] = {}
    disorder = 0
    points: list[tuple[float, int, float]] = []
    end = time.monotonic() + _RUN_LIMIT_S
    while len(seen) < events and time.monotonic() < end:
        messages = consumer.consume(1000, 0.2)
        for message in messages:
            number = _number(message)
            seen[number] += 1
            disorder += newest.get(number % KEYS, -1) > number
            newest[number % KEYS] = max(number, newest.get(number % KEYS, -1))
        if messages:
            points.append((time.monotonic(), seen.total(), _cpu_s(pid)))
    consumer.close()
    first = next(point for point in points if point[1] >= 0.15 * events)
    last = next(point for point in points if point[1] >= 0.85 * events)
    count = last[1] - first[1]
    return Run(
        efficiency=count / (last[0] - first[0]) / (in_flight / LATENCY_S),
        cpu_us=1e6 * (last[2] - first[2]) / count,
        lost=events - len(seen),
        duplicates=seen.total() - len(seen),
        disorder=disorder,
    )


def _number(message: confluent_kafka.Message) -> int:
    """Return the number of the event: a result names it, the control passes the event's own headers on."""
    headers = dict(message.headers() or ())
    event_id = headers.get("ce_eventid") or headers["ce_id"]
    return int(event_id[1:]) if event_id else -1


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
