"""Figures of one kind side by side: what is compared, and what each side has.

A figure's name says what it is and, between commas, whose: `CPU per event, faust, N=64`. Reads and writes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.figures import Figure
from bench.peers.table import PEERS

OURS = "penstock"
# Of bench/gateway/sides.py: by the server, or by what is usual.
GATEWAYS = ("fastapi", "uvicorn", "granian", "granian-rsgi", "llhttp")
# The least that is promised, straight on: bench/least.py, bench/gateway/controls/least.py.
LEAST = "least"
SIDES = (OURS, LEAST, "control", *(folder for folder, _, _ in PEERS), *GATEWAYS)


@dataclass
class Comparison:
    """One kind of figure.

    Attributes:
        what: the name without the side.
        by_side: side -> figure; the side is empty for what belongs to nobody.
    """

    what: str
    unit: str
    by_side: dict[str, Figure] = field(default_factory=dict)

    @property
    def is_nothing(self) -> bool:
        """Whether every value is 0."""
        return not any(figure.value for figure in self.by_side.values())

    @property
    def goal(self) -> Figure | None:
        """The figure that has a goal: ours."""
        return next((figure for figure in self.by_side.values() if figure.goal), None)


def split(name: str) -> tuple[str, str]:
    """Return what a figure is, and whose; the latter is empty when it is nobody's."""
    parts = name.split(", ")
    side = next((part for part in parts if part in SIDES), "")
    return ", ".join(part for part in parts if part != side), side


def compare(figures: Iterable[Figure]) -> list[Comparison]:
    """Group figures, in the order in which each kind comes first."""
    found: dict[tuple[str, str], Comparison] = {}
    for figure in figures:
        what, side = split(figure.name)
        found.setdefault((what, figure.unit), Comparison(what, figure.unit)).by_side[side] = figure
    for one in found.values():
        one.by_side = {side: one.by_side[side] for side in ("", *SIDES) if side in one.by_side}
    return list(found.values())
