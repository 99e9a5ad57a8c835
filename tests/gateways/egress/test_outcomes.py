"""Terminal records and the cache of recent ones."""

import pytest

from contracts.codec import Position, outcome_headers
from contracts.envelope import Event, result_id
from contracts.payloads import RESULT_TYPE
from contracts.repetition import dedup_header, digest_of, identify
from gateways.egress import outcomes
from gateways.egress.outcomes import Accepted, Outcome, OutcomeCache, Repetition, read_accepted, read_outcome

POSITION = Position("t", 0, 0, 1)


def _outcome(event_id: str, value: bytes = b"{}", timestamp_ms: int = 1) -> Outcome:
    return Outcome(result_id("crm", event_id), event_id, "crm", "", RESULT_TYPE, value, timestamp_ms)


def test_a_terminal_record_is_read_back() -> None:
    event = Event(id="e1", source="crm", type="t", data=b"", extensions={"owner": "billing"})
    headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00Z", "app", POSITION)

    outcome = read_outcome(list(headers), b"{}", 7)

    assert outcome == Outcome(result_id("crm", "e1"), "e1", "crm", "billing", RESULT_TYPE, b"{}", 7, answers=POSITION)


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
    cache = OutcomeCache(5 * 1900)
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


def _at(offset: int, timestamp_ms: int, partition: int = 0) -> Position:
    return Position("t", partition, offset, timestamp_ms)


@pytest.mark.parametrize("ended_first", [b"1", b"2"])
def test_events_under_one_id_have_each_their_own_outcome(ended_first: bytes) -> None:
    """A sender may have an event done again, or use its id for another body; the second one may end first."""
    first, again = _at(3, 100), _at(7, 200)
    by_value = {b"1": first, b"2": again}
    cache = OutcomeCache(10_000)
    cache.add(_outcome("e1", ended_first)._replace(answers=by_value[ended_first]))
    ended_last, pending = next(item for item in by_value.items() if item[0] != ended_first)
    assert cache.get("crm", "e1", position=pending) is None

    cache.add(_outcome("e1", ended_last)._replace(answers=pending))

    found = [cache.get("crm", "e1", position=position) for position in (first, again)]
    assert [one.value for one in found if one] == [b"1", b"2"]


@pytest.mark.parametrize(
    ("answers", "position", "is_another"),
    [
        (_at(3, 100), _at(3, 100), False),
        (_at(3, 100), _at(7, 200), True),
        (_at(7, 200), _at(3, 100), True),
        # In the same millisecond, and by another gateway whose clock is behind.
        (_at(3, 100), _at(7, 100), True),
        (_at(3, 100), _at(7, 90), False),
        (_at(7, 90), _at(3, 100), False),
        # The topic was made anew: its offsets began again.
        (_at(3, 200), _at(7, 100), False),
        (_at(7, 100), _at(3, 200), False),
        (None, _at(7, 200), False),
    ],
)
def test_an_outcome_of_another_event_is_told_by_where_that_lies(
    answers: Position | None, position: Position, is_another: bool
) -> None:
    assert _outcome("e1")._replace(answers=answers).is_of_another(position) is is_another


def test_an_event_that_was_put_back_lies_behind_itself() -> None:
    assert not _outcome("e1")._replace(answers=_at(7, 200), redrives=1).is_of_another(_at(3, 100))


@pytest.mark.parametrize(("written_ms", "is_another"), [(400_000, False), (345_000, False), (100_000, True)])
def test_an_outcome_of_another_topic_or_partition_is_anothers_when_it_was_there_before(
    written_ms: int, is_another: bool
) -> None:
    """It may be the event's own, of its record on the retry topic, stamped by a worker whose clock is behind."""
    outcome = _outcome("e1", timestamp_ms=written_ms)._replace(answers=Position("retries", 0, 3, 344_000))

    assert outcome.is_of_another(_at(7, 400_000)) is is_another


