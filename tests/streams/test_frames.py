"""Fetches are written and read as aiokafka does, by fewer steps."""

from io import BytesIO
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11, FetchResponse_v11
from aiokafka.protocol.types import Array
from hypothesis import given
from hypothesis import strategies as st

from streams.frames import FoundPartitions, WantedPartitions, mend_frames

INT16, INT32, INT64 = (st.integers(-(2**bits), 2**bits - 1) for bits in (15, 31, 63))
WANTED = st.tuples(INT32, INT32, INT64, INT64, INT32)
FOUND = st.tuples(
    INT32,
    INT16,
    INT64,
    INT64,
    INT64,
    st.none() | st.lists(st.tuples(INT64, INT64), max_size=3),
    INT32,
    st.none() | st.binary(max_size=50),
)


def partitions_of(message: Any) -> Array:
    """Return aiokafka's own list of partitions."""
    topics = dict(zip(message.SCHEMA.names, message.SCHEMA.fields, strict=True))["topics"]
    fields = topics.array_of.fields[1].array_of
    return Array(*zip(fields.names, fields.fields, strict=True))


THEIRS_WANTED, THEIRS_FOUND = partitions_of(FetchRequest_v11), partitions_of(FetchResponse_v11)
SCHEMA = (("a", THEIRS_WANTED), ("b", THEIRS_WANTED))


@given(st.none() | st.lists(WANTED, max_size=4))
def test_a_request_has_the_bytes_that_aiokafka_would_write(items: Any) -> None:
    assert WantedPartitions(*SCHEMA).encode(items) == THEIRS_WANTED.encode(items)


@given(st.none() | st.lists(FOUND, max_size=4), st.binary(max_size=9))
def test_an_answer_reads_as_aiokafka_would_read_it(items: Any, behind: bytes) -> None:
    data = BytesIO(THEIRS_FOUND.encode(items) + behind)

    assert FoundPartitions(*SCHEMA).decode(data) == items
    assert data.read() == behind


@given(st.lists(FOUND, min_size=1, max_size=3), st.data())
def test_an_answer_that_ends_too_early_is_refused_wherever_it_ends(items: Any, data: st.DataObject) -> None:
    whole = THEIRS_FOUND.encode(items)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    with pytest.raises(ValueError, match=r"too early|Error encountered"):
        FoundPartitions(*SCHEMA).decode(BytesIO(cut))


def test_a_request_for_what_does_not_fit_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValueError, match="2147483648"):
        WantedPartitions(*SCHEMA).encode([(2**31, 0, 0, 0, 0)])


def test_whole_messages_of_the_version_in_use_are_the_same_with_ours_in_place() -> None:
    request = FetchRequest(500, 1, 10_000, 1, [("t", [(0, 7, 100), (1, 8, 100)]), ("u", [(3, 9, 100)])], "rack")
    answer = (5, 0, 0, [("t", [(0, 0, 9, 9, 0, [(1, 2)], -1, b"records"), (1, 3, -1, -1, -1, None, -1, b"")])])
    before = request.build(FetchRequest_v11).encode()
    raw = FetchResponse_v11.SCHEMA.encode(answer)

    mend_frames()

    assert request.build(FetchRequest_v11).encode() == before
    assert FetchResponse_v11.decode(raw) == FetchResponse_v11(*answer)
