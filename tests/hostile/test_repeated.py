"""Rows 12 to 17 and 38 of the adversarial table: who comes again, and who floods, on the shipped server."""

import asyncio
import json
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from producers.mock_cluster import PRODUCE
from tests.hostile.lab import Lab, running
from tests.hostile.senders import GITHUB, SENDERS, SUPPORT, Sender, request
from tests.hostile.table import fresh, signed, with_value

pytestmark = pytest.mark.embedded

# The topic says no: librdkafka does not try again.
_NOT_ALLOWED = 29


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running(tmp_path_factory.mktemp("repeated")) as lab:
        yield lab


def status_of(answer: bytes) -> int:
    return int(answer[9:12])


def of(answer: bytes) -> tuple[int, bool, str]:
    """Return the status, whether the answer is marked as one to a repetition, and the event's id."""
    head, _, body = answer.partition(b"\r\n\r\n")
    said: dict[str, Any] = json.loads(body)
    is_marked = b"\r\npenstock-duplicate: true" in head
    assert said.get("duplicate", False) == is_marked
    return status_of(answer), is_marked, said["id"]


def sent_by(sender: Sender, body: bytes, event_id: bytes, stamp: bytes | None = None) -> bytes:
    return request(b"/webhooks/" + sender.source, sender.lines(body, event_id=event_id, stamp=stamp), body)


def states(lab: Lab, bodies: Sequence[bytes]) -> list[bytes]:
    """Return what the gateway knew of each record with one of the bodies when it wrote it, sorted."""
    return sorted(
        headers["penstock-dedup"].partition(b" ")[0] for headers, _, value in lab.log.read() if value in bodies
    )


@pytest.mark.parametrize("sender", SENDERS, ids=[sender.source.decode() for sender in SENDERS])
async def test_12_the_same_event_again_is_202_marked_and_no_record(lab: Lab, sender: Sender) -> None:
    event_id, body = fresh()
    first = sent_by(sender, body, event_id)

    answers = [of(await lab.ask(first)) for _ in range(2)]
    # As those senders do that sign each attempt with its own time.
    answers.append(of(await lab.ask(sent_by(sender, body, event_id, b"%d" % (time.time() - 60)))))

    assert [(status, is_marked) for status, is_marked, _ in answers] == [(202, False), (202, True), (202, True)]
    assert len({event_id for *_, event_id in answers}) == 1
    assert states(lab, [body]) == [b"new"]


async def test_13_two_hundred_copies_at_a_time_are_202_each_and_one_record(lab: Lab) -> None:
    event_id, body = fresh()
    copy = sent_by(SUPPORT, body, event_id)

    answers = [of(answer) for answer in await asyncio.gather(*(lab.ask(copy, wait_s=15) for _ in range(200)))]

    assert {status for status, *_ in answers} == {202}
    assert sum(is_marked for _, is_marked, _ in answers) == 199
    assert states(lab, [body]) == [b"new"]


async def test_14_the_same_id_with_another_body_is_another_event_and_flagged(lab: Lab) -> None:
    event_id, body = fresh()
    bodies = [body, body + b" "]

    answers = [of(await lab.ask(sent_by(SUPPORT, each, event_id))) for each in bodies]
    metrics = await lab.ask(request(b"/metrics", [], b"", method=b"GET"))

    assert answers == [(202, False, event_id.decode())] * 2
    assert states(lab, bodies) == [b"conflict", b"new"]
    assert re.search(rb'penstock_dedup_decisions_total\{[^}]*"conflict"[^}]*\} [1-9]', metrics)


async def test_15_a_replay_under_another_unsigned_id_is_a_repetition(lab: Lab) -> None:
    event_id, body = fresh()
    first = sent_by(GITHUB, body, event_id)
    replayed = request(
        b"/webhooks/github",
        with_value(b"x-github-delivery", lambda _: b"changed")(GITHUB.lines(body, event_id=b"")),
        body,
    )

    answers = [of(await lab.ask(sent)) for sent in (first, replayed)]

    assert answers == [(202, False, event_id.decode()), (202, True, event_id.decode())]
    assert states(lab, [body]) == [b"new"]


async def test_16_a_retry_after_the_broker_said_no_is_produced(lab: Lab) -> None:
    event_id, body = fresh()
    sent = sent_by(SUPPORT, body, event_id)
    lab.cluster.fail_requests(PRODUCE, [_NOT_ALLOWED])

    answers = [await lab.ask(sent, wait_s=12)]
    # The producer may have to be made anew first: senders come again until they are served.
    async with asyncio.timeout(20):
        while status_of(answers[-1]) == 503:
            await asyncio.sleep(0.2)
            answers.append(await lab.ask(sent, wait_s=12))

    assert len(answers) > 1
    assert of(answers[-1]) == (202, False, event_id.decode())
    assert states(lab, [body]) == [b"new"]


async def test_17_without_a_memory_of_claims_events_are_produced_and_their_records_say_so(tmp_path: Path) -> None:
    event_id, body = fresh()
    sent = sent_by(SUPPORT, body, event_id)
    with running(tmp_path, gateway={"idempotency": {"max_entries": 0}}) as lab:
        answers = [of(await lab.ask(sent)) for _ in range(2)]

        assert answers == [(202, False, event_id.decode())] * 2
        assert states(lab, [body]) == [b"unknown", b"unknown"]


async def test_38_a_flood_of_bad_signatures_is_429_and_a_good_sender_gets_202_also_from_its_address(lab: Lab) -> None:
    flooding, good = "127.200.0.1", "127.200.0.2"
    forged = [signed(GITHUB, with_value(GITHUB.signature, lambda _: b"sha256=" + b"0" * 64)) for _ in range(300)]
    before = lab.log.records

    flood = asyncio.gather(*(lab.ask(sent, wait_s=15, sender=flooding) for sent in forged))
    during = [status_of(await lab.ask(signed(GITHUB), wait_s=15, sender=good)) for _ in range(5)]
    answers = await flood
    behind = [status_of(await lab.ask(signed(GITHUB), sender=sender)) for sender in (flooding, good)]

    refused = [answer for answer in answers if status_of(answer) == 429]
    assert during + behind == [202] * 7
    assert {status_of(answer) for answer in answers} == {401, 429}
    # 50 at once and 2 a second.
    assert 230 <= len(refused) <= 250
    assert all(re.search(rb"\r\nretry-after: [1-9]", answer) for answer in refused)
    assert b"signature" not in b"".join(refused).lower()
    assert lab.log.records - before == 7
