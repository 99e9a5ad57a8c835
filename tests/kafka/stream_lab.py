"""Streaming from end to end: a model server, a worker, and gateways on real Kafka.

Blocking: starting and stopping programs, some seconds in all.
"""

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp

from tests.kafka.worker_lab import WorkerLab
from tests.kafkalab.fixtures import KafkaLab
from tests.stream_client import Frame, Shown, events_of
from tests.stub import Stub
from tests.support import ChildProcess, ask, eventually, read_port

API_KEY = "stream-test-key-0123456789"
SECRETS = {"TEST_API_KEY": API_KEY, "TEST_TICKET_SECRET": "t" * 32}
GATEWAY: dict[str, Any] = {
    "ticket_secret": "env:TEST_TICKET_SECRET",
    "api_keys": [{"id": "app", "key": "env:TEST_API_KEY"}],
    "streams": {"heartbeat_s": 2, "allowed_origins": ["https://app.example.com"]},
}


class StreamLab:
    """One installation; the model is slow enough to be watched.

    Args:
        kafka: the test's corner of the broker.
        folder: for files.
        route: changes to the route.
        gateway: changes to the gateway's section.
    """

    def __init__(
        self,
        kafka: KafkaLab,
        folder: Path,
        route: Mapping[str, Any] | None = None,
        gateway: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._kafka = kafka
        self._route = route
        self._gateway = {**GATEWAY, **(gateway or {})}
        self.lab: WorkerLab
        self.stub: Stub

    @contextlib.contextmanager
    def model(self, *options: str) -> Iterator[Stub]:
        """Run the model server, and make the installation's topics and configuration."""
        port_file = self._folder / "stub.port"
        with ChildProcess("streams", "fm-stub", *options, "--port-file", str(port_file)):
            self.stub = Stub(f"http://127.0.0.1:{read_port(port_file)}")
            self.lab = WorkerLab(
                self._kafka,
                self._folder,
                provider={"kind": "openai", "base_url": f"{self.stub.url}/v1"},
                route=self._route,
                more={"gateway": self._gateway},
            )
            self.lab.create_topics()
            self.lab.kafka.create_named(self.lab.topics.deltas, self.lab.topics.cancels, partitions=4)
            yield self.stub

    @contextlib.contextmanager
    def gateway(self, name: str = "gateway", port: int = 0) -> Iterator[str]:
        """Run a gateway that follows the deltas; give its address."""
        port_file = self._folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        options = ("--config", str(self.lab.config), "--port-file", str(port_file))
        env = {**SECRETS, "PENSTOCK_GATEWAY__PORT": str(port)}
        with ChildProcess("gateways.cli", "gateway", *options, env=env):
            url = f"http://127.0.0.1:{read_port(port_file)}"
            eventually(lambda: follows(url), within_s=20)
            yield url


def follows(url: str) -> bool:
    """Tell whether a gateway follows the deltas already."""
    return b"penstock_stream_tail_following 1.0" in ask(f"{url}/metrics")


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Give a client without any limit of its own."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as client:
        yield client


def as_app(event_id: str, **more: str) -> dict[str, str]:
    """Return the headers of an event of the caller."""
    return {"Authorization": f"Bearer {API_KEY}", "ce-type": "t", "ce-id": event_id, **more}


async def post(client: aiohttp.ClientSession, url: str, event_id: str, text: str) -> AsyncIterator[Frame]:
    """Yield the frames of a new event's stream."""
    async with client.post(f"{url}/v1/stream", headers=as_app(event_id), data=text.encode()) as response:
        assert response.status == 200, await response.text()
        async for frame in events_of(response):
            yield frame


async def go_on(client: aiohttp.ClientSession, url: str, shown: Shown) -> AsyncIterator[Frame]:
    """Yield the frames behind what is shown."""
    headers = {"Last-Event-ID": shown.at} if shown.at else {}
    async with client.get(url + shown.accepted["stream_url"], headers=headers) as response:
        assert response.status == 200, await response.text()
        async for frame in events_of(response):
            yield frame
