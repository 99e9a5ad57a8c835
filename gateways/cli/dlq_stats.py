"""Counts dead letters for `penstock dlq stats`."""

from collections import defaultdict
from dataclasses import dataclass

import click
from rich.table import Table
from rich.text import Text

from gateways.cli.dlq_letters import Letter
from gateways.cli.dlq_show import instant, money
from gateways.cli.wording import printable, show_table

# Routes and reasons come from the records: a foreign writer must not fill the memory.
_MAX_ROWS = 1000
_OTHERS = ("others", "")


@dataclass
class _Group:
    count: int = 0
    cost_usd: float = 0.0
    first: str = ""
    last: str = ""


class Counts:
    """Letters by reason and route."""

    def __init__(self) -> None:
        self._groups: defaultdict[tuple[str, str], _Group] = defaultdict(_Group)

    def add(self, letter: Letter) -> None:
        """Count a letter."""
        why = letter.why
        name = (why.reason, why.route) if why else ("not readable", "-")
        if name not in self._groups and len(self._groups) >= _MAX_ROWS:
            name = _OTHERS
        group, at = self._groups[name], instant(letter)
        group.count += 1
        group.cost_usd += (why.cost_usd if why else None) or 0.0
        group.first = min(group.first or at, at)
        group.last = max(group.last, at)

    def show(self) -> None:
        """Print the table, the most frequent first."""
        table = Table()
        for name in ("reason", "route", "letters", "cost $", "first buried", "last buried"):
            table.add_column(name, justify="right" if name in {"letters", "cost $"} else "left", overflow="fold")
        for (reason, route), group in sorted(self._groups.items(), key=lambda item: -item[1].count):
            cells = (reason, route, str(group.count), money(group.cost_usd), group.first, group.last)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        if self._groups:
            show_table(table)
        click.echo(f"{sum(group.count for group in self._groups.values())} dead letters")
