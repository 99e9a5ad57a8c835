"""The reference page of the command line: the help text of every command, as it is printed."""

import subprocess

import click

from contracts.settings import environment
from gateways.cli.main import COMMANDS, cli
from gateways.cli.modules import command_of

_WIDTH = 100
# These become other programs, which know their own help.
_ELSEWHERE = frozenset({"worker", "fm-stub", "hand-over"})


def page() -> str:
    """Return the page."""
    root = _context(cli, None, "penstock")
    parts = ["# Command line\n", _block(cli.get_help(root))]
    for name in COMMANDS:
        parts += [f"\n## penstock {name}\n", _block(_elsewhere(name))] if name in _ELSEWHERE else _own(root, name)
    return "\n".join(parts)


def _own(root: click.Context, name: str) -> list[str]:
    command = cli.get_command(root, name)
    if command is None:
        return []
    return _with_children(command, _context(command, root, name), depth=2)


def _with_children(command: click.Command, ctx: click.Context, depth: int) -> list[str]:
    parts = [f"\n{'#' * depth} {ctx.command_path}\n", _block(command.get_help(ctx))]
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            parts += _with_children(child, _context(child, ctx, name), depth + 1)
    return parts


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    names = cli.context_settings["help_option_names"]
    return click.Context(
        command,
        parent=parent,
        info_name=name,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=names,
    )


def _elsewhere(name: str) -> str:
    args = command_of("streams", name, "--help")
    environ = {**environment(), "COLUMNS": str(_WIDTH), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(args, capture_output=True, text=True, check=True, env=environ)  # noqa: S603 - our own program
    return done.stdout


def _block(text: str) -> str:
    return f"```text\n{text.rstrip()}\n```\n"
