"""`penstock why-stuck`: what it says of a worker's report, and its exit codes; real workers are in tests/kafka."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from msgspec.structs import replace

from contracts.errors import LogUnavailable
from contracts.settings import Settings
from contracts.stuck import Doing, PartitionState, PausedRoute, Problem, StuckReport, UnfinishedEvent
from gateways.cli import why_stuck_group
from gateways.cli.main import run
from gateways.cli.why_stuck import CANNOT_TELL, NOT_STUCK, STUCK, verdict
from gateways.cli.why_stuck_group import GroupPartition, GroupReport
from gateways.cli.why_stuck_words import Finding, of_partition, of_worker
from tests.gateways.cli.settings import write

EVENT = UnfinishedEvent(
    offset=7, event_id="e-1", key="k", route="r", state="calling", state_s=40.4, age_s=50, attempts=2, deadline_s=200
)
PARTITION = PartitionState(
    topic="t", partition=3, commit_point=7, committed=7, position=9, end=9, lag=2, unfinished=2, oldest=EVENT
)
REPORT = StuckReport(
    app_id="app", instance_id="w-1", state="working", generation=4, lease="valid", kafka_answers=True, max_in_flight=8
)


def group(members: tuple[str, ...], end: int) -> GroupReport:
    partition = GroupPartition(
        topic="t", partition=0, committed=5, first=0, end=end, next_offset=5 if end > 5 else None
    )
    return GroupReport(app_id="app", state="empty", members=members, partitions=(partition,))


class _Page(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        """Answer every path."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[tuple[str, int]]]:
    """Have Kafka know of nothing that waits; return of which partitions it is not asked."""
    asked: list[frozenset[tuple[str, int]]] = []

    def look(_settings: Settings, told: frozenset[tuple[str, int]]) -> GroupReport:
        asked.append(told)
        return group(("w",), 5)

    monkeypatch.setattr(why_stuck_group, "look", look)
    return asked


@pytest.fixture
def worker(told: list[frozenset[tuple[str, int]]]) -> Iterator[str]:  # noqa: ARG001 - no Kafka is there
    """Serve what `_Page.body` holds."""
    server = HTTPServer(("127.0.0.1", 0), _Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _Server6(HTTPServer):
    address_family = socket.AF_INET6


@pytest.mark.usefixtures("told")
def test_a_worker_with_an_ipv6_health_host_is_asked_by_its_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ipv6_loopback: str
) -> None:
    monkeypatch.setattr(_Page, "body", msgspec.json.encode(REPORT))
    with _Server6((ipv6_loopback, 0), _Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PENSTOCK_WORKER__HEALTH_HOST", ipv6_loopback)
        monkeypatch.setenv("PENSTOCK_WORKER__HEALTH_PORT", str(server.server_port))
        code = run(["why-stuck", "--config", str(write(tmp_path))])
        server.shutdown()

    assert code == NOT_STUCK
    assert f"worker http://[::1]:{server.server_port} (w-1): working" in capsys.readouterr().out


def test_a_kafka_that_is_not_there_is_told_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(why_stuck_group, "_LIMIT_S", 0.3)
    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")

    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", "http://127.0.0.1:1"])

    assert code == CANNOT_TELL
    assert "Kafka: no Kafka broker answers at 127.0.0.1:1 within 0.3 s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (KafkaException(KafkaError(KafkaError._TIMED_OUT)), "no Kafka broker answers at 127.0.0.1:1 within 10 s"),
        (KafkaException(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)), "Kafka does not say how the group is: "),
    ],
)
def test_what_kafka_answers_is_told_apart_from_silence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    raised: KafkaException,
    words: str,
) -> None:
    def look(*_: object) -> GroupReport:
        raise raised

    monkeypatch.setattr(why_stuck_group, "_look", look)
    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")

    run(["why-stuck", "--config", str(write(tmp_path)), "--worker", "http://127.0.0.1:1"])

    assert words in capsys.readouterr().out


