"""Drives the gateway's ASGI application in this process: no sockets, a producer in memory, results by hand."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from contracts.codec import Position, Record
from contracts.envelope import ReplyAddress
from contracts.errors import UnknownResult
from contracts.settings import Settings
from gateways.api import Api
from gateways.egress.outcomes import Accepted, Outcome
from gateways.parts import Parts, build_parts
from producers.memory import MemoryProducer

SECRET = b"a-secret-of-enough-bytes"
API_KEY = "an-api-key-of-enough-characters"
OTHER_API_KEY = "another-api-key-of-some-length"
TICKET_SECRET = "t" * 32

CONFIGURATION: dict[str, Any] = {
    "version": 1,
    "gateway": {
        "max_body_bytes": 1000,
        "body_timeout_s": 0.05,
        "ack_timeout_s": 0.05,
        "ticket_secret": "env:TEST_TICKET_SECRET",
        "api_keys": [
            {
                "id": "crm",
                "key": "env:TEST_API_KEY",
                "callbacks": {"hosts": ["*.crm.example"], "secrets": [{"id": "k", "value": "env:TEST_SECRET"}]},
            },
            {"id": "billing", "key": "env:TEST_OTHER_API_KEY", "sources": ["shop/*"], "lanes": ["bulk"]},
        ],
    },
    "egress": {"callers": {"kind": "caller-callback"}},
    "sources": {
        "github": {
            "scheme": "github",
            "secrets": [{"id": "current", "value": "env:TEST_SECRET"}],
            "type": "com.github.{header:x-github-event}",
            "id": "header:x-github-delivery",
            "key": "json:/repository/full_name",
        }
    },
}


class Results:
    """Outcomes by hand, in place of the view on Kafka."""

    def __init__(self) -> None:
        self.is_alive = True
        self.noted: dict[tuple[str, str], Accepted] = {}
        self.outcomes: dict[tuple[str, str], Outcome] = {}
        self.error: Exception | None = None

    def start(self) -> None: ...

    def close(self) -> None: ...

    def note_accepted(self, owner: str, event_id: str, accepted: Accepted) -> None:
        assert accepted.position.timestamp_ms >= 0
        self.noted[owner, event_id] = accepted

    async def digest(self, owner: str, event_id: str, accepted: Accepted) -> bytes:
        assert (owner, event_id) in self.noted
        return accepted.digest

    async def outcome_of(self, source: str, event_id: str, position: Position, owner: str = "") -> Outcome | None:
        assert position.topic
        if self.error:
            raise self.error
        found = self.outcomes.get((source, event_id))
        return found if found is not None and found.owner == owner else None

    async def accepted(self, owner: str, event_id: str, source: str | None, *, within_memory: bool = False) -> Accepted:
        assert within_memory in {True, False}
        found = self.noted.get((owner, event_id))
        if found is None or source not in {None, found.source}:
            message = "no such result"
            raise UnknownResult(message)
        return found


class Replies:
    """An address, in place of the reader on Kafka."""

    def __init__(self) -> None:
        self.address: ReplyAddress | None = ReplyAddress(3, "ab" * 16)

    def start(self) -> None: ...

    def close(self) -> None: ...


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Gateway:
    """The application with its parts, and a way to call it."""

    def __init__(self, settings: Settings, producer: MemoryProducer | None = None) -> None:
        self.producer = producer or MemoryProducer(settings.producer)
        self.results = Results()
        self.replies = Replies()
        self.parts: Parts = build_parts(settings, self.producer, self.results, self.replies)
        self.api = Api(self.parts)

    @property
    def records(self) -> list[Record]:
        """Records on the log."""
        return self.producer.records

    async def call(
        self,
        method: str,
        target: str | bytes,
        headers: Mapping[str, str] | Sequence[tuple[bytes, bytes]] = (),
        body: bytes | Sequence[bytes] = b"",
        *,
        is_cut_short: bool = False,
        hosts: Sequence[bytes] = (b"gateway",),
        is_declared: bool = True,
        hangs_up: asyncio.Event | None = None,
        connected: str = "127.0.0.1",
    ) -> Answer:
        """Send one request; a body of several chunks arrives in several messages."""
        path, _, query = (target.encode() if isinstance(target, str) else target).partition(b"?")
        chunks = [body] if isinstance(body, bytes) else list(body)
        lines = (
            [(name.lower().encode(), value.encode()) for name, value in headers.items()]
            if isinstance(headers, Mapping)
            else list(headers)
        )
        lines += [(b"host", host) for host in hosts]
        if any(chunks) and is_declared and not any(name == b"content-length" for name, _ in lines):
            lines.append((b"content-length", b"%d" % sum(map(len, chunks))))
        scope = {
            "type": "http",
            "method": method,
            "raw_path": path,
            "path": "",
            "query_string": query,
            "headers": lines,
            "client": (connected, 50_000),
        }
        incoming: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": index < len(chunks) - 1 or is_cut_short}
            for index, chunk in enumerate(chunks)
        ]
        return await self._exchange(scope, incoming, is_cut_short, hangs_up or asyncio.Event())

    async def _exchange(
        self, scope: dict[str, Any], incoming: list[dict[str, Any]], is_cut_short: bool, hangs_up: asyncio.Event
    ) -> Answer:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            if incoming:
                return incoming.pop(0)
            if is_cut_short:
                return {"type": "http.disconnect"}
            # Nothing more comes, as from a sender that has stalled, until it hangs up.
            await hangs_up.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.api(scope, receive, send)
        start, *rest = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Answer(start["status"], headers, b"".join(message["body"] for message in rest))

    async def webhook(self, body: bytes = b'{"repository":{"full_name":"a/b"}}', **changes: str) -> Answer:
        """Send a signed GitHub webhook; `changes` are headers, underscores for dashes."""
        headers = github_headers(body) | {name.replace("_", "-"): value for name, value in changes.items()}
        return await self.call("POST", "/webhooks/github", headers, body)


def github_headers(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    """Return the headers of a signed GitHub webhook."""
    return {
        "x-hub-signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest(),
        "x-github-event": "issues",
        "x-github-delivery": "delivery-1",
        "content-type": "application/json",
    }


def as_caller(key: str = API_KEY, **more: str) -> dict[str, str]:
    """Return the headers of an API caller."""
    return {"authorization": f"Bearer {key}"} | {name.replace("_", "-"): value for name, value in more.items()}


@pytest.fixture
def secret_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", SECRET.decode())
    monkeypatch.setenv("TEST_API_KEY", API_KEY)
    monkeypatch.setenv("TEST_OTHER_API_KEY", OTHER_API_KEY)
    monkeypatch.setenv("TEST_TICKET_SECRET", TICKET_SECRET)


@pytest.fixture
async def gateway(secret_environment: None) -> Gateway:  # noqa: ARG001 - a fixture cannot use usefixtures
    """A gateway with one source, github, and two API callers, crm and billing."""
    gateway = Gateway(Settings.model_validate(CONFIGURATION))
    await gateway.producer.start()
    return gateway
