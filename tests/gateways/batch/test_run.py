"""Outcomes of a job are waited for as long as they can come."""

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from contracts.errors import InvalidPayload
from contracts.payloads import RESULT_TYPE
from contracts.settings import build, parse
from gateways.batch import run
from gateways.batch.outcomes import Outcomes
from tests.gateways.batch.test_joining import JOB, found, result

SETTINGS = build(parse("version: 1", "x"), {}, Path())


def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *polled: list[Any], shortened: set[str]) -> bool:
    """Wait for the outcomes of a job of two lines, on a result topic that is read to its end at the first poll."""
    polls = list(polled)
    reader = SimpleNamespace(
        begin=lambda *_: None, poll=lambda _: polls.pop(0), widen=set, at_end=True, shortened=shortened
    )
    monkeypatch.setattr(run, "LogReader", lambda *_: contextlib.nullcontext(reader))
    job = msgspec.structs.replace(JOB, lines=2, state="submitted")
    objects: Any = None
    with Outcomes(job, tmp_path / "outcomes.db") as outcomes:
        return run.JobRun(SETTINGS, objects).follow(job, outcomes)


def test_outcomes_that_their_topic_has_forgotten_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be for ever."""
    with pytest.raises(InvalidPayload, match="job j: 1 lines have no outcome any more"):
        follow(tmp_path, monkeypatch, [found(1, RESULT_TYPE, result())], shortened={"penstock.results.v1"})


def test_outcomes_that_are_all_there_are_enough_whatever_else_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = [found(line, RESULT_TYPE, result()) for line in (1, 2)]

    assert follow(tmp_path, monkeypatch, both, shortened={"penstock.results.v1"})


def test_outcomes_that_are_still_to_come_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = [[], [found(1, RESULT_TYPE, result())], [found(2, RESULT_TYPE, result())]]

    assert follow(tmp_path, monkeypatch, *later, shortened=set())