@pytest.fixture
def no_kafka(told: object, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 - in its place
    def look(_settings: Settings, _told: object) -> GroupReport:
        message = "no Kafka"
        raise LogUnavailable(message)

    monkeypatch.setattr(why_stuck_group, "look", look)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("waiting_slot", "waits for a free slot"),
        ("waiting_key", "waits behind the event at offset 5 of its key"),
        ("calling", "is in a model call"),
        ("resting", "rests because of throttled, next attempt in 12 s"),
        ("settling", "has its outcome, and waits for the broker's ack"),
    ],
)
def test_each_state_has_its_words_and_a_hint(state: Doing, words: str) -> None:
    event = replace(EVENT, state=state, behind_offset=5, reason="throttled", next_try_s=12.3)
    finding = of_partition(REPORT, replace(PARTITION, oldest=event), 30)

    assert finding.text == (
        f"event e-1 (key k, route r, offset 7) {words} (attempt 2, for 40 s, taken 50 s ago; expires in 200 s)"
    )
    assert finding.hint
    assert finding.is_stuck


def test_a_young_event_is_not_stuck() -> None:
    assert not of_partition(REPORT, PARTITION, 60).is_stuck


def test_a_deadline_that_has_passed_is_said() -> None:
    event = replace(EVENT, deadline_s=-1.0)

    assert of_partition(REPORT, replace(PARTITION, oldest=event), 30).text.endswith("; its deadline has passed)")


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("partition", "its broker gives none"),
        ("untaken", "they are fetched, and not taken although there is room"),
        ("of a later version", "of a later version"),
    ],
)
def test_records_that_nothing_explains_not_to_be_read_are_stuck(check: str, words: str) -> None:
    partition = replace(PARTITION, oldest=None, position=2, end=9, stands_by=check, stands_s=31)
    young = replace(partition, oldest=EVENT)
    found = of_partition(REPORT, partition, 30)

    assert (found.is_stuck, found.text) == (True, f"7 records are not read, for 31 s: {words}")
    assert found.hint
    assert of_partition(REPORT, replace(partition, stands_s=29), 30) == Finding(False, "7 records are still to be read")
    assert of_partition(REPORT, young, 30).text.startswith("event e-1")
    assert of_partition(REPORT, replace(young, oldest=replace(EVENT, age_s=5)), 30) == found


def test_an_offset_without_a_record_at_the_end_is_not_stuck_where_nothing_moves() -> None:
    """Fetches are answered and bring nothing: a marker of a transaction that compaction has removed."""
    partition = replace(PARTITION, oldest=None, position=8, end=9)

    assert not of_partition(replace(REPORT, idle_s=3600), partition, 30).is_stuck


def test_a_problem_that_a_restart_mends_says_so_and_another_does_not() -> None:
    problems = (
        Problem(check="journal", detail="not loaded", for_s=121, restart_helps=True),
        Problem(check="kafka", detail="no broker answers", for_s=30, restart_helps=False),
    )
    mended, other = of_worker(replace(REPORT, problems=problems), 30)

    assert (mended.text, mended.hint) == (
        "journal: not loaded, for 121 s",
        "restart this worker, and keep its log",
    )
    assert "restart" not in other.hint
    assert mended.is_stuck
    assert other.is_stuck


def test_a_paused_route_says_what_an_operator_does_or_that_it_passes() -> None:
    paused = (
        PausedRoute("a", "access_denied"),
        PausedRoute("b", "provider_unavailable"),
        PausedRoute("c", "dead_letter_ratio"),
    )
    found = of_worker(replace(REPORT, paused_routes=paused), 30)

    assert [one.hint.partition(" ")[0] for one in found] == ["credentials", "wait:", "`penstock"]


def test_routes_that_are_paused_for_one_reason_are_told_together() -> None:
    paused = (PausedRoute("a", "throttled"), PausedRoute("b", "access_denied"), PausedRoute("c", "throttled"))
    found = of_worker(replace(REPORT, paused_routes=paused), 30)

    assert [one.text for one in found] == ["routes a, c are paused: throttled", "route b is paused: access_denied"]


def test_a_short_rebalance_is_told_and_is_not_stuck() -> None:
    assert of_worker(replace(REPORT, state="rebalancing", idle_s=3), 30) == [
        Finding(False, "the worker is rebalancing")
    ]
    assert of_worker(replace(REPORT, state="rebalancing", idle_s=31), 30)[0].is_stuck


def test_a_worker_that_waits_for_topics_is_stuck_and_says_for_which() -> None:
    (finding,) = of_worker(replace(REPORT, state="starting", waits_for=("topic t is missing",)), 30)

    assert finding == Finding(True, "the worker is starting, and waits: topic t is missing")


