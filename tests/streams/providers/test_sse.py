"""Server-sent events out of bytes."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import ProviderUnavailable
from streams.providers.sse import EventSplitter

RAW = b'data: {"a": 1}\n\n: comment\nevent: x\ndata: two\ndata: lines\n\ndata:[DONE]\n\n'
EVENTS = [b'{"a": 1}', b"two\nlines", b"[DONE]"]


def _unambiguous(lines: list[bytes], ends: list[bytes]) -> list[bytes]:
    """Keep a CR from standing in front of an empty line's LF: together they would be one line end."""
    return [
        b"\r\n" if end == b"\r" and lines[at + 1 : at + 2] == [b""] and ends[at + 1] == b"\n" else end
        for at, end in enumerate(ends)
    ]


@settings(max_examples=150)
@given(st.lists(st.sampled_from([b"\n", b"\r", b"\r\n"]), min_size=9, max_size=9), st.sets(st.integers(0, 100)))
def test_events_do_not_depend_on_line_ends_and_where_the_bytes_are_cut(ends: list[bytes], cuts: set[int]) -> None:
    lines = RAW.split(b"\n")[:-1]
    raw = b"".join(line + end for line, end in zip(lines, _unambiguous(lines, ends), strict=True))
    places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    splitter = EventSplitter(1000)

    found = [data for start, end in itertools.pairwise(places) for data in splitter.feed(raw[start:end])]

    assert found == EVENTS
    assert splitter.finish() is None


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    splitter = EventSplitter(1000)

    found = [data for piece in (b"\xef\xbb", b"\xbfdata: one", b"\n\n") for data in splitter.feed(piece)]

    assert found == [b"one"]


@pytest.mark.parametrize("raw", [b"data: one\r\r", b"data: one\n\n", b"data: one\r\n\r\n", b"data: one\r\n\r"])
def test_an_event_is_there_with_the_first_byte_that_ends_its_line(raw: bytes) -> None:
    splitter = EventSplitter(1000)

    assert list(splitter.feed(raw)) == [b"one"]
    assert list(splitter.feed(b"\ndata: two\r\n\r" if raw.endswith(b"\r") else b"data: two\r\n\r")) == [b"two"]


def test_a_last_event_without_its_blank_line_is_kept() -> None:
    splitter = EventSplitter(1000)

    assert list(splitter.feed(b"data: one")) == []
    assert splitter.finish() == b"one"


@pytest.mark.parametrize("raw", [b"data: " + b"x" * 200, b"data: xxxxxxxxxx\n" * 20])
def test_an_event_beyond_the_limit_is_refused(raw: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        list(EventSplitter(100).feed(raw))
