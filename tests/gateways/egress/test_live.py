"""How what is read live and what is looked up on the log become one stream, and what bounds it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from contracts.codec import Position, encode_json
from contracts.envelope import result_id
from contracts.errors import Busy, LogUnavailable
from contracts.payloads import RESULT_TYPE, Delta
from contracts.settings.streams import StreamSettings
from gateways.egress import live as module
from gateways.egress.catch_up import CaughtUp, Place, take
from gateways.egress.deltas_tail import Arrival
from gateways.egress.feed import Feed, Seen
from gateways.egress.frames import Frame
from gateways.egress.live import Live
from gateways.egress.outcomes import Outcome
from gateways.egress.tickets import Ticket
from tests.support import eventually_async, no_threads

TICKET = Ticket("s", "e1", Position("t.events.interactive.v1", 1, 7, 1_000))
ID = result_id("s", "e1")
OTHER_ID = result_id("s", "e2")
LookUp = Callable[[Place, Feed], CaughtUp]


def value(number: int, text: str, epoch: int = 5) -> bytes:
    return encode_json(Delta(event_id="e1", epoch=epoch, sequence=number, text=text))


def reaching(offset: int, *values: bytes, is_complete: bool = True) -> LookUp:
    """Return a look-up that finds these deltas."""

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        for one in values:
            take(feed, one)
        return CaughtUp(offset, is_complete)

    return look_up


class Log:
    """A live view whose tail and look-ups are ours.

    Attributes:
        look_up: what the next look-ups do.
        looked: where they began.
        found: how often an outcome was found.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.outcome: Outcome | None = None
        self.looked: list[int | None] = []
        self.found = 0
        self.look_up: LookUp = reaching(0)
        monkeypatch.setattr(module, "catch_up", self._catch_up)
        values = {"heartbeat_s": 30, **settings}
        self.live = Live({}, "t.deltas.v1", StreamSettings.model_validate(values), self._outcome)
        self.live._loop = asyncio.get_running_loop()
        self.live._tail._followed = frozenset({0, 1})

    def _catch_up(self, _config: Any, _topic: str, place: Place, feed: Feed, *_: Any) -> CaughtUp:
        self.looked.append(place.from_offset)
        return self.look_up(place, feed)

    async def _outcome(self, *_: Any) -> Outcome | None:
        self.found += self.outcome is not None
        return self.outcome

    def arrive(self, offset: int, raw: bytes) -> None:
        self.live._take([Arrival(ID, offset, raw)])

    def finish(self) -> None:
        self.outcome = Outcome(ID, "e1", "s", "", RESULT_TYPE, b"{}", 0)
        self.live.note_outcome(self.outcome)

    async def all(self, seen: Seen = Seen(), *, is_new: bool = False) -> list[str]:  # noqa: B008 - immutable
        with self.live.watching(ID, "sse", is_new=is_new) as entry:
            return [_brief(frame) async for batch in self.live.frames(entry, TICKET, seen) for frame in batch]


def _brief(frame: Frame) -> str:
    return f"{frame['type']} {frame.get('text', '')}".strip()


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., Log]]:
    made: list[Log] = []

    def log(**settings: Any) -> Log:
        made.append(Log(monkeypatch, **settings))
        return made[-1]

    yield log
    for one in made:
        one.live._executor.shutdown()


async def test_what_arrives_during_a_look_up_is_joined_to_it_without_gap_or_repeat(make: Callable[..., Log]) -> None:
    log = make()
    loop = asyncio.get_running_loop()

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        for number in (1, 2, 3):
            take(feed, value(number, str(number)))
        # The tail is a little behind: it brings 2 and 3 once more, and what comes after.
        for offset, number in ((11, 2), (12, 3), (13, 4)):
            loop.call_soon_threadsafe(log.arrive, offset, value(number, str(number)))
        loop.call_soon_threadsafe(log.finish)
        return CaughtUp(13, is_complete=True)

    log.look_up = look_up

    assert await log.all() == ["delta 1", "delta 2", "delta 3", "delta 4", "result"]


