"""Shows dead letters to people and to programs."""

import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from contracts.codec import DEAD_LETTER, REDRIVE, format_time
from contracts.payloads import DeadLetter, Resolution
from gateways.cli.dlq_letters import Letter
from gateways.cli.wording import instant_of, parsed, printable, printable_json, readable, show_table

_RIGHT = frozenset({"attempts", "redrives", "cost $"})


def table(rows: Iterable[tuple[Letter, str]], *, with_state: bool) -> None:
    """Print letters and their states as a table."""
    shown = Table()
    names = (
        "letter",
        "buried at",
        "reason",
        "disposition",
        "route",
        "attempts",
        "cost $",
        "source",
        "type",
        "event id",
    )
    for name in (*names, *(("state",) if with_state else ())):
        shown.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for letter, state in rows:
        shown.add_row(*(Text(printable(cell)) for cell in (*_cells(letter), *((state,) if with_state else ()))))
    show_table(shown)


def _cells(letter: Letter) -> tuple[str, ...]:
    names = (letter.source or "-", letter.type or "-", letter.event_id or "-")
    if letter.why is None:
        return (letter.place, instant(letter), "not readable", "-", "-", "-", "-", *names)
    why = letter.why
    return (
        letter.place, instant(letter), why.reason, why.disposition, why.route, str(why.attempts), cost(why), *names
    )  # fmt: skip


def instant(letter: Letter) -> str:
    """Return when a letter was buried."""
    return format_time(instant_of(letter.record))


def cost(why: DeadLetter) -> str:
    """Return what its calls cost."""
    return "unknown" if why.cost_usd is None else money(why.cost_usd)


def money(usd: float) -> str:
    """Return US dollars to a millionth, without trailing zeros."""
    return f"{usd:.6f}".rstrip("0").rstrip(".")


def as_json(letter: Letter, state: str, resolved: Resolution | None = None) -> str:
    """Return all about a letter as one line of JSON; bytes that are no text are base64, marked as such."""
    record = letter.record
    document = {
        "partition": record.partition,
        "offset": record.offset,
        "buried_at": instant(letter),
        "state": state,
        "resolution": msgspec.to_builtins(resolved) if resolved else None,
        "event": {"id": letter.event_id, "source": letter.source, "type": letter.type},
        "letter": msgspec.to_builtins(letter.why) if letter.why else None,
        "fault": letter.fault or None,
        "key": readable(record.key),
        "headers": [{"name": name, **_readable_header(raw)} for name, raw in record.headers],
        "value": _value(record.value),
    }
    return printable_json(json.dumps(document, ensure_ascii=False))


def _readable_header(raw: bytes | None) -> dict[str, Any]:
    shown = readable(raw)
    return shown if isinstance(shown, dict) else {"value": shown}


def _value(raw: bytes | None) -> Any:
    try:
        return {"json": parsed(raw)} if raw else readable(raw)
    except ValueError:
        shown = readable(raw)
        return shown if isinstance(shown, dict) else {"text": shown}


def details(letter: Letter, state: str, resolved: Resolution | None) -> str:
    """Return all about a letter as text for people."""
    lines = [f"dead letter  {letter.place}, buried {instant(letter)}", f"state        {state}{_resolution(resolved)}"]
    lines += _why(letter.why) if letter.why else [f"not readable {letter.fault}"]
    lines += ["key          " + _line(letter.record.key), "headers"]
    ours = {DEAD_LETTER, REDRIVE} if letter.why else set()
    lines += [f"  {name}: {_line(raw)}" for name, raw in letter.record.headers if name not in ours]
    value = letter.record.value
    lines.append("value        null" if value is None else f"value        {len(value)} bytes")
    if value:
        lines.append(_pretty(value))
    if letter.why and letter.why.answer:
        lines += ["answer of the model", letter.why.answer]
    return printable("\n".join(lines))


def _why(why: DeadLetter) -> list[str]:
    lines = [
        f"reason       {why.reason} ({why.disposition})",
        f"last error   {why.message or '-'}",
        f"attempts     {why.attempts}, cost {cost(why)} USD, put back {why.redrives} times before",
        f"route        {why.route}, worker {why.app_id or '-'}",
        f"source       {why.topic}/{why.partition}/{why.offset}",
        f"failed at    {why.failed_at}",
        f"trace        {why.traceparent or '-'}",
    ]
    if why.failures:
        lines.append("failed attempts (the first, and the newest)")
    for note in why.failures:
        billed = ", possibly billed" if note.possibly_billed else ""
        lines.append(f"  {note.attempt}  {note.at}  {note.reason}{billed}: {note.message}")
    return lines


def _resolution(resolved: Resolution | None) -> str:
    if resolved is None:
        return ""
    target = f" to {resolved.topic}" if resolved.topic else ""
    why = f": {resolved.why}" if resolved.why else ""
    return f"{target} at {resolved.at} by {resolved.by or '-'}{why}"


def _line(raw: bytes | None) -> str:
    if raw is None:
        return "null"
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return f"base64 {base64.b64encode(raw).decode()}"


def _pretty(value: bytes) -> str:
    try:
        return json.dumps(parsed(value), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return _line(value)
