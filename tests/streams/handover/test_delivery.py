"""Which answers of an earlier process a hand-over knows when it is taken up."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from contracts.batch_jobs import HandOver
from streams.handover.delivery import Delivery


class Reader:
    """A reader that is told where to begin, and finds nothing."""

    def __init__(self) -> None:
        self.begun: tuple[Any, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Have nothing to close."""

    def begin(self, *where: Any) -> None:
        """Note where."""
        self.begun = where

    def to_the_end(self) -> list[Any]:
        """Find nothing."""
        return []


def test_answers_are_looked_for_from_where_they_began_on_the_logs_that_this_was_noted_of(tmp_path: Path) -> None:
    """On a result topic that was made anew they lie below, and would be written once more."""
    reader = Reader()
    desk: Any = SimpleNamespace(reader=lambda: reader, ways=SimpleNamespace(by_alias={}))
    starts: dict[str, tuple[int, ...]] = {"results": (7, 8)}
    logs = {"results": "former"}
    state = HandOver(id="h", ranges={}, answer_starts=starts, answer_logs=logs, parts={}, gathered_at="")

    assert Delivery(desk, state, tmp_path)._known() == set()

    assert reader.begun == (starts, logs)
