"""Which records are a door's items."""

import base64
from typing import Any

import msgspec
import pytest

from contracts.codec import Position, delivery_headers, encode_json, outcome_headers
from contracts.envelope import Event
from contracts.payloads import EXPIRED_TYPE, DeliveryNote, OutcomeMarker
from contracts.settings import Match, Prompt, RouteSettings
from contracts.settings.egress import DoorSection
from gateways.egress.base import Item
from gateways.egress.rendering import structured
from gateways.egress.selecting import Raw, Selector
from tests.suites.egress import result_item

PLACE = Position("results", 2, 40, 1_767_225_600_000)
ROUTES = (RouteSettings(name="triage", match=Match(source=("crm",)), prompt=Prompt(user="x"), model="m"),)


def raw(item: Item) -> Raw:
    return Raw(PLACE, item.key, item.outcome.value, item.headers)


def marker() -> Raw:
    event = Event(id="e1", source="crm", type="crm.created", data=b"")
    value = OutcomeMarker(
        event_id="e1", source="crm", type="crm.created", status="expired", reason="r", attempts=1, completed_at=""
    )
    return Raw(PLACE, b"k", encode_json(value), outcome_headers(event, EXPIRED_TYPE, "", "penstock", PLACE))


def selector(**settings: Any) -> Selector:
    return Selector("door", DoorSection.model_validate(settings), ROUTES, "app")


def test_an_item_says_what_its_record_says() -> None:
    item = selector().from_results(raw(result_item(1)))

    assert item is not None
    assert (item.event_type, item.delivery, item.route, item.key) == ("crm.created", "notify", "summary", b"key-1")
    assert (item.position, item.attempt, item.status) == (PLACE, 1, "succeeded")
    assert item.attribute("subject") == "s1"


@pytest.mark.parametrize(
    ("match", "is_taken"),
    [
        ({}, True),
        ({"route": "sum*"}, True),
        ({"route": "triage"}, False),
        ({"source": ["x", "crm"]}, True),
        ({"type": "crm.*", "status": "succeeded"}, True),
        ({"type": "crm.*", "status": "expired"}, False),
        ({"delivery": "stream"}, False),
        ({"source": "CRM"}, False),
    ],
)
def test_all_patterns_of_the_door_must_match(match: dict[str, Any], is_taken: bool) -> None:
    assert (selector(match=match).from_results(raw(result_item(1))) is not None) is is_taken


def test_a_marker_has_the_route_that_its_event_took() -> None:
    item = selector(match={"route": "triage", "status": "expired"}).from_results(marker())

    assert item is not None
    assert item.route == "triage"


def test_what_is_older_than_the_door_wants_is_passed_over() -> None:
    assert selector(since="2026-01-01T00:00:01Z").from_results(raw(result_item(1))) is None
    assert selector(since="2026-01-01T00:00:00Z").from_results(raw(result_item(1))) is not None


@pytest.mark.parametrize(
    "record",
    [
        Raw(PLACE, None, None, []),
        Raw(PLACE, None, b"{}", [("ce_type", b"other")]),
        Raw(PLACE, None, b"{}", [("ce_type", b"penstock.result.v1")]),
    ],
)
def test_what_is_no_outcome_is_passed_over(record: Raw) -> None:
    assert selector().from_results(record) is None
    assert selector().from_waiting(record) is None


def test_a_value_that_is_not_json_has_no_route_and_is_an_item_all_the_same() -> None:
    item = selector().from_results(raw(result_item(1))._replace(value=b"\xff"))

    assert item is not None
    assert item.route == ""


def test_a_waiting_record_keeps_its_place_and_counts_its_attempts() -> None:
    item = result_item(1)
    note = DeliveryNote(
        state="waiting", door="door", destination="", attempts=3, reason="r", topic="results", partition=1, offset=7,
        timestamp_ms=99, first_at_ms=50, at="",
    )  # fmt: skip
    waiting = Raw(PLACE, item.key, item.outcome.value, delivery_headers(item.headers, note))

    found = selector(match={"source": "nobody"}).from_waiting(waiting)

    assert found is not None
    assert (found[0].attempt, found[0].position, found[0].headers) == (4, Position("results", 1, 7, 99), item.headers)
    assert selector().is_ours(waiting)
    other = Selector("other", DoorSection(), (), "app")
    assert not other.is_ours(waiting)
    assert other.from_waiting(waiting) is None


@pytest.mark.parametrize(("app_id", "is_ours"), [("app", True), ("another", False), ("", True)])
def test_what_waits_is_of_the_application_that_let_it_wait(app_id: str, is_ours: bool) -> None:
    """Two that share topics may each have a door of one name; what older versions let wait names no application."""
    item = result_item(1)
    note = DeliveryNote(
        state="waiting", door="door", destination="", attempts=3, reason="r", topic="results", partition=1, offset=7,
        timestamp_ms=99, first_at_ms=50, at="", app_id=app_id,
    )  # fmt: skip
    waiting = Raw(PLACE, item.key, item.outcome.value, delivery_headers(item.headers, note))

    assert selector().is_ours(waiting) is is_ours
    assert (selector().from_waiting(waiting) is not None) is is_ours


@pytest.mark.parametrize("value", [b'{"provenance":{"route":"\xff"}}', b'{"output":"\xff"}', b"\xff", b""])
def test_a_value_that_is_no_text_is_delivered_all_the_same(value: bytes) -> None:
    """What it raises would end the door's session, and the next one, at the same record."""
    item = selector().from_results(raw(result_item(1))._replace(value=value))

    assert item is not None
    assert (item.route, item.outcome.value) == ("", value)
    assert base64.b64decode(msgspec.json.decode(structured(item))["data_base64"]) == value


def test_a_value_nested_too_deep_to_be_read_is_delivered_all_the_same() -> None:
    deep = b'{"output":' + b"[" * 100_000 + b"]" * 100_000 + b"}"

    item = selector().from_results(raw(result_item(1))._replace(value=deep))

    assert item is not None
    assert (item.route, item.outcome.value) == ("", deep)
    assert msgspec.json.decode(structured(item))["data_base64"] == base64.b64encode(deep).decode()
