"""Commands that live in streams/: this process becomes `python -P -m streams ...`, arguments untouched.

The gateway side must not import streams (they meet on the log), so the command line replaces itself instead.
"""

import os
import sys

import click

from gateways.cli.modules import command_of

_UNTOUCHED = {"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False}


def _become(*args: str) -> None:
    # The whole point: signals and exit code are the program's own, and no second process stands between.
    os.execv(sys.executable, command_of("streams", *args))  # noqa: S606


@click.command(context_settings=_UNTOUCHED, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def worker(args: tuple[str, ...]) -> None:
    """Run a stream worker."""
    _become("worker", *args)


@click.command("fm-stub", context_settings=_UNTOUCHED, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def fm_stub(args: tuple[str, ...]) -> None:
    """Run a stand-in for Bedrock and OpenAI servers."""
    _become("fm-stub", *args)


@click.command("hand-over", context_settings=_UNTOUCHED, add_help_option=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def hand_over(args: tuple[str, ...]) -> None:
    """Hand patient events over to the provider's batch API."""
    _become("hand-over", *args)
