"""One installation for a scenario: topics, model server, worker and gateway as processes, and the way to them."""

import contextlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from confluent_kafka.admin import AdminClient, NewTopic

from bench.model_plan import Plan
from bench.runs import RunFailedError, model_server
from contracts.topics import Topics
from tests.kafka.worker_lab import wait_for_partitions
from tests.support import ChildProcess, NotReachedError, eventually

PARTITIONS = 12
API_KEY = "an-api-key-of-the-benchmark"
TICKET_SECRET = "t" * 32
_START_LIMIT_S = 60.0
_serial = itertools.count()


@dataclass
class Lab:
    """Where everything is.

    Attributes:
        url: of the gateway.
        model_url: of the model server, with /v1.
    """

    bootstrap: str
    topics: Topics
    folder: Path
    config: Path
    model_url: str
    url: str = ""

    def gateway(self, name: str = "gateway", **settings: str) -> ChildProcess:
        """Return a gateway, not started yet; settings as `gateway__port`."""
        env = {f"PENSTOCK_{key.upper()}": text for key, text in settings.items()}
        port_file = self.folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        args = ("gateways.cli", "gateway", "--config", str(self.config), "--port-file", str(port_file))
        return ChildProcess(*args, env=environ() | env)

    def url_of(self, name: str = "gateway") -> str:
        """Return a started gateway's URL, once it listens."""
        port_file = self.folder / f"{name}.port"
        port = eventually(lambda: port_file.exists() and port_file.read_text("ascii").strip(), _START_LIMIT_S)
        return f"http://127.0.0.1:{port}"

    def worker(self) -> ChildProcess:
        """Return a worker, not started yet."""
        return ChildProcess("streams", "worker", "--config", str(self.config), env=environ(), grace_s=20)


def environ() -> dict[str, str | None]:
    """Return the secrets."""
    return {"BENCH_API_KEY": API_KEY, "BENCH_TICKET_SECRET": TICKET_SECRET}


@contextlib.contextmanager
def lab(bootstrap: str, plan: Plan, **changes: Mapping[str, Any]) -> Iterator[Lab]:
    """Make topics, model and configuration; the sections of the configuration can be changed.

    Raises:
        RunFailedError: something did not start.
    """
    topics = Topics(f"bench{os.getpid()}p{next(_serial)}")
    with TemporaryDirectory() as name, model_server(plan) as model_url, _topics(bootstrap, topics):
        folder = Path(name)
        config = folder / "penstock.yaml"
        document = _document(bootstrap, topics, model_url)
        for section, change in changes.items():
            document[section] = document.get(section, {}) | change
        config.write_text(yaml.safe_dump(document), encoding="utf-8")
        try:
            yield Lab(bootstrap, topics, folder, config, model_url)
        except NotReachedError as error:
            raise RunFailedError(str(error)) from error


@contextlib.contextmanager
def running(bootstrap: str, plan: Plan, **changes: Mapping[str, Any]) -> Iterator[Lab]:
    """Run a worker and a gateway that are ready."""
    with lab(bootstrap, plan, **changes) as found, found.worker() as worker, found.gateway() as gateway:
        wait_for_partitions(worker)
        found.url = found.url_of()
        gateway.wait_for("replies.following", _START_LIMIT_S)
        # The group may still be moving partitions.
        time.sleep(2.0)
        yield found


def _document(bootstrap: str, topics: Topics, model_url: str) -> dict[str, Any]:
    return {
        "version": 1,
        "kafka": {"bootstrap_servers": bootstrap, "topic_prefix": topics.prefix, "partitions": PARTITIONS},
        "gateway": {
            "port": 0,
            "ticket_secret": "env:BENCH_TICKET_SECRET",
            "api_keys": [{"id": "bench", "key": "env:BENCH_API_KEY"}],
        },
        "worker": {"app_id": topics.prefix, "health_port": 0, "max_in_flight": 64},
        "logging": {"level": "info", "format": "json"},
        "providers": {"model": {"kind": "openai", "base_url": model_url, "max_in_flight": 64}},
        "models": {"default": {"provider": "model", "model": "bench"}},
        "routes": [{"name": "all", "model": "default", "prompt": {"user": "{{ text }}"}}],
    }


@contextlib.contextmanager
def _topics(bootstrap: str, topics: Topics) -> Iterator[None]:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(topic.name, PARTITIONS, 1, config=topic.config()) for topic in topics.table()]
    for future in admin.create_topics(wanted).values():
        future.result(30)
    try:
        yield
    finally:
        for future in admin.delete_topics([topic.topic for topic in wanted]).values():
            future.result(30)


def body(number: int) -> bytes:
    """Return the body of a call."""
    return json.dumps({"n": number, "text": "x" * 300}).encode()
