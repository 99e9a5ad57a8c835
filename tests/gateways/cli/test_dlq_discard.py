"""Whose letters `penstock dlq discard` takes, on a topic in memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import msgspec
import pytest

from contracts.codec import dead_letter, dead_letter_headers
from gateways.cli import dlq
from gateways.cli.dlq_topic import Span
from gateways.cli.dlq_write import Refusal, Unit
from gateways.cli.main import run
from gateways.cli.reading import Read
from tests.gateways.cli.records import letter
from tests.gateways.cli.settings import write

Discard = Callable[..., tuple[int, str, str]]


def of(app_id: str, offset: int) -> Read:
    """Return a letter of an application."""
    record = letter(f"e-{offset}")
    why = dead_letter(record.headers)
    headers = dead_letter_headers(record.headers[:-1], msgspec.structs.replace(why, app_id=app_id))
    return record._replace(offset=offset, headers=[*headers])


class Log:
    """The topic and its writer in one."""

    name = "penstock.dead-letters.v1"

    def __init__(self, records: Iterable[Read]) -> None:
        self.records = list(records)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        pass

    def close(self) -> None:
        pass

    def spans(self, *_: object) -> list[Span]:
        return [Span(0, 0, len(self.records))]

    def read(self, spans: Iterable[Span], advance: Callable[[int], None] = lambda _: None) -> Iterator[list[Read]]:
        for span in spans:
            found = self.records[span.start : span.end]
            advance(len(found))
            yield found

    def write(self, units: Sequence[Unit]) -> list[Refusal]:
        for unit in units:
            for record in unit.records:
                at = len(self.records)
                self.records.append(Read(self.name, 0, at, 0, record.key, record.value, [*record.headers]))
        return []


@pytest.fixture
def discard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Discard:
    """Return the command, at a log of three letters."""
    # The third is of a version that did not say.
    log = Log([of("penstock", 0), of("another", 1), of("", 2)])
    monkeypatch.setattr(dlq, "LetterTopic", lambda *_: log)
    monkeypatch.setattr(dlq, "Writer", lambda *_: log)
    config = str(write(tmp_path))

    def call(*args: str) -> tuple[int, str, str]:
        code = run(["dlq", "discard", *args, "--config", config])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_letters_of_other_applications_are_left_and_counted(discard: Discard) -> None:
    """A discard cannot be undone, and whoever runs the other application may still want its letters."""
    rehearsed, done, again = discard("--dry-run"), discard("--yes"), discard("--yes")

    others = "open dead letters of other applications that match: 1; --app takes them\n"
    assert rehearsed == (
        0, "would discard 0/0 e-0\nwould discard 0/2 e-2\ndry run: would discard 2 of 2 dead letters\n", others,
    )  # fmt: skip
    assert done == (0, "2 of 2 dead letters discarded\n", others)
    assert again == (0, "no open dead letter of application penstock matches; --app takes those of others: 1\n", "")


def test_letters_of_an_application_that_is_named_are_discarded(discard: Discard) -> None:
    assert discard("--yes", "--app", "another") == (0, "1 of 1 dead letters discarded\n", "")
    assert discard("--yes")[1:] == ("2 of 2 dead letters discarded\n", "")
