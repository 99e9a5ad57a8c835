"""Bars of a table's comparable figures as SVG, written by hand: no plotting library is worth its size for this."""

from collections.abc import Sequence
from html import escape

from bench.figures import Figure

_ROW, _HEAD, _LABEL, _BAR, _WIDTH = 22, 30, 380, 320, 780
_OURS, _THEIRS = "#1f77b4", "#b0b0b0"


def bars(title: str, figures: Sequence[Figure]) -> str:
    """Return a picture with one bar a figure, a group for each unit, each group to its own scale; ours are coloured."""
    rows: list[str] = []
    y = _HEAD
    for unit in dict.fromkeys(figure.unit for figure in figures):
        group = [figure for figure in figures if figure.unit == unit]
        largest = max((abs(figure.value) for figure in group), default=0.0) or 1.0
        for figure in group:
            rows.append(_row(figure, y, _BAR * max(0.0, figure.value) / largest))
            y += _ROW
        y += _ROW // 2
    head = f'<text x="8" y="18" font-size="14" font-weight="bold">{escape(title)}</text>'
    size = f'width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}"'
    style = 'font-family="sans-serif" font-size="12"'
    paper = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>{paper}{head}{"".join(rows)}</svg>\n'


def _row(figure: Figure, y: int, length: float) -> str:
    colour = _OURS if "penstock" in figure.name else _THEIRS
    name = f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(figure.name[:64])}</text>'
    bar = f'<rect x="{_LABEL}" y="{y + 3}" width="{length:.1f}" height="{_ROW - 6}" fill="{colour}"/>'
    value = f'<text x="{_LABEL + length + 6:.1f}" y="{y + 15}">{figure.value:g} {escape(figure.unit)}</text>'
    return name + bar + value
