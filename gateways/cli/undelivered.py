"""`penstock undelivered`: outcomes that a door could not deliver: shows them, and lets their doors try again.

Reads: undelivered. Writes: deliveries.5s. Blocking: until the topic is read to its end.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click

from contracts.codec import Record, delivery_headers, delivery_note, format_time
from contracts.errors import LogUnavailable, TooLarge, Undecodable
from contracts.payloads import DeliveryNote
from contracts.settings import Settings, load
from contracts.topics import DELIVERY_TIERS, Topics
from gateways.cli.dlq_filters import Instant, Place, meant
from gateways.cli.dlq_resolve import Stop, stoppable
from gateways.cli.dlq_units import confirm
from gateways.cli.reading import SILENCE_LIMIT_S, Read, TopicReader
from gateways.cli.wording import instant_of, printable

_POLL_S = 0.2
_FLUSH_TIMEOUT_S = 10.0
_LIMIT_S = 30.0
_INTERRUPTED = 130
_UNKNOWN = "it may be on its way all the same"
_SHORTEST = min(DELIVERY_TIERS, key=lambda tier: DELIVERY_TIERS[tier])


class _Found(NamedTuple):
    record: Read
    note: DeliveryNote

    @property
    def place(self) -> str:
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def result_id(self) -> str:
        return next(((raw or b"").decode(errors="replace") for name, raw in self.record.headers if name == "ce_id"), "")


def _filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose records."""
    for option in (
        click.option(
            "--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]"
        ),
        click.option("--place", "places", multiple=True, type=Place(), metavar="PARTITION/OFFSET",
                     help="Only this one; repeatable."),
        click.option("--until", type=Instant(), help="Not given up later: 2h, 7d, or a time."),
        click.option("--since", type=Instant(), help="Not given up earlier: 2h, 7d, or a time."),
        click.option("--reason", "reasons", multiple=True, help="Only of this reason; repeatable."),
        click.option("--door", "doors", multiple=True, help="Only of this door; repeatable."),
        click.option("--app", "app_id", help="Of this application, as before a rename. [default: worker.app_id]"),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group()
def undelivered() -> None:
    """Show outcomes that a door could not deliver, and let it try again.

    \b
    Examples:
      penstock undelivered list --door orders --since 2h
      penstock undelivered redrive --door orders --reason too_large --dry-run
      penstock undelivered redrive --place 2/17
    """  # noqa: D301 - click's \b


@undelivered.command("list")
@_filtered
@click.option("--json", "in_json", is_flag=True, help="One JSON object per line.")
def list_(config: Path | None, *, in_json: bool, **chosen: Any) -> None:
    """List what the doors gave up, the oldest of each partition first."""
    count = 0
    for found in _matching(load(config), **chosen):
        count += 1
        click.echo(_as_json(found) if in_json else _line(found))
    if not in_json:
        click.echo(f"{count} undelivered")


@undelivered.command()
@_filtered
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def redrive(config: Path | None, *, dry_run: bool, yes: bool, **chosen: Any) -> int:
    """Let the doors deliver again. They begin with the first attempt; the ids stay, so receivers recognise repeats.

    What was redriven stays on the topic and is not marked: choose by --since, --reason or --place what you mean.
    """
    settings = load(config)
    found = list(_matching(settings, **chosen))
    if not found:
        click.echo("nothing undelivered matches")
        return 0
    able = [one for one in found if not one.note.is_value_left_out and one.note.door in settings.egress]
    for one in found:
        if one not in able:
            _tell_left(one, "its value lies there only" if one.note.is_value_left_out else "no such door is configured")
    if dry_run or not able:
        click.echo(f"{len(able)} would be redriven")
        return int(len(able) < len(found))
    if not yes:
        confirm(f"redrive {len(able)} deliveries?", f"{len(able)} match; ")
    return _carry_out(settings, found, able)


def _carry_out(settings: Settings, found: list[_Found], able: list[_Found]) -> int:
    """Do it, say what was done and what not, and return the exit code."""
    left = {one.place: "not tried" for one in able}
    with stoppable() as stop:
        try:
            asyncio.run(_put_back(settings, able, left, stop))
        finally:
            # Also at a second Ctrl-C: nothing on the topic says what was redriven.
            for one in able:
                if one.place in left:
                    _tell_left(one, left[one.place])
            done = len(able) - len(left)
            click.echo(f"{done} of {len(found)} redriven")
            if done and left:
                click.echo("the same command would redrive those again; --place names what is left", err=True)
    if stop.is_set and left:
        return _INTERRUPTED
    return int(done < len(found))


def _tell_left(one: _Found, why: str) -> None:
    note = one.note
    text = f"{one.place} not redriven: {why} ({note.door}, {note.topic} {note.partition}/{note.offset})"
    click.echo(printable(text))


async def _put_back(settings: Settings, able: list[_Found], left: dict[str, str], stop: Stop) -> None:
    """Write them one after the other; those that are confirmed are taken out of `left`, the others' reason goes in."""
    from producers.producer import KafkaProducer

    topic = Topics(settings.kafka.topic_prefix).deliveries(_SHORTEST)
    producer = KafkaProducer(settings.kafka, settings.producer, client_id="penstock-cli", delivery_timeout_s=_LIMIT_S)
    await producer.start()
    try:
        for one in able:
            if stop.is_set:
                return
            left[one.place] = _UNKNOWN
            try:
                await producer.produce(_again(one, topic, settings.worker.app_id))
            except TooLarge as error:
                left[one.place] = str(error)
            except LogUnavailable as error:
                # With the next ones it would be the same, half a minute each.
                left[one.place] = f"{error}; {_UNKNOWN}"
                return
            else:
                del left[one.place]
    finally:
        await producer.aclose(_FLUSH_TIMEOUT_S)


def _again(one: _Found, topic: str, app_id: str) -> Record:
    from msgspec.structs import replace

    now = datetime.now(UTC)
    first_at_ms = int(now.timestamp() * 1000)
    note = replace(
        one.note,
        state="waiting",
        attempts=0,
        reason="redriven",
        at=format_time(now),
        first_at_ms=first_at_ms,
        app_id=app_id,
    )
    return Record(topic, one.record.key, one.record.value, delivery_headers(one.record.headers[:-1], note))


def _matching(
    settings: Settings,
    doors: tuple[str, ...],
    reasons: tuple[str, ...],
    places: tuple[tuple[int, int], ...],
    since: datetime | None,
    until: datetime | None,
    app_id: str | None,
) -> Iterator[_Found]:
    _warn_of_unknown(settings, doors)
    others: Counter[str] = Counter()
    topic = Topics(settings.kafka.topic_prefix).undelivered
    with TopicReader(settings.kafka, [topic], from_beginning=True, patience_s=SILENCE_LIMIT_S) as reader:
        while not reader.at_end:
            record = reader.poll(_POLL_S)
            if record is None:
                continue
            try:
                found = _Found(record, delivery_note(record.headers)[0])
            except Undecodable:
                continue
            at = instant_of(record)
            is_meant = (
                (not doors or found.note.door in doors)
                and (not reasons or found.note.reason in reasons)
                and (not places or (record.partition, record.offset) in places)
                and (since is None or at >= since)
                and (until is None or at <= until)
            )
            if not is_meant:
                continue
            if found.note.app_id in {"", app_id or settings.worker.app_id}:
                yield found
            else:
                others[found.note.app_id] += 1
    for name, count in others.items():
        click.echo(printable(f"{count} of application {name!r} not shown; --app {name} does"), err=True)


def _warn_of_unknown(settings: Settings, doors: tuple[str, ...]) -> None:
    """Say that a door is not configured; one that was once may have undelivered outcomes all the same."""
    for door in doors:
        if door not in settings.egress:
            hint = meant(door, settings.egress) or f"there are: {', '.join(settings.egress) or 'none'}"
            click.echo(f"no door under egress is called {door!r}; {hint}", err=True)


def _line(found: _Found) -> str:
    note = found.note
    where = f" to {note.destination}" if note.destination else ""
    text = (
        f"{found.place}  {note.at}  {note.door}{where}  {note.state}  {note.reason}  "
        f"attempts {note.attempts}  {found.result_id}  {note.message}"
    )
    return printable(text.rstrip())


def _as_json(found: _Found) -> str:
    note = found.note
    return json.dumps(
        {
            "partition": found.record.partition,
            "offset": found.record.offset,
            "result_id": found.result_id,
            **{name: getattr(note, name) for name in ("door", "destination", "state", "reason", "message", "attempts")},
            "at": note.at,
            "original": {"topic": note.topic, "partition": note.partition, "offset": note.offset},
            "is_value_left_out": note.is_value_left_out,
        }
    )
