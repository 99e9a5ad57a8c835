"""`penstock tail`: shows results, dead letters or events as they come.

Reads: result topics, dead letters, event topics. Blocking: until --count, the end (--no-follow) or Ctrl-C.
"""

from pathlib import Path

import click

from contracts.settings import Settings, load
from contracts.topics import LANES, Topics
from gateways.cli.reading import SILENCE_LIMIT_S, TopicReader
from gateways.cli.wording import LINES, as_json, line

_POLL_S = 0.2


def topics_of(kind: str, settings: Settings) -> list[str]:
    """Return the topics that hold records of a kind."""
    topics = Topics(settings.kafka.topic_prefix)
    if kind == "events":
        return [topics.events(lane) for lane in LANES]
    if kind == "dead-letters":
        return [topics.dead_letters]
    outputs = {route.output_topic for route in settings.routes if route.output_topic}
    return [topics.results, *sorted(outputs - {topics.results})]


@click.command()
@click.argument("kind", type=click.Choice(sorted(LINES)))
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
@click.option("--from-beginning", is_flag=True, help="Everything the topics hold, not only what comes from now on.")
@click.option("--count", type=click.IntRange(min=1), help="End after this many records.")
@click.option("--follow/--no-follow", default=True, help="Wait for new records, or end when all have been read.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object per line, with headers, for jq.")
def tail(kind: str, config: Path | None, from_beginning: bool, count: int | None, follow: bool, in_json: bool) -> None:
    """Show results, dead-letters or events as they come, until Ctrl-C.

    \b
    Examples:
      penstock tail results
      penstock tail dead-letters --from-beginning --no-follow
      penstock tail results --json --count 10 | jq .value.output
    """  # noqa: D301 - click's \b
    settings = load(config)
    shown = 0
    is_cut_off = False
    # Without --from-beginning and without following there would be nothing to show.
    with TopicReader(
        settings.kafka,
        topics_of(kind, settings),
        from_beginning=from_beginning or not follow,
        patience_s=None if follow else SILENCE_LIMIT_S,
    ) as reader:
        while count is None or shown < count:
            record = reader.poll(_POLL_S)
            if reader.is_cut_off != is_cut_off:
                is_cut_off = reader.is_cut_off
                _tell(settings, is_cut_off=is_cut_off)
            if record is not None:
                click.echo(as_json(record) if in_json else line(kind, record))
                shown += 1
            elif not follow and reader.at_end:
                break
    if not shown and not follow:
        click.echo(f"no {kind} on {', '.join(topics_of(kind, settings))}", err=True)


def _tell(settings: Settings, *, is_cut_off: bool) -> None:
    """Say why nothing comes: without it, an outage looks like a topic on which nothing happens."""
    servers = ",".join(settings.kafka.bootstrap_servers)
    answers = f"no Kafka broker answers at {servers}; waiting for it" if is_cut_off else "Kafka answers again"
    click.echo(answers, err=True)
