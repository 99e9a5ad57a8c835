"""`penstock undelivered`: what is asked for wrongly is said, and a redrive that is cut off says what it has done."""

import io
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import pytest
from msgspec.structs import replace

from contracts.codec import Record, delivery_headers, delivery_note
from contracts.errors import LogUnavailable, TooLarge
from contracts.payloads import DeliveryNote
from gateways.cli import undelivered as module
from gateways.cli.main import run
from gateways.cli.reading import Read
from tests.gateways.cli.records import AT, AT_MS, result
from tests.gateways.cli.settings import SMALL, write

DOOR = "egress: {orders: {kind: sqs, region: eu-west-1, queue_url: 'http://127.0.0.1:1/q'}}\n"
NOTE = DeliveryNote(
    state="refused", door="orders", destination="", attempts=1, reason="too_large", topic="results", partition=0,
    offset=7, timestamp_ms=AT_MS, first_at_ms=AT_MS, at=AT,
)  # fmt: skip


def _read(offset: int, note: DeliveryNote) -> Read:
    given = result("a summary", f"e-{offset}")
    return Read("t", 2, offset, AT_MS, None, given.value, delivery_headers(given.headers, note))


class _Topic:
    """A topic with three undelivered outcomes, at 2/0, 2/1 and 2/2."""

    def __init__(self, notes: Iterable[DeliveryNote]) -> None:
        self._left = [_read(offset, note) for offset, note in enumerate(notes)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None: ...

    @property
    def at_end(self) -> bool:
        return not self._left

    def poll(self, _timeout_s: float) -> Read:
        return self._left.pop(0)


class _Log:
    """A producer that answers with what a test gives."""

    def __init__(self, *answers: Exception | None) -> None:
        self._answers = list(answers)
        self.records: list[Record] = []

    @property
    def produced(self) -> int:
        return len(self.records)

    def __call__(self, *_: object, **__: object) -> Self:
        return self

    async def start(self) -> None: ...

    async def aclose(self, _timeout_s: float) -> None: ...

    async def produce(self, record: Record) -> None:
        answer = self._answers.pop(0)
        if answer is not None:
            raise answer
        self.records.append(record)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give a configuration with one door, and a topic."""
    monkeypatch.setattr(module, "TopicReader", lambda *_args, **_more: _Topic([NOTE] * 3))
    return str(write(tmp_path, SMALL + DOOR))


def _redrive(config: str, *args: str) -> int:
    return run(["undelivered", "redrive", "--config", config, *args])


def test_a_redrive_that_is_cut_off_names_what_is_left(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("producers.producer.KafkaProducer", _Log(None, LogUnavailable("not confirmed in 30 s")))

    assert _redrive(config, "--yes") == 1

    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "2/1 not redriven: not confirmed in 30 s; it may be on its way all the same (orders, results 0/7)",
        "2/2 not redriven: not tried (orders, results 0/7)",
        "1 of 3 redriven",
    ]
    assert said.err == "the same command would redrive those again; --place names what is left\n"


def test_what_another_application_could_not_deliver_is_none_of_ours(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that share topics may each have a door of one name; what is redriven goes to ours alone from then on."""
    log = _Log(None, None)
    monkeypatch.setattr("producers.producer.KafkaProducer", log)
    owners = iter(["", "another", "penstock"])
    monkeypatch.setattr(
        module,
        "TopicReader",
        lambda *_args, **_more: _Topic(replace(NOTE, app_id=app_id) for app_id in owners),
    )

    assert _redrive(config, "--yes") == 0

    assert capsys.readouterr().out == "2 of 2 redriven\n"
    assert [delivery_note(record.headers)[0].app_id for record in log.records] == ["penstock", "penstock"]


def test_what_other_applications_could_not_deliver_is_counted_and_shown_and_redriven_by_wish(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a rename, what the old name left is redriven to the doors of the new one."""
    log = _Log(None, None)
    monkeypatch.setattr("producers.producer.KafkaProducer", log)
    notes = [replace(NOTE, app_id=app_id) for app_id in ("old", "penstock", "another", "old")]
    monkeypatch.setattr(module, "TopicReader", lambda *_args, **_more: _Topic(notes))

    assert run(["undelivered", "list", "--config", config]) == 0
    own = capsys.readouterr()
    assert _redrive(config, "--yes", "--app", "old", "--door", "orders") == 0
    old = capsys.readouterr()

    assert (own.out.splitlines()[-1], old.out) == ("1 undelivered", "2 of 2 redriven\n")
    assert own.err.splitlines() == [
        "2 of application 'old' not shown; --app old does",
        "1 of application 'another' not shown; --app another does",
    ]
    assert [delivery_note(record.headers)[0].app_id for record in log.records] == ["penstock"] * 2


def test_one_that_is_too_large_keeps_no_other_from_going(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("producers.producer.KafkaProducer", _Log(None, TooLarge("of 9 bytes"), None))

    assert _redrive(config, "--yes") == 1

    assert capsys.readouterr().out.splitlines() == [
        "2/1 not redriven: of 9 bytes (orders, results 0/7)",
        "2 of 3 redriven",
    ]


def test_ctrl_c_ends_a_redrive_after_the_one_under_way(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupted(_Log):
        async def produce(self, record: Record) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            await super().produce(record)

    monkeypatch.setattr("producers.producer.KafkaProducer", Interrupted(None, None, None))

    assert _redrive(config, "--yes") == 130

    assert capsys.readouterr().out.splitlines()[-3:] == [
        "2/1 not redriven: not tried (orders, results 0/7)",
        "2/2 not redriven: not tried (orders, results 0/7)",
        "1 of 3 redriven",
    ]


def test_all_that_match_are_redriven(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = _Log(None, None)
    monkeypatch.setattr("producers.producer.KafkaProducer", log)

    assert _redrive(config, "--yes", "--place", "2/0", "--place", "2/2") == 0

    assert (log.produced, capsys.readouterr().out) == (2, "2 of 2 redriven\n")


@pytest.mark.parametrize("place", ["2-17", "17", "2/", "-1/2"])
def test_a_place_that_is_none_is_refused(place: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _redrive(config, f"--place={place}", "--yes") == 2

    assert f"{place!r}: expected PARTITION/OFFSET, as `list` shows them" in capsys.readouterr().err


def test_a_misspelt_door_is_named(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _redrive(config, "--door", "ordres", "--yes") == 0

    said = capsys.readouterr()
    assert said.out == "nothing undelivered matches\n"
    assert said.err == "no door under egress is called 'ordres'; did you mean orders?\n"


def test_without_a_terminal_nobody_is_asked(
    config: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert _redrive(config) == 2

    assert "3 match; not a terminal, so nobody can be asked: --yes does it" in capsys.readouterr().err
