"""Several gateway processes on one port: shared work, one page of metrics, deaths, an orderly end."""

import asyncio
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import yaml

from contracts.errors import ConfigError
from contracts.settings import Settings
from gateways import supervisor
from gateways.listening import listen
from gateways.member import Member, Refusals
from gateways.supervisor import Backoff, Supervisor
from tests.gateways.driver import CONFIGURATION
from tests.hostile.lab import CLOSED, Lab, configuration, running
from tests.hostile.senders import API_KEY, ENVIRONMENT, GITHUB, request
from tests.hostile.table import signed
from tests.support import ChildProcess, eventually, eventually_async

PROCESSES = 2


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("several")
    view = {"results_view": {"path": str(folder / "results.db"), "max_bytes": 2**24}}
    with running(folder, "--processes", str(PROCESSES), gateway=view) as lab:
        yield lab


async def get(lab: Lab, path: bytes, *lines: tuple[bytes, bytes]) -> bytes:
    # Each question on a connection of its own, so that any of the processes may be asked.
    return await lab.ask(request(path, [*lines, (b"connection", b"close")], b"", method=b"GET"), until_closed=True)


async def sample(lab: Lab, name: str) -> float:
    """Return the sum of a metric's samples; 0 without any."""
    page = (await get(lab, b"/metrics")).decode()
    return sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", page, re.MULTILINE))


async def all_serve(lab: Lab) -> None:
    async def serve() -> bool:
        return await sample(lab, "penstock_gateway_processes") == PROCESSES

    await eventually_async(serve, 20)


def pids(lab: Lab) -> list[int]:
    children = Path(f"/proc/{lab.child.pid}/task/{lab.child.pid}/children").read_text("ascii")
    return [int(pid) for pid in children.split()]


@pytest.mark.embedded
async def test_processes_share_the_work_and_any_of_them_shows_the_sum(lab: Lab) -> None:
    await all_serve(lab)
    before = await sample(lab, 'penstock_webhook_events_total{outcome="accepted",source="github"}')
    cpu = await sample(lab, "process_cpu_seconds_total")

    answers = await asyncio.gather(*(lab.ask(signed(GITHUB), wait_s=10) for _ in range(200)))

    async def accepted() -> float:
        return await sample(lab, 'penstock_webhook_events_total{outcome="accepted",source="github"}') - before

    async def are_all_there() -> bool:
        return await accepted() == len(answers)

    # Every second a process writes what it counted to where the others find it.
    assert await eventually_async(are_all_there)
    pages = [await accepted() for _ in range(10)]

    assert all(answer.startswith(b"HTTP/1.1 202 ") for answer in answers)
    assert pages == [200] * 10
    assert await sample(lab, "process_cpu_seconds_total") > cpu
    assert "pid=" not in (await get(lab, b"/metrics")).decode()
    # Lines of requests wait for company for a moment.
    await eventually_async(
        lambda: set(re.findall(r'"event":"request.accepted".*?"process":(\d)', lab.child.output)) == {"0", "1"}
    )


@pytest.mark.embedded
async def test_a_result_can_be_asked_for_at_any_process(lab: Lab) -> None:
    lines = [(b"authorization", b"Bearer " + API_KEY.encode()), (b"ce-type", b"t"), (b"ce-id", b"any-process")]
    posted = await lab.ask(request(b"/v1/events", lines, b"{}"))
    place = re.search(rb"\r\nlocation: (\S+)", posted)
    assert place is not None

    by_ticket = [await get(lab, place[1]) for _ in range(10)]

    assert {answer[9:12] for answer in by_ticket} == {b"202"}


@pytest.mark.embedded
async def test_a_process_that_is_killed_is_started_again_and_nothing_is_counted_down(lab: Lab) -> None:
    await all_serve(lab)
    before, logged = await sample(lab, "penstock_http_requests_total"), lab.log.records
    restarts = await sample(lab, "penstock_gateway_process_restarts_total")
    victim, *_ = pids(lab)

    os.kill(victim, signal.SIGKILL)
    answers = [await lab.ask(signed(GITHUB), wait_s=10) for _ in range(20)]
    await all_serve(lab)

    # The one that was accepted by the dead process in its last moment has no answer, never a wrong one.
    accepted = sum(answer.startswith(b"HTTP/1.1 202 ") for answer in answers)
    assert accepted >= 19
    assert lab.log.records >= logged + accepted
    assert victim not in pids(lab)
    assert await sample(lab, "penstock_http_requests_total") >= before + 19
    assert await sample(lab, "penstock_gateway_process_restarts_total") == restarts + 1


