"""Tests of gateways/cli/demo_show.py: the table a person reads."""

import io

from rich.console import Console

from gateways.cli import demo_show
from gateways.cli.demo_outcomes import Ledger
from tests.gateways.cli.records import marker, result
from tests.gateways.cli.test_demo_outcomes import sent


def printed(ledger: Ledger, width: int = 160) -> str:
    out = Console(file=io.StringIO(), width=width)
    out.print(demo_show.outcomes(ledger, out.width))
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


def test_the_table_shows_outcome_summary_and_attempts() -> None:
    ledger = Ledger([sent("sample"), sent("poison"), sent("forged", 401)])
    ledger.take_terminal(result({"summary": "It broke."}, "sample", attempts=3))
    ledger.take_terminal(marker("poison"))

    text = printed(ledger)

    assert "It broke." in text
    assert "undecodable: not JSON" in text
    assert "refused (401)" in text
    assert "bad_signature; nothing was produced" in text


def test_a_narrow_terminal_gets_paragraphs_instead_of_columns_of_single_letters() -> None:
    ledger = Ledger([sent("poison")])
    ledger.take_terminal(marker("poison"))

    text = printed(ledger, 40)

    assert "undecodable: not JSON" in text
    assert "dead letter, attempts 0, latency" in text


def test_a_lost_event_is_shown_as_such() -> None:
    assert "no outcome" in printed(Ledger([sent("sample")]))


def test_the_footer_says_that_it_is_no_language_model() -> None:
    assert "embedded/extract-v1, offline, no language model" in printed(Ledger([]))


def test_markup_in_outside_text_is_text() -> None:
    ledger = Ledger([sent("sample")])
    ledger.take_terminal(result("[bold]not bold[/bold] \x1b[31m", "sample"))

    text = printed(ledger)

    assert "[bold]not bold[/bold]" in text
    assert "\x1b[31m" not in text


def test_long_texts_are_cut_between_words() -> None:
    assert demo_show.shortened("word " * 100).endswith("word ...")
    assert len(demo_show.shortened("word " * 100)) < 270
