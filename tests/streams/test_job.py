"""From a record to a job."""

from datetime import UTC, datetime, timedelta

import pytest

from contracts.codec import Headers, Position
from contracts.errors import NoRoute, Undecodable
from contracts.settings import RouteSettings
from streams.job import Job, make_job, restart_deadline
from streams.steps.route import Router

CE: Headers = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"s"), ("ce_type", b"t")]
ROUTE = RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m", "deadline_s": 60})


def job(headers: Headers = CE, timestamp_ms: int = 1_700_000_000_000, key: bytes | None = b"k") -> Job:
    return make_job(Position("topic", 3, 42, timestamp_ms), key, b"{}", headers, Router((ROUTE,)))


def test_the_deadline_counts_from_the_timestamp_of_the_record() -> None:
    made = job()

    assert made.accepted_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert made.deadline_at - made.accepted_at == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2023-11-14T22:13:30Z", 10), ("2030-01-01T00:00:00Z", 60), ("never", 60)]
)
def test_an_event_may_shorten_its_deadline_only(text: str, seconds: int) -> None:
    made = job([*CE, ("ce_expirytime", text.encode())])

    assert (made.deadline_at - made.accepted_at).total_seconds() == seconds


@pytest.mark.parametrize(
    "timestamp_ms", [-1, -(2**63), 2**63 - 1, 10**17, 4_102_444_800_000, pytest.param(10**400, id="huge")]
)
def test_a_timestamp_that_makes_no_sense_counts_as_now(timestamp_ms: int) -> None:
    made = job(timestamp_ms=timestamp_ms)

    assert abs((datetime.now(UTC) - made.accepted_at).total_seconds()) < 5


def test_an_undecodable_record_is_named_by_what_can_be_read_of_it() -> None:
    made = job([("ce_id", b"e9"), ("ce_source", b"\xff")])

    assert isinstance(made.fault, Undecodable)
    assert (made.event.id, made.event.source, made.event.type) == ("e9", "\ufffd", "unknown")


def test_an_undecodable_record_without_a_name_is_named_by_its_position() -> None:
    assert job([]).event.id == "topic/3/42"


def test_an_event_without_a_route_keeps_its_fault_for_the_dead_letter() -> None:
    made = make_job(Position("topic", 3, 42, 0), None, b"", CE, Router(()))

    assert isinstance(made.fault, NoRoute)
    assert (made.route, made.route_name) == (None, "none")


def test_a_replayed_event_gets_the_whole_deadline_from_now_on() -> None:
    made = job()
    restart_deadline(made)

    assert 59 < (made.deadline_at - datetime.now(UTC)).total_seconds() <= 60


def test_a_replayed_event_still_expires_when_its_sender_said() -> None:
    made = job([*CE, ("ce_expirytime", b"2023-11-14T22:13:30Z")])
    restart_deadline(made)

    assert made.deadline_at == datetime(2023, 11, 14, 22, 13, 30, tzinfo=UTC)
