"""The stub's command line, as a process of its own."""

import signal
import socket
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from streams.fmstub.command import fm_stub
from tests.support import ChildProcess

pytestmark = pytest.mark.process


def test_it_says_where_it_listens_in_a_line_and_in_the_port_file_and_ends_on_sigint(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    with ChildProcess("streams", "fm-stub", "--port-file", str(port_file), "--latency", "0.01") as process:
        url = process.wait_for(r"^listening on (http://127\.0\.0\.1:\d+)$")[1]

        assert url.endswith(f":{port_file.read_text().strip()}")
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:  # noqa: S310 - our own server
            assert answer.status == 200
        process.signal(signal.SIGINT)

        assert process.wait(5) == 0


def test_sigterm_ends_it_though_a_call_hangs() -> None:
    with ChildProcess("streams", "fm-stub", "--error", "hang=1") as process:
        url = process.wait_for(r"^listening on (http://\S+)$")[1]
        body = b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}'
        request = urllib.request.Request(f"{url}/v1/chat/completions", data=body)  # noqa: S310 - our own server
        with pytest.raises(OSError, match="timed out"):
            urllib.request.urlopen(request, timeout=0.2)  # noqa: S310 - the same

        process.signal(signal.SIGTERM)

        assert process.wait(5) == 0


def test_an_address_that_is_taken_is_a_plain_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])

        outcome = CliRunner().invoke(fm_stub, ["--port", port])

    assert outcome.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in outcome.output
    assert "Traceback" not in outcome.output


def test_a_host_that_no_resolver_takes_is_a_plain_error() -> None:
    result = CliRunner().invoke(fm_stub, ["--host", "a..b"])

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: cannot listen on a..b:0: ")


def test_a_port_file_that_cannot_be_written_is_told_as_such() -> None:
    outcome = CliRunner().invoke(fm_stub, ["--port-file", "/nowhere/port"])

    assert outcome.exit_code == 1
    assert outcome.output == "Error: --port-file /nowhere/port cannot be written: No such file or directory\n"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--error", "throttling=2"], "error_rates.throttling"),
        (["--error", "throttling"], "NAME=NUMBER"),
        (["--error", "cut=0.6", "--error", "hang=0.6"], "add up to 1.2"),
        (["--latency", "-1"], "latency_s"),
        (["--port", "70000"], "--port"),
        (["--rpm", "0"], "rpm"),
    ],
)
def test_wrong_flags_are_refused_by_name(flags: list[str], named: str) -> None:
    outcome = CliRunner().invoke(fm_stub, flags)

    assert outcome.exit_code == 2
    assert named in outcome.output


def test_a_knobs_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "knobs.json").write_text("latency_s: 1")

    outcome = CliRunner().invoke(fm_stub, ["--knobs", str(tmp_path / "knobs.json")])

    assert outcome.exit_code == 2
    assert "is not JSON" in outcome.output