@pytest.mark.parametrize(
    ("topic", "partition", "is_another"),
    [
        ("p.events.bulk.v1", 3, True),
        ("p.events.standard.v1", 2, True),
        ("p.events.standard.v1", 3, False),
        ("p.retries.v1", 3, False),
        ("p.handovers.v1", 0, False),
    ],
)
@pytest.mark.parametrize("redrives", [0, 1])
def test_an_outcome_of_another_lane_or_key_is_of_another_event(
    topic: str, partition: int, is_another: bool, redrives: int
) -> None:
    outcome = _outcome("e1", timestamp_ms=300)._replace(answers=Position(topic, partition, 7, 250), redrives=redrives)

    assert outcome.is_of_another(Position("p.events.standard.v1", 3, 7, 250)) is is_another


def test_what_an_accepted_event_was_is_not_forgotten_over_its_outcome() -> None:
    cache = OutcomeCache(10_000)
    cache.note_accepted("crm", "e1", Accepted("crm", _at(3, 100), b"digest"))
    cache.note_accepted("crm", "e1", Accepted("crm", _at(3, 100)))
    assert cache.accepted("crm", "e1") == Accepted("crm", _at(3, 100), b"digest")

    cache.note_accepted("crm", "e1", Accepted("crm", _at(7, 200)))
    assert cache.accepted("crm", "e1") == Accepted("crm", _at(7, 200))


@pytest.mark.parametrize("topic", ["p.retries.v1", "p.handovers.v1"])
@pytest.mark.parametrize("is_known_first", [True, False])
def test_where_an_event_went_on_does_not_take_the_place_of_where_it_was_accepted(
    topic: str, is_known_first: bool
) -> None:
    """Its outcome answers what was made of it; nobody could read there what it was, or repeat it."""
    own = Accepted("crm", Position("p.events.standard.v1", 3, 7, 100), b"digest")
    parked = Accepted("crm", Position(topic, 1, 9, 200))
    cache = OutcomeCache(10_000)
    for one in (own, parked) if is_known_first else (parked, own):
        cache.note_accepted("crm", "e1", one)
    assert cache.accepted("crm", "e1") == own

    later = own._replace(position=own.position._replace(offset=8, timestamp_ms=300))
    cache.note_accepted("crm", "e1", later)
    assert cache.accepted("crm", "e1") == later


def test_an_accepted_event_is_known_by_its_body() -> None:
    identity = identify("crm", "shop", "e1", b"body", "id", 60)
    headers = [("ce_owner", b"crm"), ("ce_id", b"e1"), ("ce_source", b"shop"), dedup_header(identity, "new")]

    assert read_accepted(headers, POSITION) == ("crm", "e1", Accepted("shop", POSITION, identity.digest))
    assert identity.digest == digest_of("crm", "shop", b"body")
    assert read_accepted(headers[:-1], POSITION) == ("crm", "e1", Accepted("shop", POSITION))


def test_a_second_outcome_of_one_record_is_dropped_also_beside_those_of_others() -> None:
    cache = OutcomeCache(10_000)
    first, again = _at(3, 100), _at(7, 200)
    for value, position in ((b"1", first), (b"2", again), (b"late", first), (b"late", again)):
        cache.add(_outcome("e1", value)._replace(answers=position))

    found = [cache.get("crm", "e1", position=position) for position in (first, again)]
    assert [one.value for one in found if one] == [b"1", b"2"]


