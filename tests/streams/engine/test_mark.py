"""Marks in commit metadata."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.engine.mark import CUT, FOREIGN, MAX_METADATA_BYTES, Mark, decode_mark, encode_mark, journal_id, mark_fits

TOPIC_NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True)


@given(st.dictionaries(TOPIC_NAMES, st.integers(0, 2**63 - 1), max_size=8))
def test_marks_survive_the_way_through_metadata(marks: dict[str, int]) -> None:
    assert decode_mark(encode_mark(marks)) == Mark(marks)


def test_the_form_is_stable() -> None:
    assert encode_mark({"b": 2, "a": 10}) == "penstock1 a=10 b=2"


@pytest.mark.parametrize(
    "metadata",
    ["", "reset by hand", "penstock1 a", "penstock1 a=x", "penstock1 =4", "penstock2 a=1", "penstock1 a=\u00b2"],
)
def test_metadata_of_others_is_no_mark(metadata: str) -> None:
    assert decode_mark(metadata) is None


def test_marks_that_do_not_fit_become_an_empty_mark() -> None:
    metadata = encode_mark({f"topic-{n:0200d}": n for n in range(30)})

    assert len(metadata.encode()) <= MAX_METADATA_BYTES
    assert decode_mark(metadata) == Mark({})


@given(st.text())
def test_any_text_is_read_without_a_fault(metadata: str) -> None:
    decode_mark(metadata)


@given(st.dictionaries(TOPIC_NAMES, st.integers(0, 2**63 - 1), max_size=8), st.integers(0, 2**63 - 1))
def test_a_replay_survives_the_way_through_metadata_and_leaves_the_marks_alone(marks: dict[str, int], end: int) -> None:
    metadata = encode_mark(marks, end)

    assert decode_mark(metadata) == Mark(marks, replay_until=end)


@pytest.mark.parametrize("metadata", ["", "!replay=4", "penstock1 a=1", "penstock1 !replay=x", "penstock2 !replay=4"])
def test_metadata_that_tells_of_no_replay(metadata: str) -> None:
    mark = decode_mark(metadata)

    assert (mark.replay_until if mark else 0) == 0


@given(
    st.dictionaries(TOPIC_NAMES, st.integers(0, 2**63 - 1), max_size=8),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**128 - 1),
)
def test_floor_and_log_survive_the_way_through_metadata_and_leave_the_rest_alone(
    marks: dict[str, int], end: int, floor: int, log: int
) -> None:
    metadata = encode_mark(marks, end, floor, log)

    assert decode_mark(metadata) == Mark(marks, end, floor, log)


def test_the_id_of_the_log_has_the_form_of_an_offset_so_that_an_older_worker_reads_the_rest() -> None:
    """Otherwise it would take the commit for an operator's reset, and do again what is answered ahead of it."""
    assert encode_mark({"a": 10}, log=2**128 - 1) == f"penstock1 !log={2**128 - 1} a=10"


def test_a_mark_of_an_older_worker_names_no_log() -> None:
    assert decode_mark("penstock1 !floor=3 a=1") == Mark({"a": 1}, floor=3, log=0)


@given(
    st.dictionaries(TOPIC_NAMES, st.tuples(st.integers(0, 2**63 - 1), st.integers(1, 2**32 - 1)), max_size=7),
    st.integers(0, 2**128 - 1),
)
def test_ids_of_result_topics_survive_the_way_through_metadata_and_leave_the_rest_alone(
    topics: dict[str, tuple[int, int]], log: int
) -> None:
    starts = {topic: start for topic, (start, _) in topics.items()}
    journal = {topic: number for topic, (_, number) in topics.items()}

    assert decode_mark(encode_mark(starts, 3, 4, log, journal)) == Mark(starts, 3, 4, log, journal)


def test_the_id_of_a_result_topic_stands_under_a_name_that_no_topic_can_have() -> None:
    """A worker that does not know it takes it for the offset of a topic that it does not ask for."""
    metadata = encode_mark({"log": 10, "b": 2}, log=8, journal={"log": 5, "b": 0, "other": 9})

    assert metadata == "penstock1 !log=8 !log:log=5 b=2 log=10"


def test_ids_of_result_topics_are_left_out_where_there_is_no_room_for_them() -> None:
    starts = {f"topic-{n:0200d}": n for n in range(15)}
    metadata = encode_mark(starts, log=8, journal=dict.fromkeys(starts, 2**32 - 1))

    assert mark_fits(starts)
    assert decode_mark(metadata) == Mark(starts, log=8)


@given(
    st.dictionaries(TOPIC_NAMES, st.integers(0, 2**63 - 1), max_size=8),
    st.integers(1, 2**63 - 1),
    st.integers(0, 2**31 - 1),
)
def test_what_was_read_survives_the_way_through_metadata_and_leaves_the_rest_alone(
    marks: dict[str, int], read_to: int, epoch: int
) -> None:
    read = read_to, epoch

    assert decode_mark(encode_mark(marks, 3, 4, 8, read=read)) == Mark(marks, 3, 4, 8, read=read)


def test_what_was_read_has_the_form_of_offsets_so_that_an_older_worker_reads_the_rest() -> None:
    assert encode_mark({"a": 10}, read=(7, 0)) == "penstock1 !read=7 !epoch=0 a=10"


def test_what_was_read_is_left_out_where_there_is_no_room_for_it() -> None:
    starts = {f"topic-{n:0200d}": 2**63 - 1 for n in range(17)} | {"t" * 135: 2**63 - 1}
    metadata = encode_mark(starts, log=2**128 - 1, read=(2**63 - 1, 2**31 - 1))

    assert decode_mark(metadata) == Mark(starts, log=2**128 - 1)


def test_of_a_result_topics_id_the_last_32_bits_are_kept() -> None:
    assert (journal_id(2**128 - 1), journal_id(2**64 + 5)) == (2**32 - 1, 5)


@pytest.mark.parametrize("metadata", ["penstock1 a=1", "penstock1 !log:a=x a=1", "penstock1 !log:a= a=1"])
def test_metadata_that_tells_of_no_result_topics_id(metadata: str) -> None:
    assert decode_mark(metadata) == Mark({"a": 1})


@pytest.mark.parametrize("metadata", ["", "!floor=4", "penstock1 a=1", "penstock1 !floor=x", "penstock1 !replay=4"])
def test_metadata_that_tells_of_no_floor(metadata: str) -> None:
    mark = decode_mark(metadata)

    assert (mark.floor if mark else 0) == 0


@pytest.mark.parametrize("former", [FOREIGN, CUT])
def test_whose_answers_may_lie_there_survives_the_way_through_metadata_as_a_number(former: int) -> None:
    """As the id of the log: an older worker reads the rest of the mark all the same."""
    metadata = encode_mark({"a": 10}, log=7, former=former)

    assert metadata == f"penstock1 !log=7 !former={former} a=10"
    assert decode_mark(metadata) == Mark({"a": 10}, log=7, former=former)
