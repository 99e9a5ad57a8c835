"""A streamed event whose sender does not want it any more ends once, as cancelled, wherever it is; others go on."""

import asyncio
from typing import Any

import pytest

from contracts.codec import Position, dead_letter, encode_event
from contracts.deltas import cancel_record, read_cancel, read_delta
from contracts.metrics import REGISTRY
from contracts.payloads import Cancel
from contracts.settings import FakeProvider
from streams import cancels
from streams.cancels import Cancels
from streams.engine.item import State
from streams.providers.fake import Fake
from streams.providers.limited import Limited
from tests.streams.pipeline.support import SCHEMA, TOPICS, Bench, event, headers_of, ids_of, make_settings
from tests.streams.virtual_clock import now_at

STREAM = {"partitionkey": "k", "delivery": "stream"}


async def put(bench: Bench, number: int = 0, **extensions: str) -> Position:
    one = event(number, extensions=STREAM | extensions)
    return await bench.put(one.key, one.data, encode_event(one))


async def reached(bench: Bench, state: State) -> None:
    async with asyncio.timeout(3600):
        while not any(  # noqa: ASYNC110 - polling costs nothing on the virtual clock
            item.state is state for item in bench.engine._dispatcher.running
        ):
            await asyncio.sleep(0.01)


def doubtful_usd() -> float:
    labels = {"provider": "fake", "model": "fake-1", "basis": "possibly_billed"}
    return REGISTRY.get_sample_value("penstock_fm_cost_usd_total", labels) or 0.0


async def test_a_call_that_is_under_way_is_stopped() -> None:
    bench = await Bench([{"latency_s": 1000}]).start()
    position = await put(bench)
    await reached(bench, State.CALLING)
    await asyncio.sleep(1)

    bench.cancels.add(position)
    await bench.idle(within_s=10)

    letter = dead_letter(bench.letters[0].headers)
    assert (letter.reason, letter.disposition, letter.attempts, letter.cost_usd) == ("cancelled", "operator", 1, None)
    assert (bench.marker().status, bench.marker().reason) == ("dead_letter", "cancelled")
    assert read_delta(bench.on(TOPICS.deltas)[-1].value).ending == "dead_letter"
    assert (bench.fake.in_flight, bench.committed, bench.crashes) == (0, 1, [])


async def test_what_a_call_that_is_stopped_may_have_cost_is_booked() -> None:
    """The longest answer costs 0.1 USD."""
    model = {"price": {"input_usd": 0.0, "output_usd": 1000.0}, "max_tokens": 100}
    bench = await Bench([{"latency_s": 1000}], make_settings(model=model)).start()
    position = await put(bench)
    await reached(bench, State.CALLING)
    await asyncio.sleep(1)
    before_usd = doubtful_usd()

    bench.cancels.add(position)
    await bench.idle(within_s=10)

    assert doubtful_usd() - before_usd == pytest.approx(0.1)


@pytest.mark.parametrize("batch", [{"kind": "none"}, {"kind": "pack", "max_events": 2, "max_wait_s": 5.0}])
async def test_an_event_that_is_stopped_before_its_call_is_sent_has_cost_nothing(batch: dict[str, Any]) -> None:
    """It waits for a place at the provider, or for company."""
    fake = Fake(FakeProvider(kind="fake", script=({"latency_s": 3, "answer": '{"n": 1}'},)))
    route = {"order": "none", "output_schema": SCHEMA, "batch": batch}
    bench = await Bench(settings=make_settings(route), provider=Limited(fake, 1)).start()
    if batch["kind"] == "none":
        await bench.send(event())
    position = await put(bench, 1)
    asyncio.get_running_loop().call_later(1.0, bench.cancels.add, position)
    await bench.idle(within_s=10)

    letter = dead_letter(bench.letters[0].headers)
    assert (letter.reason, letter.cost_usd, "e1" in fake.calls) == ("cancelled", 0.0, False)


