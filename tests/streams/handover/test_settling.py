"""What becomes of a batch API's answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from contracts.codec import Position, Record, decode_json, parked_event, source_position
from contracts.payloads import RESULT_TYPE, InferenceResult, RetryNote, Usage
from contracts.repetition import ANSWERED, REPLAY, dedup_header, identify
from producers.log_reader import Found
from streams.handover.answers import Answers
from streams.handover.choosing import Ways
from streams.handover.settling import Outcomes
from streams.parking import take_up
from streams.providers.bedrock_jobs import BedrockJobs, read_output
from streams.steps.route import Router
from tests.streams.handover.support import TOPICS, make_settings, record

ARN = "arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/abcdefghijkl"
SCHEMA = {"type": "object", "required": ["summary"]}
ROUTER = Router(make_settings().routes)


def output(text: str = "fine", stop: str = "end_turn") -> dict[str, Any]:
    usage = {"inputTokens": 10, "outputTokens": 2}
    return {"modelOutput": {"output": {"message": {"content": [{"text": text}]}}, "stopReason": stop, "usage": usage}}


def settle(found: Found, line: dict[str, Any], max_bytes: int = 10**6, **route: Any) -> tuple[str, Record]:
    ways = Ways(make_settings(**route))
    asked = ways.asked("m")
    ended = read_output(json.dumps(line).encode(), asked.model, ARN)
    return Outcomes(TOPICS, "penstock", max_bytes).of(found, ways.job(found), ways.readings["r"], ended, asked)


def note(made: Record) -> RetryNote:
    assert made.topic == TOPICS.retries
    return parked_event(made.headers)[1]


def test_an_answer_becomes_the_terminal_record_in_the_partition_of_its_event() -> None:
    found = record(9, partition=3, parked_by="penstock")
    kind, made = settle(found, output())
    result = decode_json(made.value or b"", InferenceResult)
    answered = source_position(made.headers)

    assert (kind, made.topic, made.partition) == ("succeeded", TOPICS.results, 3)
    assert dict(made.headers)["ce_type"] == RESULT_TYPE.encode()
    assert answered is not None
    assert answered[1][:3] == (TOPICS.handovers, 3, 9)
    assert (result.event_id, result.output, result.attempts) == ("e9", "fine", 1)
    assert result.provenance.response_id == "abcdefghijkl"


def test_the_outcome_says_which_of_the_events_under_its_id_it_answers_and_that_it_was_done_again() -> None:
    ways, found = Ways(make_settings()), record(9, parked_by="penstock")
    asked, job = ways.asked("m"), ways.job(found)
    identity = identify("", "s", "e9", b"{}", "id", 60)
    job.headers, job.replayed_s = [*job.headers, dedup_header(identity, "new")], 1_767_225_600.5
    ended = read_output(json.dumps(output()).encode(), asked.model, ARN)
    headers = dict(Outcomes(TOPICS, "penstock", 10**6).of(found, job, ways.readings["r"], ended, asked)[1].headers)

    assert (headers[ANSWERED], headers[REPLAY]) == (identity.digest.hex().encode(), b"1767225600500")


NESTED = b'{"recordId": "x", "modelOutput": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def test_a_line_that_is_nested_beyond_measure_holds_up_no_other() -> None:
    ended = read_output(NESTED, "model-1", ARN)

    assert ended.error is not None
    assert ended.error.reason == "provider_unavailable"


def test_lines_of_output_that_nobody_can_name_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever they say, the answers of the others are brought back."""
    lines = [NESTED, b"[", b'{"recordId": "\\ud800"}', b'{"recordId": "a"}']
    monkeypatch.setattr(BedrockJobs, "has", lambda *_: True)
    monkeypatch.setattr(BedrockJobs, "_lines", lambda *_: iter(lines))
    jobs = Ways(make_settings()).by_route["r"].jobs

    with Answers(tmp_path / "answers.db") as answers:
        answers.take(ARN, jobs.outputs(ARN, "s3://jobs/in/h1/0.jsonl", "s3://jobs/out/h1/"))

        assert answers.get("a") == (lines[-1], ARN)


def test_tokens_are_charged_at_the_price_of_a_batch() -> None:
    result = decode_json(settle(record(0), output())[1].value or b"", InferenceResult)

    assert result.usage == Usage(10, 2)
    assert result.cost_usd == pytest.approx(12 * 1000 / 1e6 / 2)


def test_an_answer_that_breaks_the_schema_goes_to_the_workers_with_what_it_has_cost() -> None:
    kind, made = settle(record(0), output("no json"), output_schema=SCHEMA)
    found = note(made)

    assert (kind, found.reason, found.attempts) == ("invalid", "batch_output_invalid", 1)
    assert found.cost_usd == pytest.approx(0.006)
    assert found.failures[0].reason == "output_invalid"


def test_an_answer_that_the_limit_has_cut_off_goes_back_as_one_that_no_worker_asks_for_again() -> None:
    """Tested where it is taken up: tests/streams/pipeline/test_parking.py."""
    for found, made in (
        settle(record(0), output('{"summ', "max_tokens"), output_schema=SCHEMA),
        settle(record(0), output("<think>so much to", "max_tokens")),
    ):
        assert (found, note(made).reason, note(made).attempts) == ("invalid", "batch_output_truncated", 1)
        assert "models.m.max_tokens" in note(made).failures[-1].message
        assert take_up(Position(TOPICS.retries, 0, 0, 0), b"k", made.value, made.headers, "penstock", ROUTER).fault


def test_thoughts_alone_are_no_result() -> None:
    kind, made = settle(record(0), output("<think>hm</think>"))

    assert (kind, note(made).reason) == ("invalid", "batch_output_invalid")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"error": {"errorCode": 400, "errorMessage": "bad"}}, "batch_invalid_request"),
        ({"error": {"errorCode": 500, "errorMessage": "oops"}}, "batch_provider_unavailable"),
        (output(stop="guardrail_intervened"), "batch_content_blocked"),
        ({"modelOutput": {"stopReason": "end_turn", "output": None}}, "batch_provider_unavailable"),
    ],
)
def test_what_has_no_answer_goes_to_the_workers(line: dict[str, Any], reason: str) -> None:
    kind, made = settle(record(0), line)

    assert (kind, note(made).reason, note(made).attempts) == ("refused", reason, 1)


def test_a_line_that_says_nothing_may_have_been_paid_for() -> None:
    """Its letter, should the workers fail as well, says so."""
    unreadable = {"modelOutput": {"stopReason": "end_turn", "output": None}}

    assert [one.possibly_billed for one in note(settle(record(0), unreadable)[1]).failures] == [True]


def test_an_answer_too_large_for_a_record_goes_to_the_workers() -> None:
    kind, made = settle(record(0), output("x" * 5000), max_bytes=4000)

    assert (kind, note(made).reason) == ("too_large", "batch_too_large")
