"""A repeated event ends in a marker that names the first one; nothing that is wanted twice is taken for one."""

import json

import pytest

from contracts.codec import Headers, Position, dead_letter_headers, decode_json, encode_event, source_position
from contracts.codec import redrive_headers as redriven
from contracts.envelope import Event, result_id
from contracts.metrics import REGISTRY
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    DUPLICATE_TYPE,
    RESULT_TYPE,
    DeadLetter,
    DuplicateMarker,
    InferenceAnswer,
    Redrive,
)
from contracts.repetition import By, State, dedup_header, identify
from contracts.settings import ProducerSettings
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.repeats import Repeats
from tests.streams.pipeline.support import EVENTS, PARTITION, TOPICS, Bench, event, headers_of, make_settings


async def started(script: list[dict[str, object]] | None = None, limits: ProducerSettings | None = None) -> Bench:
    bench = Bench(script or (), make_settings({"deadline_s": 3600, "order": "none"}), limits=limits)
    await bench.producer.start()
    bench.engine.prepare(bench.tenure)
    ledgers = {TP(EVENTS, PARTITION): Ledger(0, repeats=Repeats(100)), TP(TOPICS.retries, PARTITION): Ledger(0)}
    bench.engine.begin(bench.tenure, ledgers)
    return bench


def sent(one: Event, state: State = "new", by: By = "id") -> Headers:
    return [*encode_event(one), dedup_header(identify("", one.source, one.id, one.data, by, 3600), state)]


async def put(bench: Bench, headers: Headers, one: Event | None = None) -> Position:
    one = one or event()
    position = await bench.put(one.key, one.data, headers)
    await bench.idle()
    return position


def kinds(bench: Bench) -> list[str]:
    return [headers_of(record)["ce_type"].decode() for record in bench.terminals]


async def test_a_repetition_is_not_called_and_ends_in_a_marker_that_names_the_first() -> None:
    before = REGISTRY.get_sample_value("penstock_events_repeated_total", {"route": "r"}) or 0.0
    bench = await started()
    first = await put(bench, sent(event()))

    again = await put(bench, sent(event()))

    assert (kinds(bench), bench.fake.calls["e0"], bench.committed) == ([RESULT_TYPE, DUPLICATE_TYPE], 1, 2)
    record = bench.terminals[1]
    marker = decode_json(record.value or b"", DuplicateMarker)
    assert (marker.event_id, marker.first_event_id, marker.status) == ("e0", "e0", "duplicate")
    assert Position(marker.topic, marker.partition, marker.offset, marker.timestamp_ms) == first
    found = source_position(record.headers)
    assert found is not None
    assert found[1] == again
    assert (record.partition, record.key) == (PARTITION, b"k")
    assert REGISTRY.get_sample_value("penstock_events_repeated_total", {"route": "r"}) == before + 1


async def test_a_marker_has_an_id_of_its_own() -> None:
    bench = await started()
    for _ in range(3):
        await put(bench, sent(event()))

    ids = [headers_of(record)["ce_id"].decode() for record in bench.terminals]
    assert ids[0] == result_id("s", "e0")
    assert len(set(ids)) == 3


async def test_a_repetition_whose_name_alone_fills_a_record_still_ends() -> None:
    bench = await started(limits=ProducerSettings(max_record_bytes=2000))
    for _ in range(2):
        await put(bench, sent(event(id="i" * 3000)), event(id="i" * 3000))

    marker = decode_json(bench.terminals[1].value or b"", DuplicateMarker)
    assert (marker.event_id, marker.first_event_id) == (f"{EVENTS}/2/1", f"{EVENTS}/2/0")
    assert (bench.crashes, bench.committed) == ([], 2)


async def test_by_digest_the_marker_names_the_first_id() -> None:
    bench = await started()
    await put(bench, sent(event(0), by="digest"))
    await put(bench, sent(event(1), by="digest"), event(1))

    marker = decode_json(bench.terminals[1].value or b"", DuplicateMarker)
    assert (marker.event_id, marker.first_event_id) == ("e1", "e0")


async def test_another_body_under_the_same_id_is_another_event() -> None:
    bench = await started()
    for body in (b'{"n": 1}', b'{"n": 2}'):
        one = event(data=body)
        await put(bench, sent(one), one)

    assert kinds(bench) == [RESULT_TYPE, RESULT_TYPE]


@pytest.mark.parametrize("state", ["redelivery", None])
async def test_what_is_wanted_or_unmarked_is_done(state: State | None) -> None:
    bench = await started()
    await put(bench, sent(event()))
    await put(bench, encode_event(event()) if state is None else sent(event(), state))

    assert kinds(bench) == [RESULT_TYPE, RESULT_TYPE]


async def test_a_senders_retry_of_a_dead_letter_is_a_repetition_and_a_redrive_is_done() -> None:
    bench = await started([{"times": 1, "error": "invalid_request"}])
    await put(bench, sent(event()))
    (letter,) = bench.letters
    note = Redrive(partition=0, offset=1, timestamp_ms=1, count=1, at="now")

    await put(bench, sent(event()))
    await put(bench, redriven(letter.headers, note))  # type: ignore[arg-type] # every header has a value here

    assert kinds(bench) == [DEAD_LETTER_MARKER_TYPE, DUPLICATE_TYPE, RESULT_TYPE]


async def test_what_waits_on_the_retry_topic_is_done_in_its_turn() -> None:
    bench = await started([{"times": 1, "error": "throttled", "retry_after_s": 600}])
    await put(bench, sent(event()))
    (parked,) = bench.parked

    await put(bench, sent(event()))
    await bench.take_up(parked)
    await bench.idle()

    assert kinds(bench) == [DUPLICATE_TYPE, RESULT_TYPE]


async def test_an_answer_that_is_paid_for_is_written_though_its_event_is_a_repetition() -> None:
    bench = await started()
    await put(bench, sent(event()))
    position = Position(EVENTS, PARTITION, 1, 10**12)

    async def call() -> InferenceAnswer:
        return InferenceAnswer(text="paid", model="fake-1")

    await bench.pipeline.calls.run(position, call, lambda: None)
    bench.pipeline.calls.keep(position)
    await bench.put(b"k", event().data, sent(event()), timestamp_ms=position.timestamp_ms)
    await bench.idle()

    assert json.loads(bench.terminals[1].value or b"")["output"] == "paid"


def test_a_dead_letter_keeps_the_header() -> None:
    letter = DeadLetter(
        reason="r", disposition="poison", message="", attempts=1, route="r", topic="t", partition=0, offset=1,
        failed_at="now",
    )  # fmt: skip
    headers = sent(event())

    assert dead_letter_headers(headers, letter)[:-1] == headers
