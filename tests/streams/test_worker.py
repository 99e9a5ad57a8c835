"""The worker process up to the point where it needs Kafka."""

import asyncio
import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from contracts import logs
from contracts.codec import Position, encode_event
from contracts.errors import ConfigError
from contracts.settings import OpenAIProvider, Settings, WorkerSettings
from streams import shell
from streams import worker as worker_module
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.pipeline import Pipeline
from streams.providers.transport import lean
from streams.worker import Worker, _announce, _limits, check
from tests.streams.pipeline.support import EVENTS, event, make_settings
from tests.streams.providers.canned import Canned
from tests.support import eventually_async


def test_a_configuration_without_routes_is_refused() -> None:
    with pytest.raises(ConfigError, match="routes: none is configured, so the worker has nothing to do"):
        check(Settings(version=1))


def test_an_untested_version_of_faust_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shell, "version", lambda _package: "0.0")

    with pytest.raises(ConfigError, match=r"0\.0 is installed"):
        check(make_settings())


def test_limits_follow_the_number_of_calls_at_a_time() -> None:
    limits = _limits(WorkerSettings(max_in_flight=100))

    assert (limits.in_flight, limits.ready_keys, limits.held_events) == (100, 200, 2000)


def test_limits_can_be_set() -> None:
    limits = _limits(WorkerSettings(max_in_flight=1, max_ready_keys=5, max_held_events=6, max_held_bytes=70_000))

    assert (limits.ready_keys, limits.held_events, limits.held_bytes) == (5, 6, 70_000)


def test_the_port_is_announced(tmp_path: Path) -> None:
    _announce(1234, tmp_path / "port")

    assert (tmp_path / "port").read_text("ascii") == "1234\n"


def test_a_port_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none" / "port"

    with pytest.raises(ConfigError, match=rf"--port-file {path} cannot be written: No such file or directory"):
        _announce(1234, path)


async def test_a_worker_is_not_ready_before_it_has_joined() -> None:
    worker = Worker(make_settings())

    assert (worker._problems(), worker._unready()) == ([], ["not in the consumer group yet"])


@dataclass
class Seat:
    """What readiness asks the membership and the engine."""

    is_member: bool = True
    is_open: bool = False


async def test_a_worker_is_ready_when_it_has_read_what_is_answered_and_stays_so_at_a_rebalance() -> None:
    worker, seat = Worker(make_settings()), Seat()
    worker._membership = cast("Any", seat)
    worker._engine = cast("Any", seat)

    assert worker._unready() == ["reads what is answered already: the tail of the result topics"]
    seat.is_open = True
    assert worker._unready() == []
    seat.is_open = False
    assert worker._unready() == []


async def test_the_first_signal_begins_the_end_and_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(make_settings())
    exits: list[int] = []
    logged: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(worker, "_exit_now", exits.append)
    monkeypatch.setattr(worker._log, "info", lambda event, **fields: logged.append((event, fields)), raising=False)

    worker._signalled(signal.SIGTERM)
    assert (worker._ended.done(), exits) == (True, [])
    worker._killed(signal.SIGTERM)

    assert exits == [1]
    assert logged[0] == ("worker.stopping", {"detail": "SIGTERM", "held": 0, "drain_timeout_s": 50.0})


class Clinging:
    """An app whose end never comes."""

    async def stop(self) -> None:
        await asyncio.Event().wait()


async def test_a_stop_that_does_not_end_is_ended_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    worker, exits = Worker(make_settings()), list[int]()
    bounds: list[tuple[float, Any]] = []
    monkeypatch.setattr(worker, "_exit_now", exits.append)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda after_s, call, *args: bounds.append((after_s, lambda: call(*args))))
    worker._app = cast("Any", Clinging())
    stopping = asyncio.ensure_future(worker._stop())
    await asyncio.sleep(0)

    [(after_s, ended)] = bounds
    assert (after_s, exits) == (worker._settings.worker.stop_limit_s, [])
    ended()
    assert exits == [1]
    stopping.cancel()


async def test_a_worker_that_waits_for_kafka_names_its_address() -> None:
    worker = Worker(make_settings())

    [said] = await worker._blockers()

    assert said.endswith("(at localhost:9092)")


