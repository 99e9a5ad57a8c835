"""The picture of a table."""

from xml.etree import ElementTree as ET

from bench.figures import Figure
from bench.plot import bars

SVG = "{http://www.w3.org/2000/svg}"


def widths(*figures: Figure) -> list[float]:
    root = ET.fromstring(bars("title", figures))  # noqa: S314 - our own text
    return [float(bar.attrib["width"]) for bar in root.findall(f"{SVG}rect")[1:]]


def test_bars_are_in_proportion_within_a_unit() -> None:
    long, short, other = widths(Figure("a", 4, "us"), Figure("b", 1, "us"), Figure("c", 0.5, "ratio"))
    assert (long, other) == (320.0, 320.0)
    assert short == 80.0


def test_names_cannot_break_the_picture() -> None:
    assert widths(Figure("<a> & b, N=64", 1, "us")) == [320.0]


def test_a_group_of_zeros_has_no_bars() -> None:
    assert widths(Figure("a", 0, "events")) == [0.0]
