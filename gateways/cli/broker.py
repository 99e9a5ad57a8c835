"""`penstock broker`: the embedded broker in the foreground, for a first look and for offline tests."""

import os
from pathlib import Path

import click

from contracts.errors import PenstockError
from producers.embedded import serve


def _topics(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        name, _, count = value.rpartition(":")
        if not name or not count.isascii() or not count.isdigit() or not 1 <= int(count) <= 1000:  # noqa: PLR2004
            message = f"{value!r}: expected NAME:PARTITIONS with 1 to 1000 partitions"
            raise click.BadParameter(message)
        found[name] = int(count)
    return found


@click.command("broker")
@click.option("--port-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the port into this file.")
@click.option("--exit-with-parent", is_flag=True, help="End as well when the process that started this one is gone.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    metavar="NAME:PARTITIONS",
    callback=_topics,
    help="Make a topic at start; repeatable. Others appear on first use with 4 partitions.",
)
def broker(port_file: Path | None, *, exit_with_parent: bool, topics: dict[str, int]) -> None:
    """Run the embedded broker on a free port until Ctrl-C.

    It speaks Kafka's protocol and keeps everything in memory: for a first look and for offline tests.
    For anything that must last use a real Kafka (`docker compose up`, or `make kafka`).

    \b
    Example:
      penstock broker --port-file /tmp/broker.port
    """  # noqa: D301 - click's \b
    # Taken first: a parent that dies while we start must not be mistaken for its heir.
    parent_pid = os.getppid() if exit_with_parent else None
    try:
        serve(click.echo, port_file=port_file, parent_pid=parent_pid, topics=topics)
    except PenstockError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        message = f"--port-file {port_file} cannot be written: {error.strerror}"
        raise click.ClickException(message) from error
