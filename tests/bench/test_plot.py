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
    assert (long, other) == (380.0, 380.0)
    assert short == 95.0


def test_names_cannot_break_the_picture() -> None:
    assert widths(Figure("<a> & b, N=64", 1, "us")) == [380.0]


def test_a_group_of_zeros_has_no_bars() -> None:
    assert widths(Figure("a", 0, "events")) == [0.0]


def test_sides_are_compared_with_each_other_and_with_the_goal() -> None:
    ours = Figure("rate, penstock, N=64", 0.5, "ratio", ">= 1.0, above peers", holds=False)
    assert widths(Figure("rate, faust, N=64", 0.25, "ratio"), ours) == [190.0, 95.0]


def test_what_is_nothing_for_all_takes_one_line_without_a_bar() -> None:
    assert widths(Figure("lost, penstock", 0, "events"), Figure("lost, faust", 0, "events")) == [0.0]
