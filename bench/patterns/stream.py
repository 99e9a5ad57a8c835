"""`stream`: what the log adds to the time to the first token, and whether disconnects leave gaps or repeats.

The control calls the same model server directly, in the same run, in turn with the calls through Penstock.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import uvloop

from bench.figures import Figure
from bench.runs import RunFailedError
from tests.kafka.stream_lab import StreamLab, go_on, post, session
from tests.kafkalab.fixtures import KafkaLab
from tests.stream_client import Shown
from tests.support import NotReachedError

CALLS = 200
RATE = 10.0
_WARM = 30
_MODEL_S = 0.3
_PAUSE_S = 0.02
FIRST_GOAL_MS = 20.0

DISCONNECTS = 1000
STREAMS = 40
_SLOW_PAUSE_S = 0.05
_MOST_FRAMES = 4
_LIMIT_S = 180.0
WORDS = 500


def stream(bootstrap: str, seed: int) -> list[Figure]:
    """Measure the first token, then break connections."""
    dice = random.Random(seed)  # noqa: S311 - a seeded run
    with tempfile.TemporaryDirectory() as folder, _installation(bootstrap, Path(folder)) as lab:
        try:
            with lab.gateway("one") as one, lab.gateway("two") as two, lab.lab.running():
                firsts = uvloop.run(_firsts(lab, one))
                broken = uvloop.run(_broken(lab, (one, two), dice))
        except NotReachedError as error:
            raise RunFailedError(str(error)) from error
    return [*_first_figures(*firsts), *broken]


@contextlib.contextmanager
def _installation(bootstrap: str, folder: Path) -> Iterator[StreamLab]:
    kafka = KafkaLab(cast("Any", SimpleNamespace(bootstrap=bootstrap, is_ours=False)))
    lab = StreamLab(kafka, folder)
    try:
        with lab.model("--latency", str(_MODEL_S), "--stream-pause", str(_PAUSE_S)):
            yield lab
    finally:
        kafka.clean_up()


def _first_figures(ours: Sequence[float], direct: Sequence[float]) -> list[Figure]:
    own_ms = statistics.median(direct)
    added = statistics.median(ours) - own_ms
    ranks = statistics.quantiles(ours, n=100)
    return [
        Figure("first token, the model asked directly, p50", round(own_ms, 1), "ms"),
        Figure("first token, the model asked directly, p99", round(statistics.quantiles(direct, n=100)[98], 1), "ms"),
        Figure("first token, added, p50", round(added, 1), "ms", f"<= {FIRST_GOAL_MS:g}", added <= FIRST_GOAL_MS),
        Figure("first token, added, p90", round(ranks[89] - own_ms, 1), "ms"),
        Figure("first token, added, p99", round(ranks[98] - own_ms, 1), "ms"),
        Figure("streams", len(ours), "calls"),
    ]


async def _firsts(lab: StreamLab, url: str) -> tuple[list[float], list[float]]:
    """Return milliseconds to the first token through Penstock, and directly."""
    ours: list[float] = []
    direct: list[float] = []
    loop = asyncio.get_running_loop()
    async with session() as client, asyncio.TaskGroup() as group:
        begun_s = loop.time()
        for number in range(CALLS + _WARM):
            await asyncio.sleep(max(0.0, begun_s + number / RATE - loop.time()))
            counts = number >= _WARM
            group.create_task(_first(client, url, f"first{number}", ours if counts else []))
            await asyncio.sleep(0.5 / RATE)
            group.create_task(_direct(client, lab.stub.url, direct if counts else []))
    return ours, direct


async def _first(client: aiohttp.ClientSession, url: str, name: str, times: list[float]) -> None:
    began_s = time.perf_counter()
    async for frame in post(client, url, name, "Say something. It may be short. Or not."):
        if frame["type"] == "delta":
            times.append((time.perf_counter() - began_s) * 1000)
            break


async def _direct(client: aiohttp.ClientSession, stub: str, times: list[float]) -> None:
    messages = [{"role": "user", "content": "Say something. It may be short. Or not."}]
    body = {"model": "m-1", "messages": messages, "max_tokens": 512, "stream": True}
    began_s = time.perf_counter()
    async with client.post(f"{stub}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            if b'"content": "' in line and b'"content": ""' not in line:
                times.append((time.perf_counter() - began_s) * 1000)
                break


class _Breaks:
    """Counts connections that were broken off, until there are enough."""

    def __init__(self) -> None:
        self.count = 0

    def take(self) -> None:
        """Count one."""
        self.count += 1


async def _broken(lab: StreamLab, urls: Sequence[str], dice: random.Random) -> list[Figure]:
    answer = " ".join(f"word{number}" for number in range(WORDS))
    lab.stub.set_knobs(answer=answer, latency_s=0.1, stream_pause_s=_SLOW_PAUSE_S)
    breaks = _Breaks()
    shown = [Shown() for _ in range(STREAMS)]
    async with session() as client, asyncio.timeout(_LIMIT_S), asyncio.TaskGroup() as group:
        for number, one in enumerate(shown):
            mine = random.Random(dice.random())  # noqa: S311 - as above
            group.create_task(_break(client, urls, mine, one, f"broken{number}", breaks))
    # The model may cut it short: what counts is that the pieces are the result.
    wrong = sum(not one.text or one.last is None or one.text != one.last["result"]["output"] for one in shown)
    gaps, repeats = sum(one.gaps for one in shown), sum(one.repeats for one in shown)
    return [
        Figure("disconnects and resumes", breaks.count, "resumes", f">= {DISCONNECTS}", breaks.count >= DISCONNECTS),
        Figure("gaps", gaps, "deltas", "= 0", gaps == 0, is_strict=True),
        Figure("repeats", repeats, "deltas", "= 0", repeats == 0, is_strict=True),
        Figure("texts that are not the answer", wrong, "streams", "= 0", wrong == 0, is_strict=True),
        Figure("deltas read", sum(one.deltas for one in shown), "deltas"),
    ]


async def _break(
    client: aiohttp.ClientSession,
    urls: Sequence[str],
    dice: random.Random,
    shown: Shown,
    name: str,
    breaks: _Breaks,
) -> None:
    """Read a stream with many interruptions, at either gateway."""
    frames = post(client, urls[0], name, "go")
    while shown.last is None:
        left = dice.randint(0, _MOST_FRAMES) if breaks.count < DISCONNECTS else WORDS
        async with contextlib.aclosing(cast("Any", frames)):
            async for frame in frames:
                shown.take(frame)
                left -= frame["type"] == "delta"
                if shown.accepted and left < 0:
                    breaks.take()
                    break
        frames = go_on(client, dice.choice(urls), shown)
