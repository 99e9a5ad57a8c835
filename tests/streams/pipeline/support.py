"""A whole worker but Kafka: engine, pipeline, settler, the in-memory producer, and a scripted provider."""

import asyncio
import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from contracts.codec import Headers, Position, Record, decode_json, encode_event
from contracts.envelope import Event
from contracts.payloads import InferenceAnswer, InferenceRequest, InferenceResult, OutcomeMarker
from contracts.settings import FakeProvider, ProducerSettings, Settings, build, parse
from contracts.topics import RETRY_LANE, Topics
from producers.memory import MemoryProducer
from streams.cancels import Cancels
from streams.deltas import Deltas
from streams.engine.engine import Engine
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.engine.work import Limits
from streams.pipeline import Pipeline
from streams.providers.base import Placing, Provider, SeveralInputs, Waiter, is_full
from streams.providers.fake import Fake
from streams.settle import Settler
from tests.streams.virtual_clock import now_at, settled

TOPICS = Topics("t")
EVENTS = TOPICS.events("standard")
APP_ID = "app"
PARTITION = 2
ROUTE: dict[str, Any] = {"name": "r", "prompt": {"system": "Be brief.", "user": "{{ text }}"}, "model": "m"}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def make_settings(*routes: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> Settings:
    """Return settings with these routes (changes to ROUTE; ROUTE itself when none is given)."""
    document = {
        "version": 1,
        "kafka": {"topic_prefix": "t"},
        "worker": {"app_id": APP_ID},
        "providers": {"p": {"kind": "fake"}},
        "models": {name: {"provider": "p", "model": "fake-1", **(model or {})} for name in ("m", "m2")},
        "routes": [{**ROUTE, **route} for route in routes or ({},)],
    }
    return build(parse(yaml.safe_dump(document), "test.yaml"), {}, Path())


def event(number: int = 0, data: bytes = b'{"n": 1}', **changes: Any) -> Event:
    """Return an event with an id of its own and the key `k`."""
    fields: dict[str, Any] = {
        "id": f"e{number}",
        "source": "s",
        "type": "t",
        "extensions": {"partitionkey": "k"},
        "datacontenttype": "application/json",
    }
    return Event(data=data, **{**fields, **changes})


class Broken:
    """A provider with a bug."""

    name = "broken"

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Fail in a way that no provider should."""
        message = f"unexpected {request.event_id}"
        raise KeyError(message)

    def stream(self, request: InferenceRequest) -> Any:
        raise NotImplementedError


class WithoutTask:
    """Makes a provider's calls without a task of the event's, as one with such a transport does; see Direct."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        if isinstance(provider, SeveralInputs):
            # From Python 3.12 on a protocol is looked for where __getattr__ does not reach.
            self.invoke_many = provider.invoke_many
        if isinstance(provider, Placing):
            self.place = provider.place
        self._calls: set[asyncio.Task[None]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    @property
    def direct(self) -> "WithoutTask":
        return self

    def begin(self, request: InferenceRequest, waiter: Waiter) -> bool:
        """Have the provider called."""
        if is_full(self._provider):
            return False

        async def call() -> None:
            try:
                answer = await self._provider.invoke(request)
            except Exception as error:  # noqa: BLE001 - handed on
                waiter.set_exception(error)
            else:
                waiter.set_result(answer)

        task = asyncio.ensure_future(call())
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return True

    def read(self, outcome: Any, _request: InferenceRequest, _took_s: float) -> InferenceAnswer:
        """Return or raise what came."""
        if isinstance(outcome, Exception):
            raise outcome
        assert isinstance(outcome, InferenceAnswer)
        return outcome


class Bench:
    """See the module; make it inside the running loop.

    Attributes:
        is_straight: whether events go without a task where they can; conftest.py has every test run both ways.
        crashes: what would have ended the worker.
    """

    is_straight = False

    def __init__(
        self,
        script: Iterable[dict[str, Any]] = (),
        settings: Settings | None = None,
        *,
        in_flight: int = 16,
        provider: Provider | None = None,
        limits: ProducerSettings | None = None,
    ) -> None:
        self.fake = Fake(FakeProvider(kind="fake", script=tuple(script)))
        self.producer = MemoryProducer(limits)
        self.cancels = Cancels()
        self.pipeline = Pipeline(
            settings or make_settings(),
            {"p": WithoutTask(provider or self.fake) if self.is_straight else provider or self.fake},
            Settler(self.producer, TOPICS, APP_ID),
            Deltas(self.producer, TOPICS.deltas, APP_ID, clock=lambda: now_at().timestamp()),
            self.cancels,
        )
        self.crashes: list[BaseException] = []
        self.engine = Engine(
            self.pipeline,
            Limits(in_flight, 1000, 1000, 10**8, 10_000),
            ("standard", RETRY_LANE),
            self.crashes.append,
            self.pipeline.calls.keep,
            self.pipeline.calls.drop,
            self.pipeline.replay,
            self.pipeline.prepare,
            straight=self.pipeline.straight,
        )
        self.tenure = Tenure(1)
        self._offsets = itertools.count()
        self._retry_offsets = itertools.count()

    async def start(self) -> "Bench":
        """Open producer and intake."""
        await self.producer.start()
        self.engine.prepare(self.tenure)
        self.engine.begin(self.tenure, {TP(topic, PARTITION): Ledger(0) for topic in (EVENTS, TOPICS.retries)})
        return self

    async def put(
        self, key: bytes | None, value: bytes | None, headers: Headers, *, timestamp_ms: int | None = None
    ) -> Position:
        """Deliver one record."""
        stamp_ms = int(now_at().timestamp() * 1000) if timestamp_ms is None else timestamp_ms
        position = Position(EVENTS, PARTITION, next(self._offsets), stamp_ms)
        assert await self.engine.submit(self.pipeline.item(position, key, value, headers, "standard"), 1)
        return position

    async def send(self, *events: Event, timestamp_ms: int | None = None) -> None:
        """Deliver events."""
        for one in events:
            await self.put(one.key, one.data, encode_event(one), timestamp_ms=timestamp_ms)

    async def take_up(self, *records: Record) -> None:
        """Deliver records of the retry topic."""
        for record in records:
            stamp_ms = int(now_at().timestamp() * 1000)
            position = Position(TOPICS.retries, PARTITION, next(self._retry_offsets), stamp_ms)
            item = self.pipeline.item(position, record.key, record.value, record.headers, RETRY_LANE)
            assert await self.engine.submit(item, 1)

    async def idle(self, within_s: float = 7200) -> None:
        """Return when every event has ended."""
        async with asyncio.timeout(within_s):
            await settled(5)
            while self.engine._dispatcher.running and not self.crashes:
                if tasks := self.engine._dispatcher.tasks:
                    await asyncio.wait(list(tasks.values()), return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(0.01)
                # What a free slot or an ended chain lets start, starts in the loop's next turn.
                await settled(5)

    async def run(self, *events: Event) -> "Bench":
        """Start, deliver, wait for the ends."""
        await self.start()
        await self.send(*events)
        await self.idle()
        return self

    def on(self, topic: str) -> list[Record]:
        """Return the records of a topic."""
        return [record for record in self.producer.records if record.topic == topic]

    @property
    def terminals(self) -> list[Record]:
        """Return the terminal records."""
        return self.on(TOPICS.results)

    @property
    def letters(self) -> list[Record]:
        """Return the dead letters."""
        return self.on(TOPICS.dead_letters)

    @property
    def parked(self) -> list[Record]:
        """Return the records of the retry topic."""
        return self.on(TOPICS.retries)

    @property
    def committed(self) -> int:
        """Return the commit point."""
        return self.engine.commits()[TP(EVENTS, PARTITION)][0]

    def result(self) -> InferenceResult:
        """Return the only terminal record, a result."""
        (record,) = self.terminals
        return decode_json(record.value or b"", InferenceResult)

    def marker(self) -> OutcomeMarker:
        """Return the only terminal record, a marker."""
        (record,) = self.terminals
        return decode_json(record.value or b"", OutcomeMarker)


def headers_of(record: Record) -> dict[str, bytes]:
    """Return a record's headers; the last wins."""
    return {name: raw or b"" for name, raw in record.headers}


def ids_of(records: Iterable[Record]) -> list[str]:
    """Return the ids of the events that terminal records are about."""
    return [json.loads(record.value or b"")["event_id"] for record in records]
