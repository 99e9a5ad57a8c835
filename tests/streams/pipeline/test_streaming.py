"""An event whose sender wants to watch: its answer is streamed, its deltas are on the log before its one outcome."""

from typing import Any

import pytest

from contracts.deltas import read_delta
from contracts.envelope import Event
from contracts.errors import LogUnavailable
from contracts.payloads import Delta
from tests.streams.pipeline.support import PARTITION, SCHEMA, TOPICS, Bench, event, make_settings

STREAM = {"partitionkey": "k", "delivery": "stream"}


def watched(number: int = 0, **changes: Any) -> Event:
    return event(number, extensions=STREAM, **changes)


def told(bench: Bench) -> list[Delta]:
    return [read_delta(record.value) for record in bench.on(TOPICS.deltas)]


async def test_the_deltas_are_the_answer_and_come_before_the_result() -> None:
    bench = await Bench([{"answer": "one two three four five"}]).run(watched())

    assert "".join(delta.text for delta in told(bench)) == bench.result().output == "one two three four five"
    assert {record.partition for record in bench.on(TOPICS.deltas)} == {PARTITION}
    assert bench.producer.records[-1].topic == TOPICS.results
    assert (told(bench)[-1].is_final, told(bench)[-1].ending) == (True, "succeeded")


async def test_a_streamed_call_is_booked_like_any_other() -> None:
    plain = (await Bench([{"answer": "one two three"}]).run(event())).result()
    streamed = (await Bench([{"answer": "one two three"}]).run(watched())).result()

    assert (streamed.usage, streamed.finish_reason, streamed.attempts) == (plain.usage, plain.finish_reason, 1)


async def test_nobody_else_gets_deltas() -> None:
    bench = await Bench().run(event(), event(1, extensions={"partitionkey": "k", "delivery": "notify"}))

    assert (told(bench), len(bench.terminals)) == ([], 2)


async def test_a_route_that_batches_answers_in_whole() -> None:
    settings = make_settings({"output_schema": SCHEMA, "batch": {"kind": "pack"}})
    bench = await Bench([{"answer": '{"n": 1}'}], settings).run(watched())

    assert (told(bench), bench.result().output) == ([], {"n": 1})


async def test_each_attempt_has_an_epoch_of_its_own() -> None:
    script: list[dict[str, Any]] = [{"times": 1, "answer": '{"n": "x"}'}, {"answer": '{"n": 4}'}]
    bench = await Bench(script, make_settings({"output_schema": SCHEMA})).run(watched())
    first, second = sorted({delta.epoch for delta in told(bench)})

    assert [delta.ending for delta in told(bench) if delta.is_final] == ["retried", "succeeded"]
    assert "".join(delta.text for delta in told(bench) if delta.epoch == first) == '{"n": "x"}'
    assert "".join(delta.text for delta in told(bench) if delta.epoch == second) == '{"n": 4}'
    for epoch in (first, second):
        numbers = [delta.sequence for delta in told(bench) if delta.epoch == epoch]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize(
    ("script", "ending"),
    [
        ([{"error": "invalid_request"}], "dead_letter"),
        ([{"answer": "no JSON"}], "dead_letter"),
        ([{"error": "throttled", "retry_after_s": 20}], "expired"),
    ],
)
async def test_an_event_without_a_result_says_so_in_its_last_delta(script: list[dict[str, Any]], ending: str) -> None:
    settings = make_settings({"output_schema": SCHEMA, "deadline_s": 30})
    bench = await Bench(script, settings).run(watched())

    assert told(bench)[-1].ending == ending
    assert bench.marker().status == ending
    assert len(bench.terminals) == 1


async def test_deltas_that_cannot_be_written_cost_nobody_the_result() -> None:
    bench = await Bench([{"answer": "one two three"}]).start()
    bench.producer.fail_next(LogUnavailable("deltas only"))
    await bench.send(watched())
    await bench.idle()

    assert (bench.result().output, told(bench), bench.crashes) == ("one two three", [], [])


async def test_a_call_that_outlives_its_tenure_tells_nothing_more() -> None:
    bench = await Bench([{"answer": "one two three", "latency_s": 10}]).start()
    await bench.send(watched())
    bench.tenure.end()
    await bench.idle()

    assert (told(bench), bench.terminals) == ([], [])
