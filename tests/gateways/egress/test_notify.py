"""The callback door, in front of a real receiver on loopback."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import standardwebhooks
from cloudevents.core.formats.json import JSONFormat
from structlog.testing import capture_logs

from contracts.codec import SOURCE_APP, SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TIMESTAMP
from contracts.errors import ConfigError
from contracts.metrics import REGISTRY
from contracts.payloads import EXPIRED_TYPE
from contracts.repetition import ANSWERED, REPLAY
from contracts.settings.egress import CallbackDoor
from gateways.egress.base import Delivered, Door, Item, Later, Refused
from gateways.egress.notify import Notify
from gateways.egress.notify_endpoint import MemoryBoard
from gateways.egress.outcomes import read_outcome
from tests.gateways.egress.certificates import authority, server_tls
from tests.gateways.egress.receiver import OK, Receiver, status
from tests.suites.egress import TIMEOUT_S, DoorSuite, Received, result_item
from tests.suites.ssrf import ScriptedResolver
from tests.support import eventually_async

NAME = "hook.example"
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def door_settings(folder: Path, url: str, **changes: Any) -> CallbackDoor:
    secret = folder / "secret"
    secret.write_text(SECRET)
    section = {
        "kind": "callback",
        "url": url,
        "secrets": [{"id": "k1", "value": f"file:{secret}"}],
        "allow_http": True,
        "ports": list(range(1024, 65536)),
        "allow_networks": ["127.0.0.1/32"],
        "timeout_s": 30,
        "attempt_timeout_s": TIMEOUT_S,
    }
    return CallbackDoor.model_validate(section | changes)


class Lab:
    """A door, started, and its receiver."""

    cannot: Mapping[str, str] = {
        "batches": "receivers know no batches",
        "denied": "a receiver that answers 401 is repaired by its own people, within the days of the schedule",
        "missing": "the same for 404",
    }

    def __init__(self, receiver: Receiver, door: Door) -> None:
        self.receiver = receiver
        self._door = door

    @property
    def door(self) -> Door:
        return self._door

    def item(self, number: int) -> Item:
        return result_item(number)

    def poison(self) -> Item:
        item = result_item(0)
        return item._replace(outcome=item.outcome._replace(result_id="msg.1700000000."))

    async def received(self) -> list[Received]:
        return [
            Received(msgspec.json.decode(request.body)["id"], msgspec.json.decode(request.body)["data"])
            for request in self.receiver.requests
        ]

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        answers = {"throttled": 429, "unavailable": 503}
        wait = [] if retry_after_s is None else [f"Retry-After: {retry_after_s:g}"]
        if kind in answers:
            self.receiver.answer = status(answers[kind], *wait)
        elif kind == "hang":
            self.receiver.answer = None
        elif kind == "cut":
            self.receiver.cuts = True
        else:
            await self.receiver.stop()

    async def recover(self) -> None:
        self.receiver.answer, self.receiver.cuts = OK, False
        self.receiver.requests.clear()
        if not self.receiver.is_listening:
            await self.receiver.__aenter__()


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Receiver() as receiver:
        settings = door_settings(tmp_path, f"http://{NAME}:{receiver.port}/hooks?x=1")
        door = Notify("crm", settings, resolver=ScriptedResolver([["127.0.0.1"]]))
        await door.start()
        try:
            yield Lab(receiver, door)
        finally:
            await door.aclose()


class TestNotify(DoorSuite):
    pass


async def _deliver(lab: Lab, item: Item | None = None) -> Any:
    (verdict,) = await lab.door.deliver([item or result_item(1)])
    return verdict


async def _deliver_to(folder: Path, url: str, **changes: Any) -> Any:
    resolver = ScriptedResolver([["127.0.0.1"]])
    door = Notify("crm", door_settings(folder, url, **changes), resolver=resolver)
    await door.start()
    try:
        (verdict,) = await door.deliver([result_item(1)])
    finally:
        await door.aclose()
    return verdict


async def test_a_receivers_library_verifies_exactly_what_arrives(lab: Lab) -> None:
    await _deliver(lab)
    (request,) = lab.receiver.requests

    standardwebhooks.Webhook(SECRET).verify(request.body, request.headers)
    assert request.line == "POST /hooks?x=1 HTTP/1.1"
    assert request.headers["host"] == f"{NAME}:{lab.receiver.port}"
    assert request.headers["accept-encoding"] == "identity"


async def test_every_outcome_of_an_event_that_has_several_has_an_id_of_its_own_for_all_its_attempts(lab: Lab) -> None:
    item = result_item(1)
    sent_again = item._replace(headers=[*item.headers, (ANSWERED, b"digest t/0/7")])
    ends = (
        item,
        item._replace(outcome=item.outcome._replace(redrives=1)),
        item._replace(headers=[*item.headers, (ANSWERED, b"digest")]),
        item._replace(headers=[*item.headers, (SOURCE_APP, b"another")]),
        sent_again,
        sent_again._replace(outcome=item.outcome._replace(redrives=1)),
        item._replace(headers=[*item.headers, (REPLAY, b"1767225600500")]),
        item._replace(headers=[*item.headers, (REPLAY, b"1767225900500")]),
    )
    for end in ends:
        for attempt in (1, 2):
            await _deliver(lab, end._replace(attempt=attempt))

    ids = [request.headers["webhook-id"] for request in lab.receiver.requests]
    assert ids[::2] == ids[1::2]
    assert len(set(ids)) == len(ends)
    assert all(one.startswith(f"{item.outcome.result_id}-") for one in ids)


def test_what_a_crash_or_a_mirror_made_twice_of_one_outcome_is_known_as_one() -> None:
    """A worker's crash leaves two outcomes of a record; a gateway's, a mirror and a parked event two records of one."""
    item = result_item(1)
    elsewhere = item._replace(position=item.position._replace(topic="mirror", offset=99), attempt=3)
    twice = [
        (name, b"99" if name in {SOURCE_OFFSET, SOURCE_PARTITION, SOURCE_TIMESTAMP} else raw)
        for name, raw in item.headers
    ]
    answered = read_outcome(twice, item.outcome.value, item.position.timestamp_ms)
    assert answered is not None

    assert answered.answers != item.outcome.answers
    assert elsewhere.delivery_id == item.delivery_id == item._replace(outcome=answered, headers=twice).delivery_id


def test_a_result_is_no_repeat_of_the_expired_event_that_it_follows() -> None:
    """Two records of one event are done twice, each until its own deadline."""
    item = result_item(1)
    mark = (ANSWERED, b"message 4a2e")
    result = item._replace(headers=[*item.headers, mark])
    again = result._replace(position=item.position._replace(offset=99))
    expired = result._replace(outcome=item.outcome._replace(type=EXPIRED_TYPE))

    assert expired.delivery_id != result.delivery_id == again.delivery_id


async def test_the_body_says_what_ended_how_and_repeats_byte_for_byte(lab: Lab) -> None:
    await _deliver(lab)
    await _deliver(lab, result_item(1, attempt=2))
    first, second = lab.receiver.requests

    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == result_item(1).delivery_id
    assert first.headers["content-type"] == "application/cloudevents+json"
    event = JSONFormat().read(None, first.body)
    assert event.get_data() == json.loads(result_item(1).outcome.value)
    assert event.get_id() == result_item(1).outcome.result_id
    assert event.get_extension("deliveryid") == result_item(1).delivery_id
    assert (event.get_type(), event.get_subject()) == ("penstock.result.v1", "s1")
    assert (event.get_extension("eventid"), event.get_extension("eventsource")) == ("e1", "crm")


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (status(204), Delivered()),
        (status(301, "Location: http://127.0.0.1/"), Later("status_3xx", "answered 301")),
        (status(404), Later("status_404", "answered 404")),
        (status(503, "Retry-After: 120"), Later("status_503", "answered 503", 120.0)),
        (status(503, "Retry-After: 999999"), Later("status_503", "answered 503", 3600.0)),
        (status(503, "Retry-After: soon"), Later("status_503", "answered 503")),
        (status(400), Refused("status_400", "answered 400")),
        (status(410), Refused("endpoint_gone", "answered 410")),
        (status(999), Later("status_9xx", "answered 999")),
    ],
)
async def test_each_answer_has_its_verdict(lab: Lab, answer: bytes, verdict: object) -> None:
    lab.receiver.answer = answer

    assert await _deliver(lab) == verdict


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: 1\r\n" % number for number in range(5000)) + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    ],
)
async def test_an_answer_that_is_no_http_is_for_later(lab: Lab, answer: bytes) -> None:
    lab.receiver.answer = answer

    verdict = await _deliver(lab)

    assert verdict == Later("bad_answer", verdict.message)


@pytest.mark.parametrize(
    ("answer", "repeat"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 0x1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx", b""),
    ],
    ids=["endless", "stalling"],
)
async def test_a_body_without_end_neither_delays_nor_undoes_a_success(
    tmp_path: Path, answer: bytes, repeat: bytes
) -> None:
    async with Receiver(answer=answer, repeat=repeat) as receiver:
        begun_s = time.monotonic()
        verdict = await _deliver_to(tmp_path, f"http://127.0.0.1:{receiver.port}/", attempt_timeout_s=20)

        assert verdict == Delivered()
        assert time.monotonic() - begun_s < 15
        await eventually_async(lambda: receiver.open_connections == 0)


async def test_a_head_that_trickles_costs_the_limit_of_an_attempt(lab: Lab) -> None:
    lab.receiver.answer = b"HTTP/1.1 200 OK\r\n"
    lab.receiver.repeat = b"X: y\r\n"
    lab.receiver.pause_s = 0.2
    begun_s = time.monotonic()

    verdict = await _deliver(lab)

    assert verdict == Later("timeout", verdict.message)
    assert time.monotonic() - begun_s < TIMEOUT_S + 10


async def test_interim_answers_without_end_are_a_bad_answer(lab: Lab) -> None:
    lab.receiver.answer, lab.receiver.repeat = b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 50

    verdict = await _deliver(lab)

    assert verdict == Later("bad_answer", "TooManyInterimAnswers")


async def test_a_name_that_leads_inside_is_refused_at_every_attempt_and_recovers(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        resolver = ScriptedResolver([["10.0.0.1"], ["127.0.0.1"]])
        door = Notify("crm", door_settings(tmp_path, f"http://{NAME}:{receiver.port}/"), resolver=resolver)
        await door.start()
        verdicts = [(await door.deliver([result_item(1)]))[0] for _ in range(2)]
        await door.aclose()

    assert verdicts == [Later("address_refused", "private"), Delivered()]


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://10.0.0.1:8080/", r"egress\.crm\.url: 10\.0\.0\.1 must not be dialled \(private\)"),
        ("http://[::ffff:127.0.0.1]:8080/", "ipv4_mapped"),
        ("http://169.254.169.254:8080/latest/meta-data/", "link_local"),
    ],
)
def test_an_internal_literal_is_refused_at_start(tmp_path: Path, url: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Notify("crm", door_settings(tmp_path, url))


@pytest.mark.parametrize("host", ["xn--bcher-kva.example", "XN--Bcher-Kva.Example", "xn--zz.example"])
def test_a_name_of_another_script_is_taken_as_it_is_written(tmp_path: Path, host: str) -> None:
    door = Notify("crm", door_settings(tmp_path, f"http://{host}:8080/"))

    assert door.destination(result_item(1)).lower() == f"http://{host}:8080".lower()


async def test_allowed_internal_networks_are_named_at_every_start(tmp_path: Path) -> None:
    door = Notify("crm", door_settings(tmp_path, "http://127.0.0.1:8080/"))
    with capture_logs() as lines:
        await door.start()
    await door.aclose()

    assert [(line["event"], line["detail"]) for line in lines] == [
        ("callback.internal_networks_allowed", "127.0.0.1/32")
    ]


async def test_a_gone_endpoint_gets_no_further_callbacks_also_after_a_restart(tmp_path: Path) -> None:
    board = MemoryBoard()
    async with Receiver(answer=status(410)) as receiver:
        settings = door_settings(tmp_path, f"http://127.0.0.1:{receiver.port}/")
        verdicts = []
        for _ in range(2):
            door = Notify("crm", settings, board)
            await door.start()
            verdicts += [(await door.deliver([result_item(number)]))[0].reason for number in range(2)]  # type: ignore[union-attr]
            await door.aclose()

        assert REGISTRY.get_sample_value("penstock_callback_endpoint_disabled", {"door": "crm"}) == 1
        assert verdicts == ["endpoint_gone", "endpoint_disabled", "endpoint_disabled", "endpoint_disabled"]
        assert len(receiver.requests) == 1


async def test_an_attempts_line_says_what_happened_and_nothing_secret(lab: Lab) -> None:
    with capture_logs() as lines:
        await _deliver(lab, result_item(7, output={"secret": "payload-text"}))
        lab.receiver.answer = status(503)
        await _deliver(lab, result_item(8, attempt=3))

    first, second = lines
    assert (first["event"], first["outcome"], first["status"], first["key_id"]) == (
        "callback.attempted", "delivered", 200, "k1",
    )  # fmt: skip
    assert (second["outcome"], second["reason"], second["attempt"]) == ("later", "status_503", 3)
    text = json.dumps(lines)
    assert "payload-text" not in text
    assert SECRET[6:] not in text
    assert "v1," not in text


async def test_a_rate_holds_across_concurrent_callbacks(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        settings = door_settings(tmp_path, f"http://127.0.0.1:{receiver.port}/", max_per_s=20, max_in_flight=8)
        door = Notify("crm", settings)
        await door.start()
        begun_s = time.monotonic()
        await asyncio.gather(*(door.deliver([result_item(number)]) for number in range(9)))
        took_s = time.monotonic() - begun_s
        await door.aclose()

    assert took_s >= 8 / 20
    assert len(receiver.requests) == 9


async def test_without_a_valid_key_nothing_is_sent_and_the_operator_is_called(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        secret = tmp_path / "secret"
        expired = [{"id": "k1", "value": f"file:{secret}", "not_after": "2020-01-01T00:00:00Z"}]
        verdict = await _deliver_to(tmp_path, f"http://127.0.0.1:{receiver.port}/", secrets=expired)

        assert (verdict.reason, verdict.scope) == ("no_valid_key", "operator")
        assert receiver.connections == 0


async def test_tls_is_verified_by_the_given_authority(tmp_path: Path) -> None:
    ca_file, issuer, issuer_key = authority(tmp_path)
    tls = server_tls(tmp_path, issuer, issuer_key, NAME)
    async with Receiver(tls=tls) as receiver:
        url = f"https://{NAME}:{receiver.port}/"

        assert await _deliver_to(tmp_path, url, ca_file=ca_file) == Delivered()
        assert (await _deliver_to(tmp_path, url)).reason == "tls_invalid"
        assert len(receiver.requests) == 1


@pytest.mark.parametrize(("host", "age"), [("other.example", timedelta()), (NAME, timedelta(days=3))])
async def test_a_wrong_or_expired_certificate_is_a_failure_with_its_reason(
    tmp_path: Path, host: str, age: timedelta
) -> None:
    ca_file, issuer, issuer_key = authority(tmp_path)
    async with Receiver(tls=server_tls(tmp_path, issuer, issuer_key, host, age)) as receiver:
        verdict = await _deliver_to(tmp_path, f"https://{NAME}:{receiver.port}/", ca_file=ca_file)

        assert (verdict.reason, verdict.scope) == ("tls_invalid", "destination")
        assert receiver.requests == []


async def test_plain_text_where_tls_is_expected_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    async with Receiver(greeting=status(400)) as receiver:
        verdict = await _deliver_to(tmp_path, f"https://{NAME}:{receiver.port}/")

    assert verdict.reason == "tls_failed"


async def test_a_name_server_that_does_not_answer_holds_up_no_look_up_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's look-up goes on for up to a minute behind the attempt that asked."""
    answer = threading.Event()
    asked = list[str]()

    def look_up(host: str, port: int, **_more: object) -> list[Any]:
        asked.append(host)
        if len(asked) == 1:
            answer.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    async with Receiver() as receiver:
        url = f"http://{NAME}:{receiver.port}/"
        door = Notify("crm", door_settings(tmp_path, url, max_in_flight=1, attempt_timeout_s=0.5))
        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        await door.start()
        try:
            verdicts = [(await door.deliver([result_item(number)]))[0] for number in range(2)]
        finally:
            answer.set()
            await door.aclose()

    assert [one.reason if isinstance(one, Later) else one for one in verdicts] == ["timeout", Delivered()]
