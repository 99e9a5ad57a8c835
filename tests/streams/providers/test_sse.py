"""Server-sent events out of bytes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ProviderUnavailable
from streams.providers.sse import EventSplitter

RAW = b'data: {"a": 1}\n\n: comment\nevent: x\ndata: two\ndata: lines\n\ndata:[DONE]\n\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


@settings(max_examples=50)
@given(st.sets(st.integers(0, len(RAW))))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: set[int]) -> None:
    places = [0, *sorted(cuts), len(RAW)]
    splitter = EventSplitter(1000)

    found = [data for start, end in itertools.pairwise(places) for data in splitter.feed(RAW[start:end])]

    assert found == EVENTS
    assert splitter.finish() is None


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    splitter = EventSplitter(1000)

    found = [data for piece in (b"\xef\xbb", b"\xbfdata: one", b"\n\n") for data in splitter.feed(piece)]

    assert found == [b"one"]


def test_a_last_event_without_its_blank_line_is_kept() -> None:
    splitter = EventSplitter(1000)

    assert list(splitter.feed(b"data: one")) == []
    assert splitter.finish() == b"one"


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: xxxxxxxxxx\n" * 20])
def test_an_event_beyond_the_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        list(EventSplitter(100).feed(raw))