async def test_a_look_up_that_does_not_reach_the_end_in_time_goes_on_where_it_was(make: Callable[..., Log]) -> None:
    log = make()

    def look_up(place: Place, feed: Feed) -> CaughtUp:
        at = place.from_offset or 0
        take(feed, value(at + 1, str(at + 1)))
        return CaughtUp(at + 1, is_complete=at == 2)

    log.look_up = look_up
    log.finish()

    assert await log.all() == ["delta 1", "delta 2", "delta 3", "result"]
    assert log.looked == [None, 1, 2]


async def test_a_log_that_is_too_long_to_look_through_leaves_the_result(make: Callable[..., Log]) -> None:
    log = make()
    log.look_up = reaching(1, value(1, "a"), is_complete=False)
    log.finish()

    assert await log.all() == ["result"]


async def test_a_look_up_that_fails_is_made_again(make: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    log = make()
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    failures = [LogUnavailable("away"), LogUnavailable("away")]

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        if failures:
            raise failures.pop()
        take(feed, value(1, "a"))
        return CaughtUp(1, is_complete=True)

    log.look_up = look_up
    log.finish()

    assert await log.all() == ["delta a", "result"]


async def test_an_event_that_is_new_here_needs_no_look_up_as_long_as_the_topic_is_followed(
    make: Callable[..., Log],
) -> None:
    log = make()
    log.finish()
    assert (await log.all(is_new=True), log.looked) == (["result"], [])
    log.live._forget_idle(everything=True)
    log.live._tail._followed = frozenset()

    await log.all(is_new=True)

    assert log.looked == [None]


async def test_watchers_of_one_event_share_a_look_up_and_who_comes_back_soon_needs_none(
    make: Callable[..., Log],
) -> None:
    log = make()
    log.look_up = reaching(1, value(1, "a"))
    log.finish()
    first, second = await asyncio.gather(log.all(), log.all())
    third = await log.all(Seen(5, 1))

    assert (first, second, third) == (["delta a", "result"], ["delta a", "result"], ["result"])
    assert log.looked == [None]


async def test_after_a_gap_in_the_tail_everything_is_looked_up_again(make: Callable[..., Log]) -> None:
    log = make()
    watching = asyncio.ensure_future(log.all(is_new=True))
    await eventually_async(lambda: ID in log.live._entries)
    log.arrive(10, value(1, "1"))
    log.look_up = reaching(13, value(1, "1"), value(2, "2"), value(3, "3"))

    log.live._begin_anew()
    log.finish()

    assert await watching == ["delta 1", "delta 2", "delta 3", "result"]


async def test_a_look_up_that_ends_before_the_tail_begins_is_made_again(make: Callable[..., Log]) -> None:
    log = make()
    loop = asyncio.get_running_loop()
    is_first = True

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        nonlocal is_first
        for number in (1,) if is_first else (1, 2):
            take(feed, value(number, str(number)))
        if is_first:
            loop.call_soon_threadsafe(log.live._begin_anew)
        is_first = False
        return CaughtUp(9, is_complete=True)

    log.look_up = look_up
    log.finish()

    assert await log.all() == ["delta 1", "delta 2", "result"]


async def test_text_is_held_within_its_bound(make: Callable[..., Log]) -> None:
    log = make(max_buffered_bytes=2**20, max_answer_bytes=900_000)
    with log.live.watching(ID, "sse", is_new=True), log.live.watching(OTHER_ID, "sse", is_new=True):
        for number in range(1, 9):
            log.arrive(number, value(number, "x" * 100_000))
            log.live._take([Arrival(OTHER_ID, number, value(number, "x" * 100_000))])
        entries = log.live._entries

        assert log.live._size_chars <= 2**20
        assert [entry.feed.is_stopped for entry in entries.values()] == [False, True]
    log.live._forget_idle(everything=True)
    assert (log.live._size_chars, len(log.live._entries)) == (0, 0)


async def test_what_waits_for_a_look_up_is_held_within_the_bound_too(make: Callable[..., Log]) -> None:
    log = make(max_buffered_bytes=2**20)
    goes_on = threading.Event()

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        assert goes_on.wait(10)
        take(feed, value(1, "1"))
        return CaughtUp(1, is_complete=True)

    log.look_up = look_up
    watching = asyncio.ensure_future(log.all())
    await eventually_async(lambda: log.looked)
    sizes = []
    for number in range(2, 20):
        log.arrive(number, value(number, "x" * 100_000))
        sizes.append((log.live._size_chars, sum(len(one.value or b"") for one in log.live._entries[ID].held or ())))
    log.finish()
    goes_on.set()

    # What there was no room for is missing: the result alone tells.
    assert await watching == ["result"]
    assert sizes[0][0] > 100_000
    assert all(counted == held <= 2**20 for counted, held in sizes)
    log.live._forget_idle(everything=True)
    assert log.live._size_chars == 0


async def test_a_look_up_for_an_event_that_was_forgotten_meanwhile_counts_nothing(make: Callable[..., Log]) -> None:
    log = make()
    goes_on = threading.Event()

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        assert goes_on.wait(10)
        take(feed, value(1, "1"))
        return CaughtUp(1, is_complete=True)

    log.look_up = look_up
    watching = asyncio.ensure_future(log.all())
    await eventually_async(lambda: log.looked)
    looking = log.live._entries[ID].catching_up
    watching.cancel()
    await asyncio.wait([watching])
    log.live._forget_idle(everything=True)
    goes_on.set()
    assert looking is not None
    await looking

    assert log.live._size_chars == 0


async def test_places_are_bounded_and_given_back(make: Callable[..., Log]) -> None:
    log = make(max_watchers=1)
    with log.live.watching(ID, "sse"), pytest.raises(Busy), log.live.watching(OTHER_ID, "sse"):
        pass

    with log.live.watching(OTHER_ID, "sse"):
        pass


async def test_a_result_waits_a_moment_for_the_deltas_that_are_still_under_way(make: Callable[..., Log]) -> None:
    log = make()
    watching = asyncio.ensure_future(log.all(is_new=True))
    await eventually_async(lambda: ID in log.live._entries)
    log.arrive(1, value(1, "a"))
    log.finish()
    await eventually_async(lambda: log.found)
    log.arrive(2, encode_json(Delta(event_id="e1", epoch=5, sequence=2, text="b", is_final=True, ending="succeeded")))

    assert await watching == ["delta a", "delta b", "result"]


async def test_while_a_look_up_takes_long_there_are_signs_of_life(make: Callable[..., Log]) -> None:
    log = make(heartbeat_s=0.05)
    goes_on = threading.Event()

    def look_up(_place: Place, feed: Feed) -> CaughtUp:
        assert goes_on.wait(10)
        take(feed, value(1, "a"))
        return CaughtUp(1, is_complete=True)

    log.look_up = look_up
    try:
        with log.live.watching(ID, "sse") as entry:
            frames = log.live.frames(entry, TICKET, Seen())
            async with asyncio.timeout(5):
                assert [await anext(frames), await anext(frames)] == [[], []]
                goes_on.set()
                batches = (batch async for batch in frames if batch)
                assert [_brief(frame) for frame in await anext(batches)] == ["delta a"]
            await frames.aclose()  # type: ignore[attr-defined]
    finally:
        goes_on.set()

    assert log.looked == [None]


async def test_who_waits_for_a_log_that_is_away_is_let_go_at_the_end(make: Callable[..., Log]) -> None:
    log = make()

    def look_up(_place: Place, _feed: Feed) -> CaughtUp:
        message = "away"
        raise LogUnavailable(message)

    log.look_up = look_up
    watching = asyncio.ensure_future(log.all())
    await eventually_async(lambda: log.looked)
    log.live.end()
    async with asyncio.timeout(0.8 * module._RETRY_S):
        assert await watching == []


async def test_a_look_up_that_finds_no_thread_is_made_again(
    make: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.01)
    log = make()
    log.look_up = reaching(1, value(1, "1"))
    log.finish()
    with no_threads(), capture_logs() as lines:
        watching = asyncio.ensure_future(log.all())
        await eventually_async(lambda: lines)

    assert await watching == ["delta 1", "result"]
    assert {line["event"] for line in lines} == {"deltas.catch_up_failed"}
