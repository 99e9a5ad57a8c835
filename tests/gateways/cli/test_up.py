"""Tests of `penstock up` that need no Kafka; tests/e2e runs the whole."""

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from contracts.settings import load
from gateways.cli import programs, running
from gateways.cli.main import run
from gateways.cli.stack import Stack
from gateways.cli.up import _watch
from streams.health import HealthServer
from tests.gateways.cli.settings import write


def test_a_port_that_is_taken_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        code = run(["up", "--port", str(port), "--config", str(write(tmp_path))])

    assert code == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1: Address already in use; choose another one with --port" in said


def test_a_taken_port_of_an_ipv6_address_is_known_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ipv6_loopback: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_GATEWAY__HOST", ipv6_loopback)
    with socket.create_server((ipv6_loopback, 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]

        code = run(["up", "--port", str(port), "--config", str(write(tmp_path))])

    assert code == 1
    assert f"port {port} of ::1: Address already in use" in capsys.readouterr().err


def test_a_machine_without_ipv6_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PENSTOCK_GATEWAY__HOST", "::1")
    monkeypatch.setattr("gateways.cli.up.socket.socket", refuse)

    assert run(["up", "--port", "8080", "--config", str(write(tmp_path))]) == 1
    assert "port 8080 of ::1: Address family not supported" in capsys.readouterr().err


def test_programs_are_asked_where_they_listen(tmp_path: Path) -> None:
    hosts = {"PENSTOCK_WORKER__HEALTH_HOST": "::1", "PENSTOCK_GATEWAY__HOST": "0.0.0.0"}  # noqa: S104 - a setting
    file = write(tmp_path)
    settings = load(file, hosts)

    assert programs.worker(file, tmp_path, settings).host == "::1"
    assert programs.gateway(file, 0, settings).host == "127.0.0.1"


@pytest.mark.parametrize("address", ["localhost", "", "a:1,b"])
def test_an_address_of_kafka_that_is_none_names_the_option(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["up", "--kafka", address, "--config", str(write(tmp_path))]) == 2
    assert f"'--kafka': {address!r}: expected HOST:PORT" in capsys.readouterr().err


def test_a_second_up_is_refused_before_it_starts_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    # The first one holds its port as well, and that must not be what is said.
    with running.claimed(), socket.create_server(("127.0.0.1", 0)) as taken:
        code = run(["up", "--port", str(taken.getsockname()[1]), "--config", str(write(tmp_path))])

    assert code == 1
    assert "is running already in this folder" in capsys.readouterr().err
    assert not list(tmp_path.glob("build/up/*.log"))


def test_a_wrong_configuration_is_told_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "penstock.yaml").write_text("version: 2\n")

    assert run(["up", "--config", str(tmp_path / "penstock.yaml")]) == 2
    assert f"{tmp_path}/penstock.yaml:1: version" in capsys.readouterr().err


def test_each_program_may_take_as_long_as_its_own_settings_say(tmp_path: Path) -> None:
    file = write(tmp_path)
    settings = load(file, {"PENSTOCK_WORKER__DRAIN_TIMEOUT_S": "40", "PENSTOCK_GATEWAY__SHUTDOWN_TIMEOUT_S": "20"})

    assert programs.worker(file, tmp_path, settings).stop_limit_s > settings.worker.stop_limit_s == 55
    assert programs.gateway(file, 0, settings).stop_limit_s > settings.gateway.stop_limit_s == 30


def test_a_worker_that_does_not_say_what_it_has_in_work_is_waited_for_all_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert programs.in_work(f"http://127.0.0.1:{port}") == ""


def test_what_the_worker_warns_of_is_told_once_and_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    since = "no broker has answered since 2026-11-28T14:03:0"
    answers = iter([{}, {"kafka_unreachable": f"{since}7Z"}, {"kafka_unreachable": f"{since}8Z"}, {}])
    monkeypatch.setattr("gateways.cli.up._WARNINGS_INTERVAL_S", 0.0)
    monkeypatch.setattr("gateways.cli.up._CHECK_INTERVAL_S", 0.0)
    monkeypatch.setattr(programs, "warnings", lambda _url: next(answers))

    with pytest.raises(StopIteration):
        _watch(Stack(Path(), {}), "http://127.0.0.1:1")
    assert capsys.readouterr().err.splitlines() == [
        f"the worker warns, kafka_unreachable: {since}7Z",
        "the worker warns no longer: kafka_unreachable",
    ]


async def test_warnings_are_read_off_the_page_of_the_worker() -> None:
    server = HealthServer("worker", "127.0.0.1", 0, list, list, lambda: ["kafka_unreachable: no broker: away"])
    await server.start()
    try:
        found = await asyncio.to_thread(programs.warnings, server.address)
    finally:
        await server.aclose()

    assert found == {"kafka_unreachable": "no broker: away"}
    assert await asyncio.to_thread(programs.warnings, server.address) == {}
