"""Bars of a table's figures as SVG, written by hand: no plotting library is worth its size for this.

What is compared between sides gets a group of bars with a scale of its own; what belongs to nobody is grouped by unit.
"""

import re
from collections.abc import Sequence
from html import escape
from itertools import groupby

from bench.comparison import OURS, Comparison, compare
from bench.figures import Figure

_ROW, _HEAD, _GAP, _BAR, _WIDTH, _CHAR, _SIDE_WIDTH = 19, 34, 12, 380, 860, 6.6, 110
_COLOURS = {OURS: "#1f77b4", "": "#1f77b4", "control": "#8c8c8c"}
_PEER = "#c4c4c4"
_GOAL = re.compile(r"^[<>]= (\d+(?:\.\d+)?)")


def bars(title: str, figures: Sequence[Figure]) -> str:
    """Return a picture; ours are blue, the goal is a dashed line."""
    rows = [_text(8, 22, title, size=15, is_bold=True)]
    y = _HEAD
    for head, goal, values in _groups(figures):
        rows.append(_text(8, y + 13, head, is_bold=True))
        y += _ROW
        # The largest value gets the whole width, and a goal beyond it still has to be seen.
        largest = max([value for _, value, _ in values] + ([goal] if goal else [])) or 1.0
        left = 24 + max(_SIDE_WIDTH, _CHAR * max(len(label) for label, _, _ in values))
        for label, value, colour in values:
            rows.append(_bar(label, y, left, value, _BAR * max(0.0, value) / largest, colour))
            y += _ROW
        if goal:
            rows.append(_line(left + _BAR * goal / largest, y - _ROW * len(values), y))
        y += _GAP
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    paper = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{paper}{"".join(rows)}</svg>\n'


# Head, goal (0 = none), bars as (label, value, colour).
_Group = tuple[str, float, list[tuple[str, float, str]]]


def _groups(figures: Sequence[Figure]) -> list[_Group]:
    compared = compare(figure for figure in figures if not figure.name.startswith("not measured"))
    nothing = [one.what for one in compared if one.is_nothing and OURS in one.by_side]
    found: list[_Group] = []
    for is_shared, some in groupby(compared, lambda one: "" in one.by_side):
        if is_shared:
            found += _by_unit(list(some))
        else:
            found += [_by_side(one) for one in some if not one.is_nothing]
    # Nothing to see there but that it is nothing.
    return (
        [*found, ("0 for all that were measured", 0.0, [(what, 0.0, _PEER) for what in nothing])] if nothing else found
    )


def _by_side(one: Comparison) -> _Group:
    values = [(side, figure.value, _COLOURS.get(side, _PEER)) for side, figure in one.by_side.items()]
    goal = one.goal
    head = f"{one.what} [{one.unit}]" + (f", goal {goal.goal}" if goal else "")
    wanted = _GOAL.match(goal.goal) if goal else None
    return head, float(wanted[1]) if wanted else 0.0, values


def _by_unit(some: list[Comparison]) -> list[_Group]:
    units = dict.fromkeys(one.unit for one in some)
    return [
        (unit, 0.0, [(one.what, one.by_side[""].value, _COLOURS[""]) for one in some if one.unit == unit])
        for unit in units
    ]


def _text(x: float, y: float, text: str, *, size: int = 12, is_bold: bool = False) -> str:
    weight = ' font-weight="bold"' if is_bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}"{weight}>{escape(text)}</text>'


def _bar(label: str, y: int, left: float, value: float, pixels: float, colour: str) -> str:
    bar = f'<rect x="{left:.1f}" y="{y + 3}" width="{pixels:.1f}" height="{_ROW - 6}" fill="{colour}"/>'
    return _text(16, y + 14, label) + bar + _text(left + pixels + 6, y + 14, f"{value:g}")


def _line(x: float, top: int, bottom: int) -> str:
    return f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}" stroke="#d62728" stroke-dasharray="4 3"/>'
