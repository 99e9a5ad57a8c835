"""`python -m streams worker`, `python -m streams fm-stub` and `python -m streams hand-over`."""

# ruff: noqa: E402 - the first lines are for a Ctrl-C during all other imports, as in gateways/cli/main.py
from contracts.signals import interrupts_kill, killable

# Until `run` can answer; given back at the end of this file.
_answered = interrupts_kill()

import errno
import sys
from pathlib import Path

import click

from contracts.errors import ConfigError, PenstockError
from contracts.settings import load, locating, require_secrets

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@click.command(context_settings={"help_option_names": ["--help", "-h"]})
@click.option(
    "--config", type=click.Path(path_type=Path), default=None, help="Configuration file; penstock.yaml by default."
)
@click.option("--port-file", type=click.Path(path_type=Path), default=None, help="Write the health port here.")
def worker(config: Path | None, port_file: Path | None) -> None:
    """Consume events, call the model, produce outcomes."""
    settings = load(config)
    require_secrets(settings, settings.secret_places("worker"), config)
    # Faust takes a while to import; a mistake in the file is told before that.
    from streams.worker import run_worker

    with locating(config):
        sys.exit(run_worker(settings, port_file))


class _Commands(click.Group):
    """Imports stub and hand-over only when they are asked for: a worker does not need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return [*super().list_commands(ctx), "fm-stub", "hand-over"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command."""
        if cmd_name == "fm-stub":
            from streams.fmstub.command import fm_stub

            return fm_stub
        if cmd_name == "hand-over":
            from streams.handover.command import hand_over

            return hand_over
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands, context_settings={"help_option_names": ["--help", "-h"]})
def main() -> None:
    """Run a part of Penstock's streams package."""


main.add_command(worker)


def run() -> None:
    """Run the group; problems of the user's are plain lines, not tracebacks."""
    # Faust alone takes a second to import. Each of the programs takes its signals itself, once it runs.
    try:
        with killable():
            # `penstock worker` and the others become this one: the usage names the command that was typed.
            main(prog_name="penstock")
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except PenstockError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except OSError as error:
        # As in gateways/cli/main.py: a help text on a full disk; anything else is a bug, and shows where.
        if error.filename is not None or error.errno not in _FULL:
            raise
        click.echo(f"the output cannot be written: {error.strerror}", err=True)
        sys.exit(1)


_answered()

if __name__ == "__main__":
    run()
