"""The codec: parity with the CloudEvents SDK, and strictness where the SDK mends what should be refused."""

import time
from datetime import datetime
from typing import Any

import pytest
from cloudevents.core.base import BaseCloudEvent
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary, to_binary
from cloudevents.core.formats.base import Format
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import (
    DEAD_LETTER,
    RESOLUTION,
    Headers,
    Position,
    _names,
    dead_letter,
    dead_letter_headers,
    decode_any_json,
    decode_event,
    decode_json,
    encodable,
    encode_event,
    encode_json,
    outcome_headers,
    position_headers,
    redrive_headers,
    redrive_of,
    resolution,
    resolution_headers,
    source_position,
)
from contracts.envelope import Event, result_id
from contracts.errors import Undecodable
from contracts.payloads import RESULT_TYPE, DeadLetter, OutcomeMarker, Redrive, Resolution

CE: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"s"), ("ce_type", b"t")]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AT = Position("t.events.standard.v1", 3, 42, 1_700_000_000_123)
LETTER = DeadLetter(
    reason="undecodable", disposition="poison", message="m", attempts=1, route="r", topic="t", partition=0, offset=1,
    failed_at="2026-01-01T00:00:00Z",
)  # fmt: skip


class RawFormat(JSONFormat):
    """The SDK's format without its rewriting of the body."""

    def write_data(self, data: Any, datacontenttype: str | None) -> bytes:  # noqa: ARG002 - the base's signature
        return bytes(data)

    def read_data(self, body: bytes, datacontenttype: str | None) -> Any:  # noqa: ARG002 - the base's signature
        return body


RAW: Format = RawFormat()
# The SDK's own rules: printable text, and no time before the year 1.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
TAKEN = {
    "id", "source", "type", "time", "subject", "dataschema", "datacontenttype", "specversion", "data", "partitionkey",
    "traceparent",
}  # fmt: skip
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,19}", fullmatch=True).filter(lambda name: name not in TAKEN)
EVENTS = st.builds(
    Event,
    id=TEXT,
    source=TEXT,
    type=TEXT,
    data=st.binary(max_size=60),
    time=st.sampled_from(["", "2026-01-02T03:04:05.678Z"]),
    subject=st.just("") | TEXT,
    datacontenttype=st.sampled_from(["", "application/json", "text/plain; charset=utf-8"]),
    dataschema=st.sampled_from(["", "https://example.com/schema"]),
    extensions=st.dictionaries(NAMES | st.just("partitionkey"), TEXT, max_size=4),
)


def sdk_attributes(event: BaseCloudEvent) -> dict[str, str]:
    """Return the SDK's attributes as text."""
    texts = {}
    for name, value in event.get_attributes().items():
        is_time = isinstance(value, datetime)
        texts[name] = value.isoformat(timespec="milliseconds").replace("+00:00", "Z") if is_time else str(value)
    return texts


def our_attributes(event: Event) -> dict[str, str]:
    """Return ours the same way."""
    names = ("id", "source", "type", "time", "subject", "datacontenttype", "dataschema")
    context = {name: getattr(event, name) for name in names if getattr(event, name)}
    return {"specversion": "1.0", **context, **event.extensions}


@given(EVENTS)
def test_what_we_write_the_sdk_reads_as_the_same_event(event: Event) -> None:
    read = from_binary(KafkaMessage(dict(encode_event(event)), event.key, event.data), RAW)

    found = sdk_attributes(read)
    if not event.time:
        # The SDK stamps an event that has no time.
        del found["time"]
    assert found == our_attributes(event)
    assert read.get_data() == event.data


@given(EVENTS)
def test_what_the_sdk_writes_we_read_as_the_same_event(event: Event) -> None:
    attributes: dict[str, Any] = our_attributes(event)
    if event.time:
        attributes["time"] = datetime.fromisoformat(event.time)
    message = to_binary(CloudEvent(attributes, event.data), RAW)
    # The SDK writes the partition key as a header as well; the binding wants it as the key.
    headers = [(name, raw) for name, raw in message.headers.items() if name != "ce_partitionkey"]
    key = message.key.encode() if isinstance(message.key, str) else message.key
    read = decode_event(key, message.value, headers)

    assert (read.id, read.source, read.type, read.data, read.subject) == (
        event.id, event.source, event.type, event.data, event.subject,
    )  # fmt: skip
    assert read.extensions == event.extensions
    assert (datetime.fromisoformat(read.time) if read.time else None) == attributes.get("time")