async def test_a_crash_is_a_problem_and_the_first_one_counts() -> None:
    worker = Worker(make_settings())
    worker._end(RuntimeError("first"))
    worker._end(RuntimeError("second"))

    assert worker._problems() == ["crashed"]
    assert str(await worker._ended) == "first"


async def test_a_task_that_ends_by_itself_or_is_cancelled_is_no_crash() -> None:
    worker = Worker(make_settings())
    for work in (asyncio.sleep(0), asyncio.sleep(60)):
        task = asyncio.ensure_future(work)
        task.add_done_callback(worker._task_ended)
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
    await asyncio.sleep(0)

    assert worker._problems() == []


async def test_a_hard_end_tells_how_many_lines_of_libraries_were_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exits: list[int] = []
    monkeypatch.setattr(os, "_exit", exits.append)
    for _ in range(2):
        logs.REPETITIONS.left_out(logs.Kind("somebody", logging.WARNING, "is away"))

    Worker(make_settings())._exit_now(1)

    assert (exits, caplog.messages) == ([1], ["lines.left_out"])


class Unasked:
    """Stands for the reader of cancels: no brokers are there."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


def _one_call_at_a_time(base_url: str) -> Settings:
    settings = make_settings()
    provider = OpenAIProvider(kind="openai", base_url=base_url, max_in_flight=1)
    worker = settings.worker.model_copy(update={"max_in_flight": 1})
    return settings.model_copy(update={"providers": {"p": provider}, "worker": worker})


async def test_what_a_provider_cannot_reach_is_said_at_the_start_in_log_and_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = make_settings()
    provider = OpenAIProvider(kind="openai", base_url="http://127.0.0.1:1/v1", max_in_flight=5)
    worker = Worker(
        settings.model_copy(
            update={"providers": {"p": provider}, "worker": settings.worker.model_copy(update={"max_in_flight": 6})}
        )
    )
    said: list[tuple[str, str]] = []
    monkeypatch.setattr(worker._log, "warning", lambda name, *, detail: said.append((name, detail)))

    await worker._start_providers()
    await worker._providers["p"].aclose()

    assert [name for name, _ in said] == ["transport.limited"]
    assert said[0][1].startswith("providers.p.max_in_flight is 5, worker.max_in_flight 6: at most 5 calls")
    assert f"warning: {said[0][1]}\n" in capsys.readouterr().err


async def test_a_worker_whose_events_share_calls_is_not_warned_of_too_few(
    capsys: pytest.CaptureFixture[str],
) -> None:
    batch = {"kind": "pack", "max_events": 8}
    settings = make_settings({"output_schema": {"type": "object"}, "batch": batch})
    provider = OpenAIProvider(kind="openai", base_url="http://127.0.0.1:1/v1", max_in_flight=8)
    worker = Worker(
        settings.model_copy(
            update={"providers": {"p": provider}, "worker": settings.worker.model_copy(update={"max_in_flight": 64})}
        )
    )

    await worker._start_providers()
    await worker._providers["p"].aclose()

    assert "max_in_flight" not in capsys.readouterr().err


async def test_an_answer_that_has_come_makes_room_for_the_next_call_before_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As with many calls in flight, and answers that are never given: only what is told of them lets the next call out.
    monkeypatch.setattr(lean, "_MANY", 1)
    monkeypatch.setattr(lean, "_GATHER_S", 600.0)
    monkeypatch.setattr(worker_module, "CancelReader", Unasked)
    async with Canned({"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}) as server:
        worker = Worker(_one_call_at_a_time(f"http://127.0.0.1:{server.port}/v1"))
        monkeypatch.setattr(worker, "_wait_for_kafka", asyncio.Event().wait)
        await worker._start_providers()
        starting = asyncio.ensure_future(worker._start())
        engine = await eventually_async(lambda: worker._engine)
        assert engine is not None
        pipeline, tenure, now_ms = cast("Pipeline", engine._work), Tenure(1), time.time_ns() // 1_000_000
        engine.prepare(tenure)
        engine.begin(tenure, {TP(EVENTS, 0): Ledger(0)})
        for offset in range(3):
            one = event(offset, extensions={"partitionkey": f"k{offset}"})
            item = pipeline.item(Position(EVENTS, 0, offset, now_ms), one.key, one.data, encode_event(one), "standard")
            await engine.submit(item, 1)

        await eventually_async(lambda: len(server.requests) == 3)

        starting.cancel()
        await engine.close()
        await worker._providers["p"].aclose()
