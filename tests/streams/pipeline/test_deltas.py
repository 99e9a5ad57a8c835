"""Deltas of one attempt: numbers without gaps, growing chunks, and nothing that holds up or fails the event."""

import asyncio
from datetime import UTC, datetime

import pytest

from contracts.codec import Headers, Position
from contracts.deltas import delta_id, read_delta
from contracts.envelope import result_id
from contracts.errors import LogUnavailable
from contracts.payloads import Delta
from contracts.settings import RouteSettings
from producers.memory import MemoryProducer
from streams import deltas
from streams.deltas import Deltas, Preview
from streams.engine.tenure import Tenure
from streams.job import Job, make_job
from streams.steps.route import Router

ROUTE = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m"})
CE: Headers = [
    ("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"s"), ("ce_type", b"t"), ("ce_delivery", b"stream"),
]  # fmt: skip
AT = Position("t.events.interactive.v1", 2, 7, int(datetime.now(UTC).timestamp() * 1000))


class Bench:
    """One event's previews over memory."""

    def __init__(self) -> None:
        self.producer = MemoryProducer()
        self.tenure = Tenure(1)
        self.deltas = Deltas(self.producer, "t.deltas.v1", "app")
        self.job: Job = make_job(AT, b"k", b"{}", CE, Router((ROUTE,)))

    async def begin(self) -> Preview:
        await self.producer.start()
        return self.deltas.begin(self.job, AT, self.tenure)

    @property
    def written(self) -> list[Delta]:
        return [read_delta(record.value) for record in self.producer.records]


async def test_the_first_piece_goes_at_once_and_later_ones_in_growing_chunks() -> None:
    bench = Bench()
    preview = await bench.begin()

    for number in range(80):
        preview.add(f"{number} ")
        await asyncio.sleep(0)
    preview.end("succeeded")
    await preview.settled()

    sizes = [delta.text.count(" ") for delta in bench.written]
    assert sizes == [1, 2, 4, 8, 16, 20, 20, 9]
    assert [delta.sequence for delta in bench.written] == list(range(1, 9))
    assert "".join(delta.text for delta in bench.written) == "".join(f"{number} " for number in range(80))
    assert [delta.ending for delta in bench.written] == [None] * 7 + ["succeeded"]


async def test_a_slow_models_pieces_wait_for_company_only_so_long() -> None:
    bench = Bench()
    preview = await bench.begin()
    preview.add("a")
    preview.add("b")
    await asyncio.sleep(deltas.MAX_WAIT_S / 2)
    assert [delta.text for delta in bench.written] == ["a"]

    await asyncio.sleep(deltas.MAX_WAIT_S)

    assert [delta.text for delta in bench.written] == ["a", "b"]


async def test_a_delta_lies_beside_its_event_under_the_id_of_the_outcome_to_come() -> None:
    bench = Bench()
    (await bench.begin()).end("succeeded")
    await asyncio.sleep(0)
    (record,) = bench.producer.records

    assert (record.topic, record.partition, record.key) == ("t.deltas.v1", AT.partition, b"k")
    assert delta_id(record.headers) == result_id("s", "e1")


async def test_the_next_attempt_ends_the_one_before_and_has_a_larger_epoch() -> None:
    bench = Bench()
    (await bench.begin()).add("half of it")
    second = await bench.begin()
    second.add("whole")
    second.end("succeeded")
    await second.settled()

    told = [(delta.sequence, delta.text, delta.ending) for delta in bench.written]
    assert told == [(1, "half of it", None), (2, "", "retried"), (1, "whole", None), (2, "", "succeeded")]
    first, *_, last = [delta.epoch for delta in bench.written]
    assert first < last < 2**53


async def test_nothing_follows_a_delta_that_the_log_refused() -> None:
    bench = Bench()
    preview = await bench.begin()
    preview.add("a")
    await asyncio.sleep(0)
    bench.producer.fail_next(LogUnavailable("away"))
    preview.add("b")
    preview.add("c")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    preview.add("d")
    preview.end("succeeded")
    await preview.settled()

    assert [delta.text for delta in bench.written] == ["a"]


@pytest.mark.parametrize("ends", [True, False])
async def test_nothing_is_written_once_the_partition_is_given_up(*, ends: bool) -> None:
    bench = Bench()
    preview = await bench.begin()
    bench.tenure.end()

    preview.add("a")
    if ends:
        preview.end("succeeded")
    await asyncio.sleep(1)

    assert bench.written == []


async def test_text_waits_where_the_producer_is_full_and_the_records_get_larger() -> None:
    bench = Bench()
    preview = await bench.begin()
    bench.producer.set_full()
    for _ in range(5):
        preview.add("x")
    await asyncio.sleep(1)
    assert bench.written == []

    bench.producer.set_full(is_full=False)
    await asyncio.sleep(1)

    assert [delta.text for delta in bench.written] == ["xxxxx"]


async def test_acks_that_do_not_come_bound_what_is_in_flight_and_hold_up_the_outcome_only_so_long() -> None:
    bench = Bench()
    preview = await bench.begin()
    bench.producer.hold_acks()
    for _ in range(10_000):
        preview.add("x")
        await asyncio.sleep(0)
    assert len(preview._in_flight) <= deltas.MAX_IN_FLIGHT
    began_s = asyncio.get_running_loop().time()

    preview.end("succeeded")
    await preview.settled()

    assert asyncio.get_running_loop().time() - began_s <= deltas.SETTLE_LIMIT_S
    bench.producer.release_acks()
    await preview.settled()
    assert "".join(delta.text for delta in bench.written) == "x" * 10_000


async def test_a_piece_larger_than_a_record_is_cut() -> None:
    bench = Bench()
    preview = await bench.begin()
    text = "\x01" * (2 * deltas.MAX_CHARS + 1)
    preview.add(text)
    preview.end("succeeded")
    await preview.settled()

    assert [len(delta.text) for delta in bench.written] == [deltas.MAX_CHARS, deltas.MAX_CHARS, 1, 0]