@given(EVENTS)
def test_an_event_survives_our_own_way_there_and_back(event: Event) -> None:
    assert decode_event(event.key, event.data, encode_event(event)) == event


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"\x00\xff\xfe", b'{"a": 1.0 }  ', "\ufeff{}".encode()])
def test_a_body_is_carried_byte_for_byte(body: bytes) -> None:
    event = Event(id="1", source="s", type="t", data=body)

    assert decode_event(None, body, encode_event(event)).data == body


def test_the_form_of_a_record_is_stable() -> None:
    event = Event(
        id="1", source="s", type="t", data=b"{}", time="2026-01-01T00:00:00Z", subject="sub",
        datacontenttype="application/json", extensions={"partitionkey": "k", "owner": "o", "traceparent": TRACE},
    )  # fmt: skip

    assert encode_event(event) == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"s"),
        ("ce_type", b"t"),
        ("ce_time", b"2026-01-01T00:00:00Z"),
        ("ce_subject", b"sub"),
        ("content-type", b"application/json"),
        ("ce_owner", b"o"),
        ("ce_traceparent", TRACE.encode()),
        ("traceparent", TRACE.encode()),
    ]


@pytest.mark.parametrize(
    ("value", "headers", "said"),
    [
        (None, CE, "null value: a tombstone is not an event"),
        (b"", [], "ce_specversion is missing or not 1.0"),
        (b"", [("ce_specversion", b"0.3"), *CE[1:]], "ce_specversion is missing or not 1.0"),
        (b"", [CE[0], *CE[2:]], "ce_id is missing or empty"),
        (b"", [*CE[:2], ("ce_source", b""), CE[3]], "ce_source is missing or empty"),
        (b"", [*CE[:3], ("ce_type", None)], "ce_type is missing or empty"),
        (b"", [*CE, ("ce_id", b"1")], "header ce_id stands there twice"),
        (b"", [*CE, ("content-type", b"a"), ("content-type", b"b")], "header content-type stands there twice"),
        (b"", [*CE, ("ce_subject", b"\xff")], "ce_subject is not UTF-8"),
        (b"", [*CE, ("ce_Upper", b"x")], "header 'ce_Upper' is not a CloudEvents attribute"),
        (b"", [*CE, ("ce_", b"x")], "header 'ce_' is not a CloudEvents attribute"),
        (b"", [*CE, ("ce_line\n", b"x")], "is not a CloudEvents attribute"),
        (b"", [*CE, ("ce_" + "x" * 21, b"x")], "is not a CloudEvents attribute"),
    ],
)
def test_what_is_not_an_event_is_refused(value: bytes | None, headers: Headers, said: str) -> None:
    with pytest.raises(Undecodable) as caught:
        decode_event(None, value, headers)

    assert said in str(caught.value)


def test_a_key_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(Undecodable, match="key is not UTF-8"):
        decode_event(b"\xff", b"", CE)


def test_headers_of_others_are_left_alone() -> None:
    event = decode_event(None, b"", [*CE, ("x-trace", b"\xff"), ("x-trace", b"again")])

    assert event.extensions == {}


def test_a_record_with_very_many_headers_costs_little_and_is_not_remembered() -> None:
    """Anybody who may produce chooses them: a record of the usual limit has room for 100,000."""
    hostile = [*CE, *((f"ce_{number}", b"") for number in range(30_000))]
    remembered, began_s = _names.cache_info().currsize, time.process_time()
    event = decode_event(None, b"", hostile)

    assert len(event.extensions) == 30_000
    assert time.process_time() - began_s < 2.0, "it goes with the square of their number"
    decode_event(None, b"", [*CE, ("x" * 5000, b"")])
    assert _names.cache_info().currsize == remembered
    with pytest.raises(Undecodable, match="ce_7 stands there twice"):
        decode_event(None, b"", [*hostile, ("ce_7", b"")])


def test_a_position_survives_its_headers() -> None:
    assert source_position(position_headers("app", AT)) == ("app", AT)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        position_headers("app", AT)[1:],
        [(name, b"x") for name, _ in position_headers("app", AT)],
        [(name, None) for name, _ in position_headers("app", AT)],
        [(name, b"\xff") for name, _ in position_headers("app", AT)],
    ],
)
def test_a_record_that_is_none_of_ours_has_no_position(headers: Headers) -> None:
    assert source_position(headers) is None


