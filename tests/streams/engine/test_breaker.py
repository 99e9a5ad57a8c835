"""The breaker of a route: a fault of the route pauses it, poison among good events does not."""

import asyncio

from streams.engine.breaker import REASON, Breaker
from streams.engine.gate import Gate, Pass
from streams.engine.window import SlidingCounts


def make_breaker(ratio: float | None = 0.5, min_events: int = 20) -> Breaker:
    gate = Gate(lambda _reason: None)
    return Breaker(gate, SlidingCounts(60, asyncio.get_running_loop().time), ratio, min_events)


def ticket(breaker: Breaker) -> Pass:
    found = breaker.gate.ticket()
    assert found is not None
    return found


def feed(breaker: Breaker, ends: str) -> str:
    """Let events end: `.` answered, `x` a dead letter; return what was buried, `x`, or kept back, `h`."""
    buried = ""
    before = ticket(breaker)
    for end in ends:
        if end == ".":
            breaker.answered(before)
        else:
            buried += "x" if breaker.may_bury(before) else "h"
    return buried


async def test_a_route_whose_every_event_fails_is_paused_and_keeps_the_rest_back() -> None:
    breaker = make_breaker()

    assert feed(breaker, "x" * 30) == "x" * 19 + "h" * 11
    assert breaker.gate.reason == REASON


async def test_one_poison_event_in_five_pauses_nothing() -> None:
    breaker = make_breaker()

    assert feed(breaker, "....x" * 100) == "x" * 100
    assert breaker.gate.reason is None


async def test_it_judges_only_what_is_in_the_window() -> None:
    breaker = make_breaker()
    feed(breaker, "." * 1000)
    await asyncio.sleep(61)

    assert feed(breaker, "x" * 20) == "x" * 19 + "h"


async def test_a_probe_that_fails_is_buried_and_the_route_stays_paused() -> None:
    breaker = make_breaker()
    feed(breaker, "x" * 20)
    probe = await breaker.gate.enter(10)

    assert probe is not None
    assert (breaker.may_bury(probe), breaker.gate.reason) == (True, REASON)


async def test_a_probe_that_succeeds_opens_the_route_with_a_clean_record() -> None:
    breaker = make_breaker()
    feed(breaker, "x" * 20)
    probe = await breaker.gate.enter(10)
    assert probe is not None
    breaker.answered(probe)

    assert (breaker.gate.reason, feed(breaker, "x" * 18)) == (None, "x" * 18)


async def test_quick_refusals_among_many_slow_calls_pause_nothing_once_something_is_answered() -> None:
    """One event in five is poison, refused at once; the others, 256 at a time, are still being answered."""
    breaker = make_breaker()
    feed(breaker, ".")
    breaker.calling = 256

    assert feed(breaker, "x" * 64) == "x" * 64
    assert breaker.gate.reason is None


async def test_calls_under_way_put_nothing_off_where_nothing_is_ever_answered() -> None:
    breaker = make_breaker()
    breaker.calling = 256

    assert feed(breaker, "x" * 30) == "x" * 19 + "h" * 11


async def test_answers_to_what_was_under_way_open_a_route_that_quick_refusals_have_paused() -> None:
    """At a start nothing is answered yet when the first refusals are there; probes would meet the refused first."""
    breaker = make_breaker()
    under_way = ticket(breaker)
    breaker.calling = 256
    feed(breaker, "x" * 25)
    assert breaker.gate.reason == REASON
    waiting = asyncio.ensure_future(breaker.gate.enter(10))

    reasons = []
    for _ in range(20):
        breaker.calling -= 1
        breaker.answered(under_way)
        reasons.append(breaker.gate.reason)

    assert reasons == [REASON] * 19 + [None]
    assert await waiting is ticket(breaker)


async def test_answers_to_what_was_under_way_do_not_open_a_route_whose_model_is_away() -> None:
    breaker = make_breaker()
    before = ticket(breaker)
    breaker.gate.failed("unauthenticated", before, is_fault=True)
    for _ in range(100):
        breaker.answered(before)

    assert breaker.gate.reason == "unauthenticated"


async def test_without_a_limit_everything_is_buried() -> None:
    assert feed(make_breaker(ratio=None), "x" * 100) == "x" * 100