@pytest.mark.embedded
async def test_sigterm_under_load_loses_no_202_and_answers_what_it_has_begun(tmp_path: Path) -> None:
    accepted, broken = 0, 0
    with running(tmp_path, gateway={"processes": 2, "shutdown_timeout_s": 5}) as lab:
        await all_serve(lab)

        async def send() -> None:
            nonlocal accepted, broken
            while True:
                try:
                    answer = await lab.ask(signed(GITHUB), wait_s=10)
                except ConnectionError:
                    return
                accepted += answer.startswith(b"HTTP/1.1 202 ")
                broken += not answer.startswith(b"HTTP/1.1 ") and answer != CLOSED

        senders = [asyncio.ensure_future(send()) for _ in range(20)]
        await eventually_async(lambda: accepted > 100)
        # As `timeout` does; of two numbers, because the kernel may deliver two of one number as one.
        lab.child.signal(signal.SIGTERM)
        lab.child.signal(signal.SIGINT)
        await asyncio.gather(*senders)

        assert await asyncio.to_thread(lab.child.wait) == 0
        assert broken == 0
        assert lab.log.records >= accepted


@pytest.mark.embedded
async def test_without_its_supervisor_nobody_stays_behind(tmp_path: Path) -> None:
    with running(tmp_path, "--processes", "2") as lab:
        await all_serve(lab)
        children = pids(lab)
        lab.child.signal(signal.SIGKILL)
        lab.child.wait()

        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), 20)


