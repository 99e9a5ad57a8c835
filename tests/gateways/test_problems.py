"""Errors of the tree as answers."""

import inspect
import json
from http import HTTPStatus

import pytest

from contracts import errors
from contracts.errors import (
    BadSignature,
    Busy,
    LogUnavailable,
    MethodNotAllowed,
    PenstockError,
    Rejected,
    Unauthenticated,
    Undecodable,
)
from gateways.problems import problem_of

REJECTED = [
    kind
    for kind in vars(errors).values()
    if inspect.isclass(kind) and issubclass(kind, Rejected) and kind not in {BadSignature, MethodNotAllowed}
]


@pytest.mark.parametrize("kind", REJECTED, ids=lambda kind: kind.__name__)
def test_the_callers_faults_keep_their_status_reason_and_words(kind: type[Rejected]) -> None:
    answer = problem_of(kind("what is wrong"))

    body = json.loads(answer.body)
    assert answer.status == body["status"] == kind.http_status
    assert 400 <= answer.status < 500
    assert (body["reason"], body["detail"]) == (kind.reason, "what is wrong")
    assert body["title"] == HTTPStatus(kind.http_status).phrase


@pytest.mark.parametrize("error", [Busy("x", 0.2), LogUnavailable("x"), LogUnavailable("x", retry_after_s=0.1)])
def test_our_own_limits_and_faults_say_when_to_come_back(error: PenstockError) -> None:
    answer = problem_of(error)

    assert answer.status == 503
    assert int(dict(answer.headers)[b"retry-after"]) >= 1


def test_a_long_wait_is_passed_on_whole() -> None:
    assert dict(problem_of(Busy("x", 7.2)).headers)[b"retry-after"] == b"8"


def test_a_signature_problem_says_nothing_about_itself() -> None:
    assert problem_of(BadSignature("stale")) == problem_of(BadSignature("wrong_signature"))


def test_headers_that_http_demands_are_there() -> None:
    assert dict(problem_of(MethodNotAllowed(("GET", "HEAD"))).headers) == {b"allow": b"GET, HEAD"}
    assert b"www-authenticate" in dict(problem_of(Unauthenticated("x")).headers)


def test_errors_that_nobody_should_meet_here_tell_no_details() -> None:
    answer = problem_of(Undecodable("inside"))

    assert answer.status == 503
    assert b"inside" not in answer.body
