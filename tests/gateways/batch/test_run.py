"""Outcomes of a job are waited for as long as they can come."""

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from contracts.envelope import format_time
from contracts.errors import InvalidPayload
from contracts.payloads import RESULT_TYPE
from contracts.settings import build, parse
from gateways.batch import run
from gateways.batch.outcomes import Outcomes
from tests.gateways.batch.test_joining import JOB, found, result

RESULTS, SUMMARIES, OTHERS = "penstock.results.v1", "summaries", "others"
LONG_AGO = "2026-11-20T00:00:00.000Z"
SETTINGS = build(
    parse(
        f"""
version: 1
providers: {{ p: {{ kind: fake }} }}
models: {{ m: {{ provider: p, model: x }} }}
routes:
  - {{ name: r, match: {{ source: batch }}, prompt: {{ user: x }}, model: m, output_topic: {SUMMARIES} }}
  - {{ name: o, match: {{ source: crm }}, prompt: {{ user: x }}, model: m, output_topic: {OTHERS}, deadline_s: 2.e6 }}
""",
        "x",
    ),
    {},
    Path(),
)


def now(**ago: float) -> str:
    return format_time(datetime.now(UTC) - timedelta(**ago))


def follow(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *polled: list[Any],
    shortened: set[str],
    partial: bool = False,
    **job: Any,
) -> bool:
    """Wait for the outcomes of a job of two lines, on a result topic that is read to its end at the first poll."""
    polls = list(polled)
    reader = SimpleNamespace(
        begin=lambda *_: None, poll=lambda _: polls.pop(0), widen=set, at_end=True, shortened=shortened,
        to_now=lambda: None,
    )  # fmt: skip
    monkeypatch.setattr(run, "LogReader", lambda *_: contextlib.nullcontext(reader))
    wanted = msgspec.structs.replace(JOB, **{"lines": 2, "state": "submitted", "submitted_at": LONG_AGO, **job})
    objects: Any = None
    with Outcomes(wanted, tmp_path / "outcomes.db") as outcomes:
        return run.JobRun(SETTINGS, objects).follow(wanted, outcomes, partial=partial)


def outcome(line: int) -> Any:
    return found(line, RESULT_TYPE, result())


@pytest.mark.parametrize("topic", [RESULTS, SUMMARIES, "of-a-route-that-was"])
def test_outcomes_that_their_topic_has_forgotten_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, topic: str
) -> None:
    """It would be for ever."""
    with pytest.raises(InvalidPayload, match="job j: 1 lines have no outcome any more"):
        follow(tmp_path, monkeypatch, [outcome(1)], [], shortened={topic})


def test_outcomes_that_are_all_there_are_enough_whatever_else_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert follow(tmp_path, monkeypatch, [outcome(1), outcome(2)], shortened={RESULTS})


@pytest.mark.parametrize(
    ("job", "shortened"),
    [
        ({"submitted_at": now(seconds=100)}, {RESULTS}),
        ({"submitted_at": now(days=2), "expires_at": now(days=-1), "source": "crm"}, {RESULTS}),
        ({}, {OTHERS}),
    ],
    ids=["in-time", "in-time-of-another-route", "of-another-route"],
)
def test_outcomes_that_may_still_come_are_waited_for_whatever_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], shortened: set[str]
) -> None:
    """A topic that begins later than the job did need not have lost anything of it."""
    source = job.get("source", "batch")
    later = [[], [], [], [found(line, RESULT_TYPE, result(), source=source) for line in (1, 2)]]

    assert follow(tmp_path, monkeypatch, *later, shortened=shortened, **job)


def test_a_job_that_expired_is_over_though_its_route_has_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidPayload, match="2 lines have no outcome any more"):
        follow(
            tmp_path, monkeypatch, [], [], shortened={RESULTS}, source="crm", submitted_at=now(days=2),
            expires_at=now(hours=1),
        )  # fmt: skip


def test_what_came_while_nothing_could_be_read_is_looked_at_before_it_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert follow(tmp_path, monkeypatch, [], [outcome(1), outcome(2)], shortened={RESULTS})


def test_who_takes_a_part_gets_it_when_the_rest_can_come_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a message that names the option which was given."""
    assert not follow(tmp_path, monkeypatch, [outcome(1)], [], shortened={RESULTS}, partial=True)


def test_outcomes_that_are_still_to_come_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [[], [found(1, RESULT_TYPE, result())], [found(2, RESULT_TYPE, result())]]

    assert follow(tmp_path, monkeypatch, *later, shortened=set())
