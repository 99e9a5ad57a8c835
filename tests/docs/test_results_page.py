"""The record on the page about results is one that a worker could have written."""

import json

import msgspec

from contracts import payloads
from contracts.codec import Position, outcome_headers
from contracts.envelope import Event
from contracts.payloads import InferenceResult
from contracts.repetition import ANSWERED
from tests.docs.pages import blocks
from tests.support import ROOT

PAGE = ROOT / "docs/results.md"
RECORD = json.loads(blocks(PAGE, "json")[0].text)


def test_the_value_of_the_example_is_a_result() -> None:
    result = msgspec.convert(RECORD["value"], InferenceResult)

    assert msgspec.to_builtins(result) == RECORD["value"]


def test_the_headers_of_the_example_are_those_of_its_event() -> None:
    value, headers = RECORD["value"], dict(RECORD["headers"])
    event = Event(id=value["event_id"], source=value["source"], type=value["type"], data=b"")
    place = Position(
        headers["penstock-source-topic"],
        RECORD["partition"],
        int(headers["penstock-source-offset"]),
        int(headers["penstock-source-timestamp-ms"]),
    )
    written = outcome_headers(event, payloads.RESULT_TYPE, value["completed_at"], "penstock", place)

    assert headers.pop(ANSWERED)
    assert headers == {name: raw.decode() for name, raw in written}


def test_the_page_names_every_kind_of_outcome() -> None:
    text = PAGE.read_text("utf-8")

    assert sorted(kind for kind in {*payloads.TERMINAL_TYPES, payloads.DUPLICATE_TYPE} if f"`{kind}`" not in text) == []
