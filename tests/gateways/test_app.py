"""The process: address, signals, an orderly end."""

import http.client
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
import yaml

from contracts.errors import ConfigError
from contracts.settings import Settings
from gateways.app import _closed, run_gateway
from gateways.listening import announce, listen
from tests.gateways.driver import API_KEY, CONFIGURATION, OTHER_API_KEY, SECRET, TICKET_SECRET, github_headers
from tests.support import ChildProcess, eventually, free_port, no_threads, read_port

pytestmark = pytest.mark.process

BODY = b'{"repository":{"full_name":"a/b"}}'
SECRETS = {
    "TEST_SECRET": SECRET.decode(),
    "TEST_API_KEY": API_KEY,
    "TEST_OTHER_API_KEY": OTHER_API_KEY,
    "TEST_TICKET_SECRET": TICKET_SECRET,
}


@contextmanager
def running(tmp_path: Path, *options: str) -> Iterator[tuple[ChildProcess, int]]:
    """Run a gateway; give the process and its port."""
    port_file = tmp_path / "port"
    with ChildProcess("tests.gateways.memory_gateway", str(port_file), *options, env=SECRETS) as child:
        child.wait_for(r"listening on http://127\.0\.0\.1:\d+")
        yield child, read_port(port_file)


@contextmanager
def held_back(port: int) -> Iterator[http.client.HTTPConnection]:
    """Send a webhook whose ack is held; give its connection once the gateway works on it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(connection):
        connection.request("POST", "/webhooks/github", BODY, github_headers(BODY))
        eventually(lambda: b"penstock_dedup_claims 1.0" in ask(port, "/metrics")[1])
        yield connection


def ask(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# Two at once, as `timeout` sends them; of two numbers, because the kernel may deliver two of one number as one.
@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT)])
def test_a_request_in_progress_at_sigterm_gets_its_202(numbers: tuple[signal.Signals, ...], tmp_path: Path) -> None:
    with running(tmp_path, "--hold") as (child, port), held_back(port) as waiting, ExitStack() as stack:
        for number in numbers:
            child.signal(number)
        eventually(lambda: ask(port, "/readyz")[0] == 503)
        body = ask(port, "/readyz")[1]
        child.signal(signal.SIGUSR1)
        response = stack.enter_context(closing(waiting.getresponse()))

        assert json.loads(body)["reasons"] == ["shutting_down"]
        assert response.status == 202
        assert response.getheader("connection") == "close"
        assert child.wait() == 0


def test_who_waits_for_an_outcome_at_sigterm_gets_202_and_the_place_of_the_result(tmp_path: Path) -> None:
    with running(tmp_path, "--brisk") as (child, port), ExitStack() as stack:
        waiting = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)))
        waiting.request("POST", "/v1/invoke", b"{}", {"authorization": f"Bearer {API_KEY}", "ce-type": "t"})
        eventually(lambda: b"penstock_sync_waiting_requests 1.0" in ask(port, "/metrics")[1])
        child.signal(signal.SIGTERM)
        response = stack.enter_context(closing(waiting.getresponse()))

        assert response.status == 202
        assert "ticket=" in (response.getheader("location") or "")
        assert child.wait() == 0


def test_an_idle_gateway_ends_at_once_and_well_on_ctrl_c(tmp_path: Path) -> None:
    with running(tmp_path) as (child, port), socket.create_connection(("127.0.0.1", port)):
        child.signal(signal.SIGINT)

        # At once, and not at the end of any limit: those are 10 s and more.
        assert child.wait(8) == 0
        assert "Traceback" not in child.output


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with running(tmp_path, "--hold") as (child, port), held_back(port):
        child.signal(signal.SIGTERM)
        child.wait_for("gateway.stopping")

        assert child.insist(signal.SIGTERM) == 128 + signal.SIGTERM


@pytest.mark.usefixtures("secret_environment")
def test_a_taken_port_is_a_configuration_error_that_names_the_setting() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        settings = Settings.model_validate(CONFIGURATION | {"gateway": CONFIGURATION["gateway"] | {"port": port}})

        with pytest.raises(ConfigError, match=rf"gateway.port: cannot listen on 127.0.0.1:{port}"):
            run_gateway(settings)


def test_an_unusable_host_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.host"):
        listen("a..b", 0)


def test_a_request_that_does_not_end_is_abandoned_within_the_limit(tmp_path: Path) -> None:
    with running(tmp_path, "--hold", "--hasty") as (child, port), held_back(port):
        child.signal(signal.SIGTERM)

        assert child.wait(10) == 0
        assert "gateway.requests_abandoned" in child.output


def test_lines_of_the_http_server_are_written_as_ours(tmp_path: Path) -> None:
    config, port_file = tmp_path / "penstock.yaml", tmp_path / "port"
    own = {"host": "127.0.0.1", "port": 0, "shutdown_timeout_s": 0.2, "body_timeout_s": 60}
    kafka = {"bootstrap_servers": [f"127.0.0.1:{free_port()}"]}
    document = {"gateway": CONFIGURATION["gateway"] | own, "kafka": kafka, "logging": {"format": "json"}}
    config.write_text(yaml.safe_dump(CONFIGURATION | document), encoding="utf-8")
    arguments = ("gateway", "--config", str(config), "--port-file", str(port_file))
    head = "POST /webhooks/github HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\nExpect: 100-continue\r\n"
    lines = "".join(f"{name}: {value}\r\n" for name, value in github_headers(BODY).items())
    with ChildProcess("gateways.cli", *arguments, env=SECRETS) as child:
        child.wait_for("listening on")
        with socket.create_connection(("127.0.0.1", read_port(port_file))) as connection:
            connection.settimeout(20)
            connection.sendall(f"{head}{lines}\r\n".encode())
            # Now somebody waits for the body.
            assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
            child.signal(signal.SIGTERM)
            code = child.wait()

    written = [json.loads(line) for line in child.output.splitlines() if not line.startswith("listening on ")]
    (its,) = [line for line in written if line["component"].startswith("_granian")]
    assert code == 0
    assert its["level"] == "error"
    assert its["event"].startswith("Application callable raised an exception\nTraceback")
    assert its["timestamp"].endswith("Z")


def test_a_port_file_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--port-file"):
        announce("127.0.0.1", 1, tmp_path / "missing" / "port")


async def test_at_the_end_readers_are_closed_also_when_no_thread_can_be_started_for_it() -> None:
    closed: list[int] = []
    with no_threads():
        await _closed(lambda: closed.append(1))

    assert closed == [1]
