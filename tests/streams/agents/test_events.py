"""The agent of an event topic."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import faust
from faust.types import TP

from contracts.codec import Position
from streams.agents import events
from streams.fetching import Bundle


class Stream:
    """Hands out records like Faust's, without acking them."""

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages
        self.is_noack = False

    def noack(self) -> "Stream":
        self.is_noack = True
        return self

    async def events(self) -> Any:
        for message in self._messages:
            yield SimpleNamespace(message=message)


class Engine:
    """Notes what is submitted."""

    def __init__(self) -> None:
        self.taken: list[tuple[Any, int]] = []

    async def submit_all(self, items: list[Any], generation: int) -> None:
        self.taken.extend((item, generation) for item in items)


@dataclass(eq=False)
class Record:
    """A record as aiokafka has it."""

    offset: int
    headers: Any = ()
    topic: str = "t"
    partition: int = 1
    timestamp: int | None = 1500
    key: bytes = b"k"
    value: bytes = b"v"


def bundle(*records: Record) -> Bundle:
    return Bundle(TP("t", 1), records, 7)


def taken_by(app: faust.App, stream: Stream) -> list[tuple[Any, int]]:
    """Run the agent that `register` makes over a stream."""
    engine = Engine()
    pipeline = SimpleNamespace(item=lambda *record: record)
    agents: list[Any] = []
    app.agent = lambda *_args, **_kwargs: agents.append  # type: ignore[assignment, method-assign]
    events.register(app, "t", "standard", cast("Any", engine), cast("Any", pipeline))
    asyncio.run(agents[0](stream))
    return engine.taken


def make_app() -> faust.App:
    app = faust.App("agent-test", autodiscover=False, web_enabled=False)
    app.consumer = cast("Any", SimpleNamespace(unacked=set()))
    return app


def test_every_record_of_a_bundle_is_handed_over_raw_in_order_with_its_generation() -> None:
    headers = (("a", b"1"), ("a", b"2"))

    assert taken_by(make_app(), Stream([bundle(Record(4, headers), Record(6)), bundle(Record(7))])) == [
        ((Position("t", 1, 4, 1500), b"k", b"v", headers, "standard"), 7),
        ((Position("t", 1, 6, 1500), b"k", b"v", (), "standard"), 7),
        ((Position("t", 1, 7, 1500), b"k", b"v", (), "standard"), 7),
    ]


def test_a_record_without_a_timestamp_has_minus_one() -> None:
    (((position, *_), _),) = taken_by(make_app(), Stream([bundle(Record(4, timestamp=None))]))

    assert position.timestamp_ms == -1


def test_nothing_is_acked_and_faust_keeps_account_of_nothing() -> None:
    app, message = make_app(), bundle(Record(4))
    cast("Any", app.consumer).unacked.add(message)
    stream = Stream([message])
    taken_by(app, stream)

    assert (stream.is_noack, app.consumer.unacked) == (True, set())
