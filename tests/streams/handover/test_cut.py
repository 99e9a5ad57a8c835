"""A hand-over topic that has lost its end: what lies there now is handed over, and nothing a second time."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from contracts.batch_jobs import HandOver, job_record
from contracts.codec import Record, decode_json
from contracts.envelope import format_time
from contracts.errors import LogUnavailable
from producers.log_reader import Found
from streams.handover.delivery import Desk
from streams.handover.service import Service
from tests.streams.handover.support import TOPICS, make_settings, record

LOG = "a" * 32
GATHERED_AT = "2026-11-29T00:00:00.000Z"
GATHERED_MS = 1_795_910_400_000


class Enough(Exception):
    """Ends a session that has nothing more to read."""


def handed(first: int, last: int, name: str = "h1", **changes: Any) -> HandOver:
    """Return what was handed over of partition 0, and is over."""
    state = HandOver(
        id=name, ranges={"0": (first, last)}, answer_starts={}, parts={}, gathered_at=GATHERED_AT, log=LOG,
        state="finished",
    )  # fmt: skip
    return msgspec.structs.replace(state, **changes)


def lying(*offsets: int, since: int) -> list[Found]:
    """Return records; those from an offset on have come after everything was handed over."""
    stamped = ((offset, GATHERED_MS + (1 if offset >= since else -1)) for offset in offsets)
    return [record(offset)._replace(timestamp_ms=stamp_ms) for offset, stamp_ms in stamped]


class Site:
    """A service, and the hand-over topic of one partition that it reads."""

    def __init__(self, *history: HandOver) -> None:
        self.service = Service(make_settings())
        self.history = list(history)
        self.log_id, self.jobs_id = LOG, "j1"
        self.records: list[Found] = []
        self.ends: list[int] = []
        self.polled: list[list[Found]] = []
        self.begun: list[list[int]] = []
        self.written: list[HandOver] = []

    @property
    def desk(self) -> Desk:
        """Return a desk whose reader this is."""
        log = SimpleNamespace(id=self.log_id, jobs_id=self.jobs_id, confirm=lambda: None, holds=lambda _: True)
        producer = SimpleNamespace(write=self._write)
        return cast("Desk", SimpleNamespace(log=log, reader=self._reader, producer=producer))

    def _write(self, records: list[Record]) -> None:
        self.written += [decode_json(one.value or b"", HandOver) for one in records]

    def _reader(self) -> Any:
        end = 1 + max((one.offset for one in self.records), default=-1)
        made = SimpleNamespace(
            begin=self._begin,
            to_the_end=self._history,
            spans=lambda _: [(0, end)],
            ends=lambda _: [self.ends.pop(0) if self.ends else end],
            poll=self._poll,
            read=lambda _, ranges: [one for one in self.records if ranges[0][0] <= one.offset < ranges[0][1]],
            position=lambda *_: 0,
            widen=set,
        )
        return contextlib.nullcontext(made)

    def _history(self) -> list[Found]:
        made = [job_record(TOPICS, state) for state in self.history]
        return [Found(one.topic, 0, number, one.key, one.value, {}) for number, one in enumerate(made)]

    def _begin(self, starts: dict[str, Any]) -> None:
        if TOPICS.handovers in starts:
            self.begun.append(list(starts[TOPICS.handovers]))

    def _poll(self, _timeout_s: float) -> list[Found]:
        if not self.polled:
            raise Enough
        return self.polled.pop(0)

    def serve(self, folder: Path) -> None:
        """Have one session, until there is nothing more to read."""
        folder.mkdir()
        with pytest.raises(Enough):
            self.service._work(self.desk, folder)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.handover.service._LOOK_AGAIN_S", 0.0)
    # It would ask for the ends as well, from a thread.
    monkeypatch.setattr("streams.handover.service._Ends", lambda *_: contextlib.nullcontext(SimpleNamespace(told=())))


def test_a_log_that_ends_before_what_was_handed_over_is_read_on_at_its_end(tmp_path: Path) -> None:
    """From behind it, its reader would be led to its beginning, and all of it would be paid for again."""
    site = Site(handed(0, 5, "h1"), handed(5, 9, "h2"))
    site.records = lying(*range(7), since=9)

    with capture_logs() as lines:
        site.serve(tmp_path / "w")

    assert site.begun == [[7]]
    assert [(state.id, state.ranges) for state in site.written] == [("h2", {"0": (5, 7)})]
    assert [(line["hand_over"], line["lost"]) for line in lines if line["event"] == "handover.cut"] == [("h2", 2)]


def test_what_has_come_since_the_loss_is_handed_over(tmp_path: Path) -> None:
    """It lies at offsets that were handed over before, of records that are gone."""
    site = Site(handed(0, 5, "h1"), handed(5, 9, "h2"))
    site.records = lying(*range(8), since=3)

    site.serve(tmp_path / "w")

    assert site.begun == [[3]]
    assert [(state.id, state.ranges) for state in site.written] == [("h2", {}), ("h1", {"0": (0, 3)})]


def test_a_log_that_is_shorter_for_a_moment_is_left_alone(tmp_path: Path) -> None:
    """Its leader is settling, say."""
    site = Site(handed(0, 9))
    site.records, site.ends = lying(*range(9), since=9), [5, 5]

    site.serve(tmp_path / "w")

    assert (site.begun, site.written) == ([[9]], [])


def test_a_log_that_is_read_from_its_beginning_again_is_looked_at_anew(tmp_path: Path) -> None:
    """It has lost its end under us, and has grown again since: only the times tell what has come."""
    site = Site(handed(0, 9))
    site.records, site.polled = lying(*range(9), since=9), [lying(0, since=9)]

    (tmp_path / "w").mkdir()
    with pytest.raises(LogUnavailable, match="was read up to offset 9, and 0 came again"):
        site.service._work(site.desk, tmp_path / "w")
    site.records = lying(*range(12), since=6)
    site.serve(tmp_path / "after")

    assert site.begun == [[9], [6]]
    assert [state.ranges for state in site.written] == [{"0": (0, 6)}]


@pytest.mark.parametrize("change", [lambda site: setattr(site, "log_id", ""), lambda site: site.history.clear()])
def test_a_log_that_may_be_another_one_is_read_from_its_beginning(
    tmp_path: Path, change: Callable[[Site], object]
) -> None:
    """Nothing of it was handed over yet, as far as anybody knows."""
    site = Site(handed(0, 9))
    site.records, site.polled = lying(*range(10), since=0), [lying(0, 1, since=0)]
    change(site)

    site.serve(tmp_path / "w")

    assert site.written == []
    assert site.service._gathering is not None
    site.service._gathering.abandon()
    assert site.service._gathering.ranges == {"0": (0, 2)}


def test_what_was_noted_stays_known_when_the_jobs_topic_is_made_anew(tmp_path: Path) -> None:
    """All of the hand-over topic would be handed over, and paid for, once more."""
    site = Site(handed(0, 9))
    site.records = lying(*range(9), since=9)
    site.serve(tmp_path / "w")
    site.history.clear()

    with capture_logs() as lines:
        site.serve(tmp_path / "after")

    assert (site.begun, [state.id for state in site.written]) == ([[9], [9]], ["h1"])
    assert [line["noted_again"] for line in lines if line["event"] == "handover.jobs_topic_made_anew"] == [1]


@pytest.mark.parametrize(
    ("changes", "jobs_id", "noted_again"),
    [
        ({"ended_at": GATHERED_AT}, "j1", []),
        ({"ended_at": GATHERED_AT}, "j2", ["h1"]),
        ({"ended_at": format_time(datetime.now(UTC))}, "j1", ["h1"]),
    ],
    ids=["expired", "made-anew", "end-lost"],
)
def test_what_the_jobs_topic_has_forgotten_in_its_time_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], jobs_id: str, noted_again: list[str]
) -> None:
    """Every session would say again that it was made anew, and write all that there ever was."""
    monkeypatch.setattr("streams.handover.gathering._KEPT", timedelta(hours=1))
    site = Site(handed(0, 5, **changes), handed(5, 9, "h2"))
    site.records = lying(*range(9), since=9)
    site.serve(tmp_path / "w")
    site.history, site.jobs_id = site.history[1:], jobs_id

    site.serve(tmp_path / "after")

    assert (site.begun, [state.id for state in site.written]) == ([[9], [9]], noted_again)
    assert sorted(site.service._noted) == sorted([*noted_again, "h2"])


def test_a_broker_that_was_set_up_anew_and_names_no_logs_is_not_told_what_was_on_the_one_before(
    tmp_path: Path,
) -> None:
    """What lies at the offsets of the former one would be passed over."""
    site = Site(handed(0, 9, log=""))
    site.log_id = site.jobs_id = ""
    site.records = lying(*range(9), since=9)
    site.serve(tmp_path / "w")
    site.history.clear()
    site.records = lying(*range(3), since=0)

    site.serve(tmp_path / "after")

    assert (site.begun, site.written) == ([[9], [0]], [])


def test_what_the_log_says_of_a_hand_over_stands_before_what_is_remembered(tmp_path: Path) -> None:
    """Another process may have gone on with it meanwhile."""
    site = Site(handed(0, 9))
    site.records = lying(*range(9), since=9)
    site.serve(tmp_path / "w")
    site.history[0] = handed(0, 7)

    site.serve(tmp_path / "after")

    assert (site.begun, site.written) == ([[9], [7]], [])
