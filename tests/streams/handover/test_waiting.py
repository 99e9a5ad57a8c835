"""What the figure of waiting records counts."""

from streams.handover.service import waiting


def test_what_was_gathered_and_what_was_not_read_waits() -> None:
    # Partition 0: 3 gathered of which the last was read, then 4 to come. 1: read to its end. 2: nothing read yet.
    assert waiting((10, 5, 7), (6, 5, 0), {"0": (3, 6)}) == 7 + 0 + 7


def test_a_topic_that_is_shorter_than_what_was_read_counts_nothing() -> None:
    assert waiting((2,), (9,), {}) == 0
