"""Which letters are open: what was heard of each, in nine bytes."""

from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME

from contracts.payloads import Resolution
from gateways.cli.dlq_chosen import Chosen, Place
from gateways.cli.dlq_letters import Letter, read_letter
from gateways.cli.dlq_topic import Span
from gateways.cli.reading import Read, as_read


def letter(partition: int, offset: int, timestamp_ms: int = 5) -> Letter:
    return Letter(Read("t", partition, offset, timestamp_ms, None, None, []), None)


def resolved(partition: int, offset: int, timestamp_ms: int = 5, state: str = "redriven") -> Resolution:
    return Resolution(
        state=state,  # type: ignore[arg-type]
        partition=partition,
        offset=offset,
        timestamp_ms=timestamp_ms,
        event_id="e",
        at="",
    )


@pytest.fixture
def chosen() -> Chosen:
    """Give letters at 0/10, 0/12 and 3/0 of two partitions."""
    made = Chosen([Span(0, 10, 20), Span(3, 0, 5)])
    for partition, offset, at_ms in ((0, 10, 7), (0, 12, 5), (3, 0, 6)):
        made.add(letter(partition, offset, at_ms))
    return made


def test_letters_are_open_until_something_else_is_heard(chosen: Chosen) -> None:
    chosen.resolve(0, resolved(0, 12))

    assert chosen.count() == 2
    assert chosen.state(letter(0, 12)) == "redriven"
    assert chosen.state(letter(0, 10)) == "open"
    assert chosen.state(letter(0, 11)) is None


@pytest.mark.parametrize(
    ("partition", "about"),
    [
        (0, resolved(0, 12, 99)),
        (3, resolved(0, 12)),
        (0, resolved(0, 11)),
        (0, resolved(0, 9)),
        (0, resolved(0, 10**15)),
        (0, resolved(0, -1)),
        (7, resolved(7, 0)),
    ],
    ids=["other timestamp", "other partition", "no letter", "before", "far behind", "negative", "unknown partition"],
)
def test_a_resolution_of_something_else_changes_nothing(chosen: Chosen, partition: int, about: Resolution) -> None:
    chosen.resolve(partition, about)

    assert chosen.count() == 3


def test_the_first_word_counts(chosen: Chosen) -> None:
    chosen.resolve(0, resolved(0, 12, state="discarded"))
    chosen.resolve(0, resolved(0, 12, state="redriven"))

    assert chosen.state(letter(0, 12)) == "discarded"


def test_age_is_the_timestamp_not_the_offset(chosen: Chosen) -> None:
    assert chosen.newest(1) == {Place(7, 0, 10)}
    assert chosen.oldest(2) == {Place(5, 0, 12), Place(6, 3, 0)}


def test_only_what_is_kept_is_read_again(chosen: Chosen) -> None:
    assert chosen.spans() == [Span(0, 10, 13), Span(3, 0, 1)]
    chosen.keep({Place(5, 0, 12)})

    assert chosen.spans() == [Span(0, 12, 13)]
    assert chosen.count() == 1


def test_resolved_letters_are_there_for_who_asks(chosen: Chosen) -> None:
    chosen.resolve(3, resolved(3, 0, 6))

    assert chosen.count(resolved=True) == 3
    assert chosen.newest(2, resolved=True) == {Place(7, 0, 10), Place(6, 3, 0)}


def test_a_record_whose_headers_the_client_cannot_read_is_a_foreign_one() -> None:
    def headers() -> None:
        # What confluent-kafka 2.16 does on a header name that is not UTF-8.
        message = "returned a result with an exception set"
        raise SystemError(message)

    plain: dict[str, Any] = {"topic": "t", "partition": 1, "offset": 2, "key": None, "value": b"v"}
    made: dict[str, Any] = {name: lambda value=value: value for name, value in plain.items()}
    message: Any = SimpleNamespace(**made, timestamp=lambda: (TIMESTAMP_CREATE_TIME, 5), headers=headers)

    found = read_letter(as_read(message))

    assert isinstance(found, Letter)
    assert (found.why, found.place, found.record.value) == (None, "1/2", b"v")
