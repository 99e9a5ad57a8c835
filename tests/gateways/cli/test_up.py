"""Tests of `penstock up` that need no Kafka; tests/e2e runs the whole."""

import socket
from pathlib import Path

import pytest

from contracts.settings import load
from gateways.cli import programs, running
from gateways.cli.main import run
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

    assert programs.in_work(port) == ""
