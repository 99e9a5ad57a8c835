"""The stub's own doors."""

import urllib.error
from typing import Any

import pytest

from tests.stub import Stub


def refusal(stub: Stub, body: Any) -> str:
    with pytest.raises(urllib.error.HTTPError) as caught:
        stub.http("PUT", "/_stub/knobs", body)
    text = caught.value.read().decode()
    caught.value.close()
    return f"{caught.value.code} {text}"


def test_put_sets_knobs_back_that_it_does_not_name(stub: Stub) -> None:
    stub.set_knobs(latency_s=0.5)

    stub.set_knobs(rpm=10)

    knobs = stub.http("GET", "/_stub/knobs")
    assert (knobs["latency_s"], knobs["rpm"]) == (0.0, 10)


def test_patch_keeps_knobs_that_it_does_not_name(stub: Stub) -> None:
    stub.set_knobs(latency_s=0.5)

    stub.http("PATCH", "/_stub/knobs", {"rpm": 10})

    knobs = stub.http("GET", "/_stub/knobs")
    assert (knobs["latency_s"], knobs["rpm"]) == (0.5, 10)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"latencies": 1}, "latencies"),
        ({"latency_s": -1}, "latency_s"),
        ({"error_rates": {"hunger": 0.1}}, "hunger"),
        ({"error_rates": {"cut": 0.7, "hang": 0.7}}, "add up to 1.4"),
        ([], "JSON object"),
    ],
)
def test_wrong_knobs_are_refused_by_name(stub: Stub, body: Any, named: str) -> None:
    answer = refusal(stub, body)

    assert answer.startswith("400 ")
    assert named in answer


def test_health_answers(stub: Stub) -> None:
    assert stub.http("GET", "/healthz") == {"status": "ok"}
