"""Long waits are spent on the retry topic: what is carried over, and that journal and original stay as they are."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from contracts.codec import Record, dead_letter, decode_json, encode_json, parked_event, source_position
from contracts.errors import LogUnavailable
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceResult, OutcomeMarker
from contracts.settings import ProducerSettings
from streams.engine.item import State
from tests.streams.pipeline.support import APP_ID, EVENTS, PARTITION, TOPICS, Bench, event, headers_of, make_settings
from tests.streams.virtual_clock import now_at

UNORDERED: dict[str, Any] = {"order": "none", "deadline_s": 3600}
SLOW_DOWN: dict[str, Any] = {"times": 1, "error": "throttled", "retry_after_s": 600}
PRICE = {"price": {"input_usd": 1000.0, "output_usd": 1000.0}}


async def parked(script: list[dict[str, Any]] | None = None, route: dict[str, Any] = UNORDERED) -> Bench:
    bench = await Bench([SLOW_DOWN] if script is None else script, make_settings(route)).start()
    await bench.put(b"k", b'{"n": 1}', HEADERS)
    await bench.idle()
    return bench


HEADERS = [
    ("ce_specversion", b"1.0"), ("ce_id", b"e0"), ("ce_source", b"s"), ("ce_type", b"t"), ("foreign", b"\x00\x01"),
    ("foreign", b"twice"), ("penstock-retry", b"not ours"), ("content-type", b"application/json"),
]  # fmt: skip


async def taken_up(record: Record, script: list[dict[str, Any]] | None = None, **route: Any) -> Bench:
    bench = await Bench(script or (), make_settings({**UNORDERED, **route})).start()
    await bench.take_up(record)
    await bench.idle()
    return bench


async def test_a_long_wait_of_an_unordered_event_is_parked_with_what_was_tried() -> None:
    start_ms = now_at().timestamp() * 1000
    bench = await parked()
    (record,) = bench.parked
    owner, note, original = parked_event(record.headers)

    assert (record.partition, record.key, record.value, original) == (PARTITION, b"k", b'{"n": 1}', HEADERS)
    assert (owner, note.topic, note.partition, note.offset) == (APP_ID, EVENTS, PARTITION, 0)
    assert (note.attempts, note.failed, note.reason) == (1, {"throttled": 1}, "throttled")
    assert 600_000 <= note.not_before_ms - start_ms <= 601_000
    assert [failure.reason for failure in note.failures] == ["throttled"]
    assert (bench.terminals, bench.committed, bench.crashes) == ([], 1, [])


async def test_a_parked_event_stands_for_its_event_in_the_journal() -> None:
    bench = await parked()
    found = source_position(bench.parked[0].headers)

    assert found is not None
    assert (found[0], found[1].topic, found[1].partition, found[1].offset) == (APP_ID, EVENTS, PARTITION, 0)


async def test_a_parked_event_is_not_tried_before_its_time_and_keeps_its_attempts() -> None:
    (record,) = (await parked()).parked
    begin = now_at()
    bench = await taken_up(record)
    result = decode_json(bench.terminals[0].value or b"", InferenceResult)

    assert 600 <= (now_at() - begin).total_seconds() <= 602
    assert (result.attempts, result.event_id, bench.fake.calls) == (2, "e0", {"e0": 1})
    assert headers_of(bench.terminals[0])["penstock-source-topic"].decode() == TOPICS.retries
    assert bench.terminals[0].partition == PARTITION


async def test_an_attempt_of_a_parked_event_spends_a_retry_as_any_other() -> None:
    """Out of an outage thousands come back together."""
    (record,) = (await parked()).parked
    budget = {"retry_budget": {"share": 0.0, "min_per_s": 1.0}}
    bench = await Bench((), make_settings(UNORDERED, model=budget), in_flight=100).start()
    await bench.take_up(*[record] * 30)
    await asyncio.sleep(605)

    assert len(bench.terminals) == 10
    assert {(item.state, item.reason) for item in bench.engine.held} == {(State.RESTING, "retry_budget")}

    await bench.idle()

    assert (len(bench.terminals), bench.letters, bench.crashes) == (30, [], [])


async def test_a_parked_event_that_was_never_called_is_no_retry() -> None:
    """It waited at a closed gate."""
    (record,) = (await parked()).parked
    name, note = record.headers[-1]
    document = json.loads(note or b"") | {"attempts": 0, "failed": {}, "failures": []}
    record = record._replace(headers=(*record.headers[:-1], (name, json.dumps(document).encode())))
    settings = make_settings(UNORDERED, model={"retry_budget": {"share": 0.0, "min_per_s": 0.0}})
    bench = await Bench((), settings, in_flight=100).start()
    await bench.take_up(*[record] * 30)
    await asyncio.sleep(605)

    assert len(bench.terminals) == 30


async def test_a_parked_event_whose_last_attempt_did_not_count_is_no_retry() -> None:
    """It was held at the gate that its call has closed, as others that wait there in their place."""
    bench = await parked([{"error": "access_denied"}], {**UNORDERED, "retry": {"park_after_s": 5}})
    (record,) = bench.parked
    settings = make_settings(UNORDERED, model={"retry_budget": {"share": 0.0, "min_per_s": 0.0}})
    later = await Bench((), settings, in_flight=100).start()
    await later.take_up(*[record] * 30)
    await asyncio.sleep(20)

    assert parked_event(record.headers)[1].attempts >= 1
    assert len(later.terminals) == 30


async def test_a_parked_event_that_the_budget_keeps_waiting_goes_back_to_the_retry_topic() -> None:
    (record,) = (await parked()).parked
    settings = make_settings(UNORDERED, model={"retry_budget": {"share": 0.0, "min_per_s": 0.0}})
    bench = await Bench((), settings, in_flight=100).start()
    await bench.take_up(*[record] * 30)
    await bench.idle()
    _, note, _ = parked_event(bench.parked[-1].headers)

    assert len(bench.terminals) <= 5
    assert len(bench.terminals) + len(bench.parked) == 30
    assert (note.reason, note.attempts, note.topic) == ("retry_budget", 1, EVENTS)


async def test_a_parked_event_that_is_taken_up_behind_its_age_is_dead_lettered_without_a_call() -> None:
    (record,) = (await parked()).parked
    await asyncio.sleep(900)
    bench = await taken_up(record, retry={"max_age_s": 800})

    assert dead_letter(bench.letters[0].headers).reason == "attempts_exhausted"
    assert (bench.fake.calls, bench.crashes) == ({}, [])


async def test_a_parked_event_rests_without_a_slot() -> None:
    (record,) = (await parked()).parked
    bench = await Bench((), make_settings(UNORDERED), in_flight=1).start()
    await bench.take_up(record)
    await asyncio.sleep(1)
    await bench.send(event(1))
    await asyncio.sleep(1)

    assert [decode_json(one.value or b"", InferenceResult).event_id for one in bench.terminals] == ["e1"]
    assert [(item.state, item.reason) for item in bench.engine.held] == [(State.RESTING, "parked")]

    await bench.idle()


async def test_the_cost_of_earlier_attempts_is_carried_over() -> None:
    script = [{"times": 1, "answer": "no json"}, {"error": "throttled", "retry_after_s": 600, "times": 1}]
    schema = {"type": "object"}
    bench = await Bench(script, make_settings({**UNORDERED, "output_schema": schema}, model=PRICE)).run(event())
    _, note, _ = parked_event(bench.parked[0].headers)

    assert note.cost_usd is not None
    assert note.cost_usd > 0
    assert note.usage.input_tokens > 0

    later = await Bench([{"answer": "{}"}], make_settings({**UNORDERED, "output_schema": schema}, model=PRICE)).start()
    await later.take_up(bench.parked[0])
    await later.idle()
    cost = later.result().cost_usd

    assert cost is not None
    assert cost > note.cost_usd


async def test_the_deadline_still_counts_from_the_acceptance() -> None:
    (record,) = (await parked()).parked
    await asyncio.sleep(3590)
    bench = await taken_up(record, [{"error": "throttled", "retry_after_s": 6}])
    marker = decode_json(bench.terminals[0].value or b"", OutcomeMarker)

    assert (marker.status, marker.event_id) == ("expired", "e0")
    assert bench.letters == []


async def test_attempts_before_and_after_parking_count_together() -> None:
    (record,) = (await parked(route={**UNORDERED, "retry": {"max_attempts": 2}})).parked
    bench = await taken_up(record, [{"error": "throttled"}], retry={"max_attempts": 2})
    letter = dead_letter(bench.letters[0].headers)

    assert (letter.reason, letter.attempts, len(letter.failures)) == ("attempts_exhausted", 2, 2)


async def test_the_dead_letter_of_a_parked_event_is_the_original_and_names_its_place() -> None:
    first = await parked()
    bench = await taken_up(first.parked[0], [{"error": "invalid_request"}])
    (letter,) = bench.letters
    why = dead_letter(letter.headers)

    assert (letter.key, letter.value, list(letter.headers[:-1])) == (b"k", b'{"n": 1}', HEADERS)
    assert (why.topic, why.partition, why.offset) == (EVENTS, PARTITION, 0)


async def test_an_event_parked_again_answers_the_record_it_was_parked_in_before() -> None:
    (record,) = (await parked()).parked
    bench = await taken_up(record, [SLOW_DOWN])
    (again,) = bench.parked
    found = source_position(again.headers)
    _, note, original = parked_event(again.headers)

    assert found is not None
    assert (found[1].topic, found[1].offset) == (TOPICS.retries, 0)
    assert (note.topic, note.offset, note.attempts, original) == (EVENTS, 0, 2, HEADERS)


@pytest.mark.parametrize("order", ["key", "partition"])
async def test_an_ordered_event_waits_in_its_place_by_default(order: str) -> None:
    bench = await parked(route={"order": order, "deadline_s": 3600})

    assert (bench.parked, len(bench.terminals)) == ([], 1)


async def test_an_ordered_event_is_parked_where_the_route_says_so() -> None:
    bench = await parked(route={"deadline_s": 3600, "retry": {"long_waits": "topic"}})

    assert len(bench.parked) == 1


async def test_a_short_wait_is_not_parked() -> None:
    bench = await parked([{"times": 1, "error": "throttled", "retry_after_s": 20}])

    assert (bench.parked, len(bench.terminals)) == ([], 1)


async def test_events_behind_a_closed_gate_make_room_on_the_topic_and_wait_there_once() -> None:
    bench = await parked([{"error": "access_denied"}], {**UNORDERED, "retry": {"park_after_s": 5}})
    (record,) = bench.parked

    assert parked_event(record.headers)[1].reason == "access_denied"

    later = await Bench([{"times": 20, "error": "access_denied"}], make_settings(UNORDERED)).start()
    await later.take_up(record)
    await later.idle()

    assert (later.parked, len(later.terminals)) == ([], 1)


ROUTES: tuple[dict[str, Any], ...] = (
    {"name": "a", "match": {"type": "A"}, "order": "none", "deadline_s": 7200},
    {"name": "b", "match": {"type": "B"}, "order": "none", "deadline_s": 300, "model": "m2"},
)


def of_two_routes(script: list[dict[str, Any]], *changes: dict[str, Any]) -> Bench:
    """A worker that holds up to 125 events of the retry topic at a time."""
    return Bench(
        script, make_settings(*({**one, **more} for one, more in zip(ROUTES, changes or ({}, {}), strict=True)))
    )


async def behind(bench: Bench, many: int) -> asyncio.Task[None]:
    """Have events of route a parked, then one of route b, and take all of them up again, in this order."""
    await bench.start()
    await bench.send(*[event(n, b"bad", type="A") for n in range(many)])
    await asyncio.sleep(40)
    await bench.send(event(999, b"good", type="B"))
    await asyncio.sleep(1)
    return asyncio.ensure_future(keep_taking_up(bench))


async def keep_taking_up(bench: Bench) -> None:
    """Deliver the records of the retry topic as they come, as the agent of the lane does."""
    taken = 0
    while True:
        while taken < len(bench.parked):
            await bench.take_up(bench.parked[taken])
            taken += 1
        await asyncio.sleep(0.1)


async def ended(bench: Bench, lane: asyncio.Task[None]) -> None:
    lane.cancel()
    await bench.engine.drain(1)
    await bench.engine.close()


OUT = {"match": "bad", "error": "access_denied"}
LATER = {"match": "good", "times": 1, "error": "throttled", "retry_after_s": 40}


async def test_an_outage_of_one_route_does_not_keep_the_parked_events_of_another() -> None:
    bench = of_two_routes([OUT, LATER])
    lane = await behind(bench, 300)
    await asyncio.sleep(130)

    assert (bench.result().event_id, bench.fake.calls["e999"]) == ("e999", 2)
    await ended(bench, lane)


async def test_events_that_wait_for_long_do_not_keep_those_back_that_wait_for_less() -> None:
    bench = of_two_routes([{"match": "bad", "times_per_event": 1, "error": "throttled", "retry_after_s": 400}, LATER])
    lane = await behind(bench, 300)
    await asyncio.sleep(130)

    assert bench.result().event_id == "e999"

    await asyncio.sleep(600)
    notes = [parked_event(record.headers)[1] for record in bench.parked if record.value == b"bad"]

    assert len(notes) > 300
    assert {(note.attempts, *note.failed.items(), note.has_retry) for note in notes} == {(1, ("throttled", 1), False)}
    assert len(bench.terminals) == 301
    await ended(bench, lane)


async def test_what_goes_back_to_the_retry_topic_in_an_outage_is_bounded_in_time() -> None:
    """An eighth of what a worker holds, in as long as an event waits before it is parked; and every event stays one."""
    bench = of_two_routes([OUT, LATER], {"retry": {"park_after_s": 0.5}}, {})
    lane = await behind(bench, 300)
    before = len(bench.parked)
    await asyncio.sleep(60)

    assert len(bench.parked) - before <= 125 * 60 / 5 + 125
    assert len(bench.terminals) == 1

    stopping_at = asyncio.get_running_loop().time()
    await ended(bench, lane)

    assert asyncio.get_running_loop().time() - stopping_at < 0.2


async def test_parked_events_for_which_there_is_room_wait_at_the_gate_without_being_written_again() -> None:
    bench = of_two_routes([OUT, LATER])
    lane = await behind(bench, 50)
    await asyncio.sleep(600)

    assert len(bench.parked) == 51
    await ended(bench, lane)


async def test_an_event_that_goes_back_to_the_retry_topic_keeps_what_it_has_cost() -> None:
    """A repair was paid for, then its model went away."""
    schema, price = {"type": "object"}, {"price": {"input_usd": 1000.0, "output_usd": 1000.0}}
    script: list[dict[str, Any]] = [{"times_per_event": 1, "answer": "no json"}, {"error": "access_denied"}]
    settings = make_settings({**UNORDERED, "output_schema": schema}, model=price)
    bench = await Bench(script, settings, in_flight=200).start()
    await bench.send(*[event(n) for n in range(200)])
    await asyncio.sleep(40)
    first = [parked_event(record.headers)[1] for record in bench.parked]
    lane = asyncio.ensure_future(keep_taking_up(bench))
    await asyncio.sleep(300)
    last = {note.offset: note for note in (parked_event(record.headers)[1] for record in bench.parked)}

    assert len(bench.parked) > len(first)
    for note in first:
        again = last[note.offset]
        # One that was the probe meanwhile has been paid for.
        assert (again.cost_usd, again.usage) == (note.cost_usd, note.usage) or again.attempts > note.attempts
    await ended(bench, lane)


async def test_an_event_too_large_for_the_retry_topic_waits_in_its_place() -> None:
    bench = await Bench([SLOW_DOWN], make_settings(UNORDERED), limits=ProducerSettings(max_record_bytes=1400)).run(
        event(data=b"x" * 1000)
    )

    assert (bench.parked, len(bench.terminals), bench.crashes) == ([], 1, [])


async def test_what_another_application_parked_is_left_to_it() -> None:
    (record,) = (await parked()).parked
    headers = [(name, b"other" if name == "penstock-source-app" else raw) for name, raw in record.headers]
    bench = await taken_up(record._replace(headers=headers))

    assert (bench.producer.records, bench.fake.calls, bench.crashes) == ([], {}, [])


async def test_a_record_that_no_worker_wrote_is_buried() -> None:
    bench = await taken_up(Record(TOPICS.retries, b"k", b"v", HEADERS, PARTITION))

    assert (dead_letter(bench.letters[0].headers).reason, bench.fake.calls, bench.crashes) == ("undecodable", {}, [])


@pytest.mark.parametrize("changed", [{"deadline_ms": -(10**17)}, {"not_before_ms": 10**18}])
async def test_a_parked_event_with_an_instant_out_of_this_world_is_buried(changed: dict[str, int]) -> None:
    (record,) = (await parked()).parked
    note = msgspec.structs.replace(parked_event(record.headers)[1], **changed)
    bench = await taken_up(record._replace(headers=[*record.headers[:-1], ("penstock-retry", encode_json(note))]))

    assert (dead_letter(bench.letters[0].headers).reason, bench.fake.calls, bench.crashes) == ("undecodable", {}, [])


async def test_a_parked_event_with_a_timestamp_out_of_this_world_is_answered() -> None:
    (record,) = (await parked()).parked
    note = msgspec.structs.replace(parked_event(record.headers)[1], timestamp_ms=10**400)
    bench = await taken_up(record._replace(headers=[*record.headers[:-1], ("penstock-retry", encode_json(note))]))

    assert (bench.result().event_id, bench.letters, bench.crashes) == ("e0", [], [])


async def test_a_note_nested_deeper_than_anybody_reads_is_buried() -> None:
    (record,) = (await parked()).parked
    note = encode_json(parked_event(record.headers)[1])[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bench = await taken_up(record._replace(headers=[*record.headers[:-1], ("penstock-retry", note)]))

    assert (dead_letter(bench.letters[0].headers).reason, bench.fake.calls, bench.crashes) == ("undecodable", {}, [])


async def test_an_answer_of_a_batch_that_the_limit_has_cut_off_is_buried_without_a_call() -> None:
    """As streams/handover/settling.py sends it back: a call would end there as well.

    However strict the route's limit is: the results of the same job are not there to be held against it.
    """
    (record,) = (await parked()).parked
    note = parked_event(record.headers)[1]
    said = msgspec.structs.replace(note.failures[0], reason="output_truncated", message="raise models.m.max_tokens")
    note = msgspec.structs.replace(
        note, reason="batch_output_truncated", failures=(said,), cost_usd=0.5, not_before_ms=0
    )
    record = record._replace(headers=[*record.headers[:-1], ("penstock-retry", encode_json(note))])
    bench = await taken_up(record, dead_letter_limit={"ratio": 0.1, "min_events": 1})
    why = dead_letter(bench.letters[0].headers)

    assert (bench.fake.calls, bench.crashes) == ({}, [])
    assert (why.reason, why.disposition, why.attempts, why.cost_usd) == ("output_truncated", "poison", 1, 0.5)
    assert why.message == "raise models.m.max_tokens"


async def test_an_event_that_may_be_parked_or_not_ends_the_worker_and_is_not_buried() -> None:
    bench = Bench([SLOW_DOWN], make_settings(UNORDERED))
    bench.producer.fail_next(LogUnavailable("not confirmed"))
    await bench.run(event())

    assert ([type(error) for error in bench.crashes], bench.committed) == ([LogUnavailable], 0)
    assert bench.producer.records == []


async def test_parking_is_counted() -> None:
    labels = {"route": "r", "reason": "throttled"}
    before = REGISTRY.get_sample_value("penstock_events_parked_total", labels) or 0
    await parked()

    assert REGISTRY.get_sample_value("penstock_events_parked_total", labels) == before + 1
