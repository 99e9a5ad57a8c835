"""Copies of outcomes for whoever waits."""

import asyncio

from contracts.envelope import Event
from contracts.errors import LogUnavailable
from contracts.metrics import REGISTRY
from producers.memory import MemoryProducer
from streams.replies import Replies
from tests.streams.pipeline.support import TOPICS, Bench, event, headers_of, make_settings

ADDRESS = "3." + "0a" * 16


def failed() -> float:
    """Return how many copies have failed so far."""
    return REGISTRY.get_sample_value("penstock_replies_total", {"outcome": "failed"}) or 0.0


async def run(bench: Bench, one: Event) -> None:
    await bench.run(one)
    await asyncio.sleep(0)


async def test_the_outcome_is_copied_where_the_event_says_after_it_is_on_the_result_topic() -> None:
    bench = Bench()
    await run(bench, event(extensions={"partitionkey": "k", "replyto": ADDRESS}))
    terminal, copy = bench.producer.records

    assert (terminal.topic, copy.topic, copy.partition) == (TOPICS.results, TOPICS.replies, 3)
    assert copy.value == terminal.value
    assert headers_of(copy) == headers_of(terminal) | {"ce_replyto": ADDRESS.encode()}
    assert "ce_replyto" not in headers_of(terminal)


async def test_bad_ends_are_copied_too() -> None:
    bench = Bench(settings=make_settings({"match": {"type": "other"}}))
    await run(bench, event(extensions={"replyto": ADDRESS}))

    assert [record.topic for record in bench.producer.records] == [
        TOPICS.dead_letters,
        TOPICS.results,
        TOPICS.replies,
    ]


async def test_an_outcome_that_is_not_confirmed_is_not_copied() -> None:
    bench = Bench()
    bench.producer.fail_next(LogUnavailable("no ack"))
    await run(bench, event(extensions={"replyto": ADDRESS}))

    assert bench.on(TOPICS.replies) == []


async def test_a_copy_that_fails_ends_nothing() -> None:
    bench = Bench()
    bench.producer = MemoryProducer(partitions=3)
    bench.pipeline._settler._replies = Replies(bench.producer, TOPICS.replies)
    bench.pipeline._settler._producer = bench.producer
    before = failed()
    await run(bench, event(extensions={"replyto": ADDRESS}))

    assert (bench.crashes, bench.committed, failed() - before) == ([], 1, 1)
    assert [record.topic for record in bench.producer.records] == [TOPICS.results]


async def test_copies_leave_a_full_buffer_to_the_outcomes() -> None:
    bench = Bench()
    bench.producer.set_full()
    await run(bench, event(extensions={"replyto": ADDRESS}))

    assert [record.topic for record in bench.producer.records] == [TOPICS.results]


async def test_an_event_without_a_good_address_gets_no_copy() -> None:
    for text in (None, "", "x", "-1." + "0a" * 16, "3." + "0A" * 16, "3", "9999999." + "0a" * 16):
        bench = Bench()
        await run(bench, event(extensions={} if text is None else {"replyto": text}))

        assert (bench.crashes, bench.committed) == ([], 1)
        assert [record.topic for record in bench.producer.records] == [TOPICS.results]
