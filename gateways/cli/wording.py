"""Puts records into words: one readable line per result, dead letter or event."""

import base64
import json
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from contracts.codec import dead_letter, decode_event, decode_json, resolution
from contracts.envelope import EVENT_ID, EVENT_SOURCE, EVENT_TYPE
from contracts.errors import Undecodable
from contracts.payloads import DUPLICATE_TYPE, RESULT_TYPE, DuplicateMarker, InferenceResult, OutcomeMarker
from gateways.cli.reading import Read

if TYPE_CHECKING:
    from rich.table import Table

_WIDEST = 10_000
_MAX_VALUE_CHARS = 60
# C0 (but for the line feed) and C1: text from outside must not move the cursor or rename the terminal.
_CONTROL = dict.fromkeys((*range(10), *range(11, 32), *range(127, 160)), "\ufffd")
# Of these, and of what some readers take for the end of a line, those that JSON may hold as they are.
_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(127, 160), 0x2028, 0x2029)}


def show_table(table: "Table") -> None:
    """Print a table; on a terminal too narrow for it, a paragraph for each row.

    Folded cells can be neither read nor copied. In a pipe a table is as wide as it must be.
    """
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    width = console.measure(table, options=console.options.update(width=_WIDEST)).maximum
    if not console.is_terminal:
        Console(markup=False, highlight=False, width=width).print(table)
    elif width <= console.width:
        console.print(table)
    else:
        names = [str(column.header) for column in table.columns]
        for row in zip(*(column.cells for column in table.columns), strict=True):
            first, *others = map(str, row)
            parts = [first, *(f"{name} {cell}" for name, cell in zip(names[1:], others, strict=True) if cell)]
            console.print(
                textwrap.fill(
                    ", ".join(parts),
                    max(console.width, 20),
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                ),
                soft_wrap=True,
            )


def lasting(days: float) -> str:
    """Return a retention in days or hours, to a tenth: some topics keep records seconds longer than their days."""
    number, unit = (round(days, 1), "day") if days >= 1 else (round(24 * days, 1), "hour")
    return f"{number:g} {unit}{'' if number == 1 else 's'}"


def headline(output: Any) -> str:
    """Return what a person wants to read of a result's output: its summary, and its short answers beside it."""
    if not isinstance(output, dict):
        return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)
    text = output.get("summary")
    if not isinstance(text, str):
        return json.dumps(output, ensure_ascii=False)
    short = [
        f"{name}: {value}"
        for name, value in output.items()
        if name != "summary" and isinstance(value, str | int | float) and len(str(value)) <= _MAX_VALUE_CHARS
    ]
    return f"[{', '.join(short)}] {text}" if short else text


def attribute(record: Read, name: str) -> str:
    """Return a CloudEvents attribute of a record; empty when it has none."""
    raw = next((value for header, value in record.headers if header == f"ce_{name}"), None)
    return (raw or b"").decode("utf-8", "replace")


def instant_of(record: Read) -> datetime:
    """Return the record's time, UTC; the last that there is where a foreign one lies behind the calendar's end."""
    try:
        return datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError):
        # Nanoseconds in place of milliseconds, say: it must not hide the records beside it.
        return datetime.max.replace(tzinfo=UTC)


def clock(record: Read) -> str:
    """Return the record's time of day, UTC."""
    return instant_of(record).strftime("%H:%M:%S")


def result_line(record: Read) -> str:
    """Return a terminal record as a line.

    Raises:
        Undecodable: it is none of ours.
    """
    head = f"{clock(record)}  {attribute(record, EVENT_SOURCE)}  {attribute(record, EVENT_TYPE)}  "
    head += attribute(record, EVENT_ID)
    if attribute(record, "type") == RESULT_TYPE:
        result = decode_json(record.value or b"", InferenceResult)
        made = f"attempt {result.attempts}, {result.duration_s:.2f} s, {result.provenance.model}"
        return f"{head}  result ({made})\n    {headline(result.output)}"
    if attribute(record, "type") == DUPLICATE_TYPE:
        again = decode_json(record.value or b"", DuplicateMarker)
        return f"{head}  duplicate of {again.first_event_id} ({again.topic}/{again.partition}/{again.offset})"
    marker = decode_json(record.value or b"", OutcomeMarker)
    words = f"{marker.status.replace('_', ' ')}: {marker.reason} (attempts: {marker.attempts})"
    return f"{head}  {words}" + (f"\n    {marker.message}" if marker.message else "")


def dead_letter_line(record: Read) -> str:
    """Return a dead letter, or what became of one, as a line.

    Raises:
        Undecodable: it is none of ours.
    """
    if resolved := resolution(record.headers):
        place = f"{resolved.partition}/{resolved.offset}"
        return f"{clock(record)}  {resolved.event_id}  {resolved.state} (letter {place}, by {resolved.by or '-'})"
    letter = dead_letter(record.headers)
    head = f"{clock(record)}  {attribute(record, 'source')}  {attribute(record, 'type')}  {attribute(record, 'id')}"
    place = f"{letter.topic}/{letter.partition}/{letter.offset}"
    made = f"{letter.disposition}, route {letter.route or '-'}, attempts: {letter.attempts}, from {place}"
    return f"{head}  {letter.reason} ({made})\n    {letter.message}"


def event_line(record: Read) -> str:
    """Return an event as a line.

    Raises:
        Undecodable: it is no event.
    """
    event = decode_event(record.key, record.value, record.headers)
    key = event.key.decode("utf-8", "replace") if event.key is not None else "-"
    return f"{clock(record)}  {event.source}  {event.type}  {event.id}  key {key}, {len(event.data)} bytes"


LINES = {"results": result_line, "dead-letters": dead_letter_line, "events": event_line}


def line(kind: str, record: Read) -> str:
    """Return any record of a kind of topic as a line, also one that is not ours."""
    try:
        return printable(LINES[kind](record))
    except Undecodable as error:
        return printable(f"{clock(record)}  {record.topic}/{record.partition}/{record.offset}  not readable: {error}")


def printable(text: str) -> str:
    """Return text that cannot control a terminal."""
    return text.translate(_CONTROL)


def printable_json(text: str) -> str:
    """Return JSON on one line that says the same and cannot control a terminal."""
    return text.translate(_IN_JSON)


def parsed(raw: bytes) -> Any:
    """Return what a value is as JSON.

    Raises:
        ValueError: it is none, or cannot be written as JSON again: NaN, half of a surrogate pair, nested too deeply.
    """
    try:
        value = json.loads(raw)
        # Python reads more than JSON is. What workers refuse for that reason is what operators look at.
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError from error
    return value


def readable(raw: bytes | None) -> Any:
    """Return bytes as JSON can hold them: null, text, or base64 that is marked as such."""
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def as_json(record: Read) -> str:
    """Return a record with all its headers as one line of JSON; the value as JSON where it is JSON, else as text.

    What is neither is base64.
    """
    raw = record.value or b""
    try:
        value: Any = parsed(raw)
    except ValueError:
        value = readable(raw)
    document = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": readable(record.key),
        "headers": {name: readable(raw or b"") for name, raw in record.headers},
        "value": value,
    }
    return printable_json(json.dumps(document, ensure_ascii=False))
