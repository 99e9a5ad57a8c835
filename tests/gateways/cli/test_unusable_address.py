"""A program that cannot listen where it was told to names the setting that has to be changed, and its line."""

from pathlib import Path

import pytest

from gateways.cli.main import run
from tests.support import ChildProcess

# For documentation only (RFC 5737): no machine has it.
CONFIG = """\
version: 1
gateway:
  port: 0
  host: 192.0.2.1
egress_process:
  health_host: 192.0.2.1
batch_process:
  health_host: 192.0.2.1
worker:
  health_host: 192.0.2.1
egress:
  fan-out: {kind: sns, region: eu-west-1, topic_arn: "arn:aws:sns:eu-west-1:123456789012:results"}
providers: {local: {kind: embedded}}
models: {m: {provider: local, model: embedded/extract-v1}}
routes: [{name: a, prompt: {user: x}, model: m}]
"""
REASON = "cannot listen on 192.0.2.1:"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    made = tmp_path / "p.yaml"
    made.write_text(CONFIG, encoding="utf-8")
    return made


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (("gateway",), "4: gateway.host"),
        (("gateway", "--processes", "2"), "4: gateway.host"),
        (("egress",), "6: egress_process.health_host"),
        (("batch", "serve"), "8: batch_process.health_host"),
    ],
)
def test_a_program_names_the_host(
    args: tuple[str, ...], place: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*args, "--config", str(file)]) == 2
    assert f"{file}:{place}: {REASON}" in capsys.readouterr().err


@pytest.mark.process
def test_a_worker_names_the_host(file: Path) -> None:
    with ChildProcess("streams", "worker", "--config", str(file)) as worker:
        assert worker.wait(20) == 2
        assert worker.output.startswith(f"{file}:10: worker.health_host: {REASON}8081: Cannot assign requested address")
