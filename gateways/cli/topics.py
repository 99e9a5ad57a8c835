"""`penstock topics`: what topics there are, makes missing ones, and says where they differ from the configuration."""

from pathlib import Path

import click
from rich.table import Table

from contracts.settings import Settings, load
from gateways.cli.dlq_filters import Finite
from gateways.cli.wording import lasting, show_table
from producers.admin import TopicAdmin
from producers.mock_cluster import LIMITS
from producers.topic_plan import Found, Wanted, drifts, wanted_topics

_UNLIMITED = "-1"
_REACH_LIMIT_S = 5.0
_DAY_MS = 86_400_000
_PAY_ONCE_NOTE = (
    "A result topic is also the journal that keeps an answer from being paid for twice:\n"
    "let it keep its records longer than the oldest event may wait in an event topic."
)

_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]"
)


@click.group("topics", invoke_without_command=True)
@_config_option
@click.pass_context
def topics(ctx: click.Context, config: Path | None) -> None:
    """List the topics; `create` makes the missing ones, `verify` fails on drift.

    \b
    Examples:
      penstock topics
      penstock topics create --wait 60
      penstock topics verify
    """  # noqa: D301 - click's \b
    ctx.obj = config
    if ctx.invoked_subcommand is None:
        settings = load(config)
        _show(settings, *_look(settings))


@topics.command("list")
@_config_option
@click.pass_obj
def list_(outer_config: Path | None, config: Path | None) -> None:
    """List the topics, as `penstock topics` does."""
    settings = load(config or outer_config)
    _show(settings, *_look(settings))


@topics.command("create")
@_config_option
@click.option("--wait", "wait_s", type=Finite(0), default=0.0, help="Wait up to S seconds for Kafka.")
@click.option("--dry-run", is_flag=True, help="Only say what would be made.")
@click.pass_obj
def create(outer_config: Path | None, config: Path | None, wait_s: float, *, dry_run: bool) -> None:
    """Make the topics that are missing; existing ones are never changed."""
    settings = load(config or outer_config)
    if settings.kafka.embedded:
        click.echo(f"embedded broker: {LIMITS[1]}; nothing to do")
        return
    admin = TopicAdmin(settings.kafka)
    admin.wait(wait_s or _REACH_LIMIT_S)
    wanted = wanted_topics(settings)
    found = admin.find((want.topic.name for want in wanted), with_config=False)
    missing = [want for want in wanted if want.topic.name not in found]
    if not dry_run:
        admin.create(missing)
    for want in missing:
        click.echo(f"{'would make' if dry_run else 'made'} {want.topic.name}, {_shape(want)}")
    there = len(wanted) - len(missing)
    click.echo(f"{there} of {len(wanted)} topics were there already")


@topics.command("verify")
@_config_option
@click.pass_obj
def verify(outer_config: Path | None, config: Path | None) -> int:
    """Compare the topics with the configuration.

    Exit code 1 when they differ in a way that matters, or a partition cannot be read or written now.
    """
    settings = load(config or outer_config)
    wanted, found = _look(settings)
    differences = drifts(wanted, found, settings)
    if settings.kafka.embedded:
        # There a topic is missing until it is used.
        differences = [drift for drift in differences if drift.topic in found]
        click.echo("embedded broker: only partition counts can be compared")
    for drift in differences:
        click.echo(f"{drift.topic}: {drift.text}")
    if not differences:
        click.echo(f"{len(found)} topics are as configured")
    return 1 if differences else 0


def _look(settings: Settings) -> tuple[tuple[Wanted, ...], dict[str, Found]]:
    wanted = wanted_topics(settings)
    admin = TopicAdmin(settings.kafka)
    admin.wait(_REACH_LIMIT_S)
    names = (want.topic.name for want in wanted)
    return wanted, admin.find(names, with_config=not settings.kafka.embedded)


def _show(settings: Settings, wanted: tuple[Wanted, ...], found: dict[str, Found]) -> None:
    table = Table()
    for column in ("topic", "purpose", "partitions", "replicas", "retention", "differs"):
        table.add_column(column, justify="right" if column in {"partitions", "replicas"} else "left", overflow="fold")
    differences = drifts(wanted, found, settings)
    for want in wanted:
        name = want.topic.name
        texts = [drift.text for drift in differences if drift.topic == name]
        if settings.kafka.embedded and name not in found:
            texts = ["appears on first use"]
        table.add_row(name, want.topic.purpose, *_as_found(found.get(name)), "; ".join(texts))
    show_table(table)
    click.echo(_PAY_ONCE_NOTE)
    if settings.kafka.embedded:
        click.echo("embedded broker: " + "; ".join(LIMITS))


def _as_found(found: Found | None) -> tuple[str, str, str]:
    if found is None:
        return "-", "-", "-"
    retention = "-" if found.config is None else _retention(found.config.get("retention.ms", "?"))
    return str(found.partitions), str(found.replication_factor), retention


def _retention(text: str) -> str:
    if text == _UNLIMITED:
        return "unlimited"
    if not text.isdigit():
        return text
    return lasting(int(text) / _DAY_MS)


def _shape(want: Wanted) -> str:
    replicas = "the broker's default" if want.replication_factor < 0 else str(want.replication_factor)
    return f"{want.partitions} partitions, replicas: {replicas}, retention {_retention(want.config['retention.ms'])}"
