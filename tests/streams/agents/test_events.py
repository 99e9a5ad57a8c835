"""The agent of an event topic."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import faust
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import Position
from streams.agents import events
from streams.agents.events import _ms


@given(st.integers(0, 4_102_444_800_000))
def test_the_milliseconds_of_a_record_survive_faust(timestamp_ms: int) -> None:
    """Pay-once compares them: one that is off by one would pay again, or skip another event."""
    assert _ms(timestamp_ms / 1000.0) == timestamp_ms


@pytest.mark.parametrize("timestamp_s", [None, float("nan")])
def test_a_record_without_a_timestamp_has_minus_one(timestamp_s: float | None) -> None:
    assert _ms(timestamp_s) == -1


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

    async def submit(self, item: Any, generation: int) -> bool:
        self.taken.append((item, generation))
        return True


@dataclass(eq=False)
class Message:
    """A record as Faust has it."""

    offset: int
    headers: Any = None
    topic: str = "t"
    partition: int = 1
    timestamp: float = 1.5
    generation_id: int = 7
    key: bytes = b"k"
    value: bytes = b"v"


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


def test_every_record_is_handed_over_raw_with_its_generation() -> None:
    headers = [("a", b"1"), ("a", b"2")]

    assert taken_by(make_app(), Stream([Message(4, headers)])) == [
        ((Position("t", 1, 4, 1500), b"k", b"v", headers, "standard"), 7),
    ]


def test_a_record_without_headers_is_handed_over_too() -> None:
    (((_, _, _, headers, _), _),) = taken_by(make_app(), Stream([Message(4)]))

    assert headers == []


def test_nothing_is_acked_and_faust_keeps_account_of_nothing() -> None:
    app, message = make_app(), Message(4)
    cast("Any", app.consumer).unacked.add(message)
    stream = Stream([message])
    taken_by(app, stream)

    assert (stream.is_noack, app.consumer.unacked) == (True, set())
