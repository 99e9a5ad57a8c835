"""Tests of gateways/cli/wording.py: what people read."""

import base64
import json

import msgspec
import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.codec import encode_event
from gateways.cli.reading import Read
from gateways.cli.wording import as_json, headline, lasting, line, show_table
from tests.gateways.cli.records import AT_MS, duplicate, event, letter, marker, result


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("plain text", "plain text"),
        ({"summary": "It broke.", "label": "bug"}, "[label: bug] It broke."),
        ({"summary": "It broke.", "key_facts": ["a"]}, "It broke."),
        ({"other": 1}, '{"other": 1}'),
        ([1, 2], "[1, 2]"),
        (None, "null"),
    ],
)
def test_the_headline_is_what_a_person_wants_to_read(output: object, text: str) -> None:
    assert headline(output) == text


def test_a_result_line_names_event_attempt_and_model() -> None:
    assert line("results", result({"summary": "It broke.", "label": "bug"}, attempts=3)) == (
        "08:00:00  github  com.github.issues  e-1  result (attempt 3, 0.25 s, embedded/extract-v1)\n"
        "    [label: bug] It broke."
    )


def test_a_repetition_names_the_first_event() -> None:
    assert line("results", duplicate()) == (
        "08:00:00  github  com.github.issues  e-2  duplicate of e-1 (penstock.events.standard.v1/1/5)"
    )


def test_a_marker_line_names_the_reason() -> None:
    assert line("results", marker()) == (
        "08:00:00  github  com.github.issues  e-1  dead letter: undecodable (attempts: 0)\n    not JSON"
    )


def test_a_dead_letter_line_says_where_the_original_lies() -> None:
    assert line("dead-letters", letter()) == (
        "08:00:00  github  com.github.issues  e-1  undecodable "
        "(poison, route triage, attempts: 0, from penstock.events.standard.v1/1/5)\n    not JSON"
    )


def test_an_event_line_names_its_key() -> None:
    record = Read("penstock.events.standard.v1", 1, 5, AT_MS, b"acme", b'{"a": 1}', [*encode_event(event())])

    assert line("events", record) == "08:00:00  github  com.github.issues  e-1  key acme, 8 bytes"


@pytest.mark.parametrize("kind", ["results", "dead-letters", "events"])
def test_a_foreign_record_is_shown_as_not_readable(kind: str) -> None:
    shown = line(kind, Read("t", 0, 7, AT_MS, None, b"x", []))

    assert shown.startswith("08:00:00  t/0/7  not readable: ")


def test_text_from_outside_cannot_control_the_terminal() -> None:
    shown = line("results", result("red \x1b[31m and \x9b31m and \x07 bell"))

    assert not set(shown) & {"\x1b", "\x9b", "\x07"}


def test_json_lines_carry_headers_and_the_parsed_value() -> None:
    document = json.loads(as_json(letter()))

    assert document["topic"] == "penstock.dead-letters.v1"
    assert document["key"] == "k"
    assert document["value"] == "{"
    assert document["headers"]["ce_id"] == "e-1"


@pytest.mark.parametrize("raw", [b'{"a": NaN}', b'{"a": 1e999}', b'"\\ud83d"', b"[" * 100_000])
def test_a_value_that_is_no_json_to_others_is_text_in_a_line_of_json(raw: bytes) -> None:
    written = as_json(letter()._replace(value=raw)).encode()

    assert msgspec.json.decode(written)["value"] == raw.decode()


def test_a_line_of_json_says_what_the_record_holds_and_cannot_control_a_terminal() -> None:
    odd = "\x07\x1b[31m \x7f \x85 \x9b31m \u2028 \u2029 \u0645 \U0001f469\u200d\U0001f467"
    record = letter(event_id=odd)._replace(key=odd.encode(), value=odd.encode())

    written = as_json(record)

    document = json.loads(written)
    assert (document["key"], document["value"], document["headers"]["ce_id"]) == (odd, odd, odd)
    assert not set(written) & {"\x07", "\x1b", "\x7f", "\x85", "\x9b"}
    assert len(written.splitlines()) == 1


def test_bytes_that_are_no_text_are_base64_in_a_line_of_json() -> None:
    record = letter()._replace(key=b"k\xff", value=bytes(range(256)), headers=[("x", b"\xfe"), ("y", b"y")])

    document = json.loads(as_json(record))

    assert (document["key"], document["headers"]) == ({"base64": "a/8="}, {"x": {"base64": "/g=="}, "y": "y"})
    assert base64.b64decode(document["value"]["base64"]) == bytes(range(256))


def test_a_time_beyond_the_calendar_does_not_hide_the_record() -> None:
    shown = line("events", Read("t", 0, 7, 10**18, None, b"x", []))

    assert shown.startswith("23:59:59  t/0/7  not readable: ")


def tabled(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table()
    for name in ("letter", "buried at", "event id"):
        table.add_column(name, overflow="fold")
    table.add_row("1/41", "2026-11-28T11:24:33.824Z", Text("9a86ed23-d203-4b26-a2bc-171a62cb0022"))
    table.add_row("1/42", "", "[bold]e-2")
    show_table(table)
    return capsys.readouterr().out


def test_in_a_pipe_a_table_is_as_wide_as_it_must_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")

    said = tabled(capsys)

    assert len(said.splitlines()) == 6
    assert "1/41   \u2502 2026-11-28T11:24:33.824Z \u2502 9a86ed23-d203-4b26-a2bc-171a62cb0022" in said


def test_on_a_terminal_a_table_that_fits_is_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", property(lambda _console: True))
    monkeypatch.setenv("COLUMNS", "100")

    assert "\u2502 1/42   \u2502" in tabled(capsys)


def test_on_a_narrow_terminal_a_row_is_a_paragraph_and_no_value_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Console, "is_terminal", property(lambda _console: True))
    monkeypatch.setenv("COLUMNS", "50")

    assert tabled(capsys).splitlines() == [
        "1/41, buried at 2026-11-28T11:24:33.824Z, event id",
        "    9a86ed23-d203-4b26-a2bc-171a62cb0022",
        "1/42, event id [bold]e-2",
    ]


@pytest.mark.parametrize(
    ("days", "text"), [(7, "7 days"), (7.00006, "7 days"), (7.21, "7.2 days"), (1, "1 day"), (1 / 24, "1 hour")]
)
def test_a_retention_is_told_in_round_numbers(days: float, text: str) -> None:
    assert lasting(days) == text
