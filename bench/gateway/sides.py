"""Who is measured: Penstock's gateway, and controls in an environment of their own; each as a running server."""

import base64
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from bench.peers.environments import Environment
from bench.runs import RunFailedError
from contracts.settings import environment
from contracts.topics import Topics
from tests.support import ROOT, Leash, end_group, eventually, free_port

SECRET = base64.b64encode(b"a secret of the benchmark, 32 by").decode()
PARTITIONS = 12
_CONTROLS = Environment(
    "gateway",
    "python3.11",
    (
        "fastapi==0.163.2", "uvicorn==0.54.0", "httptools==0.9.0", "uvloop==0.23.0", f"granian=={version('granian')}",
        "aiokafka==0.14.0", "cramjam==2.14.0", f"confluent-kafka=={version('confluent-kafka')}",
        f"msgspec=={version('msgspec')}",
    ),
)  # fmt: skip
LEFT_OUT = "Redpanda Connect: it comes as a binary from outside the package registries"
_PACKAGE = "bench.gateway.controls"
_START_LIMIT_S = 30.0
_STOP_S = 15.0
# A run's records need not outlive it.
_BRIEF = {"retention.bytes": str(256 * 2**20), "segment.bytes": str(64 * 2**20)}
_serial = itertools.count()

Command = Callable[[Path, int], tuple[str, ...]]


@dataclass(frozen=True)
class Site:
    """Where records go."""

    bootstrap: str
    topics: Topics

    @property
    def topic(self) -> str:
        """The topic of the webhooks."""
        return self.topics.events("standard")


@dataclass(frozen=True)
class Side:
    """Somebody who receives webhooks.

    Attributes:
        command: what is run, given the folder and the port.
        tree: the checkout whose code is run.
    """

    name: str
    command: Command
    tree: Path = ROOT


def sides(tree: Path | None = None) -> tuple[Side, ...]:
    """Return Penstock and its controls, their environment made if need be.

    Raises:
        NotInstallableError: it cannot be made on this machine.
    """
    least = _on_granian("least", "asgi", "least:app")
    return (penstock(tree), _on_uvicorn("fastapi", "usual"), *servers()[:2], least)


def servers() -> tuple[Side, ...]:
    """Return the bare control on every server, their environment made if need be.

    Raises:
        NotInstallableError: it cannot be made on this machine.
    """
    _CONTROLS.install()
    python = _CONTROLS.program("python")
    return (
        _on_uvicorn("uvicorn", "bare"),
        _on_granian("granian", "asgi", "bare:app"),
        _on_granian("granian-rsgi", "rsgi", "bare:rsgi"),
        Side("llhttp", lambda _, port: (python, "-m", f"{_PACKAGE}.bare", str(port))),
    )


def _on_uvicorn(name: str, module: str) -> Side:
    options = ("--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools")
    start = (_CONTROLS.program("uvicorn"), f"{_PACKAGE}.{module}:app", *options)
    return Side(name, lambda _, port: (*start, "--port", str(port)))


def _on_granian(name: str, interface: str, app: str) -> Side:
    options = ("--workers", "1", "--loop", "uvloop", "--http", "1", "--no-ws", "--log-level", "error")
    start = (_CONTROLS.program("granian"), "--interface", interface, *options)
    return Side(name, lambda _, port: (*start, "--port", str(port), f"{_PACKAGE}.{app}"))


def penstock(tree: Path | None = None) -> Side:
    """Return our side, from this checkout or from another one."""

    def command(folder: Path, port: int) -> tuple[str, ...]:
        return (
            *(sys.executable, "-m", "gateways.cli", "gateway"),
            *("--config", str(folder / "penstock.yaml")),
            *("--port-file", str(folder / f"{port}.port")),
        )

    return Side("penstock", command, tree or ROOT)


@contextlib.contextmanager
def site(bootstrap: str, config: Mapping[str, str] = _BRIEF) -> Iterator[Site]:
    """Make the topics, and delete them afterwards; `config` is in addition to what Penstock makes them with."""
    topics = Topics(f"bench{os.getpid()}g{next(_serial)}")
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(topic.name, PARTITIONS, 1, config={**topic.config(), **config}) for topic in topics.table()]
    for future in admin.create_topics(wanted).values():
        future.result(30)
    try:
        yield Site(bootstrap, topics)
    finally:
        for future in admin.delete_topics([topic.topic for topic in wanted]).values():
            future.result(30)


class Running:
    """A server under way.

    Attributes:
        session: of its processes.
        port: where it listens.
    """

    def __init__(self, side: Side, place: Site, folder: Path, settings: Mapping[str, Any], port: int = 0) -> None:
        self.port = port or free_port()
        self._log = folder / f"{side.name}-{self.port}.log"
        (folder / "penstock.yaml").write_text(yaml.safe_dump(document(place, self.port, settings)), encoding="utf-8")
        variables = {"BENCH_KAFKA": place.bootstrap, "BENCH_TOPIC": place.topic, "BENCH_SECRET": SECRET}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                side.command(folder, self.port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=side.tree,
                env={**environment(), "PYTHONPATH": str(side.tree), **variables},
                start_new_session=True,
            )
        self._leash = Leash(self.process.pid)

    @property
    def session(self) -> int:
        """Return the id of its processes' session."""
        return self.process.pid

    def wait_until_it_listens(self) -> None:
        """Return when it takes connections.

        Raises:
            RunFailedError: it does not; with its output.
        """

        def listens() -> bool:
            if self.process.poll() is not None:
                return True
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
            return False

        try:
            eventually(listens, _START_LIMIT_S)
        except AssertionError as error:
            raise RunFailedError(self.output()) from error
        if self.process.poll() is not None:
            raise RunFailedError(self.output())

    def output(self) -> str:
        """Return the last lines of its output."""
        return "\n".join(self._log.read_text("utf-8", errors="replace").splitlines()[-8:])

    def end(self) -> None:
        """End it in order."""
        end_group(self.process, _STOP_S)
        self._leash.release()


@contextlib.contextmanager
def running(side: Side, place: Site, settings: Mapping[str, Any] | None = None) -> Iterator[Running]:
    """Run a server that takes connections; `settings` changes Penstock's sections.

    Raises:
        RunFailedError: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as name:
        server = Running(side, place, Path(name), settings or {})
        try:
            server.wait_until_it_listens()
            yield server
        finally:
            server.end()


def document(place: Site, port: int, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return Penstock's configuration: defaults, but for where everything is."""
    found: dict[str, Any] = {
        "version": 1,
        "kafka": {"bootstrap_servers": place.bootstrap, "topic_prefix": place.topics.prefix},
        "gateway": {"port": port, "ticket_secret": "env:BENCH_SECRET"},
        "sources": {
            "bench": {
                "scheme": "standard-webhooks",
                "secrets": [{"id": "bench", "value": "env:BENCH_SECRET"}],
                "type": "com.example.bench",
            }
        },
        "logging": {"level": "info", "format": "json"},
        "providers": {"echo": {"kind": "embedded"}},
        "models": {"default": {"provider": "echo", "model": "embedded/extract-v1"}},
        "routes": [{"name": "all", "model": "default", "prompt": {"user": "{{ text }}"}}],
    }
    for section, change in settings.items():
        found[section] = found.get(section, {}) | change
    found["gateway"]["port"] = port
    return found
