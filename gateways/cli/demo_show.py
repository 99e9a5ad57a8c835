"""How the demo looks: progress while it runs, the table and the next steps at the end."""

from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from gateways.cli.demo_outcomes import DEAD_LETTER, EXPIRED, RESULT, Ledger, Sent
from gateways.cli.wording import printable

_PLAIN_WIDTH = 132
# Below it the columns of the table are a few letters wide.
_TABLE_WIDTH = 72
_MAX_TEXT_CHARS = 260
_COLOURS = {RESULT: "green", DEAD_LETTER: "yellow", EXPIRED: "yellow"}
_TITLE = "What became of each webhook"
FOOTER = (
    "model: embedded/extract-v1, offline, no language model (it picks sentences, facts and labels out of the event);"
    " served by penstock fm-stub over the OpenAI protocol"
)
NEXT = (
    ("{name} up", "the same, kept running; then, in other terminals in this folder:"),
    ("{name} send --source salesforce --count 20", "more events"),
    ("{name} tail results", "their results as they come"),
    ("{name} config show", "what is in effect; routes and prompts stand in penstock.yaml and examples/routes/"),
    ("docker compose up", "with real Kafka, two workers, Prometheus, Grafana"),
)


def console() -> Console:
    """Return a console for standard output; wide and plain when nobody looks at it."""
    found = Console(highlight=False, soft_wrap=False)
    return found if found.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def say(out: Console, mark: str, text: str) -> None:
    """Print one line of progress; text from outside is never taken for markup."""
    colour = {"ok": "green", "FAILED": "red", "..": "dim"}.get(mark, "yellow")
    out.print(Text.assemble("  ", (f"{mark:7}", colour), printable(text)), soft_wrap=True)


def progress(out: Console) -> Progress:
    """Return the bar that counts outcomes; it draws itself on a terminal only."""
    columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)


def outcomes(ledger: Ledger, width: int) -> Table | Group:
    """Return what became of every webhook: a table, or paragraphs where a table does not fit into so many columns."""
    return _table(ledger) if width >= _TABLE_WIDTH else _paragraphs(ledger)


def _paragraphs(ledger: Ledger) -> Group:
    parts = [Text(_TITLE, "italic")]
    for one in ledger.sent:
        event, ending, text, attempts, latency = _row(one)
        parts += [Text(), event, Text.assemble(ending, f", attempts {attempts}, latency {latency}"), text]
    return Group(*parts, Text(), Text(FOOTER, "dim"))


def _table(ledger: Ledger) -> Table:
    shown = Table(title=_TITLE, caption=FOOTER, show_lines=True, expand=True)
    shown.add_column("event", ratio=4, overflow="fold")
    shown.add_column("outcome", no_wrap=True)
    shown.add_column("what the consumer reads", ratio=8, overflow="fold")
    shown.add_column("attempts", justify="right")
    shown.add_column("latency", justify="right", no_wrap=True)
    for one in ledger.sent:
        shown.add_row(*_row(one))
    return shown


def _row(one: Sent) -> tuple[Text, Text, Text, str, str]:
    event = Text.assemble((f"{one.act.source}\n", "bold"), printable(one.act.title))
    colour = _COLOURS.get(one.outcome.kind, "red") if one.outcome else "red"
    ending = Text(one.ending, colour)
    if one.outcome is None:
        reason = "nothing was produced" if not one.is_accepted else ""
        return event, ending, Text(f"{one.answer.reason}; {reason}" if reason else "-"), "-", "-"
    latency = f"{max(0.0, one.outcome.ended_at - one.sent_at):.2f} s"
    return event, ending, Text(shortened(printable(one.outcome.text))), str(one.outcome.attempts), latency


def next_steps(name: str) -> str:
    """Return what to try now; `name` is how this program is called."""
    commands = [command.format(name=name) for command, _ in NEXT]
    width = max(map(len, commands))
    lines = (f"  {command:{width}}  {why}" for command, (_, why) in zip(commands, NEXT, strict=True))
    return "\n".join(["Where to go next:", *lines])


def shortened(text: str) -> str:
    """Return the beginning of a text, cut between words."""
    if len(text) <= _MAX_TEXT_CHARS:
        return text
    return text[:_MAX_TEXT_CHARS].rsplit(" ", 1)[0] + " ..."
