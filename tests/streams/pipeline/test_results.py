"""The ordinary way: an event becomes a result."""

from typing import Any

import pytest

from contracts.codec import Position, source_position
from contracts.envelope import result_id
from contracts.payloads import RESULT_TYPE, Usage
from tests.streams.pipeline.support import (
    APP_ID,
    EVENTS,
    PARTITION,
    SCHEMA,
    TOPICS,
    Bench,
    event,
    headers_of,
    ids_of,
    make_settings,
)

PRICE = {"price": {"input_usd": 1.0, "output_usd": 10.0}}


async def test_an_event_becomes_one_result() -> None:
    bench = await Bench([{"answer": "hello"}]).run(event())
    result = bench.result()

    assert (result.event_id, result.source, result.type, result.output) == ("e0", "s", "t", "hello")
    assert (result.attempts, result.finish_reason, bench.committed) == (1, "stop", 1)


async def test_the_terminal_record_lies_in_the_partition_of_its_event_under_its_key() -> None:
    bench = await Bench().run(event())
    (record,) = bench.terminals

    assert (record.topic, record.partition, record.key) == (TOPICS.results, PARTITION, b"k")


async def test_the_terminal_record_says_which_record_it_answers() -> None:
    bench = await Bench().start()
    position = await bench.put(
        b"k", b"{}", [("ce_specversion", b"1.0"), ("ce_id", b"e"), ("ce_source", b"s"), ("ce_type", b"t")]
    )
    await bench.idle()

    assert source_position(bench.terminals[0].headers) == (APP_ID, position)
    assert position == Position(EVENTS, PARTITION, 0, position.timestamp_ms)


async def test_the_terminal_record_is_an_event_of_its_own_with_a_derived_id() -> None:
    bench = await Bench().run(event(subject="sub"))
    headers = headers_of(bench.terminals[0])

    assert headers["ce_id"].decode() == result_id("s", "e0")
    assert (headers["ce_type"], headers["ce_eventid"], headers["ce_eventsource"], headers["ce_subject"]) == (
        RESULT_TYPE.encode(), b"e0", b"s", b"sub",
    )  # fmt: skip


async def test_the_trace_and_the_owner_reach_the_terminal_record() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    bench = await Bench().run(event(extensions={"traceparent": trace, "owner": "own", "delivery": "notify"}))
    headers = headers_of(bench.terminals[0])

    assert (headers["traceparent"].decode(), headers["ce_owner"], headers["ce_delivery"]) == (trace, b"own", b"notify")


async def test_a_schema_makes_the_output_json() -> None:
    settings = make_settings({"output_schema": SCHEMA})
    bench = await Bench([{"answer": '```json\n{"n": 3}\n```'}], settings).run(event())

    assert bench.result().output == {"n": 3}


async def test_an_answer_that_breaks_the_schema_is_repaired_once() -> None:
    settings = make_settings({"output_schema": SCHEMA})
    script: list[dict[str, Any]] = [
        {"times": 1, "answer": '{"n": "x"}'},
        {"match": "does not satisfy", "answer": '{"n": 4}'},
    ]
    bench = await Bench(script, settings).run(event())

    assert (bench.result().output, bench.result().attempts, bench.fake.calls["e0"]) == ({"n": 4}, 2, 2)


async def test_usage_and_cost_of_all_calls_of_an_event_are_added_up() -> None:
    settings = make_settings({"output_schema": SCHEMA}, model=PRICE)
    script: list[dict[str, Any]] = [{"times": 1, "answer": '{"n": "x"}'}, {"answer": '{"n": 4}'}]
    result = (await Bench(script, settings).run(event())).result()
    usage = result.usage

    assert usage.input_tokens > 10
    assert usage.output_tokens > 2
    assert result.cost_usd == pytest.approx((usage.input_tokens * 1.0 + usage.output_tokens * 10.0) / 1e6)


async def test_the_cost_of_a_model_without_a_price_is_unknown_not_zero() -> None:
    bench = await Bench().run(event())

    assert bench.result().cost_usd is None
    assert bench.result().usage != Usage()


async def test_a_route_may_have_a_result_topic_of_its_own() -> None:
    bench = await Bench(settings=make_settings({"output_topic": "own.results"})).run(event())
    (record,) = bench.on("own.results")

    assert (record.partition, bench.terminals) == (PARTITION, [])


async def test_provenance_changes_with_the_prompt_and_the_payload_does_not() -> None:
    first = (await Bench([{"answer": "a"}]).run(event())).result()
    other = make_settings({"prompt": {"system": "Be long.", "user": "{{ text }}"}})
    second = (await Bench([{"answer": "a"}], other).run(event())).result()

    assert first.provenance.prompt_digest != second.provenance.prompt_digest
    assert first.output == second.output


async def test_events_of_one_key_are_answered_in_order_under_random_latency() -> None:
    script = [{"match": f'"n": {n}}}', "latency_s": (7 * n % 10) / 10} for n in range(10)]
    bench = await Bench(script).run(*(event(n, b'{"n": %d}' % n) for n in range(10)))

    assert ids_of(bench.terminals) == [f"e{n}" for n in range(10)]
    assert bench.fake.peak_in_flight == 1


async def test_a_route_without_order_works_on_events_of_one_key_at_once() -> None:
    settings = make_settings({"order": "none"})
    bench = await Bench([{"latency_s": 1}], settings).run(*(event(n) for n in range(10)))

    assert bench.fake.peak_in_flight == 10


async def test_a_route_in_partition_order_works_on_one_event_at_a_time() -> None:
    settings = make_settings({"order": "partition"})
    events = (event(n, extensions={"partitionkey": f"k{n}"}) for n in range(5))
    bench = await Bench([{"latency_s": 1}], settings).run(*events)

    assert (bench.fake.peak_in_flight, ids_of(bench.terminals)) == (1, [f"e{n}" for n in range(5)])


async def test_events_without_a_key_are_free_of_order() -> None:
    bench = await Bench([{"latency_s": 1}]).run(*(event(n, extensions={}) for n in range(5)))

    assert bench.fake.peak_in_flight == 5


async def test_an_answer_with_half_an_emoji_is_still_a_result() -> None:
    bench = await Bench([{"answer": "cut \ud83d"}]).run(event())

    assert (bench.crashes, bench.result().output) == ([], "cut ?")
