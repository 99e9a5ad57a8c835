"""Outcomes and their join with the input."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.batch_jobs import BatchJob, BatchObject, event_id
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    EXPIRED_TYPE,
    RESULT_TYPE,
    InferenceResult,
    OutcomeMarker,
    Provenance,
    Usage,
)
from gateways.batch.joining import join
from gateways.batch.lines import Lines
from gateways.batch.objects import beside
from gateways.batch.outcomes import Outcomes
from gateways.cli.batch_show import details
from producers.log_reader import Found

JOB = BatchJob(
    id="j", object=BatchObject(uri="in.jsonl"), sha256="s", source="batch", type="t", event_topic="e",
    event_starts=(0,), result_starts={}, started_at="2026-11-28T00:00:00.000Z",
)  # fmt: skip


def found(line: int, kind: str, payload: msgspec.Struct, *, source: str = "batch", job: str = "j") -> Found:
    headers = {
        "ce_type": kind.encode(), "ce_eventid": event_id(job, line).encode(), "ce_eventsource": source.encode(),
    }  # fmt: skip
    return Found("results", 0, line, None, msgspec.json.encode(payload), headers)


def result(output: Any = "fine", cost_usd: float | None = 0.5) -> InferenceResult:
    return InferenceResult(
        event_id="x", source="batch", type="t", output=output,
        provenance=Provenance(provider="p", model="m", route="r", prompt_digest=""), usage=Usage(10, 2), attempts=1,
        completed_at="2026-11-28T00:00:01.000Z", duration_s=1.0, cost_usd=cost_usd,
    )  # fmt: skip


def marker(status: Any = "dead_letter") -> OutcomeMarker:
    return OutcomeMarker(
        event_id="x", source="batch", type="t", status=status, reason="invalid_request", attempts=1, completed_at="",
        message="no",
    )  # fmt: skip


@pytest.fixture
def outcomes(tmp_path: Path) -> Iterator[Outcomes]:
    with Outcomes(JOB, tmp_path / "outcomes.db") as opened:
        yield opened


def joined(folder: Path, raw: str, outcomes: Outcomes) -> tuple[dict[str, Any], list[Any], list[Any]]:
    path = folder / "in.jsonl"
    path.write_text(raw, encoding="utf-8")
    manifest = join(JOB, Lines(path, "/id", "", 1000), outcomes, folder, beside(folder / "out.jsonl"))
    files = [(folder / name).read_text("utf-8").splitlines() for name in ("output.jsonl", "errors.jsonl")]
    output, errors = ([json.loads(line) for line in lines] for lines in files)
    return manifest, output, errors


def test_each_line_has_one_line_in_the_order_of_the_input(tmp_path: Path, outcomes: Outcomes) -> None:
    outcomes.take([found(5, RESULT_TYPE, result({"a": 1})), found(1, EXPIRED_TYPE, marker("expired"))])
    outcomes.take([found(2, DEAD_LETTER_MARKER_TYPE, marker())])

    manifest, output, errors = joined(
        tmp_path, '{"id": "a"}\n{"id": "b"}\nnope\n\n{"id": "e"}\n{"id": "f"}\n', outcomes
    )

    assert [(line["line"], line["recordId"], line["status"]) for line in output] == [
        (1, "a", "expired"), (2, "b", "dead_letter"), (3, "3", "rejected"), (5, "e", "succeeded"), (6, "f", "missing"),
    ]  # fmt: skip
    assert output[3]["output"] == {"a": 1}
    assert [line["line"] for line in errors] == [1, 2, 3, 6]
    assert [line["input"] for line in errors] == [{"id": "a"}, {"id": "b"}, "nope", {"id": "f"}]
    assert not manifest["is_complete"]
    assert manifest["counts"] == {"succeeded": 1, "dead_letter": 1, "expired": 1, "rejected": 1, "missing": 1}


def test_a_manifest_adds_up_tokens_and_cost_and_counts_what_has_no_price(tmp_path: Path, outcomes: Outcomes) -> None:
    outcomes.take([found(1, RESULT_TYPE, result()), found(2, RESULT_TYPE, result(cost_usd=None))])

    manifest, _, _ = joined(tmp_path, "1\n2\n", outcomes)

    assert (manifest["usage"]["input_tokens"], manifest["usage"]["output_tokens"]) == (20, 4)
    assert (manifest["cost_usd"], manifest["results_without_price"]) == (0.5, 1)


def test_a_result_takes_the_place_of_a_marker_and_nothing_takes_that_of_a_result(outcomes: Outcomes) -> None:
    counts = [
        outcomes.take([found(1, DEAD_LETTER_MARKER_TYPE, marker())]),
        outcomes.take([found(1, RESULT_TYPE, result("late"))]),
        outcomes.take([found(1, DEAD_LETTER_MARKER_TYPE, marker()), found(1, RESULT_TYPE, result("again"))]),
    ]
    (kept,) = list(outcomes)

    assert counts == [1, 0, 0]
    assert json.loads(kept.body)["output"] == "late"
    assert (outcomes.count, outcomes.repeated) == (1, 2)


def test_outcomes_of_others_are_passed_over(outcomes: Outcomes) -> None:
    foreign = [
        found(1, RESULT_TYPE, result(), job="j2"),
        found(1, RESULT_TYPE, result(), source="elsewhere"),
        found(1, "penstock.delta.v1", result()),
    ]

    assert outcomes.take(foreign) == 0
    assert list(outcomes) == []


def test_an_outcome_that_cannot_be_read_is_counted_in_what_is_shown_of_a_job(
    outcomes: Outcomes, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = OutcomeMarker(
        event_id="x", source="batch", type="t", status="expired", reason="", attempts=0, completed_at=""
    )
    outcomes.take([found(1, RESULT_TYPE, result()), found(2, RESULT_TYPE, foreign)])

    details(msgspec.structs.replace(JOB, lines=3), outcomes, in_json=True)

    shown = json.loads(capsys.readouterr().out)
    assert [shown[name] for name in ("succeeded", "undecodable", "waiting")] == [1, 1, 1]
