"""When records are refused because none is confirmed, and above all when they are not."""

import asyncio
import contextlib
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.codec import Record
from contracts.errors import LogUnavailable, TooLarge
from contracts.metrics import REGISTRY
from contracts.settings import ProducerSettings
from producers.window import Waiting, Window
from tests.support import FakeClock

AFTER_S = 8.0
TICK_S = 0.5


class Lab:
    """A producer's window, and a clock that ticks as a producer does."""

    def __init__(self, linger_s: float = 0.0) -> None:
        self.clock = FakeClock()
        self.window = Window(ProducerSettings(linger_s=linger_s), AFTER_S, self.clock)

    def admit(self, topic: str = "a") -> Waiting:
        return self.window.admit(Record(topic, b"k", b"v", []), asyncio.get_running_loop().create_future())

    def confirm(self, waiting: Waiting) -> None:
        waiting.confirm(0, 0, 0)

    def fail(self, waiting: Waiting, error: type[LogUnavailable | TooLarge] = LogUnavailable) -> None:
        waiting.fail(error("no ack"))
        assert isinstance(cast("asyncio.Future[Any]", waiting.future).exception(), error)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_S)):
            self.clock.advance(TICK_S)
            self.window.stalls.look()

    def is_refused(self, topic: str = "a") -> bool:
        """Tell whether a record is refused; one that is not is left waiting."""
        held_bytes = self.window.buffered_bytes
        with contextlib.suppress(LogUnavailable):
            self.admit(topic)
        return self.window.buffered_bytes == held_bytes

    def stall(self) -> Waiting:
        waiting = self.admit()
        self.run(AFTER_S)
        return waiting


@pytest.fixture
async def lab() -> Lab:
    return Lab()


async def test_records_are_refused_once_none_was_confirmed_for_as_long_as_one_may_wait(lab: Lab) -> None:
    lab.admit()
    lab.run(AFTER_S - TICK_S)
    assert not lab.is_refused()

    lab.run(TICK_S)

    assert lab.is_refused()
    assert lab.window.stalls.is_stalled


async def test_one_record_in_a_second_is_tried_and_the_first_ack_opens_again(lab: Lab) -> None:
    probe = lab.stall()
    for _ in range(3):
        assert lab.is_refused()
        lab.run(1)
        probe = lab.admit()
        assert lab.is_refused()

    lab.confirm(probe)

    assert not lab.is_refused()
    assert not lab.window.stalls.is_stalled


async def test_what_was_let_in_before_is_waited_for_and_opens_as_well(lab: Lab) -> None:
    first = lab.stall()
    assert not first.future.done()

    lab.confirm(first)

    assert cast("asyncio.Future[Any]", first.future).result().offset == 0
    assert not lab.is_refused()


async def test_acks_that_come_slowly_close_nothing(lab: Lab) -> None:
    waiting = [lab.admit(), lab.admit()]
    for _ in range(20):
        lab.run(AFTER_S - TICK_S)
        lab.confirm(waiting.pop(0))
        waiting.append(lab.admit())

    assert not lab.is_refused()


async def test_a_sender_that_comes_again_after_each_failure_is_noticed(lab: Lab) -> None:
    """Alone it never has a record waiting for longer than the client itself gives it."""
    for _ in range(2):
        waiting = lab.admit()
        lab.run(AFTER_S - 1)
        lab.fail(waiting)
        lab.run(1)

    lab.admit()

    assert lab.is_refused()


async def test_a_failure_long_ago_makes_no_stall_of_the_next_records_usual_wait(lab: Lab) -> None:
    waiting = lab.admit()
    lab.run(AFTER_S - TICK_S)
    lab.fail(waiting)
    lab.run(AFTER_S)

    lab.admit()
    lab.run(AFTER_S - TICK_S)

    assert not lab.is_refused()


async def test_while_nothing_is_tried_it_opens_by_itself(lab: Lab) -> None:
    """A balancer sends nothing to who is not ready: there would be no probe for ever."""
    lab.fail(lab.stall())

    lab.run(AFTER_S)

    assert not lab.window.stalls.is_stalled
    assert not lab.is_refused()


