"""The shipped server with the shipped settings, as a process, on a broker in this process; and raw sockets to it."""

import asyncio
import contextlib
import itertools
import re
import resource
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from confluent_kafka import Consumer, Message, TopicPartition

from contracts.topics import LANES, Topics
from producers.mock_cluster import PARTITIONS_PER_TOPIC, MockCluster
from tests.hostile.senders import ENVIRONMENT
from tests.support import ROOT, ChildProcess, read_port

CLOSED = b"<closed>"
_CALL_S = 5.0
# Imports on a busy machine, of several processes at a time.
_START_S = 50.0
# Shipped as examples: everything that says how the gateway listens and whom it believes.
_SHIPPED = ("version", "kafka", "gateway", "sources")
# Not among the examples, and its scheme is one of those that users have most.
SLACK_SOURCE = {
    "scheme": "slack",
    "secrets": [{"id": "current", "value": "env:PENSTOCK_SECRET_SLACK"}],
    "type": "com.slack.event",
    "handshakes": {"slack": True},
}
JSON_ONLY_SOURCE = {
    "scheme": "github",
    "secrets": [{"id": "current", "value": "env:PENSTOCK_SECRET_JSON_ONLY"}],
    "type": "com.github.{header:x-github-event}",
    "content_types": ["application/json"],
    "handshakes": {"cloudevents": {"origins": ["events.example"]}},
}


def rotating_source(not_after: str) -> dict[str, Any]:
    """Return a source whose old secret counts until an instant."""
    old = {"id": "old", "value": "env:PENSTOCK_SECRET_JSON_ONLY", "not_after": not_after}
    current = {"id": "current", "value": "env:PENSTOCK_SECRET_GITHUB"}
    return {"scheme": "github", "secrets": [current, old], "type": "com.github.{header:x-github-event}"}


def _loopback() -> Iterator[str]:
    """Return addresses of this machine, all of 127/8 on Linux, so that limits by address stay as they are shipped."""
    for number in itertools.count(2**16):
        yield f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


addresses = _loopback()


@dataclass(frozen=True)
class Lab:
    """A running gateway, its broker, and what it produced."""

    child: ChildProcess
    port: int
    log: "Log"
    cluster: MockCluster

    async def ask(
        self,
        *pieces: bytes,
        wait_s: float = 3.0,
        has_eof: bool = False,
        until_closed: bool = False,
        sender: str | None = None,
    ) -> bytes:
        """Send pieces; return the first answer, or everything until the server closes, or what came in time.

        Args:
            pieces: of the request.
            wait_s: for the answer.
            has_eof: end our side behind them.
            until_closed: the answer alone is not enough.
            sender: address to send from; one that nobody else has when absent.
        """
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(sender or next(addresses), 0)
        )
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if has_eof:
                writer.write_eof()
        try:
            async with asyncio.timeout(wait_s):
                while chunk := await reader.read(65536):
                    received += chunk
                    if not until_closed and is_whole(bytes(received)):
                        return bytes(received)
            received += CLOSED
        except TimeoutError:
            pass
        except ConnectionError:
            received += CLOSED
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return bytes(received)


def is_whole(received: bytes) -> bool:
    """Tell whether one answer has come to its end; every answer of the gateway has a length."""
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and length is not None and len(body) >= int(length[1])