def test_a_terminal_record_names_event_and_position() -> None:
    event = Event(id="e", source="s", type="t", data=b"", extensions={"owner": "o", "private": "x"})
    headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00Z", "app", AT)
    outcome = decode_event(None, b"", headers)

    assert (outcome.id, outcome.source, outcome.type) == (result_id("s", "e"), "penstock/app", RESULT_TYPE)
    assert outcome.extensions == {"eventid": "e", "eventsource": "s", "eventtype": "t", "owner": "o"}
    assert source_position(headers) == ("app", AT)


def test_a_dead_letter_keeps_every_header_in_order_and_its_own_is_the_one_that_counts() -> None:
    original: list[tuple[str, bytes | None]] = [
        ("a", b"1"),
        (DEAD_LETTER, b"{}"),
        ("a", None),
        ("a", b"\xff"),
        ("b", b""),
    ]
    headers = dead_letter_headers(original, LETTER)

    assert headers[:-1] == original
    assert dead_letter(headers) == LETTER


def test_a_redriven_event_has_the_original_headers_and_one_mark() -> None:
    original: list[tuple[str, bytes | None]] = [("a", b"1"), (DEAD_LETTER, b"theirs"), ("a", None)]
    first = redrive_headers(dead_letter_headers(original, LETTER), redrive(1))
    second = redrive_headers(dead_letter_headers(first, LETTER), redrive(2))

    assert first[:-1] == second[:-1] == original
    assert redrive_of(second) == redrive(2)


@pytest.mark.parametrize("raw", [None, b"", b"{}", b"\xff"])
def test_a_redrive_mark_that_is_not_readable_is_none(raw: bytes | None) -> None:
    assert redrive_of([("penstock-redrive", raw)]) is None


def test_a_resolution_says_which_letter_it_is_about() -> None:
    resolved = Resolution(state="discarded", partition=1, offset=2, timestamp_ms=3, event_id="e", at="x", why="old")

    assert resolution(resolution_headers(resolved)) == resolved
    assert resolution(dead_letter_headers([], LETTER)) is None


@pytest.mark.parametrize("is_readable", [True, False])
def test_a_header_of_the_original_resolves_no_letter(is_readable: bool) -> None:
    resolved = Resolution(state="discarded", partition=0, offset=2, timestamp_ms=3, event_id="e", at="x")
    headers = dead_letter_headers(resolution_headers(resolved) if is_readable else [(RESOLUTION, b"{}")], LETTER)

    assert resolution(headers) is None
    assert dead_letter(headers) == LETTER


def redrive(count: int) -> Redrive:
    return Redrive(partition=1, offset=2, timestamp_ms=3, count=count, at="2026-11-24T08:00:00.000Z")


@pytest.mark.parametrize("headers", [[], [(DEAD_LETTER, b"{}")], [(DEAD_LETTER, b"\xff")], [(DEAD_LETTER, None)]])
def test_a_record_without_a_readable_reason_is_no_dead_letter(headers: Headers) -> None:
    with pytest.raises(Undecodable):
        dead_letter(headers)


def test_a_newer_minor_version_can_be_read() -> None:
    marker = OutcomeMarker(
        event_id="e",
        source="s",
        type="t",
        status="expired",
        reason="r",
        attempts=0,
        completed_at="2026-01-01T00:00:00Z",
    )
    raw = encode_json(marker)[:-1] + b',"invented_later":1}'

    assert decode_json(raw, OutcomeMarker) == marker


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"later":' + b"[" * 5000 + b"]" * 5000 + b"}"])
def test_what_is_not_a_payload_is_refused(raw: bytes) -> None:
    with pytest.raises(Undecodable, match="not a OutcomeMarker"):
        decode_json(raw, OutcomeMarker)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'"\\ud800"', b"NaN"])
def test_what_is_not_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Undecodable, match="not JSON"):
        decode_any_json(raw)


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_made_to_fit_a_record(text: str) -> None:
    made = encodable(text)

    made.encode()
    assert len(made) == len(text)


def test_a_header_name_that_is_not_utf_8_is_undecodable() -> None:
    with pytest.raises(Undecodable, match="the name of a header is not UTF-8"):
        decode_event(b"k", b"{}", [*encode_event(Event(id="1", source="s", type="t", data=b"")), ("\udcffname", b"")])


def test_a_dead_letter_has_header_names_that_are_not_utf_8_as_escapes() -> None:
    names = [name for name, _ in dead_letter_headers([("\udcffname", b"1"), ("n\u00e9", b"2")], LETTER)]

    assert names[:2] == ["\\xffname", "n\u00e9"]
