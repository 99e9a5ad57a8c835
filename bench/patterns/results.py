"""`results`: one of a million results found by ticket and by id, the memory that takes, and what the index costs."""

import asyncio
import json
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import confluent_kafka
import uvloop
from confluent_kafka.admin import AdminClient, NewTopic

from bench.figures import Figure
from bench.processes import measure
from bench.runs import RunFailedError
from contracts.codec import Position, outcome_headers
from contracts.envelope import Event
from contracts.payloads import RESULT_TYPE
from contracts.settings import KafkaSettings, ResultsViewSettings
from contracts.topics import Topics
from gateways.egress.results import ResultsView

RESULTS = 1_000_000
PARTITIONS = 12
LOOKUPS = 400
# Results lie as if they had come evenly over so long.
SPAN_S = 6 * 86_400
_LIMIT_S = 900.0
_VALUE = json.dumps({"output": "x" * 300}).encode()
_MB = 2**20
# Our own goals: a look-up is no slower than a request over the internet, and a million results fit a small container.
LOOKUP_GOAL_MS, RSS_GOAL_MB = 50, 256


def results(bootstrap: str, seed: int) -> list[Figure]:
    """Write a million results, and find some of them in fresh processes: with and without the index."""
    topics = Topics(f"bench{seed}r{time.time_ns() // 1_000_000}")
    names = [topics.results, topics.events("standard")]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
        future.result(30)
    begin_ms = int((time.time() - SPAN_S) * 1000)
    try:
        with TemporaryDirectory() as folder:
            _produce(bootstrap, topics, begin_ms)
            path = Path(folder) / "index.sqlite"
            site = (bootstrap, topics.prefix, str(path), seed, begin_ms)
            built = _in_process(_build, site)
            found = _in_process(_with_index, site)
            without = _in_process(_without_index, site)
            size_mb = sum(part.stat().st_size for part in Path(folder).glob("index.sqlite*")) / _MB
    finally:
        for future in admin.delete_topics(names).values():
            future.result(30)
    return _figures(built, found, without, size_mb)


def _figures(built: dict[str, Any], found: dict[str, Any], without: dict[str, Any], size_mb: float) -> list[Figure]:
    missed = found["missed"] + without["missed"]
    figures = [
        Figure("results on the topic", RESULTS, "records"),
        Figure("index built from nothing in", round(built["seconds"], 1), "s"),
        Figure(
            "memory while building, highest",
            round(built["rss_mb"]),
            "MB",
            f"<= {RSS_GOAL_MB}",
            built["rss_mb"] <= RSS_GOAL_MB,
        ),
        Figure("index on disk", round(size_mb, 1), "MB"),
        Figure("ready again after a restart", round(found["seconds"], 2), "s"),
        Figure(
            "memory with the index, after the look-ups",
            round(found["rss_mb"]),
            "MB",
            f"<= {RSS_GOAL_MB}",
            found["rss_mb"] <= RSS_GOAL_MB,
        ),
        Figure("memory without an index, after the look-ups", round(without["rss_mb"]), "MB"),
    ]
    for label, side, way in (
        ("ticket, with the index", found, "ticket"),
        ("id alone, with the index", found, "id"),
        ("ticket, without an index", without, "ticket"),
    ):
        times = sorted(side[way])
        p50, p99 = statistics.median(times), times[int(len(times) * 0.99)]
        is_ours = side is found
        goal = (f"<= {LOOKUP_GOAL_MS}", p50 <= LOOKUP_GOAL_MS) if is_ours else ("", None)
        figures += [
            Figure(f"look-up by {label}, p50", round(p50, 2), "ms", *goal),
            Figure(f"look-up by {label}, p99", round(p99, 2), "ms"),
        ]
    figures.append(
        Figure("look-ups that missed or found another", missed, "look-ups", "= 0", missed == 0, is_strict=True)
    )
    return figures


def _stamp_ms(number: int, begin_ms: int) -> int:
    return begin_ms + number * SPAN_S * 1000 // RESULTS