async def test_an_event_whose_call_waits_for_a_place_is_stopped_and_costs_nothing() -> None:
    model = {"price": {"input_usd": 0.0, "output_usd": 1000.0}, "max_tokens": 100}
    fake = Fake(FakeProvider(kind="fake", script=({"latency_s": 5},)))
    bench = await Bench(settings=make_settings({"order": "none"}, model=model), provider=Limited(fake, 1)).start()
    before_usd = doubtful_usd()
    await put(bench)
    position = await put(bench, 1)
    asyncio.get_running_loop().call_later(1.0, bench.cancels.add, position)
    await bench.idle(within_s=10)

    assert ([headers_of(one)["ce_id"] for one in bench.letters], fake.calls) == ([b"e1"], {"e0": 1})
    assert doubtful_usd() == before_usd


async def test_an_event_that_rests_between_attempts_is_stopped() -> None:
    bench = await Bench([{"error": "throttled", "retry_after_s": 100}]).start()
    position = await put(bench)
    await reached(bench, State.RESTING)

    bench.cancels.add(position)
    await bench.idle(within_s=10)

    assert (bench.marker().reason, bench.fake.calls["e0"], len(bench.terminals)) == ("cancelled", 1, 1)


async def test_an_event_that_is_cancelled_before_anybody_took_it_is_not_paid_for() -> None:
    bench = await Bench().start()
    stamp_ms = int(now_at().timestamp() * 1000)
    bench.cancels.add(Position("t.events.standard.v1", 2, 0, stamp_ms))
    one = event(extensions=STREAM)
    await bench.put(one.key, one.data, encode_event(one), timestamp_ms=stamp_ms)
    await bench.idle()

    assert (bench.marker().reason, bench.fake.calls) == ("cancelled", {})
    assert dead_letter(bench.letters[0].headers).cost_usd == 0.0


async def test_an_event_that_ends_in_the_same_moment_has_one_outcome() -> None:
    bench = await Bench([{"latency_s": 1}]).start()
    position = await put(bench)
    asyncio.get_running_loop().call_later(1, bench.cancels.add, position)
    await bench.idle()
    bench.cancels.add(position)

    assert len(bench.terminals) == 1


async def test_an_event_that_is_being_parked_is_cancelled_where_it_is_taken_up() -> None:
    settings = make_settings({"order": "none", "retry": {"park_after_s": 1}})
    bench = await Bench([{"error": "throttled", "retry_after_s": 12}], settings).start()
    bench.producer.hold_acks()
    position = await put(bench)
    await reached(bench, State.SETTLING)
    bench.cancels.add(position)
    await asyncio.sleep(1)
    bench.producer.release_acks()
    await bench.idle()
    assert (len(bench.parked), bench.terminals) == (1, [])

    await bench.take_up(*bench.parked)
    await bench.idle()

    assert (bench.marker().reason, bench.fake.calls["e0"]) == ("cancelled", 1)


async def test_the_next_event_of_the_key_goes_on_and_others_are_not_touched() -> None:
    bench = await Bench([{"match": "e0", "latency_s": 1000}]).start()
    position = await put(bench)
    await put(bench, 1)
    await reached(bench, State.CALLING)

    bench.cancels.add(position._replace(timestamp_ms=position.timestamp_ms + 1))
    await asyncio.sleep(1)
    assert bench.terminals == []
    bench.cancels.add(position)
    await bench.idle(within_s=100)

    assert ids_of(bench.terminals) == ["e0", "e1"]


async def test_only_streamed_events_are_cancelled() -> None:
    bench = await Bench([{"latency_s": 1}]).start()
    position = await put(bench, delivery="notify")
    bench.cancels.add(position)
    await bench.idle()

    assert bench.result().event_id == "e0"


async def test_wishes_are_kept_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancels, "MAX_KEPT", 10)
    kept = Cancels()
    for offset in range(100):
        kept.add(Position("t", 0, offset, 0))

    assert len(kept._kept) == 10


def test_a_cancel_lies_beside_its_event_and_says_which() -> None:
    where: dict[str, Any] = {"topic": "t", "partition": 3, "offset": 9, "timestamp_ms": 7}
    record = cancel_record("t.cancels.v1", Cancel(event_id="e", by="crm", at="", **where))

    assert (record.partition, read_cancel(record.value)) == (3, Position("t", 3, 9, 7))