@pytest.mark.parametrize(
    ("reports", "silent", "found", "code"),
    [
        ({"u": REPORT}, {}, None, NOT_STUCK),
        ({"u": replace(REPORT, partitions=(PARTITION,))}, {}, None, STUCK),
        ({"u": replace(REPORT, partitions=(PARTITION,))}, {"v": "silent"}, None, STUCK),
        ({"u": REPORT}, {"v": "silent"}, None, CANNOT_TELL),
        ({"u": REPORT}, {}, group(("w",), 5), NOT_STUCK),
        ({"u": REPORT}, {}, group(("w",), 9), CANNOT_TELL),
        ({"u": REPORT}, {"v": "silent"}, group(("w",), 5), CANNOT_TELL),
        ({"u": replace(REPORT, partitions=(PARTITION,))}, {}, group(("w",), 9), STUCK),
        ({}, {"u": "silent"}, None, CANNOT_TELL),
        ({}, {"u": "silent"}, group((), 5), NOT_STUCK),
        ({}, {"u": "silent"}, group((), 9), STUCK),
        ({}, {"u": "silent"}, group(("w",), 9), CANNOT_TELL),
    ],
)
def test_exit_codes(
    reports: dict[str, StuckReport], silent: dict[str, str], found: GroupReport | None, code: int
) -> None:
    assert verdict(reports, silent, found, 30) == code


def test_lag_counts_from_what_the_partition_still_has() -> None:
    """Retention may have taken what lies at the commit."""
    assert GroupPartition(topic="t", partition=0, committed=5, first=8, end=10).lag == 2


def test_a_workers_report_is_shown_with_its_table(
    worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _Page.body = msgspec.json.encode(
        replace(
            REPORT,
            partitions=(PARTITION, replace(PARTITION, partition=4, lag=0, unfinished=0, oldest=None)),
            events={"calling": 1},
            paused=("ready_keys",),
        )
    )
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker])
    out = capsys.readouterr().out

    assert code == STUCK
    assert f"worker {worker} (w-1): working, generation 4, lease valid; 1 calling; last moved 0 s ago" in out
    assert "intake is paused: ready_keys" in out
    assert "STUCK t/3: event e-1 (key k, route r, offset 7) is in a model call" in out
    assert "t/4" not in out
    assert "1 partition with nothing to do" in out


def test_partitions_of_workers_that_were_not_asked_are_named_and_it_cannot_be_told(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _Page.body = msgspec.json.encode(replace(REPORT, partitions=(replace(PARTITION, oldest=None, lag=0),)))
    monkeypatch.setattr(why_stuck_group, "look", lambda _settings, _told: group(("w-1 at h: 1 partitions",), 9))

    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker])
    out = capsys.readouterr().out

    assert code == CANNOT_TELL
    assert "events wait in partitions of which no worker told; name the others' addresses, too: --worker URL" in out
    assert "group app: empty, w-1 at h: 1 partitions" in out
    assert "t/0" in out
    assert "STUCK" not in out


def test_kafka_is_not_asked_of_partitions_that_a_worker_tells_of(
    worker: str, told: list[frozenset[tuple[str, int]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _Page.body = msgspec.json.encode(replace(REPORT, partitions=(replace(PARTITION, oldest=None, lag=0),)))

    assert run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker]) == NOT_STUCK
    assert told == [frozenset({("t", 3)})]
    assert "group" not in capsys.readouterr().out


@pytest.mark.usefixtures("no_kafka")
def test_without_kafka_nobody_knows_what_other_workers_hold(
    worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _Page.body = msgspec.json.encode(REPORT)
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker])

    assert code == CANNOT_TELL
    assert "Kafka: no Kafka; what other workers' partitions hold is not known" in capsys.readouterr().out


@pytest.mark.usefixtures("no_kafka")
def test_on_the_embedded_broker_there_is_no_other_worker(
    worker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Page.body = msgspec.json.encode(REPORT)
    monkeypatch.setenv("PENSTOCK_KAFKA__EMBEDDED", "true")
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker])

    assert code == NOT_STUCK


def test_json_has_the_whole_report(worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _Page.body = msgspec.json.encode(replace(REPORT, partitions=(PARTITION,)))
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker, "--json"])
    document = msgspec.json.decode(capsys.readouterr().out)

    assert code == STUCK
    assert document["workers"][0]["report"]["partitions"][0]["oldest"]["event_id"] == "e-1"