def _position(topics: Topics, number: int, begin_ms: int) -> Position:
    return Position(topics.events("standard"), number % PARTITIONS, number // PARTITIONS, _stamp_ms(number, begin_ms))


def _produce(bootstrap: str, topics: Topics, begin_ms: int) -> None:
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 50,
            "compression.type": "lz4",
            "queue.buffering.max.messages": 2_000_000,
        }
    )
    for number in range(RESULTS):
        event = Event(id=f"e{number}", source="bench", type="t", data=b"", extensions={"owner": "bench"})
        position = _position(topics, number, begin_ms)
        headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00.000Z", "bench", position)
        producer.produce(
            topics.results,
            value=_VALUE,
            headers=list(headers),
            partition=position.partition,
            timestamp=position.timestamp_ms + 1000,
        )
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(300):
        message = "the results could not be written"
        raise RunFailedError(message)


Site = tuple[str, str, str, int, int]
Job = Callable[[Site], Coroutine[Any, Any, dict[str, Any]]]


def _in_process(job: Job, site: Site) -> dict[str, Any]:
    """Run a job in a process of its own, whose memory is measured."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(job, site, there), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(_LIMIT_S):
            message = f"{job.__name__} took longer than {_LIMIT_S:g} s"
            raise RunFailedError(message)
        found: dict[str, Any] = here.recv()
    except EOFError as error:
        message = f"{job.__name__} ended by itself"
        raise RunFailedError(message) from error
    finally:
        process.kill()
        process.join()
    return found


def _child(job: Job, site: Site, result: Connection) -> None:
    import os

    os.setsid()
    result.send(uvloop.run(job(site)))


def _view(site: Site, *, is_indexed: bool) -> ResultsView:
    bootstrap, prefix, path, _, _ = site
    topics = Topics(prefix)
    return ResultsView(
        KafkaSettings.model_validate({"bootstrap_servers": bootstrap}),
        (topics.results,),
        (topics.events("standard"),),
        cache_bytes=_MB,
        retention_s=30 * 86_400.0,
        view=ResultsViewSettings(path=Path(path) if is_indexed else None),
    )


async def _ready(view: ResultsView) -> tuple[float, float]:
    """Return the seconds until everything has been read, and the highest resident memory on the way, in MB."""
    import os

    started_s, highest = time.perf_counter(), 0.0
    archive = view._archive  # noqa: SLF001 - the measurement waits for what no caller needs to know
    while not (view.is_caught_up and (archive is None or archive.is_caught_up)):
        highest = max(highest, measure(os.getpid()).rss_bytes / _MB)
        await asyncio.sleep(0.05)
    return time.perf_counter() - started_s, highest


async def _build(site: Site) -> dict[str, Any]:
    view = _view(site, is_indexed=True)
    view.start()
    seconds, rss_mb = await _ready(view)
    await asyncio.to_thread(view.close)
    return {"seconds": seconds, "rss_mb": rss_mb}


async def _with_index(site: Site) -> dict[str, Any]:
    return await _look_up(site, _view(site, is_indexed=True))


async def _without_index(site: Site) -> dict[str, Any]:
    return await _look_up(site, _view(site, is_indexed=False))


async def _look_up(site: Site, view: ResultsView) -> dict[str, Any]:
    """Find results by ticket, and by id where there is an index; every number is asked for once."""
    import os

    _, prefix, _, seed, begin_ms = site
    topics, dice = Topics(prefix), random.Random(seed)  # noqa: S311 - a seeded benchmark
    numbers = dice.sample(range(RESULTS), 2 * LOOKUPS)
    view.start()
    seconds, _ = await _ready(view)
    missed = 0
    times: dict[str, list[float]] = {"ticket": [], "id": []}
    ways = ["ticket"] if view._archive is None else ["ticket", "id"]  # noqa: SLF001 - as above
    for way, mine in zip(ways, (numbers[:LOOKUPS], numbers[LOOKUPS:]), strict=False):
        for number in mine:
            started_s = time.perf_counter()
            position = _position(topics, number, begin_ms)
            if way == "id":
                position = (await view.accepted("bench", f"e{number}", None)).position
            outcome = await view.outcome_of("bench", f"e{number}", position, "bench")
            times[way].append((time.perf_counter() - started_s) * 1000)
            missed += outcome is None or outcome.event_id != f"e{number}"
    rss_mb = measure(os.getpid()).rss_bytes / _MB
    await asyncio.to_thread(view.close)
    return {"seconds": seconds, "rss_mb": rss_mb, "missed": missed, **times}
