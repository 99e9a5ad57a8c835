"""`penstock send`: against a small server that verifies as a gateway does."""

import csv
import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from contracts.settings import SourceSettings
from gateways.cli.main import cli, run
from gateways.cli.send import send
from producers.samples.signing import sign
from tests.support import ChildProcess, eventually, free_port

pytestmark = pytest.mark.process

SECRET = "0123456789abcdef0123456789abcdef"
CONFIG = """
version: 1
gateway: {port: %d}
sources:
  github:
    scheme: github
    secrets:
      - {id: old, value: "env:PENSTOCK_SECRET_OLD", not_after: 2020-01-01T00:00:00Z}
      - {id: current, value: "env:PENSTOCK_SECRET_GITHUB"}
    type: com.github.{header:x-github-event}
    id: header:x-github-delivery
"""
SOURCE = SourceSettings.model_validate({"scheme": "github", "secrets": [{"id": "a", "value": "env:S"}], "type": "t"})


class Gateway(ThreadingHTTPServer):
    """Counts what it accepts."""

    daemon_threads = True
    status = 202

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.accepted: list[bytes] = []


class _Handler(BaseHTTPRequestHandler):
    server: Gateway
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Verify and answer."""
        body = self.rfile.read(int(self.headers["content-length"]))
        good = sign(SOURCE, SECRET.encode(), body, event_id="", timestamp_s=0)["x-hub-signature-256"]
        if self.path != "/webhooks/github":
            self._answer(404)
        elif self.headers["x-hub-signature-256"] != good:
            self._answer(401)
        else:
            self.server.accepted.append(body)
            self._answer(self.server.status, self.headers["x-github-delivery"])

    def _answer(self, status: int, event_id: str = "") -> None:
        body = json.dumps({"id": event_id, "status_url": f"/v1/results/{event_id}"}).encode() if event_id else b""
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def config(tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", SECRET)
    file = tmp_path / "penstock.yaml"
    file.write_text(CONFIG % gateway.server_port, encoding="ascii")
    return file


@pytest.fixture
def call(config: Path) -> Callable[..., Result]:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(send, ["--config", str(config), *args], standalone_mode=False)

    return invoke


def test_everything_accepted_is_success_and_counted(call: Callable[..., Result], gateway: Gateway) -> None:
    result = call("--source", "github", "--count", "12", "--seed", "5")

    assert result.return_value == 0
    assert len(gateway.accepted) == 12
    assert "seed 5" in result.output
    assert "accepted" in result.output
    assert "latency ms: p50" in result.output


def test_forged_ones_are_expected_to_be_refused(call: Callable[..., Result], gateway: Gateway) -> None:
    result = call("--source", "github", "--count", "6", "--forge", "2")

    assert result.return_value == 0
    assert len(gateway.accepted) == 4
    assert "forged signature, as expected" in result.output


def test_a_redelivery_needs_the_sources_secret_for_it(call: Callable[..., Result], gateway: Gateway) -> None:
    result = call("--source", "github", "--redeliver")

    assert "idempotency.redelivery_secret" in str(result.exception)
    assert gateway.accepted == []


def test_a_refusal_of_a_genuine_event_is_failure(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", "another secret of that source!!!")

    result = call("--source", "github", "--count", "3")

    assert result.return_value == 1
    assert "does the gateway have the same secret?" in result.output


def test_a_forgery_that_is_accepted_is_failure(call: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    def sign_rightly(source: SourceSettings, body: bytes, **request: Any) -> dict[str, str]:
        return sign(source, SECRET.encode(), body, **request)

    monkeypatch.setattr("producers.samples.courier.forge", sign_rightly)

    result = call("--source", "github", "--count", "1", "--forge", "1")

    assert result.return_value == 1
    assert "FORGED, must be 401" in result.output


def test_a_busy_gateway_is_failure_with_the_reason(call: Callable[..., Result], gateway: Gateway) -> None:
    gateway.status = 503

    result = call("--source", "github", "--count", "2")

    assert result.return_value == 1
    assert "503" in result.output
    assert "busy" in result.output


def test_ids_and_absolute_status_urls_are_written(
    call: Callable[..., Result], gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "ids.csv"

    call("--source", "github", "--count", "5", "--forge", "1", "--ids-file", str(file))

    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    assert len({event_id for event_id, _ in rows}) == 4
    for event_id, url in rows:
        assert url == f"http://127.0.0.1:{gateway.server_port}/v1/results/{event_id}"


def test_a_file_for_ids_that_cannot_be_written_is_refused_before_anything_is_sent(
    config: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["send", "--config", str(config), "--source", "github", "--ids-file", "/nowhere/ids.csv"])

    assert code == 1
    assert "/nowhere/ids.csv: cannot be written" in capsys.readouterr().err
    assert gateway.accepted == []


def test_a_file_for_ids_on_a_full_disk_costs_neither_events_nor_the_report(
    config: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--source", "github", "--count", "300", "--url", f"http://127.0.0.1:{gateway.server_port}"]
    code = run(["send", "--config", str(config), *args, "--ids-file", "/dev/full"])

    said = capsys.readouterr()
    assert (code, len(gateway.accepted)) == (1, 300)
    assert "300 answers in" in said.out
    assert said.err == "/dev/full: cannot be written: No space left on device; ids are missing in it\n"


def test_an_unknown_source_names_the_known_ones(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "--config", str(config), "--source", "gitlab"]) == 2
    assert "there is no source 'gitlab'; configured: github" in capsys.readouterr().err


def test_a_missing_secret_names_the_variable(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PENSTOCK_SECRET_GITHUB")

    assert run(["send", "--config", str(config), "--source", "github"]) == 2
    assert "env:PENSTOCK_SECRET_GITHUB is not set" in capsys.readouterr().err


def test_no_listener_says_how_to_start_one(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"

    assert run(["send", "--config", str(config), "--source", "github", "--url", url]) == 1
    assert "penstock up" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["--count", "0"],
        ["--rate", "0"],
        ["--rate", "fast"],
        ["--concurrency", "-1"],
        ["--timeout", "0"],
        ["--url", "ftp://host"],
        ["--url", "127.0.0.1:8080"],
        ["--url", "http://[::1"],
        ["--url", "http://127.0.0.1:80800"],
        ["--url", "http://a..b"],
    ],
)
def test_bad_options_are_refused_in_words(config: Path, args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["send", "--config", str(config), "--source", "github", *args]) == 2
    assert args[0] in capsys.readouterr().err


def test_the_name_of_the_source_is_required() -> None:
    assert CliRunner().invoke(cli, ["send"]).exit_code == 2


def test_ctrl_c_stops_sending_and_still_tells_what_was_sent(config: Path, gateway: Gateway) -> None:
    args = ("gateways.cli", "send", "--config", str(config), "--source", "github", "--count", "5000", "--rate", "50")
    with ChildProcess(*args) as child:
        child.wait_for("sending 5000")
        eventually(lambda: gateway.accepted)
        child.signal(signal.SIGINT)

        assert child.wait(10) == 130
        assert "interrupted:" in child.output
        assert "of 5000 were sent" in child.output
        assert "accepted" in child.output
        assert "Traceback" not in child.output


def test_a_source_with_the_senders_public_key_needs_a_private_one(
    call: Callable[..., Result], config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config.read_text("ascii").replace("scheme: github", "scheme: discord")
    config.write_text(text, "ascii")
    monkeypatch.setenv("TEST_PRIVATE", "ab" * 32)

    assert "--private-key env:NAME or file:PATH" in str(call("--source", "github", "--count", "1").exception)
    # Signed now, and refused by this gateway, which knows GitHub's scheme only.
    assert "401" in call("--source", "github", "--count", "1", "--private-key", "env:TEST_PRIVATE").output


def test_a_private_key_is_never_given_on_the_command_line(call: Callable[..., Result]) -> None:
    refusal = str(call("--source", "github", "--private-key", "ab" * 32).exception)

    assert "must be a reference" in refusal
    assert "abab" not in refusal


def test_microsoft_graphs_notifications_are_yours_to_write(call: Callable[..., Result], config: Path) -> None:
    config.write_text(config.read_text("ascii").replace("scheme: github", "scheme: microsoft-graph"), "ascii")

    assert '{"value": [{"clientState": "<the secret>"' in str(call("--source", "github", "--count", "1").exception)


def test_a_secret_that_cannot_sign_is_told_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_SHOP", "short")
    config = tmp_path / "penstock.yaml"
    config.write_text(
        "version: 1\nsources:\n  shop:\n    scheme: standard-webhooks\n    type: t\n"
        "    secrets: [{id: a, value: env:PENSTOCK_SECRET_SHOP}]\n",
        encoding="utf-8",
    )

    assert run(["send", "--source", "shop", "--count", "1", "--config", str(config)]) == 2
    assert capsys.readouterr().err == "source shop: the secret is not base64 behind 'whsec_'\n"
