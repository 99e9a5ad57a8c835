"""Terminal records and the cache of recent ones."""

import pytest

from contracts.codec import Position, outcome_headers
from contracts.envelope import Event, result_id
from contracts.payloads import RESULT_TYPE
from gateways.egress.outcomes import Accepted, Outcome, OutcomeCache, read_outcome

POSITION = Position("t", 0, 0, 1)


def _outcome(event_id: str, value: bytes = b"{}", timestamp_ms: int = 1) -> Outcome:
    return Outcome(result_id("crm", event_id), event_id, "crm", "", RESULT_TYPE, value, timestamp_ms)


def test_a_terminal_record_is_read_back() -> None:
    event = Event(id="e1", source="crm", type="t", data=b"", extensions={"owner": "billing"})
    headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00Z", "app", POSITION)

    outcome = read_outcome(list(headers), b"{}", 7)

    assert outcome == Outcome(result_id("crm", "e1"), "e1", "crm", "billing", RESULT_TYPE, b"{}", 7)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_type", b"other")],
        [("ce_type", RESULT_TYPE.encode())],
        [("ce_type", b"\xff")],
        [("ce_type", None)],
        [("ce_type", RESULT_TYPE.encode()), ("ce_id", b"\xff"), ("ce_eventid", b"a"), ("ce_eventsource", b"b")],
    ],
)
def test_any_other_record_is_none(headers: list[tuple[str, bytes | None]]) -> None:
    assert read_outcome(headers, b"{}", 7) is None


def test_a_tombstone_is_none() -> None:
    event = Event(id="e1", source="crm", type="t", data=b"")

    assert read_outcome(list(outcome_headers(event, RESULT_TYPE, "", "app", POSITION)), None, 7) is None


def test_the_cache_holds_no_more_than_its_bytes_and_drops_the_least_used() -> None:
    cache = OutcomeCache(5 * 1600)
    for number in range(5):
        cache.add(_outcome(f"e{number}", b"x" * 1000, timestamp_ms=number))
    cache.get("crm", "e0")
    cache.add(_outcome("e5", b"x" * 1000, timestamp_ms=5))

    assert cache.get("crm", "e0") is not None
    assert cache.get("crm", "e1") is None
    assert cache.dropped_until_ms == 1


def test_each_owner_of_an_id_has_an_outcome_of_its_own() -> None:
    cache = OutcomeCache(10_000)
    mine, others = (_outcome("e1", value)._replace(owner=owner) for value, owner in ((b"1", "crm"), (b"2", "shop")))
    cache.add(others)
    cache.add(mine)

    assert cache.get("crm", "e1", "crm") == mine
    assert cache.get("crm", "e1", "shop") == others
    assert cache.get("crm", "e1") is None


def test_a_duplicate_outcome_is_counted_once() -> None:
    cache = OutcomeCache(10_000)
    for _ in range(100):
        cache.add(_outcome("e1", b"x" * 1000))

    assert cache.get("crm", "e1") is not None
    assert cache.dropped_until_ms == 0


def test_an_outcome_larger_than_the_cache_is_not_kept() -> None:
    cache = OutcomeCache(1000)
    cache.add(_outcome("e1", b"x" * 2000, timestamp_ms=9))

    assert cache.get("crm", "e1") is None
    assert cache.dropped_until_ms == 9


def test_the_newest_source_of_an_id_is_found_first() -> None:
    cache = OutcomeCache(1000)
    cache.note_accepted("crm", "e1", Accepted("crm/a", POSITION))
    cache.note_accepted("crm", "e1", Accepted("crm/b", POSITION))

    assert cache.accepted("crm", "e1") == Accepted("crm/b", POSITION)
    assert cache.accepted("crm", "e1", "crm/a") == Accepted("crm/a", POSITION)
    assert cache.accepted("crm", "e1", "crm/c") is None
    assert cache.accepted("billing", "e1") is None


@pytest.mark.parametrize(("limit_bytes", "most"), [(3 * 530, 50_000), (10**6, 3)])
def test_accepted_events_are_bounded_in_bytes_and_number(
    monkeypatch: pytest.MonkeyPatch, limit_bytes: int, most: int
) -> None:
    monkeypatch.setattr("gateways.egress.outcomes._MAX_ACCEPTED", most)
    cache = OutcomeCache(limit_bytes)
    for number in range(5):
        cache.note_accepted("crm", f"e{number}", Accepted("crm", POSITION))

    assert [cache.accepted("crm", f"e{number}") is not None for number in range(5)] == [False, False, True, True, True]
