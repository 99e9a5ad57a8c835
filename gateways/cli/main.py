"""The console script: finds the command, runs it, and turns every expected failure into plain lines.

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 130 interrupted.
"""

# ruff: noqa: E402 - the first lines are for a Ctrl-C during all other imports, most of a short command's time
from contracts.signals import interrupts_kill, killable

# Until `run` can answer; given back at the end of this file.
_answered = interrupts_kill()

import codecs
import errno
import importlib
import io
import json
import sys
from difflib import get_close_matches
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from contracts.errors import ConfigError, PenstockError
from gateways.cli import running

# name -> (where the click command is, its line in the list). The list is shown without importing any of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("gateways.cli.demo:demo", "Show everything working, from signed webhook to result, and end."),
    "up": ("gateways.cli.up:up", "Run gateway, worker and (without --kafka) an embedded broker, for play."),
    "send": ("gateways.cli.send:send", "Send signed sample webhooks to a gateway."),
    "verify": ("gateways.cli.verify:verify", "Explain whether a captured webhook is authentic, and why not."),
    "tail": ("gateways.cli.tail:tail", "Show results, dead letters or events as they come."),
    "batch": ("gateways.cli.batch:batch", "Run files and S3 objects of JSON lines through the bulk lane."),
    "dlq": ("gateways.cli.dlq:dlq", "List, show, put back and discard dead letters."),
    "callbacks": ("gateways.cli.callbacks:callbacks", "Make signing keys for callbacks, disable and enable endpoints."),
    "gateway": ("gateways.cli.gateway:gateway", "Run the HTTP gateway."),
    "ingress": ("gateways.cli.ingress:ingress", "Run the doors that fetch events from queues (SQS)."),
    "worker": ("gateways.cli.passthrough:worker", "Run a stream worker."),
    "egress": ("gateways.cli.egress:egress", "Run the doors out: deliver results to SNS, SQS, S3 and others."),
    "undelivered": (
        "gateways.cli.undelivered:undelivered",
        "List what doors could not deliver, and let them try again.",
    ),
    "hand-over": ("gateways.cli.passthrough:hand_over", "Hand patient events over to the provider's batch API."),
    "fm-stub": ("gateways.cli.passthrough:fm_stub", "Run a stand-in for Bedrock and OpenAI servers."),
    "org-stub": ("gateways.cli.org_stub:org_stub", "Run a stand-in for a Salesforce org."),
    "broker": ("gateways.cli.broker:broker", "Run the embedded broker (memory only)."),
    "topics": ("gateways.cli.topics:topics", "List, create and verify the Kafka topics."),
    "why-stuck": ("gateways.cli.why_stuck:why_stuck", "Name what holds back each partition, why, and what to do."),
    "config": ("gateways.cli.config:config", "Check or show the configuration, print its JSON Schema."),
    "doctor": ("gateways.cli.doctor:doctor", "Say what this machine has, what is missing, and how to get it."),
}
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_ESCAPING = "penstock.escape"
INTERRUPTED = 130
# As of a program that SIGPIPE has ended, in a shell.
UNREAD = 141

_EXAMPLES = """\b
Examples:
  penstock demo                              a first look: ends by itself, needs nothing
  penstock up                                the same, kept running
  penstock send --source github --count 20   ... with events from a second terminal
  penstock tail results                      ... and results in a third
  penstock config check                      is penstock.yaml right?
"""


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Import one command; the others stay out, so that one broken import does not hurt them."""
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        # Imported code may make something of its own out of a Ctrl-C, as pydantic does.
        try:
            with killable():
                command: click.Command = getattr(importlib.import_module(module), attribute)
        except ImportError as error:
            message = f"{name} cannot be loaded: {error}\nInstall the project's dependencies: make install"
            raise click.ClickException(message) from error
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does, but say what may have been meant."""
        close = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(COMMANDS)}"
            ctx.fail(f"no such command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def installed_version() -> str:
    """Return the version of the installed distribution."""
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "unknown (run from a folder that is not installed)"


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=_EXAMPLES,
)
@click.version_option(installed_version(), prog_name="penstock")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Penstock: signed webhooks in, answers of foundation models on Kafka topics out."""
    running.lend(ctx)


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit."""
    sys.exit(run(args))


def run(args: list[str] | None = None) -> int:
    """Run the command line; the one place where failures become text and an exit code."""
    # A terminal of another encoding, as that of de_DE.ISO-8859-1, has not every character of an event.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors=_ESCAPING)
    try:
        outcome = cli.main(args, prog_name="penstock", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except PenstockError as error:
        return _complain(str(error), 2 if isinstance(error, ConfigError) else 1)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except SystemExit as error:
        # The reader of our output (`| head`) is gone: click would have it be 1, which is an answer of some commands.
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return UNREAD
    except OSError as error:
        text = _unusable(error)
        if not text:
            raise
        return _complain(text, 1)
    return outcome if isinstance(outcome, int) else 0


def _unusable(error: OSError) -> str:
    """Say which file, disk or folder cannot be used; empty for any other error: that is a bug, and shows where."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if error.errno in _FULL:
        return f"the output cannot be written: {error.strerror}"
    if error.errno == errno.ENOENT:
        try:
            Path.cwd()
        except FileNotFoundError:
            # Somebody has deleted it; Python gives no name then.
            return "the current folder does not exist any more: change into another one"
    return ""


def _escaped(error: UnicodeError) -> tuple[str, int]:
    """Return characters that an encoding does not have as JSON escapes them: within JSON they stay what they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


codecs.register_error(_ESCAPING, _escaped)


def _complain(text: str, code: int) -> int:
    for line in text.splitlines():
        click.echo(line, err=True)
    return code


_answered()