def test_of_many_events_under_one_id_the_last_are_kept_and_the_others_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of those that are dropped may be of the newest event: they end in any order."""
    monkeypatch.setattr(outcomes, "_MAX_OUTCOMES_OF_AN_ID", 2)
    cache = OutcomeCache(100_000)
    for number in (3, 0, 1, 2):
        cache.add(_outcome("e1")._replace(answers=_at(number, 100 + number)))

    kept = [cache.get("crm", "e1", position=_at(number, 100 + number)) for number in range(4)]
    assert [one.answers.offset if one and one.answers else None for one in kept] == [None, 1, 2, None]
    assert cache.dropped_until("crm", "e1") == 103
    assert cache.dropped_until("crm", "e2") == cache.dropped_until("crm", "e1", "shop") == 0, "others are not concerned"


def test_what_was_dropped_of_an_id_is_looked_up_also_when_the_id_is_no_longer_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outcomes, "_MAX_OUTCOMES_OF_AN_ID", 1)
    cache = OutcomeCache(1900)
    for number in (3, 0):
        cache.add(_outcome("e1")._replace(answers=_at(number, 100 + number)))
    cache.add(_outcome("e2", b"x" * 1000))

    assert cache.get("crm", "e1") is None
    assert cache.dropped_until("crm", "e1") == cache.dropped_until_ms == 103


def test_a_stamp_far_ahead_is_not_believed() -> None:
    """Every result that is pending would be looked up until the next start."""
    now_ms, far_ms = 10_000_000, 99_000_000
    dropped_until_ms = []
    for written_ms, at_ms in ((1_000_000, far_ms), (far_ms, 1_000_000)):
        cache = OutcomeCache(1000, clock=lambda: now_ms / 1000)
        cache.add(_outcome("e1", b"x" * 2000, timestamp_ms=written_ms)._replace(answers=_at(3, at_ms)))
        dropped_until_ms.append(cache.dropped_until_ms)

    # One minute is what clocks may differ by.
    assert dropped_until_ms == [1_060_000, 10_060_000]


def test_a_repetitions_stamp_far_ahead_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_MAX_REPETITIONS", 0)
    cache = OutcomeCache(1000, clock=lambda: 10_000.0)
    cache.note_repetition(Repetition("id", _at(0, 99_000_000), "e1", POSITION))

    assert cache.dropped_until_ms == 10_060_000


@pytest.mark.parametrize(("written_ms", "until_ms"), [(50, 100), (150, 150)])
def test_what_was_dropped_of_a_worker_whose_clock_is_behind_is_looked_up(written_ms: int, until_ms: int) -> None:
    cache = OutcomeCache(1000)
    cache.add(_outcome("e1", b"x" * 2000, timestamp_ms=written_ms)._replace(answers=_at(3, 100)))

    assert cache.dropped_until_ms == until_ms


def test_a_repetition_that_is_forgotten_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcomes, "_MAX_REPETITIONS", 1)
    cache = OutcomeCache(1000)
    for number in range(2):
        cache.note_repetition(Repetition("id", _at(number, 100 + number), "e1", POSITION))

    assert cache.repetition(_at(0, 100)) is None
    assert cache.dropped_until_ms == cache.repetitions_dropped_until_ms == 100


def test_of_two_events_of_a_source_and_id_the_later_one_is_the_accepted_one() -> None:
    """What is read of the log, and of outcomes, comes in any order."""
    cache = OutcomeCache(10_000)
    first, again = Accepted("crm", _at(3, 100)), Accepted("crm", _at(7, 200))
    for one in (first, again, first):
        cache.note_accepted("crm", "e1", one)

    assert cache.accepted("crm", "e1") == again


def test_the_newest_source_of_an_id_is_found_first() -> None:
    cache = OutcomeCache(1000)
    cache.note_accepted("crm", "e1", Accepted("crm/a", POSITION))
    cache.note_accepted("crm", "e1", Accepted("crm/b", POSITION))

    assert cache.accepted("crm", "e1") == Accepted("crm/b", POSITION)
    assert cache.accepted("crm", "e1", "crm/a") == Accepted("crm/a", POSITION)
    assert cache.accepted("crm", "e1", "crm/c") is None
    assert cache.accepted("billing", "e1") is None


@pytest.mark.parametrize(("limit_bytes", "most"), [(3 * 580, 50_000), (10**6, 3)])
def test_accepted_events_are_bounded_in_bytes_and_number(
    monkeypatch: pytest.MonkeyPatch, limit_bytes: int, most: int
) -> None:
    monkeypatch.setattr("gateways.egress.outcomes._MAX_ACCEPTED", most)
    cache = OutcomeCache(limit_bytes)
    for number in range(5):
        cache.note_accepted("crm", f"e{number}", Accepted("crm", POSITION))

    assert [cache.accepted("crm", f"e{number}") is not None for number in range(5)] == [False, False, True, True, True]
