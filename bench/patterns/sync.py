"""`sync` and `timeout`: what waiting over the log adds to the model's own time, and a call longer than the budget."""

import asyncio
import json
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import uvloop

from bench.figures import Figure
from bench.model_plan import Plan
from bench.patterns.lab import API_KEY, Lab, body, running
from bench.runs import stats

RATE = 50
SECONDS = 30
_WARM_S = 5
_DIRECT_EVERY = 5
_MODEL_S = 0.5
_HEADERS = {"authorization": f"Bearer {API_KEY}", "ce-type": "bench.call", "content-type": "application/json"}
_OK, _ACCEPTED = 200, 202
P50_GOAL_MS, P99_GOAL_MS = 25, 100
BUDGET_S = 29.0


@dataclass
class _Times:
    """Milliseconds of calls by way, and what went wrong."""

    invoked: list[float] = field(default_factory=list)
    direct: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)


def sync(bootstrap: str, seed: int) -> list[Figure]:
    """Invoke at a steady rate, with direct calls of the same model server in between as the control."""
    plan = Plan(seed=seed, latency_s=_MODEL_S)
    with running(bootstrap, plan) as lab:
        times = uvloop.run(_steady(lab))
    own_ms = statistics.median(times.direct)
    added = sorted(one - own_ms for one in times.invoked)
    p50, p99 = _percentile(added, 50), _percentile(added, 99)
    lost = sum(times.statuses.values()) - times.statuses.get(_OK, 0)
    return [
        Figure("direct call of the model, p50", round(own_ms, 1), "ms"),
        Figure("direct call of the model, p99", round(_percentile(sorted(times.direct), 99), 1), "ms"),
        Figure(f"invoke, added at {RATE}/s, p50", round(p50, 1), "ms", f"<= {P50_GOAL_MS}", p50 <= P50_GOAL_MS),
        Figure(f"invoke, added at {RATE}/s, p99", round(p99, 1), "ms", f"<= {P99_GOAL_MS}", p99 <= P99_GOAL_MS),
        Figure("invocations", len(times.invoked), "calls"),
        Figure("answers other than 200", lost, "calls", "= 0", lost == 0, is_strict=True),
    ]


async def _steady(lab: Lab) -> _Times:
    times = _Times()
    tasks = []
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        begin_s = loop.time()
        for number in range(RATE * (SECONDS + _WARM_S)):
            await asyncio.sleep(max(0.0, begin_s + number / RATE - loop.time()))
            counts = number >= RATE * _WARM_S
            tasks.append(asyncio.create_task(_invoke(client, lab, number, times if counts else _Times())))
            if number % _DIRECT_EVERY == 0:
                tasks.append(asyncio.create_task(_direct(client, lab, number, times if counts else _Times())))
        await asyncio.gather(*tasks)
    return times


async def _invoke(client: aiohttp.ClientSession, lab: Lab, number: int, times: _Times) -> None:
    started_s = time.perf_counter()
    async with client.post(f"{lab.url}/v1/invoke", data=body(number), headers=_HEADERS) as answer:
        await answer.read()
    times.invoked.append((time.perf_counter() - started_s) * 1000)
    times.statuses[answer.status] = times.statuses.get(answer.status, 0) + 1


async def _direct(client: aiohttp.ClientSession, lab: Lab, number: int, times: _Times) -> None:
    headers = {"x-client-request-id": f"direct{number}", "content-type": "application/json"}
    started_s = time.perf_counter()
    async with client.post(f"{lab.model_url}/chat/completions", data=body(number), headers=headers) as answer:
        await answer.read()
    times.direct.append((time.perf_counter() - started_s) * 1000)


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def timeout(bootstrap: str, seed: int) -> list[Figure]:
    """Call a model that takes 35 s through the budget of 29 s: 202 in time, the result afterwards, paid once."""
    with running(bootstrap, Plan(seed=seed, latency_s=35.0)) as lab:
        return uvloop.run(_long_call(lab))


async def _long_call(lab: Lab) -> list[Figure]:
    async with aiohttp.ClientSession() as client:
        started_s = time.perf_counter()
        async with client.post(f"{lab.url}/v1/invoke", data=body(1), headers=_HEADERS) as answer:
            accepted: dict[str, Any] = json.loads(await answer.read())
            status, answered_s = answer.status, time.perf_counter() - started_s
        outcome: dict[str, Any] = {}
        while time.perf_counter() - started_s < 60 and outcome.get("status") != "succeeded":  # noqa: PLR2004 - a bound
            place = lab.url + accepted["status_url"]
            async with client.get(place, headers={"prefer": "wait=20"}) as answer:
                outcome = json.loads(await answer.read())
        found_s = time.perf_counter() - started_s
    calls = stats(lab.model_url)["calls"]
    in_time = status == _ACCEPTED and answered_s < BUDGET_S
    has_result = outcome.get("status") == "succeeded"
    return [
        Figure("202 with ticket after", round(answered_s, 2), "s", f"< {BUDGET_S:g}", in_time, is_strict=True),
        Figure("result by long poll after", round(found_s, 2), "s", "it arrives", has_result, is_strict=True),
        Figure("model calls", calls, "calls", "= 1", calls == 1, is_strict=True),
    ]
