"""The rules by which deltas of several attempts become one text."""

import pytest

from contracts.codec import Position
from contracts.deltas import delta_headers
from contracts.envelope import OWNER, Event
from contracts.errors import InvalidPayload
from contracts.payloads import Delta, DeltaEnding
from gateways.egress.feed import Feed, Seen, delta_name
from gateways.egress.frames import Frame, news, read_seen
from gateways.egress.tickets import Ticket


def delta(epoch: int, number: int, text: str = "x", ending: DeltaEnding | None = None) -> Delta:
    return Delta(event_id="e", epoch=epoch, sequence=number, text=text, ending=ending, is_final=ending is not None)


def fed(*deltas: Delta, max_chars: int = 1000) -> Feed:
    feed = Feed(max_chars)
    for one in deltas:
        feed.take(one)
    return feed


def told(feed: Feed, seen: Seen = Seen()) -> list[str]:  # noqa: B008 - immutable
    return [_brief(frame) for frame, _ in news(feed, "e", seen)]


def _brief(frame: Frame) -> str:
    return f"{frame['type']} {frame['at']} {frame.get('text', '')}".strip()


def test_deltas_of_two_owners_of_one_id_are_told_apart() -> None:
    names = set()
    for owner in ("", "crm", "shop"):
        event = Event(id="e1", source="s", type="t", data=b"", extensions={OWNER: owner} if owner else {})
        name = delta_name(delta_headers(event, "app", Position("t", 0, 0, 0)))
        names.add(name)

        assert name == Ticket("s", "e1", Position("t", 0, 0, 0), owner).name
    assert len(names) == 3


def test_pieces_are_told_in_order_from_where_a_watcher_is() -> None:
    feed = fed(delta(5, 1, "a"), delta(5, 2, "b"), delta(5, 3, "c"))

    assert told(feed) == ["delta 5.1 a", "delta 5.2 b", "delta 5.3 c"]
    assert told(feed, Seen(5, 2)) == ["delta 5.3 c"]
    assert told(feed, Seen(5, 3)) == []


def test_a_new_attempt_makes_the_one_before_void_and_says_so() -> None:
    feed = fed(delta(5, 1, "a"), delta(5, 2, "b"), delta(9, 1, "c"))

    assert told(feed, Seen(5, 1)) == ["restart 9.0", "delta 9.1 c"]
    assert told(feed, Seen(9, 0)) == ["delta 9.1 c"]
    assert told(feed) == ["delta 9.1 c"]


def test_late_records_of_a_void_attempt_are_dropped_also_its_first() -> None:
    feed = fed(delta(5, 1, "a"), delta(9, 1, "c"), delta(5, 2, "b"), delta(5, 1, "a"), delta(9, 2, "d"))

    assert told(feed) == ["delta 9.1 c", "delta 9.2 d"]


def test_a_repeated_number_is_dropped() -> None:
    assert told(fed(delta(5, 1, "a"), delta(5, 1, "a"), delta(5, 2, "b"))) == ["delta 5.1 a", "delta 5.2 b"]


def test_behind_a_missing_number_nothing_more_is_told_of_that_attempt() -> None:
    feed = fed(delta(5, 1, "a"), delta(5, 3, "c"), delta(5, 2, "b"))
    assert (told(feed), feed.is_stopped) == (["delta 5.1 a"], True)

    feed.take(delta(9, 1, "d"))

    assert told(feed, Seen(5, 1)) == ["restart 9.0", "delta 9.1 d"]


def test_an_attempt_whose_beginning_is_missing_is_not_told() -> None:
    assert told(fed(delta(5, 2, "b"), delta(5, 3, "c"))) == []


def test_a_watcher_that_is_ahead_hears_nothing_of_older_attempts() -> None:
    feed = fed(delta(5, 1, "a"))
    assert told(feed, Seen(9, 4)) == []

    feed.take(delta(9, 1, "b"))

    assert told(feed, Seen(9, 1)) == []


def test_an_attempt_with_a_clock_that_is_behind_is_still_the_newer_one() -> None:
    feed = fed(delta(9, 1, "a"), delta(5, 1, "b"))

    assert told(feed, Seen(9, 1)) == ["restart 5.0", "delta 5.1 b"]


def test_an_answer_above_the_limit_is_let_go() -> None:
    feed = fed(delta(5, 1, "a" * 60), delta(5, 2, "b" * 60), delta(5, 3, "c"), max_chars=100)

    assert (told(feed), feed.size_chars, feed.is_over) == ([], 0, True)


@pytest.mark.parametrize(("text", "seen"), [("", Seen()), ("7.3", Seen(7, 3)), ("7.0", Seen(7, 0)), ("end", None)])
def test_ids_are_read(text: str, seen: Seen | None) -> None:
    assert read_seen(text) == seen


@pytest.mark.parametrize("text", ["7", "7.", ".3", "-1.2", "7.3.1", "x", "1" * 17 + ".1", "\u0661.\u0661"])
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(InvalidPayload):
        read_seen(text)
