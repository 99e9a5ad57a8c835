"""`penstock dlq` on the embedded broker; what needs transactions and workers is in tests/kafka/test_dlq.py."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from contracts.codec import RESOLUTION, RecordHeaders, dead_letter_headers, redrive_of
from contracts.payloads import DeadLetter, FailureNote
from gateways.cli.dlq_write import Refusal, Unit, Writer
from gateways.cli.main import run
from gateways.cli.reading import as_read
from producers.embedded import EmbeddedBroker
from tests.gateways.cli.settings import write
from tests.support import ChildProcess, eventually

pytestmark = pytest.mark.embedded

AT = "2026-11-24T08:00:00.000Z"
ODD: list[tuple[str, bytes | None]] = [("x", b"\xff\x00"), ("x", b""), ("x", None), ("penstock-dead-letter", b"theirs")]


class Desk:
    """One installation's topics, and the command line at work on them."""

    def __init__(self, broker: EmbeddedBroker, prefix: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.bootstrap = broker.bootstrap
        self.prefix = prefix
        self.letters = f"{prefix}.dead-letters.v1"
        self.events = f"{prefix}.events.standard.v1"
        self.config = config
        self._capsys = capsys
        # Each letter a millisecond younger than the one before.
        self._now_ms = int(time.time() * 1000)
        self._producer = Producer({"bootstrap.servers": broker.bootstrap, "log_level": 0})

    def produce(self, headers: RecordHeaders, value: bytes | None = b"{}", partition: int = 0) -> None:
        """Put a record on the dead-letter topic."""
        self._now_ms += 1
        self._producer.produce(self.letters, value, b"k", partition, timestamp=self._now_ms, headers=list(headers))
        assert self._producer.flush(10) == 0

    def bury(
        self,
        event_id: str,
        value: bytes | None = b'{"a": 1}',
        more: RecordHeaders = (),
        *,
        partition: int = 0,
        **why: object,
    ) -> None:
        """Put a dead letter on its topic, as a worker does."""
        names = (("ce_specversion", "1.0"), ("ce_id", event_id), ("ce_source", "shop"), ("ce_type", "order"))
        self.produce([*((n, t.encode()) for n, t in names), *more, *self.header(**why)], value, partition)

    def header(self, **why: object) -> RecordHeaders:
        """Return the header that makes a dead letter."""
        fields = {
            "reason": "output_invalid", "disposition": "poison", "message": "no", "attempts": 2, "route": "r",
            "topic": self.events, "partition": 1, "offset": 7, "failed_at": AT, **why,
        }  # fmt: skip
        return dead_letter_headers([], DeadLetter(**fields))  # type: ignore[arg-type]

    def __call__(self, *args: str) -> tuple[int, str, str]:
        """Run `penstock dlq`; return exit code, standard output and standard error."""
        code = run(["dlq", *args, "--config", str(self.config)])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def listed(self, *args: str) -> dict[str, str]:
        """Return the ids that are listed, and their states."""
        _, out, _ = self("list", "--json", *args)
        return {found["event"]["id"]: found["state"] for found in map(json.loads, out.splitlines())}

    def read(self, topic: str) -> list[Message]:
        """Return everything that lies on a topic."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test", "log_level": 0})
        try:
            consumer.assign([TopicPartition(topic, n, 0) for n in range(4)])
            ends = sum(consumer.get_watermark_offsets(TopicPartition(topic, n), 5)[1] for n in range(4))
            found: list[Message] = []

            def complete() -> bool:
                found.extend(consumer.consume(100, 0.1))
                return len(found) >= ends

            eventually(complete)
            return found
        finally:
            consumer.close()


@pytest.fixture
def desk(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Desk:
    prefix = f"dlq-{time.monotonic_ns()}"
    for name, text in (
        ("BOOTSTRAP_SERVERS", embedded_broker.bootstrap),
        ("EMBEDDED", "true"),
        ("TOPIC_PREFIX", prefix),
    ):
        monkeypatch.setenv(f"PENSTOCK_KAFKA__{name}", text)
    return Desk(embedded_broker, prefix, write(tmp_path), capsys)


def test_an_empty_topic_has_no_letters(desk: Desk) -> None:
    assert desk("list") == (0, "0 open dead letters\n", "")


def test_the_table_names_what_an_operator_decides_by(desk: Desk) -> None:
    desk.bury("e-1", cost_usd=0.0125)

    _, out, _ = desk("list")

    for word in ("0/0", "output_invalid", "poison", "0.0125", "shop", "order", "e-1"):
        assert word in out
    assert "1 open dead letters" in out


def test_the_newest_are_listed_and_the_rest_is_counted(desk: Desk) -> None:
    for number in range(5):
        desk.bury(f"e-{number}", partition=number % 2)

    _, out, _ = desk("list", "--limit", "2")

    assert [name for name in ("e-0", "e-1", "e-2", "e-3", "e-4") if name in out] == ["e-3", "e-4"]
    assert "5 open dead letters, the newest 2 are shown (--limit)" in out


def test_letters_are_found_by_the_time_of_their_burial(desk: Desk) -> None:
    desk.bury("e-1")

    assert desk.listed("--since", "1h") == {"e-1": "open"}
    assert desk("stats", "--since", "1h")[1].endswith("1 dead letters\n")
    assert desk.listed("--since", "2099-01-01T00:00:00Z") == {}


def test_broken_and_foreign_records_are_listed_as_such(desk: Desk) -> None:
    desk.produce([])
    desk.produce([("penstock-dead-letter", b"{")], None)
    desk.produce([(RESOLUTION, b'{"state": "eaten"}')])
    desk.produce([("penstock-dead-letter", None), ("ce_id", b"\xff\x1b[2J")])

    code, out, _ = desk("list")

    assert code == 0
    assert out.count("not readable") == 4
    assert "\x1b" not in out


def test_a_record_that_is_not_readable_is_not_put_back_and_can_be_discarded(desk: Desk) -> None:
    desk.produce([("foreign", b"1")])

    refused = desk("redrive", "--yes")
    done = desk("discard", "--yes")

    assert (refused[0], refused[1]) == (1, "0 of 1 dead letters redriven, 1 stay open\n")
    assert "0/0 -: not readable, so nobody knows where it belongs" in refused[2]
    assert done[:2] == (0, "1 of 1 dead letters discarded\n")
    assert desk("list")[1] == "0 open dead letters\n"


@pytest.mark.parametrize("value", [b'{"a": 1}', b"\xff\x00", b"", None])
def test_a_redriven_event_is_what_it_was_byte_for_byte(desk: Desk, value: bytes | None) -> None:
    desk.bury("e-1", value, ODD)

    code, out, _ = desk("redrive", "--yes")

    [event] = [as_read(message) for message in desk.read(desk.events)]
    assert (code, out) == (0, "1 of 1 dead letters redriven\n")
    assert (event.key, event.value, event.partition) == (b"k", value, 1)
    assert event.headers[4:-1] == ODD
    assert event.headers[1] == ("ce_id", b"e-1")


def test_a_redriven_event_says_from_which_letter_and_how_often(desk: Desk) -> None:
    desk.bury("e-1", redrives=2)
    desk("redrive", "--yes")

    [event] = desk.read(desk.events)
    mark = redrive_of(as_read(event).headers)

    assert mark is not None
    assert (mark.partition, mark.offset, mark.count) == (0, 0, 3)


def test_what_was_redriven_is_not_redriven_again(desk: Desk) -> None:
    desk.bury("e-1")
    desk("redrive", "--yes")

    said = "no open dead letter of application penstock matches; --app takes those of others\n"
    assert desk("redrive", "--yes") == (0, said, "")
    assert len(desk.read(desk.events)) == 1
    assert desk.listed() == {}
    assert desk.listed("--all") == {"e-1": "redriven"}


def test_an_event_that_was_buried_twice_is_put_back_once(desk: Desk) -> None:
    """A worker was killed between its letter and its marker, and the next one met the event again."""
    for event_id, timestamp_ms in (("e-1", 5), ("e-1", 5), ("e-2", 5), ("e-1", 6)):
        desk.bury(event_id, timestamp_ms=timestamp_ms)

    code, out, _ = desk("redrive", "--yes")

    marks = [redrive_of(as_read(message).headers) for message in desk.read(desk.events)]
    assert (code, out) == (0, "4 of 4 dead letters redriven\n")
    assert [mark and mark.offset for mark in marks] == [0, 2, 3]
    assert desk.listed() == {}


def test_letters_that_do_not_say_when_their_event_came_are_each_put_back(desk: Desk) -> None:
    """Offset and names alone may be those of two events, one of them on a log that was made anew."""
    desk.bury("e-1")
    desk.bury("e-1")

    desk("redrive", "--yes")

    assert len(desk.read(desk.events)) == 2


def test_the_oldest_go_first_in_their_order(desk: Desk) -> None:
    for number in range(5):
        desk.bury(f"e-{number}")

    code, out, _ = desk("redrive", "--yes", "--limit", "3")

    ids = [dict(as_read(message).headers)["ce_id"] for message in desk.read(desk.events)]
    assert (code, out) == (0, "3 of 3 dead letters redriven\n")
    assert ids == [b"e-0", b"e-1", b"e-2"]


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    desk.bury("e-1")
    desk.bury("e-2", topic="elsewhere")

    code, out, err = desk("redrive", "--dry-run")

    assert code == 1
    assert out == f"would redrive 0/0 e-1 to {desk.events}/1\ndry run: would redrive 1 of 2 dead letters\n"
    assert "0/1 e-2: it came from 'elsewhere', which is no event topic of this installation" in err
    assert (len(desk.read(desk.letters)), len(desk.read(desk.events))) == (2, 0)


def test_one_that_cannot_be_put_back_is_named_and_the_others_go(desk: Desk) -> None:
    desk.bury("e-1")
    desk.bury("e-2", topic="elsewhere")
    desk.bury("e-3")

    code, out, err = desk("redrive", "--yes")

    assert (code, out) == (1, "2 of 3 dead letters redriven, 1 stay open\n")
    assert err.startswith("0/1 e-2: ")
    assert desk.listed() == {"e-2": "open"}


def test_an_event_behind_its_own_deadline_stays_until_it_is_extended(desk: Desk) -> None:
    desk.bury("e-1", more=[("ce_expirytime", b"2020-01-01T00:00:00Z")])

    refused = desk("redrive", "--yes")
    extended = desk("redrive", "--yes", "--extend", "1h")

    assert "e-1: its own deadline 2020-01-01T00:00:00Z has passed" in refused[2]
    assert extended[0] == 0
    [event] = desk.read(desk.events)
    assert (dict(as_read(event).headers)["ce_expirytime"] or b"") > b"2026"


def test_without_a_terminal_nothing_is_done_unless_told_so(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.bury("e-1")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)

    code, _, err = desk("discard")

    assert code == 2
    assert "1 dead letters match; not a terminal" in err
    assert desk.listed() == {"e-1": "open"}


def test_a_no_at_the_question_changes_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no(question: str) -> str:
        asked.append(question)
        return "n"

    desk.bury("e-1")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", no)

    code, out, err = desk("redrive")

    assert (code, out) == (130, "")
    assert "redrive 1 dead letters? [y/N]" in err + "".join(asked)
    assert desk.listed() == {"e-1": "open"}


def test_what_others_resolve_while_the_question_stands_is_left_alone(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(_question: str) -> str:
        monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
        assert run(["dlq", "discard", "--yes", "--id", "e-1", "--config", str(desk.config)]) == 0
        return "y"

    desk.bury("e-1")
    desk.bury("e-2")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("click.termui.visible_prompt_func", answer)

    code, out, err = desk("redrive")

    assert code == 0
    assert "1 were resolved by somebody else meanwhile" in err
    assert out.endswith("1 of 1 dead letters redriven\n")
    assert desk.listed("--all") == {"e-1": "discarded", "e-2": "redriven"}


def test_filters_choose_who_is_discarded(desk: Desk) -> None:
    desk.bury("e-1", reason="no_route", route="none")
    desk.bury("e-2")
    desk.bury("e-3", partition=2)

    assert desk.listed("--reason", "no_route", "--reason", "undecodable") == {"e-1": "open"}
    assert desk.listed("--partition", "2") == {"e-3": "open"}
    assert desk.listed("--id", "e-2") == {"e-2": "open"}
    assert desk.listed("--partition", "0", "--offset", "1") == {"e-2": "open"}
    assert desk("list", "--offset", "1")[0] == 2
    desk("discard", "--yes", "--route", "r")
    assert desk.listed("--all") == {"e-1": "open", "e-2": "discarded", "e-3": "discarded"}


def test_show_says_everything_about_a_letter(desk: Desk) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    failure = FailureNote(attempt=1, reason="throttled", message="slow down", at=AT, possibly_billed=True)
    desk.bury(
        "e-1", more=ODD, traceparent=trace, cost_usd=0.5, app_id="app", answer="{half",
        failures=(failure,),
    )  # fmt: skip
    desk("discard", "--yes", "--app", "app", "--why", "not needed")

    _, out, _ = desk("show", "0/0")

    for words in (
        "discarded at ", ": not needed", "output_invalid (poison)", "attempts     2, cost 0.5 USD", trace,
        "x: base64 /wA=", f"{desk.events}/1/7", f"1  {AT}  throttled, possibly billed: slow down", "{half", '"a": 1',
    ):  # fmt: skip
        assert words in out


def test_show_as_json_keeps_repeated_null_and_binary_headers(desk: Desk) -> None:
    desk.bury("e-1", None, ODD)

    document = json.loads(desk("show", "0/0", "--json")[1])

    assert document["headers"][4:8] == [
        {"name": "x", "base64": "/wA="},
        {"name": "x", "value": ""},
        {"name": "x", "value": None},
        {"name": "penstock-dead-letter", "value": "theirs"},
    ]
    assert document["value"] is None
    assert document["letter"]["reason"] == "output_invalid"


def test_raw_writes_the_bytes_and_nothing_else(desk: Desk, tmp_path: Path) -> None:
    desk.bury("e-1", b"\xff\x00\r\n")
    desk.bury("e-2", None)

    assert desk("show", "0/0", "--raw", "--output", str(tmp_path / "body"))[0] == 0
    assert (tmp_path / "body").read_bytes() == b"\xff\x00\r\n"
    code, _, err = desk("show", "0/1", "--raw")
    assert (code, "no value (null)" in err) == (1, True)


def test_show_of_no_letter_says_so(desk: Desk) -> None:
    desk.bury("e-1")
    desk("discard", "--yes")

    assert "there is no dead letter at 0/9" in desk("show", "0/9")[2]
    # A resolution is no letter.
    assert desk("show", "0/1")[0] == 1
    assert desk("show", "first")[0] == 2


def test_stats_count_by_reason_and_route(desk: Desk) -> None:
    for _ in range(3):
        desk.bury("e", cost_usd=0.25)
    desk.produce([])

    _, out, _ = desk("stats")

    assert "0.75" in out
    assert "not readable" in out
    assert out.endswith("4 dead letters\n")


def test_tail_shows_resolutions_as_what_they_are(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.bury("e-1")
    desk("discard", "--yes")

    run(["tail", "dead-letters", "--no-follow", "--config", str(desk.config)])

    assert "e-1  discarded (letter 0/0, by " in capsys.readouterr().out


def test_ctrl_c_stops_between_two_letters_and_says_what_remains(desk: Desk) -> None:
    for number in range(30):
        desk.bury(f"e-{number}")
    args = ("gateways.cli", "dlq", "redrive", "--yes", "--rate", "4", "--config", str(desk.config))
    with ChildProcess(*args, env=dict(os.environ)) as redriving:
        eventually(lambda: len(desk.listed()) < 30)
        redriving.signal(signal.SIGINT)

        assert redriving.wait(10) == 130
    done = 30 - len(desk.listed())
    assert f"{done} of 30 dead letters redriven, {30 - done} stay open" in redriving.output
    assert "the same command goes on with the rest" in redriving.output
    assert "Traceback" not in redriving.output
    assert len(desk.read(desk.events)) == done
    assert 0 < done < 30


def test_what_a_second_ctrl_c_cuts_short_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        desk.bury(f"e-{number}")
    write_units = Writer.write

    def cut_short_at_the_second(writer: Writer, units: Sequence[Unit]) -> list[Refusal]:
        if len(units) < 50:
            raise KeyboardInterrupt
        return write_units(writer, units)

    monkeypatch.setattr(Writer, "write", cut_short_at_the_second)

    # So many go out at a time.
    code, out, err = desk("redrive", "--yes", "--rate", "100")

    assert (code, out) == (130, "")
    assert "cut short: 50 of 60 dead letters redriven, and perhaps those that were under way; " in err
    assert len(desk.listed()) == 10


def test_letters_of_the_configured_application_go_back_for_it_alone(desk: Desk) -> None:
    """Another one that reads the topic has answered their events, and would pay for them again."""
    desk.bury("e-1", app_id="penstock")
    desk.bury("e-2", app_id="another")
    # Of a version that did not say.
    desk.bury("e-3", app_id="")

    first = desk("redrive", "--yes")
    marks = {as_read(one).headers[-1] for one in desk.read(desk.events)}
    listed = desk.listed("--app", "another")
    second = desk("redrive", "--yes", "--app", "another", "--app", "penstock")

    assert "open dead letters of other applications that match: 1; --app takes them" in first[2]
    assert (first[1], second[1]) == ("2 of 2 dead letters redriven\n", "1 of 1 dead letters redriven\n")
    assert listed == {"e-2": "open"}
    assert sorted(found.app_id for mark in marks if (found := redrive_of([mark]))) == ["", "penstock"]
    assert [found.app_id for one in desk.read(desk.events) if (found := redrive_of(as_read(one).headers))].count(
        ""
    ) == 2