@pytest.mark.process
def test_a_wrong_configuration_ends_all_of_it_with_2(tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(yaml.safe_dump(configuration("127.0.0.1:1", {"processes": 2}, {})), encoding="utf-8")
    env = {**ENVIRONMENT, "PENSTOCK_SECRET_GITHUB": None}

    with ChildProcess("gateways.cli", "gateway", "--config", str(config), env=env) as child:
        assert child.wait(50) == 2
        assert "PENSTOCK_SECRET_GITHUB is not set" in child.output
        assert "listening" not in child.output


@pytest.mark.process
def test_a_secret_that_cannot_be_used_is_told_once(tmp_path: Path) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(yaml.safe_dump(configuration("127.0.0.1:1", {"processes": 3}, {})), encoding="utf-8")

    with ChildProcess(
        "gateways.cli", "gateway", "--config", str(config), env={**ENVIRONMENT, "PENSTOCK_SECRET_GITHUB": "short"}
    ) as child:
        assert child.wait(50) == 2

    assert child.output.count("sources.github: ") == 1, child.output


_DIES_THEN_FINDS_A_WRONG_CONFIGURATION = """
import os, signal, sys
*_, ready, starts = map(int, sys.argv[-1].split(":"))
os.write(ready, b".")
if starts < 2:
    sys.exit(1 + starts)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
open(sys.argv[1], "w").close()
signal.sigwait({signal.SIGTERM})
"""


@pytest.mark.embedded
async def test_a_change_that_all_processes_refuse_is_told_once(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"a secret that is long enough")
    source = {"scheme": "github", "secrets": [{"id": "current", "value": f"file:{secret}"}], "type": "t"}
    with running(tmp_path, "--processes", str(PROCESSES), more={"sources": {"github": source}}) as lab:
        await all_serve(lab)
        for refused, bad in enumerate((b"short", b""), 1):
            secret.write_bytes(bad)
            lab.child.signal(signal.SIGHUP)

            async def have_refused(times: int = refused * PROCESSES) -> bool:
                return await sample(lab, 'penstock_config_reloads_total{outcome="refused"}') >= times

            await eventually_async(have_refused, 20)
            assert await sample(lab, "penstock_config_reload_refused") >= 1

    # Of the whole life of the processes: no line is still on its way.
    assert lab.child.output.count('"config.reload_refused"') == 2


@pytest.fixture
def refusals(tmp_path: Path) -> Iterator[tuple[Refusals, Refusals]]:
    pair = Refusals(tmp_path), Refusals(tmp_path)
    yield pair
    for one in pair:
        one.forget()


def test_a_refusal_is_said_by_one_process_and_a_new_reason_by_who_meets_it(refusals: tuple[Refusals, Refusals]) -> None:
    first, second = refusals

    assert [first.is_ours_to_say("a"), second.is_ours_to_say("a"), first.is_ours_to_say("a")] == [True, False, True]
    assert [second.is_ours_to_say("b"), first.is_ours_to_say("b")] == [True, False]


def test_a_refusal_is_said_by_another_process_when_the_one_that_said_it_was_killed(
    tmp_path: Path, refusals: tuple[Refusals, Refusals]
) -> None:
    first, second = refusals
    command = [sys.executable, "-c", _SAYS_A, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        assert not first.is_ours_to_say("a")
        process.kill()

    assert [first.is_ours_to_say("a"), second.is_ours_to_say("a")] == [True, False]


_SAYS_A = """
import sys
from pathlib import Path
from gateways.member import Refusals
refusals = Refusals(Path(sys.argv[1]))
print(refusals.is_ours_to_say("a"), flush=True)
sys.stdin.read()
"""


def test_a_refusal_is_said_anew_when_the_configuration_was_good_in_between(refusals: tuple[Refusals, Refusals]) -> None:
    first, second = refusals
    assert first.is_ours_to_say("a")
    second.forget()
    assert not second.is_ours_to_say("a")
    first.forget()

    assert second.is_ours_to_say("a")


def test_a_refusal_that_cannot_be_shared_is_said_by_everybody(tmp_path: Path) -> None:
    assert all(Refusals(tmp_path / "gone").is_ours_to_say("a") for _ in range(2))


async def _stopped_once_there_is(started: Path, command: tuple[str, ...], folder: Path) -> int:
    """Run a supervisor of one process until a file is there, stop it, and return its exit status."""
    with listen("127.0.0.1", 0) as listener:
        several = Supervisor(Settings.model_validate(CONFIGURATION), listener, command, folder)
        running = asyncio.ensure_future(several.run(1, None))
        await eventually_async(lambda: running.done() or started.exists())
        os.kill(os.getpid(), signal.SIGTERM)
        return await running


@pytest.mark.process
async def test_a_configuration_that_has_become_wrong_ends_nobody_but_the_process_that_starts_with_it(
    secret_environment: None,  # noqa: ARG001 - a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_WAIT_S", 0.01)
    started = tmp_path / "started"
    command = (sys.executable, "-c", _DIES_THEN_FINDS_A_WRONG_CONFIGURATION, str(started))
    assert await _stopped_once_there_is(started, command, tmp_path) == 0


@pytest.mark.process
async def test_a_process_for_whose_metrics_there_is_no_room_is_started_once_there_is(
    secret_environment: None,  # noqa: ARG001 - a fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_WAIT_S", 0.01)
    no_room = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    reserve = mock.Mock(side_effect=[no_room, no_room, None])
    monkeypatch.setattr(supervisor, "reserve", reserve)
    started = tmp_path / "started"
    command = (sys.executable, "-c", "import sys, time; open(sys.argv[1], 'w'); time.sleep(60)", str(started))
    assert await _stopped_once_there_is(started, command, tmp_path) == 0
    assert reserve.call_count == 3


def test_waits_grow_to_a_bound_and_begin_anew_after_a_steady_life() -> None:
    backoff = Backoff()

    assert [backoff.wait_s(0.1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.wait_s(3600) == 0.5


def test_an_index_on_disk_is_of_one_process(secret_environment: None, tmp_path: Path) -> None:  # noqa: ARG001 - a fixture
    view = {"results_view": {"path": str(tmp_path / "results.db")}}
    settings = Settings.model_validate(CONFIGURATION | {"gateway": CONFIGURATION["gateway"] | view})

    paths = [Member(index, 3, 4, 5, 0).settings(settings).gateway.results_view.path for index in range(3)]

    assert [path and path.name for path in paths] == ["results.db", "results-1.db", "results-2.db"]


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4:x", "1:2:3:4:5:6", "-1:2:3:4:5"])
def test_the_option_of_the_supervisor_is_not_for_people(text: str) -> None:
    with pytest.raises(ConfigError, match="supervisor"):
        Member.parse(text)


def test_what_the_supervisor_writes_a_process_reads() -> None:
    member = Member(1, 7, 8, 9, 2)

    assert Member.parse(member.option) == member
