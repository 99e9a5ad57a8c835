"""POST /v1/events: the three ways to write an event, and what a caller may not set."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cloudevents.core.bindings.http import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from contracts.codec import decode_event
from contracts.envelope import Event, format_time
from tests.gateways.driver import API_KEY, OTHER_API_KEY, Answer, Gateway, as_caller

STRUCTURED = "application/cloudevents+json"
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


async def _post(gateway: Gateway, body: bytes = b"{}", key: str = API_KEY, **headers: str) -> Answer:
    return await gateway.call("POST", "/v1/events", as_caller(key, **headers), body)


async def _structured(gateway: Gateway, key: str = API_KEY, **changes: Any) -> Answer:
    document = {"specversion": "1.0", "id": "e1", "source": "crm", "type": "t", "data": {"a": 1}} | changes
    document = {name: value for name, value in document.items() if value is not ...}
    return await _post(gateway, json.dumps(document).encode(), key=key, content_type=STRUCTURED)


def _event(gateway: Gateway) -> Event:
    (record,) = gateway.records
    return decode_event(record.key, record.value, record.headers)


async def test_plain_json_needs_only_a_type(gateway: Gateway) -> None:
    answer = await _post(gateway, b'{ "a":1 }', ce_type="note", content_type="application/json")

    event = _event(gateway)
    assert answer.status == 202
    assert (event.source, event.type, event.data, event.owner) == ("crm", "note", b'{ "a":1 }', "crm")
    assert uuid.UUID(event.id).version == 4
    assert event.key == event.id.encode()
    assert answer.json()["id"] == event.id
    assert answer.json()["source"] == "crm"


async def test_an_idempotency_key_is_the_id(gateway: Gateway) -> None:
    await _post(gateway, ce_type="note", idempotency_key='"order-7"')

    assert _event(gateway).id == "order-7"


async def test_an_idempotency_key_that_contradicts_the_id_is_400(gateway: Gateway) -> None:
    assert (await _post(gateway, ce_type="note", ce_id="a", idempotency_key="b")).status == 400
    assert (await _post(gateway, ce_type="note", ce_id="a", idempotency_key="a")).status == 202


async def test_binary_mode_of_the_cloudevents_library_is_accepted(gateway: Gateway) -> None:
    attributes = {"id": "e 1/\u00fc", "source": "crm/eu", "type": "t", "subject": "a b", "region": "eu1"}
    sent = to_binary(CloudEvent(attributes, {"a": 1}), JSONFormat())

    answer = await gateway.call("POST", "/v1/events", as_caller() | sent.headers, sent.body)

    event = _event(gateway)
    assert answer.status == 202
    assert (event.id, event.source, event.subject) == ("e 1/\u00fc", "crm/eu", "a b")
    assert event.extensions["region"] == "eu1"
    assert event.data == sent.body


async def test_structured_mode_of_the_cloudevents_library_is_accepted(gateway: Gateway) -> None:
    sent = to_structured(CloudEvent({"id": "e1", "source": "crm", "type": "t", "subject": "s"}, {"a": 1}), JSONFormat())

    answer = await gateway.call("POST", "/v1/events", as_caller() | sent.headers, sent.body)

    event = _event(gateway)
    assert answer.status == 202
    assert (event.id, event.subject, event.data) == ("e1", "s", b'{"a": 1}')
    assert event.datacontenttype == "application/json"


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"data": ..., "data_base64": "AP8="}, b"\x00\xff"),
        ({"data": "text", "datacontenttype": "text/plain"}, b"text"),
        ({"data": "text"}, b'"text"'),
        ({"data": [1]}, b"[1]"),
        ({"data": None}, b"null"),
        ({"data": ...}, b""),
    ],
)
async def test_the_data_of_a_structured_event_becomes_the_value(
    gateway: Gateway, changes: dict[str, Any], data: bytes
) -> None:
    answer = await _structured(gateway, **changes)

    assert answer.status == 202
    assert gateway.records[0].value == data


async def test_booleans_and_integers_become_their_canonical_text(gateway: Gateway) -> None:
    await _structured(gateway, urgent=True, count=7)

    assert _event(gateway).extensions["urgent"] == "true"
    assert _event(gateway).extensions["count"] == "7"


@pytest.mark.parametrize(
    "changes",
    [
        {"specversion": ...}, {"specversion": "0.3"}, {"specversion": 1.0}, {"id": ...}, {"id": ""}, {"id": 7.5},
        {"source": ...}, {"type": ...}, {"type": {}}, {"time": "yesterday"}, {"time": "2026-01-01T00:00:00"},
        {"time": "2026-01-01T00:00:00+01:00:30"},
        {"subject": "a\r\nb"}, {"Bad": "x"}, {"bad-name": "x"}, {"x" * 21: "x"}, {"ext": {"a": 1}}, {"ext": 1.5},
        {"data_base64": "AP8="}, {"data": ..., "data_base64": "A"}, {"data": ..., "data_base64": 1},
        {"data": {"a": 1}, "datacontenttype": "text/plain"}, {"id": "x" * 257},
    ],
    ids=str,
)  # fmt: skip
async def test_a_wrong_structured_event_is_400(gateway: Gateway, changes: dict[str, Any]) -> None:
    answer = await _structured(gateway, **changes)

    assert answer.status == 400, answer.body
    assert gateway.records == []


@pytest.mark.parametrize("body", [b"", b"[]", b"[{}]", b"null", b"{", b"\xff", b"1", b"[" * 990, b'{"id":' * 150])
async def test_a_structured_body_that_is_no_object_is_400(gateway: Gateway, body: bytes) -> None:
    assert (await _post(gateway, body, content_type=STRUCTURED)).status == 400


@pytest.mark.parametrize(
    "data",
    [b'"data":"\xff"', b'"data_base64":"\xff"', b'"datacontenttype":"text/plain","data":"\xff"']
    + [b'"datacontenttype":"text/plain","data":' + number for number in (b"1e999", b"9" * 800)],
)
async def test_data_that_json_cannot_hold_is_400(gateway: Gateway, data: bytes) -> None:
    body = b'{"specversion":"1.0","id":"e1","source":"crm","type":"t",' + data + b"}"

    assert (await _post(gateway, body, content_type=STRUCTURED)).status == 400
    assert gateway.records == []


@pytest.mark.parametrize(
    "content_type", ["application/cloudevents-batch+json", "application/cloudevents+xml", "application/cloudevents"]
)
async def test_batches_and_other_event_formats_are_415(gateway: Gateway, content_type: str) -> None:
    assert (await _post(gateway, b"[]", content_type=content_type)).status == 415


@pytest.mark.parametrize(
    "headers",
    [
        {"ce_specversion": "1.0", "ce_type": "t", "ce_source": "crm"},
        {"ce_specversion": "1.0", "ce_type": "t", "ce_id": "1"},
        {"ce_specversion": "0.3", "ce_type": "t", "ce_id": "1", "ce_source": "crm"},
        {},
        {"ce_type": ""},
        {"ce_type": "a%0d%0ab"},
        {"ce_type": "%ff"},
        {"ce_type": "t", "ce_bad_name": "x"},
        {"ce_type": "t", "ce_data": "x"},
        {"ce_type": "t", "ce_datacontenttype": "text/plain"},
        {"ce_type": "t", "idempotency_key": ""},
        {"ce_type": "t", "penstock_lane": "express"},
    ],
    ids=str,
)
async def test_a_wrong_binary_event_is_400(gateway: Gateway, headers: dict[str, str]) -> None:
    answer = await gateway.call("POST", "/v1/events", as_caller(**headers), b"{}")

    assert answer.status == 400, answer.body
    assert gateway.records == []


async def test_a_repeated_attribute_header_is_400(gateway: Gateway) -> None:
    lines = [(name.encode(), value.encode()) for name, value in as_caller(ce_type="t").items()]

    assert (await gateway.call("POST", "/v1/events", [*lines, (b"ce-type", b"u")], b"{}")).status == 400


async def test_a_body_that_is_not_the_json_it_says_is_400(gateway: Gateway) -> None:
    assert (await _post(gateway, b"{", ce_type="t", content_type="application/json; charset=utf-8")).status == 400
    assert (await _post(gateway, b"{", ce_type="t", content_type="text/plain")).status == 202


@pytest.mark.parametrize("name", ["owner", "eventid", "eventsource", "eventtype"])
async def test_reserved_extensions_are_400(gateway: Gateway, name: str) -> None:
    assert (await _structured(gateway, **{name: "billing"})).status == 400


@pytest.mark.parametrize("delivery", ["sync", "batch", "pigeon"])
async def test_deliveries_that_are_not_available_say_so(gateway: Gateway, delivery: str) -> None:
    answer = await _structured(gateway, delivery=delivery)

    assert answer.status == 400
    assert "available" in answer.json()["detail"]


async def test_an_event_may_be_streamed_and_says_where(gateway: Gateway) -> None:
    answer = await _structured(gateway, delivery="stream")

    assert answer.status == 202
    assert answer.json()["stream_url"].startswith("/v1/stream/e1?ticket=")
    assert dict(gateway.records[0].headers)["ce_delivery"] == b"stream"


async def test_a_deadline_in_the_future_is_kept(gateway: Gateway) -> None:
    expires = format_time(datetime.now(UTC) + timedelta(minutes=1))

    assert (await _structured(gateway, expirytime=expires)).status == 202
    assert _event(gateway).extensions["expirytime"] == expires


@pytest.mark.parametrize("expires", ["2020-01-01T00:00:00Z", "soon", "2999-01-01T00:00:00"])
async def test_another_deadline_is_400(gateway: Gateway, expires: str) -> None:
    assert (await _structured(gateway, expirytime=expires)).status == 400


async def test_a_valid_trace_goes_on(gateway: Gateway) -> None:
    await _post(gateway, ce_type="t", traceparent=TRACE, tracestate="a=b")

    assert _event(gateway).extensions["traceparent"] == TRACE
    assert _event(gateway).extensions["tracestate"] == "a=b"


@pytest.mark.parametrize("parent", ["x", "00-" + "0" * 32 + "-" + "b" * 16 + "-01", "ff-" + TRACE[3:], TRACE + "-x"])
async def test_an_invalid_trace_is_replaced(gateway: Gateway, parent: str) -> None:
    await _post(gateway, ce_type="t", traceparent=parent, tracestate="a=b")

    extensions = _event(gateway).extensions
    assert extensions["traceparent"].startswith("00-")
    assert extensions["traceparent"] != parent
    assert "tracestate" not in extensions


async def test_a_partition_key_is_the_records_key(gateway: Gateway) -> None:
    await _structured(gateway, partitionkey="customer-7")

    assert gateway.records[0].key == b"customer-7"


@pytest.mark.parametrize("how", ["header", "query"])
async def test_the_lane_chooses_the_topic(gateway: Gateway, how: str) -> None:
    headers = as_caller(ce_type="t") | ({"penstock-lane": "bulk"} if how == "header" else {})
    target = "/v1/events" + ("?lane=bulk" if how == "query" else "")

    assert (await gateway.call("POST", target, headers, b"{}")).status == 202
    assert gateway.records[0].topic == "penstock.events.bulk.v1"


async def test_a_lane_that_the_key_may_not_use_is_403(gateway: Gateway) -> None:
    answer = await _post(gateway, key=OTHER_API_KEY, ce_type="t", ce_source="shop/1", penstock_lane="interactive")

    assert answer.status == 403


async def test_two_lanes_are_400(gateway: Gateway) -> None:
    headers = as_caller(ce_type="t", penstock_lane="bulk")

    assert (await gateway.call("POST", "/v1/events?lane=standard", headers, b"{}")).status == 400


async def test_a_source_that_the_key_may_not_claim_is_403(gateway: Gateway) -> None:
    assert (await _structured(gateway, source="github")).status == 403
    assert (await _structured(gateway, source="billing")).status == 403


async def test_without_a_key_nothing_is_read(gateway: Gateway) -> None:
    answer = await gateway.call("POST", "/v1/events", {"content-length": "100"}, [])

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["connection"] == "close"


async def test_an_accepted_event_can_be_asked_for_at_once(gateway: Gateway) -> None:
    await _structured(gateway)

    assert gateway.results.noted["crm", "e1"].source == "crm"


async def test_a_caller_that_may_names_the_url_for_its_callback(gateway: Gateway) -> None:
    answer = await _post(gateway, ce_type="note", ce_callbackurl="https://hooks.crm.example/penstock?x=1")

    assert answer.status == 202
    assert _event(gateway).extensions["callbackurl"] == "https://hooks.crm.example/penstock?x=1"


@pytest.mark.parametrize(
    "url", ["https://other.example/", "http://hooks.crm.example/", "https://169.254.169.254/", "https://127.1/", "x"]
)
async def test_a_url_that_it_may_not_name_is_400_and_nothing_is_produced(gateway: Gateway, url: str) -> None:
    assert (await _post(gateway, ce_type="note", ce_callbackurl=url)).status == 400
    assert (await _structured(gateway, callbackurl=url)).status == 400
    assert gateway.records == []


async def test_a_caller_without_that_right_is_403(gateway: Gateway) -> None:
    answer = await _post(
        gateway, key=OTHER_API_KEY, ce_type="note", ce_source="shop/1", ce_callbackurl="https://hooks.crm.example/"
    )

    assert answer.status == 403
    assert gateway.records == []
