"""The model server's account of itself."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from bench import model_server
from bench.model_plan import Plan


def test_its_share_of_a_core_is_counted_from_the_first_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, used = [100.0], [1.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], process_time=lambda: used[0], time=lambda: now[0])
    monkeypatch.setattr(model_server, "time", clock)
    nobody: Any = None

    async def share() -> float:
        model = model_server.Model(Plan())
        # Events are produced, and the worker starts.
        now[0] += 60
        model.call("e0", nobody)
        now[0], used[0] = now[0] + 2, used[0] + 1
        model.call("e1", nobody)
        return float(json.loads(model.stats())["cpu_share"])

    assert asyncio.run(share()) == 0.5
