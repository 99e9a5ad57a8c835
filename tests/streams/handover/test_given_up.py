"""Jobs that their provider does not know any more, and what an operator has given up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from contracts.batch_jobs import DENIED, GIVEN_UP, UNSEEN, GivenUp, HandOver, job_record
from contracts.codec import Record, decode_json
from contracts.errors import AccessDenied, PenstockError, ProviderUnavailable, Throttled
from contracts.metrics import REGISTRY
from producers.log_reader import Found
from streams.providers.bedrock_jobs import JobUnknown
from tests.streams.handover.support import TOPICS, make_settings, record
from tests.streams.handover.test_delivery import Site

ARN = "arn:job/1"


def found(made: Record) -> Found:
    return Found(made.topic, 0, 0, made.key, made.value, {}, tuple(made.headers))


def wish(hand_over: str = "h", job: str = ARN, *, even_if_denied: bool = False) -> Found:
    return found(job_record(TOPICS, GivenUp(id=hand_over, job=job, even_if_denied=even_if_denied)))


class Lost(Site):
    """A hand-over whose job cannot be seen, for a reason."""

    def __init__(self, folder: Path, why: PenstockError | None, notes: list[Found]) -> None:
        super().__init__(folder, make_settings(), [record(0), record(1)], notes)
        self.why = why
        self.answered = []
        api = self.delivery._desk.ways.apis["p"]
        vars(api.jobs)["status"] = self._status

    def _status(self, _arn: str) -> tuple[str, str]:
        if self.why is not None:
            raise self.why
        return "InProgress", ""

    def step(self) -> list[Any]:
        """Look once more; return the log lines."""
        self.delivery._look_at_s = 0.0
        with capture_logs() as lines:
            self.delivery.step()
        return lines

    @property
    def states(self) -> list[HandOver]:
        """Return the states that were noted."""
        return [decode_json(one.value or b"", HandOver) for one in self.written if one.topic == TOPICS.batch_jobs]


def rests(reason: str) -> float:
    return REGISTRY.get_sample_value("penstock_handover_rests_total", {"reason": reason}) or 0.0


def test_a_job_that_its_provider_does_not_know_rests_is_counted_and_noted_once(tmp_path: Path) -> None:
    site, before = Lost(tmp_path, JobUnknown("Bedrock refused arn:job/1"), []), rests("job_unknown")

    lines = [*site.step(), *site.step()]

    assert [(line["event"], line["reason"]) for line in lines] == [("handover.rests", "job_unknown")] * 2
    assert rests("job_unknown") == before + 2
    assert not site.delivery.is_over
    (state,) = site.states
    assert [(part.status, part.message) for part in state.parts.values()] == [(UNSEEN, "Bedrock refused arn:job/1")]


@pytest.mark.parametrize(
    ("why", "even_if_denied"),
    [(JobUnknown("gone"), False), (JobUnknown("gone"), True), (AccessDenied("of another account"), True)],
)
def test_a_job_that_was_given_up_ends_and_its_records_go_to_the_workers(
    tmp_path: Path, why: PenstockError, *, even_if_denied: bool
) -> None:
    site = Lost(tmp_path, why, [wish(even_if_denied=even_if_denied), wish("h", "arn:job/2")])

    site.step()

    assert [note.reason for note in site.retries()] == ["batch_unanswered"] * 2
    assert site.noted.state == "finished"
    assert site.noted.counts == {"unanswered": 2}
    assert [part.status for part in site.noted.parts.values()] == [GIVEN_UP]


def test_a_job_that_credentials_hide_now_is_not_ended_by_an_earlier_word(tmp_path: Path) -> None:
    """It was given up as one that is gone, which nobody can tell at the moment."""
    site = Lost(tmp_path, AccessDenied("the security token is expired"), [wish()])

    site.step()

    assert not site.delivery.is_over
    assert site.retries() == []
    (state,) = site.states
    assert [(part.status, part.message) for part in state.parts.values()] == [(DENIED, "the security token is expired")]


def test_a_job_that_turns_out_to_be_gone_once_the_credentials_are_mended_is_noted_as_such(tmp_path: Path) -> None:
    site = Lost(tmp_path, AccessDenied("expired"), [])
    site.step()
    site.why = JobUnknown("gone")

    site.step()

    assert [[part.status for part in state.parts.values()] for state in site.states] == [[DENIED], [UNSEEN]]


def test_answers_that_a_given_up_job_has_left_are_used(tmp_path: Path) -> None:
    site = Lost(tmp_path, JobUnknown("gone"), [wish()])
    site.answered = site.ids[:1]

    site.step()

    assert site.noted.counts == {"succeeded": 1, "unanswered": 1}


@pytest.mark.parametrize(
    "notes",
    [
        list,
        lambda: [wish("other")],
        lambda: [wish("h", "arn:job/2")],
        lambda: [wish()._replace(value=b"{")],
        lambda: [wish()._replace(value=None)],
    ],
    ids=["none", "of another", "other job", "broken", "deleted"],
)
def test_nothing_else_is_given_up(tmp_path: Path, notes: Callable[[], list[Found]]) -> None:
    site = Lost(tmp_path, JobUnknown("gone"), notes())

    site.step()

    assert not site.delivery.is_over
    assert site.retries() == []


@pytest.mark.parametrize("why", [None, Throttled("slow down"), ProviderUnavailable("no connection")])
def test_a_given_up_job_that_its_provider_may_know_is_waited_for(tmp_path: Path, why: PenstockError | None) -> None:
    site = Lost(tmp_path, why, [wish()])

    site.step()

    assert not site.delivery.is_over
    assert site.written == []


def test_a_job_that_is_seen_again_is_noted_as_such(tmp_path: Path) -> None:
    site = Lost(tmp_path, JobUnknown("gone"), [])
    site.step()
    site.why = None

    site.step()

    assert [[part.status for part in state.parts.values()] for state in site.states] == [[UNSEEN], ["InProgress"]]


def test_a_job_that_cannot_be_seen_keeps_no_other_from_being_looked_at(tmp_path: Path) -> None:
    site = Lost(tmp_path, JobUnknown("gone"), [])
    (part,) = site.delivery.state.parts.values()
    parts = {"m": part, "n": msgspec.structs.replace(part, arn="arn:job/2")}
    site.delivery.state = msgspec.structs.replace(site.delivery.state, parts=parts)
    asked: list[str] = []

    def status(arn: str) -> tuple[str, str]:
        asked.append(arn)
        if arn == ARN:
            raise JobUnknown(arn)
        return "Completed", ""

    vars(site.delivery._desk.ways.apis["p"].jobs)["status"] = status
    site.delivery._desk.ways._models["n"] = site.delivery._desk.ways._models["m"]

    site.step()

    assert asked == [ARN, "arn:job/2"]
    assert [part.status for part in site.delivery.state.parts.values()] == [UNSEEN, "Completed"]
