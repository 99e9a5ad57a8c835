"""The scenario `ssrf` of the patterns benchmark: bounded, on loopback alone, and its goals hold."""

import asyncio

from bench.patterns.callbacks import _measure


def test_the_whole_corpus_is_refused_and_the_controls_hold() -> None:
    figures = asyncio.run(_measure())

    assert [figure.name for figure in figures if not figure.holds] == []
    assert figures[0].value > 250