async def test_a_process_that_was_frozen_is_no_stall(lab: Lab) -> None:
    lab.admit()
    lab.clock.advance(1000)
    lab.window.stalls.look()

    assert not lab.is_refused()


async def test_a_record_that_comes_after_a_pause_has_not_waited_through_it(lab: Lab) -> None:
    lab.run(1)
    lab.clock.advance(AFTER_S)
    lab.admit()
    lab.window.stalls.look()

    assert not lab.is_refused()


async def test_one_topic_that_stalls_closes_no_other(lab: Lab) -> None:
    lab.admit("a")
    for _ in range(8):
        lab.confirm(lab.admit("b"))
        lab.run(1)

    assert lab.is_refused("a")
    assert not lab.is_refused("b")
    # Others get through: no reason to send this process no traffic.
    assert not lab.window.stalls.is_stalled


async def test_a_broker_that_finds_records_too_large_is_there(lab: Lab) -> None:
    waiting = lab.admit()
    for _ in range(20):
        following = lab.admit()
        lab.run(1)
        lab.fail(waiting, TooLarge)
        waiting = following

    assert not lab.is_refused()


async def test_by_default_nothing_is_ever_refused() -> None:
    window, clock = Window(ProducerSettings()), FakeClock()
    window.clock = clock
    for _ in range(100):
        window.admit(Record("a", b"k", b"v", []), asyncio.get_running_loop().create_future())
        clock.advance(100)
        window.stalls.look()

    assert len(window) == 100


async def test_closing_and_opening_are_told_once_each(lab: Lab) -> None:
    def metric(name: str) -> float | None:
        return REGISTRY.get_sample_value(f"penstock_producer_{name}", {"topic": "told"})

    with capture_logs() as lines:
        probe = lab.admit("told")
        lab.run(2 * AFTER_S)
        assert (metric("stalled"), metric("stalled_refused_total")) == (1, None)
        lab.admit("told")
        assert lab.is_refused("told")
        assert lab.is_refused("told")
        lab.confirm(probe)
        lab.run(AFTER_S - TICK_S)

    assert (metric("stalled"), metric("stalled_refused_total")) == (0, 2)
    assert [(line["event"], line["log_level"], line["topic"]) for line in lines] == [
        ("producer.stalled", "warning", "told"),
        ("producer.flows_again", "info", "told"),
    ]
    assert (lines[0]["waiting"], lines[1]["refused"]) == (1, 2)


async def test_a_place_is_silent_where_a_record_waits_and_none_of_its_topic_is_confirmed(lab: Lab) -> None:
    def admit(topic: str, partition: int) -> Waiting:
        future = asyncio.get_running_loop().create_future()
        return lab.window.admit(Record(topic, b"k", b"v", [], partition), future)

    old, other = admit("a", 0), admit("b", 0)
    lab.run(TICK_S)
    young = admit("a", 1)
    assert lab.window.silent(2 * TICK_S) == frozenset()
    lab.confirm(other)
    lab.run(TICK_S)
    # Not the partition whose record has just been handed over: how it fares there is not known yet.
    assert lab.window.silent(2 * TICK_S) == {("a", 0)}

    lab.confirm(young)
    assert lab.window.silent(2 * TICK_S) == frozenset()
    lab.run(2 * TICK_S)
    assert lab.window.silent(2 * TICK_S) == {("a", 0)}
    lab.confirm(old)
    assert lab.window.silent(2 * TICK_S) == frozenset()


async def test_what_passed_before_an_ack_is_no_silence_however_late_the_loop_is(lab: Lab) -> None:
    first, _second = lab.admit(), lab.admit()
    lab.clock.advance(TICK_S)
    lab.confirm(first)
    lab.window.stalls.look()
    assert lab.window.silent(TICK_S) == frozenset()

    lab.run(TICK_S)
    assert lab.window.silent(TICK_S) == {("a", None)}


async def test_a_record_that_waits_for_company_in_the_client_makes_no_silence() -> None:
    lab = Lab(linger_s=TICK_S)
    lab.admit()
    lab.run(TICK_S)
    assert lab.window.silent(TICK_S) == frozenset()

    lab.run(TICK_S)
    assert lab.window.silent(TICK_S) == {("a", None)}