class Log:
    """Reads the event topics from outside of the gateway."""

    def __init__(self, bootstrap: str) -> None:
        topics = Topics("penstock")
        self._seen: set[str] = set()
        self._places = [
            TopicPartition(topics.events(lane), number, 0) for lane in LANES for number in range(PARTITIONS_PER_TOPIC)
        ]
        self._seen_to = [0] * len(self._places)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "hostile",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )

    @property
    def records(self) -> int:
        """Return how many records lie on the event topics."""
        ends = (self._consumer.get_watermark_offsets(place, timeout=_CALL_S)[1] for place in self._places)
        return sum(ends)

    def read(self) -> list[tuple[dict[str, bytes], bytes | None, bytes | None]]:
        """Return headers, key and value of every record, in no order."""
        messages = self._messages([0] * len(self._places))
        return [(headers_of(message), _bytes(message.key()), _bytes(message.value())) for message in messages]

    def event_ids(self) -> set[str]:
        """Return the ids of the events on the topics, those included that were there when this was asked before."""
        self._seen |= {headers_of(message)["ce_id"].decode() for message in self._messages(self._seen_to)}
        return self._seen

    def _messages(self, start: list[int]) -> list[Message]:
        """Return the records from these offsets on, one for each partition, and set them to the ends."""
        bounds = [self._consumer.get_watermark_offsets(place, timeout=_CALL_S) for place in self._places]
        # The broker of the tests forgets old records.
        first = [max(low, begin) for (low, _), begin in zip(bounds, start, strict=True)]
        start[:] = [high for _, high in bounds]
        wanted = sum(start) - sum(first)
        self._consumer.assign(
            [TopicPartition(at.topic, at.partition, begin) for at, begin in zip(self._places, first, strict=True)]
        )
        found: list[Message] = []
        while len(found) < wanted:
            batch = self._consumer.consume(wanted - len(found), _CALL_S)
            assert batch, f"{len(found)} of {wanted} records came"
            found += batch
        # Fetches that go on would hold up the questions for the ends.
        self._consumer.unassign()
        return found

    def close(self) -> None:
        self._consumer.close()


def headers_of(message: Message) -> dict[str, bytes]:
    """Return a record's headers, of which each stands there once."""
    lines = cast("list[tuple[str, bytes]]", message.headers() or [])
    headers = dict(lines)
    assert len(headers) == len(lines)
    return headers


def _bytes(value: str | bytes | None) -> bytes | None:
    assert not isinstance(value, str)
    return value


@contextlib.contextmanager
def running(
    folder: Path,
    *options: str,
    gateway: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Iterator[Lab]:
    """Run `penstock gateway` with the shipped configuration.

    Args:
        folder: for its configuration.
        options: further ones of the command line.
        gateway: settings in place of shipped ones; none for the table.
        more: further sections.
    """
    port_file = folder / "port"
    with MockCluster() as cluster:
        topics = Topics("penstock")
        for lane in LANES:
            cluster.create_topic(topics.events(lane))
        config = folder / "penstock.yaml"
        config.write_text(yaml.safe_dump(configuration(cluster.bootstrap, gateway or {}, more or {})), encoding="utf-8")
        command: Sequence[str] = ("gateway", "--config", str(config), "--port-file", str(port_file), *options)
        log = Log(cluster.bootstrap)
        try:
            with ChildProcess("gateways.cli", *command, env=ENVIRONMENT) as child:
                child.wait_for(r"listening on http://127\.0\.0\.1:\d+", _START_S)
                yield Lab(child, read_port(port_file), log, cluster)
        finally:
            log.close()


def configuration(bootstrap: str, gateway: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the shipped configuration with some more sources, on a broker of the tests and any free port."""
    shipped = yaml.safe_load((ROOT / "penstock.yaml").read_text("utf-8"))
    chosen: dict[str, Any] = {name: shipped[name] for name in _SHIPPED}
    chosen["kafka"] |= {"bootstrap_servers": bootstrap, "embedded": True}
    chosen["gateway"] |= {"port": 0} | dict(gateway)
    chosen["sources"] |= {
        "slack": SLACK_SOURCE,
        "json-only": JSON_ONLY_SOURCE,
        "in-overlap": rotating_source("2999-01-01T00:00:00Z"),
        "behind-overlap": rotating_source("2020-01-01T00:00:00Z"),
    }
    return chosen | dict(more)


def resident_bytes(pid: int) -> int:
    """Return how much memory a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * resource.getpagesize()
