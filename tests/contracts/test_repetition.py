"""The header that makes a record a candidate, and what it is recognised by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import (
    REDRIVE,
    Headers,
    Position,
    RecordHeaders,
    dead_letter_headers,
    redrive_headers,
    retry_headers,
)
from contracts.payloads import DeadLetter, Redrive, RetryNote
from contracts.repetition import DEDUP, By, Identity, State, dedup_header, identify, identity_of, outcome_marks

PLACE = Position("events", 1, 7, 1000)


def identity(event_id: str = "e1", body: bytes = b"{}", by: By = "id", owner: str = "", source: str = "s") -> Identity:
    return identify(owner, source, event_id, body, by, 60)


def candidate(by: By = "id") -> Headers:
    return [("ce_id", b"e1"), dedup_header(identity(by=by), "new")]


@given(st.text(max_size=20), st.binary(max_size=50), st.sampled_from(["id", "digest"]), st.integers(1, 10**7))
def test_an_identity_survives_the_way_through_the_log(event_id: str, body: bytes, by: By, window_s: int) -> None:
    sent = identify("owner", "source", event_id, body, by, window_s)

    assert identity_of([dedup_header(sent, "new")], event_id) == sent


def test_by_id_both_id_and_body_count_and_by_digest_the_body_alone() -> None:
    assert identity().key == identity().key
    assert len({identity(body=body).key for body in (b"{}", b"[]")}) == 2
    assert len({identity(event_id).key for event_id in ("e1", "e2")}) == 2
    assert identity("e1", by="digest").key == identity("e2", by="digest").key
    assert identity("e1", b"{}", "digest").key != identity("e1", b"[]", "digest").key


@pytest.mark.parametrize("by", ["id", "digest"])
def test_owners_and_sources_have_ids_of_their_own(by: By) -> None:
    found = {identity(by=by, owner=owner, source=source).key for owner in ("", "crm") for source in ("s", "t")}

    assert len(found) == 4


def test_what_was_made_of_a_candidate_is_none() -> None:
    letter = DeadLetter(
        reason="r", disposition="poison", message="", attempts=1, route="r", topic="t", partition=0, offset=1,
        failed_at="now",
    )  # fmt: skip
    note = RetryNote(
        topic="t", partition=0, offset=1, timestamp_ms=1, not_before_ms=1, deadline_ms=1, reason="r", attempts=1
    )
    redrive = Redrive(partition=0, offset=1, timestamp_ms=1, count=1, at="now")
    buried = dead_letter_headers(candidate(), letter)

    assert identity_of(candidate(), "e1") is not None
    assert identity_of(buried, "e1") is None
    assert identity_of(redrive_headers(buried, redrive), "e1") is None
    assert redrive_headers(buried, redrive)[-1][0] == REDRIVE
    assert identity_of(retry_headers(candidate(), note, "app", PLACE), "e1") is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_id", b"e1")],
        [(DEDUP, None)],
        [(DEDUP, b"")],
        [(DEDUP, b"\xff")],
        [(DEDUP, b"new id zz zz 60")],
        [(DEDUP, b"new id 00 00 60")],
        [(DEDUP, b"new other " + b"0" * 32 + b" " + b"0" * 32 + b" 60")],
        [(DEDUP, b"new id " + b"0" * 32 + b" " + b"0" * 32 + b" x")],
    ],
)
def test_a_record_without_a_readable_header_is_no_candidate(headers: list[tuple[str, bytes | None]]) -> None:
    assert identity_of(headers, "e1") is None


def test_a_wanted_redelivery_is_no_candidate() -> None:
    assert identity_of([dedup_header(identity(), "redelivery")], "e1") is None
    assert identity_of([dedup_header(identity(), "unknown")], "e1") == identity()


def _marked(
    body: bytes = b"{}", state: State = "new", offset: int = 7, redrives: int = 0, replayed_s: float = 0.0
) -> Headers:
    headers: RecordHeaders = [("ce_id", b"e1"), dedup_header(identity(body=body), state)]
    if redrives:
        redrive = Redrive(partition=0, offset=1, timestamp_ms=1, count=redrives, at="now" * 100, by="me" * 200)
        headers = redrive_headers(headers, redrive)
    return outcome_marks(headers, PLACE._replace(offset=offset), replayed_s)


def test_two_records_of_one_event_have_outcomes_with_equal_marks_unless_the_second_was_wanted() -> None:
    """A gateway that is killed after it has written, a mirror and a redrive that is cut off leave two of one event."""
    one, other = ([
        _marked(offset=offset),
        _marked(offset=offset, redrives=1),
        _marked(b"another", "conflict", offset),
        _marked(offset=offset, replayed_s=1_767_225_600.5),
        _marked(offset=offset, replayed_s=1_767_225_900.5),
    ] for offset in (7, 8))  # fmt: skip
    wanted = [_marked(offset=offset, state="redelivery") for offset in (7, 8)]

    assert one == other
    assert _marked(state="unknown") == one[0]
    assert len({str(marks) for marks in one + wanted}) == len(one + wanted)
    assert max(len(raw or b"") for _, raw in one[1]) < 1000


@pytest.mark.parametrize("raw", [None, b"", b"\xff" * 10_000, b"new id"])
def test_an_event_of_which_nobody_has_noted_what_it_repeats_is_known_by_its_place_alone(raw: bytes | None) -> None:
    """Each is done and paid for: a source with `by: none` may send its bytes again and mean another event."""
    one, other = (outcome_marks([(DEDUP, raw)], PLACE._replace(offset=offset), 0.0) for offset in (7, 8))

    assert one == outcome_marks([], PLACE._replace(offset=7), 0.0)
    assert one != other
    assert b"new id" not in str(one).encode()


def test_two_records_of_one_message_of_a_queue_have_outcomes_with_equal_marks() -> None:
    """`penstock ingress` was killed before it had the message deleted; one that was sent again has another id."""
    of_message = [
        [outcome_marks([("penstock-message-id", raw)], PLACE._replace(offset=offset), 0.0) for offset in (7, 8)]
        for raw in (b"4a2e", b"4a2f", b"", None, b"x" * 201)
    ]

    assert [one == other for one, other in of_message] == [True, True, False, False, False]
    assert of_message[0] != of_message[1]
    # Where the gateway knows more, that counts.
    known = ("penstock-message-id", b"4a2e"), dedup_header(identity(), "new")
    assert outcome_marks(known, PLACE, 0.0) == outcome_marks(known[1:], PLACE, 0.0)
