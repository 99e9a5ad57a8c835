"""Tests of gateways/cli/demo_outcomes.py: the demo fails when an event is lost, doubled, or ends the wrong way."""

import pytest

from contracts.settings import load
from gateways.cli.demo_http import Answer
from gateways.cli.demo_outcomes import Ledger, Sent, verdict
from gateways.cli.demo_story import Act, Kind
from producers.samples.base import Sample
from tests.gateways.cli.records import letter, marker, result
from tests.support import ROOT

GITHUB = load(ROOT / "penstock.yaml", {}).sources["github"]
KINDS: tuple[Kind, ...] = ("sample", "stubborn", "poison")


def sent(kind: Kind, status: int = 202) -> Sent:
    document = {"id": kind, "status_url": "/v1/results/x"} if status == 202 else {"reason": "bad_signature"}
    return Sent(Act(kind, "github", GITHUB, Sample(kind, b"{}", kind, kind)), Answer(status, document), 0.0)


@pytest.fixture
def ledger() -> Ledger:
    """Return a ledger in which everything went well."""
    book = Ledger([*(sent(kind) for kind in KINDS), sent("forged", 401)])
    book.take_terminal(result("fine", "sample"))
    book.take_terminal(result("fine", "stubborn", attempts=3))
    book.take_terminal(marker("poison"))
    book.take_dead_letter(letter("poison"))
    return book


def failed(ledger: Ledger, events: int = 3) -> list[str]:
    return [text for holds, text in verdict(ledger, events, 2) if not holds]


def test_everything_holds_when_every_event_ends_once(ledger: Ledger) -> None:
    assert failed(ledger) == []
    assert verdict(ledger, 3, 2)[0][1] == "3 accepted = 2 result + 1 dead letter + 0 expired, one outcome each"


def test_an_event_without_an_outcome_fails_the_demo(ledger: Ledger) -> None:
    ledger.sent.append(sent("sample"))
    ledger.sent[-1].answer.document["id"] = "lost"

    assert failed(ledger, 4)[0].startswith("4 accepted = 2 result")


def test_a_second_outcome_of_one_event_fails_the_demo(ledger: Ledger) -> None:
    ledger.take_terminal(result("fine", "sample"))

    assert len(failed(ledger)) == 1


def test_a_dead_letter_whose_record_is_missing_is_still_open(ledger: Ledger) -> None:
    ledger.dead_letters.clear()

    assert [one.act.kind for one in ledger.open] == ["poison"]


def test_a_forgery_that_is_accepted_fails_the_demo(ledger: Ledger) -> None:
    ledger.sent[-1].answer = Answer(202, {"id": "forged"})
    ledger.take_terminal(result("fine", "forged"))

    assert [text for text in failed(ledger, 4) if "forged" in text]


def test_an_event_on_the_topics_that_nobody_accepted_fails_the_demo(ledger: Ledger) -> None:
    assert [text for text in failed(ledger, events=4) if "not one more" in text]


def test_an_answer_at_the_first_attempt_is_not_what_the_demo_claims(ledger: Ledger) -> None:
    ledger.take_terminal(result("fine", "stubborn", attempts=1))

    assert [text for text in failed(ledger) if "failed 2 times" in text]


def test_an_ordinary_event_that_dies_fails_the_demo(ledger: Ledger) -> None:
    ledger.take_terminal(marker("sample", "output_invalid"))
    ledger.take_dead_letter(letter("sample", "output_invalid"))

    assert "every ordinary event has its result" in failed(ledger)


def test_outcomes_of_other_events_are_nobodys(ledger: Ledger) -> None:
    assert ledger.take_terminal(result("fine", "somebody-elses")) is None