@pytest.mark.usefixtures("no_kafka")
def test_a_page_that_is_not_a_workers_is_said(worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _Page.body = b"<html>"
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker])

    assert code == CANNOT_TELL
    assert "answers, but not as a worker of this version does" in capsys.readouterr().out


@pytest.mark.usefixtures("no_kafka")
def test_without_worker_and_kafka_it_cannot_be_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["why-stuck", "--config", str(write(tmp_path)), "--worker", "http://127.0.0.1:1"])
    out = capsys.readouterr().out

    assert code == CANNOT_TELL
    assert "worker http://127.0.0.1:1: does not answer" in out
    assert "Kafka: no Kafka" in out
    assert out.endswith("penstock why-stuck --worker URL\n")


def test_what_is_no_url_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["why-stuck", "--config", str(write(tmp_path)), "--worker", "localhost:8081"]) == 2
    assert "is not a URL such as http://127.0.0.1:8081" in capsys.readouterr().err


@pytest.mark.parametrize(("position", "end"), [(None, 10**6), (5, None), (5, 5)])
def test_where_nobody_knows_what_is_unread_it_cannot_be_told(
    worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], position: int | None, end: int | None
) -> None:
    partition = replace(PARTITION, oldest=None, unfinished=0, lag=None, position=position, end=end)
    codes = []
    for stands_s in (29, 31):
        stands = replace(partition, stands_by="partition", stands_s=stands_s)
        _Page.body = msgspec.json.encode(replace(REPORT, partitions=(stands,)))
        codes.append(run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker]))

    assert codes == [NOT_STUCK, CANNOT_TELL]
    assert "  t/3: it is not known whether records are unread, for 31 s: its broker does not tell\n" in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("idle_s", "state", "is_stuck"),
    [(31, "working", True), (29, "working", False), (31, "loading", False)],
)
def test_what_was_handed_out_and_has_not_arrived_is_not_finished(idle_s: float, state: Any, *, is_stuck: bool) -> None:
    partition = replace(PARTITION, oldest=None, unfinished=0, commit_point=0, position=20, end=20, lag=20, untaken=20)
    found = of_partition(replace(REPORT, idle_s=idle_s, state=state), partition, 30)

    assert found.is_stuck == is_stuck
    assert found.text == "20 offsets are read and not taken"
    assert of_partition(REPORT, replace(partition, untaken=0), 30).text == "everything read is finished"


def test_text_from_outside_cannot_control_the_terminal() -> None:
    event = replace(EVENT, event_id="\x1b[2Je")

    assert "\x1b" not in of_partition(REPORT, replace(PARTITION, oldest=event), 30).text


def test_idle_partitions_whose_lag_is_not_known_yet_fill_no_table(
    worker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = replace(PARTITION, oldest=None, unfinished=0, lag=None)
    _Page.body = msgspec.json.encode(replace(REPORT, partitions=(idle, replace(idle, partition=4, lag=0))))

    assert run(["why-stuck", "--config", str(write(tmp_path)), "--worker", worker]) == NOT_STUCK
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  1 partition with nothing to do",
        "  1 partition with nothing in work; the lag is not known (yet)",
    ]


def test_of_partitions_that_a_worker_tells_of_neither_commit_nor_record_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []

    class Log:
        """Has three partitions with a record each, none of them committed."""

        def list_topics(self, topic: str, timeout: float) -> Any:
            del timeout
            return SimpleNamespace(topics={topic: SimpleNamespace(partitions={2: None, 1: None, 0: None})})

        def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
            del timeout
            asked.append(place.partition)
            return (0, 0)

    def committed(_consumer: object, _topic: str, numbers: list[int], _limit_s: float) -> list[object]:
        asked.append(numbers)
        return []

    monkeypatch.setattr(why_stuck_group, "committed", committed)
    log = cast("Consumer", Log())
    found = list(why_stuck_group._partitions(log, "t", frozenset({("t", 1), ("other", 0)})))
    none = list(why_stuck_group._partitions(log, "t", frozenset(("t", number) for number in range(3))))

    assert [one.partition for one in found] == [0, 2]
    assert none == []
    assert asked == [[0, 2], 0, 2]
