"""`penstock dlq`: list, show, put back and discard dead letters.

Reads: dead-letters. Writes: event topics, dead-letters. Blocking: until the topic has been read, bounded by its end.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from contracts.payloads import Resolution
from contracts.settings import Settings, load
from contracts.topics import LANES, Topics
from gateways.cli import dlq_show
from gateways.cli.dlq_chosen import Chosen
from gateways.cli.dlq_filters import Age, Filter, Finite, Place, filtered
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_resolve import Make, Tally, carry_out, stoppable
from gateways.cli.dlq_scan import catch_up, find, letters
from gateways.cli.dlq_stats import Counts
from gateways.cli.dlq_topic import LetterTopic, Span
from gateways.cli.dlq_units import Discard, Redriving, confirm, operator
from gateways.cli.dlq_write import Refusal, Writer
from gateways.cli.wording import printable

_INTERRUPTED = 130
_DRY_LINES = 20

_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]"
)


@click.group()
def dlq() -> None:
    """List, show, put back and discard dead letters.

    A letter is open until it is redriven or discarded; the topic itself keeps the record of that.

    \b
    Examples:
      penstock dlq list --since 2h --route triage
      penstock dlq show 2/17
      penstock dlq redrive --reason output_invalid --dry-run
      penstock dlq redrive --reason output_invalid --rate 20
      penstock dlq discard --reason undecodable --why "sender fixed, not needed"
    """  # noqa: D301 - click's \b


@dlq.command("list")
@filtered
@click.option("--all", "with_resolved", is_flag=True, help="Redriven and discarded ones too.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="Only the newest N.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object per letter and line.")
@_config_option
def list_(chosen: Filter, config: Path | None, limit: int, *, with_resolved: bool, in_json: bool) -> None:
    """List open dead letters, the newest last."""
    settings = load(config)
    with _topic(settings) as topic:
        found, _, _ = find(topic, chosen)
        count = found.count(resolved=with_resolved)
        found.keep(found.newest(limit, resolved=with_resolved))
        rows = [letter for letter in letters(topic, found, resolved=with_resolved) if letter is not None]
    rows.sort(key=lambda letter: (letter.record.timestamp_ms, letter.record.partition, letter.record.offset))
    if in_json:
        for letter in rows:
            click.echo(dlq_show.as_json(letter, found.state(letter) or "open"))
        return
    if rows:
        dlq_show.table(((letter, found.state(letter) or "open") for letter in rows), with_state=with_resolved)
    shown = f", the newest {len(rows)} are shown (--limit)" if len(rows) < count else ""
    click.echo(f"{count} {'' if with_resolved else 'open '}dead letters{shown}")


@dlq.command()
@filtered
@click.option("--all", "with_resolved", is_flag=True, help="Redriven and discarded ones too.")
@_config_option
def stats(chosen: Filter, config: Path | None, *, with_resolved: bool) -> None:
    """Count open dead letters by reason and route."""
    settings = load(config)
    counts = Counts()
    with _topic(settings) as topic:
        found, _, _ = find(topic, chosen)
        for letter in letters(topic, found, resolved=with_resolved):
            if letter is not None:
                counts.add(letter)
    counts.show()


@dlq.command()
@click.argument("place", metavar="PARTITION/OFFSET", type=Place())
@click.option("--json", "in_json", is_flag=True, help="As one JSON object.")
@click.option("--raw", is_flag=True, help="Only the original value, byte for byte.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="With --raw: write to this file.")
@_config_option
def show(place: tuple[int, int], config: Path | None, output: Path | None, *, in_json: bool, raw: bool) -> None:
    """Show everything about one dead letter; `list` names them.

    \b
    Examples:
      penstock dlq show 2/17
      penstock dlq show 2/17 --raw --output body.bin
    """  # noqa: D301 - click's \b
    if output is not None and not raw:
        message = "--output goes with --raw"
        raise click.UsageError(message)
    letter, resolved = _look_up(load(config), *place)
    state = resolved.state if resolved else "open"
    if raw:
        _write_raw(letter, output)
    elif in_json:
        click.echo(dlq_show.as_json(letter, state, resolved))
    else:
        click.echo(dlq_show.details(letter, state, resolved))


def _acting(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that change something."""
    for option in (
        _config_option,
        click.option("--no-transaction", is_flag=True, help="Where Kafka's transactions are not to be had: cut off in "
                     "between, a letter stays open though its event was put back."),
        click.option("--why", default="", help="Kept with what became of the letters."),
        click.option("--rate", type=Finite(0, min_open=True), help="Letters per second. [default: no limit]"),
        click.option("--limit", type=click.IntRange(min=1), help="Only the oldest N."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option("--dry-run", is_flag=True, help="Only say what would be done."),
    ):  # fmt: skip
        command = option(command)
    return filtered(command)


@dlq.command()
@_acting
@click.option("--extend", type=Age(), help="Give events at least so long until their own deadline (expirytime).")
def redrive(chosen: Filter, config: Path | None, why: str, extend: timedelta | None, **how: Any) -> int:
    """Put open dead letters back on the event topics they came from.

    Key, value and headers are the original's, so the event keeps its id; `penstock-redrive` is added.
    Its route's deadline starts again.

    Without --app only letters of this configuration's worker.app_id are taken, and their events go back for it alone.
    With it, they go back for every application that reads the topic.

    \b
    Examples:
      penstock dlq redrive --reason output_invalid --dry-run
      penstock dlq redrive --partition 2 --offset 17
      penstock dlq redrive --route triage --since 2h --rate 20 --yes
    """  # noqa: D301 - click's \b
    settings = load(config)
    topics = Topics(settings.kafka.topic_prefix)
    events = frozenset([*(topics.events(lane) for lane in LANES), topics.handovers])
    app_id = "" if chosen.app else settings.worker.app_id
    with _topic(settings) as topic:
        make = Redriving(events, topic.partitions, operator(), why, extend, app_id)
        return _act(settings, topic, chosen, make, ("redrive", "redriven"), **how)


@dlq.command()
@_acting
def discard(chosen: Filter, config: Path | None, why: str, **how: Any) -> int:
    """Give open dead letters up for good. Their records stay until the topic's retention ends.

    Without --app only letters of this configuration's worker.app_id are taken.

    \b
    Example:
      penstock dlq discard --reason undecodable --until 7d --why "answered by hand"
    """  # noqa: D301 - click's \b
    settings = load(config)
    with _topic(settings) as topic:
        return _act(settings, topic, chosen, Discard(operator(), why), ("discard", "discarded"), **how)


def _act(
    settings: Settings,
    topic: LetterTopic,
    wanted: Filter,
    make: Make,
    words: tuple[str, str],
    *,
    dry_run: bool,
    yes: bool,
    limit: int | None,
    rate: float | None,
    no_transaction: bool,
) -> int:
    verb, done = words
    is_ours = not wanted.app
    if is_ours:
        # Others may want theirs, and a discard cannot be undone. Some letters do not say whose they are.
        wanted = replace(wanted, app=(settings.worker.app_id, ""))
    chosen, others, read = find(topic, wanted)
    if limit is not None:
        chosen.keep(chosen.oldest(limit))
    count = chosen.count()
    if not count:
        whose, hint = (f" of application {wanted.app[0]}", "; --app takes those of others") if is_ours else ("", "")
        number = f": {left}" if is_ours and (left := others.count()) else ""
        click.echo(f"no open dead letter{whose} matches{hint}{number}")
        return 0
    if is_ours and (left := others.count()):
        click.echo(f"open dead letters of other applications that match: {left}; --app takes them", err=True)
    if dry_run:
        return _rehearse(letters(topic, chosen), make, verb, count)
    if not yes:
        confirm(f"{verb} {count} dead letters?", f"{count} dead letters match; ")
    # The embedded broker has no transactions, and nobody to share it with.
    name = "" if no_transaction or settings.kafka.embedded else f"{topic.name}.resolve"
    writer = Writer(settings.kafka, settings.producer, name)
    try:
        writer.start()
        return _run(topic, chosen, read, writer, make, done, rate)
    finally:
        writer.close()


def _run(
    topic: LetterTopic, chosen: Chosen, read: list[Span], writer: Writer, make: Make, done: str, rate: float | None
) -> int:
    """Do it, say what was done, and return the exit code."""
    count = chosen.count()
    catch_up(topic, chosen, read)
    if resolved := count - chosen.count():
        click.echo(f"{resolved} were resolved by somebody else meanwhile", err=True)
    count, tally = chosen.count(), Tally()
    with stoppable() as stop:
        try:
            with Told(done, count) as told:
                carry_out(writer, letters(topic, chosen), make, rate, told, stop, tally)
        except KeyboardInterrupt:
            click.echo(
                f"cut short: {tally.done} of {count} dead letters {done}, and perhaps those that were under way; "
                "`penstock dlq list` shows what is open, and the same command goes on with it",
                err=True,
            )
            raise
        return _conclude(tally, count, done, was_interrupted=stop.is_set)


def _conclude(tally: Tally, count: int, done: str, *, was_interrupted: bool) -> int:
    left = count - tally.done
    click.echo(f"{tally.done} of {count} dead letters {done}" + (f", {left} stay open" if left else ""))
    if tally.error:
        click.echo(tally.error, err=True)
    if was_interrupted and left > tally.refused:
        click.echo("interrupted; the same command goes on with the rest", err=True)
        return _INTERRUPTED
    return 1 if left else 0


def _rehearse(found: Any, make: Make, verb: str, count: int) -> int:
    """Say what would be done and return the exit code that doing it would most likely have."""
    refused = shown = 0
    for letter in found:
        if letter is None:
            continue
        made = make(letter)
        refused += isinstance(made, Refusal)
        if isinstance(made, Refusal):
            Tally().refuse(made)
        elif shown < _DRY_LINES:
            shown += 1
            name = printable(letter.event_id) or "-"
            click.echo(f"would {verb} {letter.place} {name}{_target(made.records[0], letter)}")
    more = count - refused - shown
    click.echo(f"dry run: would {verb} {count - refused} of {count} dead letters" + (f" ({more} more)" if more else ""))
    return 1 if refused else 0


def _target(record: Any, letter: Letter) -> str:
    return "" if record.topic == letter.record.topic else f" to {record.topic}/{record.partition}"


def _topic(settings: Settings) -> LetterTopic:
    return LetterTopic(settings.kafka, Topics(settings.kafka.topic_prefix).dead_letters)


def _look_up(settings: Settings, partition: int, offset: int) -> tuple[Letter, Resolution | None]:
    """Return a letter, and what became of it."""
    letter: Letter | None = None
    resolved: Resolution | None = None
    with _topic(settings) as topic:
        spans = [Span(partition, max(span.start, offset), span.end) for span in topic.spans(None, partition)]
        for records in topic.read(spans):
            for record in records:
                found = read_letter(record)
                if isinstance(found, Letter):
                    letter = found if record.offset == offset else letter
                elif letter and (found.partition, found.offset, found.timestamp_ms) == (
                    partition, offset, letter.record.timestamp_ms,
                ):  # fmt: skip
                    resolved = resolved or found
    if letter is None:
        message = f"there is no dead letter at {partition}/{offset}; `penstock dlq list --all` shows what there is"
        raise click.ClickException(message)
    return letter, resolved


def _write_raw(letter: Letter, output: Path | None) -> None:
    value = letter.record.value
    if value is None:
        message = f"the record at {letter.place} has no value (null), which no file can say"
        raise click.ClickException(message)
    if output is None:
        click.get_binary_stream("stdout").write(value)
        return
    try:
        output.write_bytes(value)
    except OSError as error:
        message = f"{output}: cannot be written: {error.strerror}"
        raise click.ClickException(message) from error
