"""The adversarial table, row by row, on the shipped server with the shipped settings."""

import asyncio
import hashlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat

from tests.hostile.lab import CLOSED, Lab, resident_bytes, running
from tests.hostile.senders import GITHUB, OTHER_SECRET, RAW_SECRET, Lines, request
from tests.hostile.table import CASES, Case, signed, without
from tests.support import eventually_async

pytestmark = pytest.mark.embedded

_PROBLEM_401 = b'{"type":"about:blank","title":"Unauthorized","status":401,"reason":"bad_signature"}'


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One gateway for every row, so that what one row does to it the next ones would see."""
    with running(tmp_path_factory.mktemp("hostile")) as lab:
        yield lab


def status_of(answer: bytes) -> int:
    """Return the status of the first answer; 0 when there was none."""
    found = re.match(rb"HTTP/1\.[01] (\d{3}) ", answer)
    return int(found[1]) if found else 0


@pytest.mark.parametrize("case", CASES, ids=[f"{case.row}: {case.name}" for case in CASES])
async def test_every_row_gets_its_answer_and_produces_nothing_without_202(lab: Lab, case: Case) -> None:
    before = lab.log.records

    answer = await lab.ask(case.send(), has_eof=case.has_eof, until_closed=case.closes)

    status = status_of(answer)
    assert status in case.status, answer[:400]
    assert not case.closes or answer.endswith(CLOSED), answer[:400]
    assert b"100 Continue" not in answer
    assert lab.log.records - before == case.records
    if status == 401 and case.row != 36:
        assert b"\r\nwww-authenticate: Signature" in answer
        assert _PROBLEM_401 in answer
    if status == 405 and case.name != "CONNECT":
        assert b"\r\nallow: POST" in answer


def _nasty_bodies() -> dict[str, bytes]:
    return {
        "not UTF-8": b"\xff\xfe\x00\x80",
        "not JSON": b"{'a': 1,}",
        "a name twice": b'{"a":1,"a":2}',
        "NaN": b'{"a":NaN,"b":-Infinity}',
        "100,000 deep": b"[" * 100_000 + b"]" * 100_000,
        "a number out of range": b'{"a":1e400,"b":1e-400,"c":123456789012345678901234567890}',
        "a lone surrogate": b'"\\ud800"',
        "null": b"null",
        "a BOM": b'\xef\xbb\xbf{"a":1}',
        "line ends": b'{"a":1}\r\n\n\r',
        "NUL": b"\0" * 1000,
        "what looks like a request": b"POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "what looks like the last chunk": b"0\r\n\r\n",
        "white space": b" \t\r\n ",
        "every byte": bytes(range(256)) * 16,
        "the largest": b"\xf0\x9f\x92\xa9" * 225_000,
        "nothing": b"",
    }


async def test_32_and_33_nasty_bodies_lie_on_the_log_byte_for_byte_and_the_cloudevents_sdk_reads_them(lab: Lab) -> None:
    bodies = {name.replace(" ", "-"): body for name, body in _nasty_bodies().items()}
    for name, body in bodies.items():
        lines = without(b"content-type")(GITHUB.lines(body, event_id=b"nasty-" + name.encode()))
        # The SDK would parse what is called JSON.
        lines.append((b"content-type", b"application/octet-stream"))
        assert status_of(await lab.ask(request(b"/webhooks/github", lines, body))) == 202, name

    found = {}
    for headers, key, value in lab.log.read():
        event_id = headers["ce_id"].decode()
        if event_id.startswith("nasty-"):
            # Empty is not null: a null value is a tombstone to Kafka.
            assert value is not None
            event = from_binary(KafkaMessage(headers=headers, key=key, value=value), JSONFormat())
            data = event.get_data()
            # The SDK has no data for an empty value.
            assert (data.encode() if isinstance(data, str) else data or b"") == value
            assert (event.get_id(), event.get_source()) == (event_id, "github")
            found[event_id.removeprefix("nasty-")] = hashlib.sha256(value).hexdigest()

    assert found == {name: hashlib.sha256(body).hexdigest() for name, body in bodies.items()}


async def test_40_a_reload_with_an_unusable_secret_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(RAW_SECRET)
    source = {"scheme": "github", "secrets": [{"id": "current", "value": f"file:{secret}"}], "type": "t"}
    with running(tmp_path, more={"sources": {"github": source}}) as lab:
        secret.write_bytes(b"short")
        lab.child.signal(signal.SIGHUP)
        await eventually_async(lambda: "config.reload_refused" in lab.child.output, 20)

        assert status_of(await lab.ask(signed(GITHUB))) == 202

        secret.write_bytes(OTHER_SECRET)
        lab.child.signal(signal.SIGHUP)
        await eventually_async(lambda: "config.reloaded" in lab.child.output, 20)
        assert status_of(await lab.ask(signed(GITHUB))) == 401
        assert status_of(await lab.ask(signed(GITHUB, secret=OTHER_SECRET))) == 202


async def test_34_forged_forwarded_headers_prove_nothing_and_reach_no_answer(lab: Lab) -> None:
    forged: Lines = [
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"x-forwarded-host", b"evil.example"),
        (b"x-forwarded-proto", b"https"),
        (b"forwarded", b"for=127.0.0.1;host=evil.example"),
        (b"x-real-ip", b"127.0.0.1"),
        (b"x-original-url", b"/metrics"),
    ]

    unsigned = await lab.ask(request(b"/webhooks/github", forged, b"{}"))
    accepted = await lab.ask(signed(GITHUB, lambda lines: lines + forged))

    assert status_of(unsigned) == 401
    assert status_of(accepted) == 202
    assert b"evil" not in accepted


async def test_35_attributes_and_evidence_are_never_the_senders(lab: Lab) -> None:
    forged: Lines = [
        (b"ce_id", b"forged"),
        (b"ce-id", b"forged"),
        (b"ce-source", b"forged"),
        (b"ce-owner", b"forged"),
        (b"ce_replyto", b"forged"),
        (b"penstock-scheme", b"forged"),
        (b"penstock-key-id", b"forged"),
        (b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        (b"tracestate", b"forged=1"),
    ]

    answer = await lab.ask(signed(GITHUB, lambda lines: lines + forged, event_id=b"row-35"))
    (headers,) = [headers for headers, *_ in lab.log.read() if headers["ce_id"] == b"row-35"]

    assert status_of(answer) == 202
    assert not [name for name, value in headers.items() if b"forged" in value]
    assert b"0af7651916cd43dd8448eb211c80319c" not in headers["ce_traceparent"]


async def test_43_names_of_strangers_become_neither_labels_nor_lines_of_the_log(lab: Lab) -> None:
    for number in range(200):
        await lab.ask(request(b"/webhooks/stranger-%d" % number, [], b""))
    metrics = await lab.ask(request(b"/metrics", [], b"", method=b"GET"))

    assert b"stranger-" not in metrics
    assert b'detail="' in metrics
    lines = lab.child.output.splitlines()
    assert all(line.startswith(("{", "listening on ")) for line in lines if line)


async def test_23_slow_headers_slow_bodies_and_idle_sockets_end_at_the_shipped_deadlines(lab: Lab) -> None:
    body = b"x" * 1000
    slow_body = request(b"/webhooks/github", GITHUB.lines(body, event_id=b"slow"), body)

    async def trickled(sent: bytes, whole: int) -> tuple[int, bool, float]:
        """Send one byte a second after the first `whole` ones."""
        started_s = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(sent[:whole])
        answer = asyncio.ensure_future(reader.read())
        for at in range(whole, whole + 20):
            if (await asyncio.wait((answer,), timeout=1))[0]:
                break
            writer.write(sent[at : at + 1])
        answer.cancel()
        ended = (await asyncio.gather(answer, return_exceptions=True))[0]
        writer.close()
        received = ended if isinstance(ended, bytes) else b""
        return status_of(received), not isinstance(ended, asyncio.CancelledError), time.monotonic() - started_s

    before = lab.log.records
    at_body = slow_body.index(b"\r\n\r\n") + 4
    many = [trickled(slow_body, number % 60) for number in range(100)]
    ended = await asyncio.gather(trickled(slow_body, at_body), trickled(b"", 0), *many)
    (body_status, *_), *others = ended

    assert body_status == 408
    assert {status for status, *_ in others} <= {0, 408}
    assert all(is_closed for _, is_closed, _ in ended)
    assert max(seconds for *_, seconds in ended) < 10 + 3
    assert lab.log.records == before


async def test_24_two_hundred_megabytes_of_header_are_not_kept(lab: Lab) -> None:
    before = resident_bytes(lab.child.pid)
    reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nx: ")
    sent, chunk = 0, b"y" * 2**20
    try:
        while sent < 200 * 2**20 and not reader.at_eof():
            writer.write(chunk)
            await writer.drain()
            sent += len(chunk)
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    writer.close()

    assert sent < 50 * 2**20
    assert resident_bytes(lab.child.pid) - before < 20 * 2**20


async def test_18_without_a_broker_the_answer_is_503_in_time_and_with_it_202_again(lab: Lab) -> None:
    lab.cluster.set_down()
    started_s = time.monotonic()
    refused = await lab.ask(signed(GITHUB), wait_s=12)
    seconds = time.monotonic() - started_s
    lab.cluster.set_up()

    assert status_of(refused) == 503
    assert re.search(rb"\r\nretry-after: [1-9]", refused)
    # Senders give up at 10 s.
    assert seconds < 9.5
    assert await eventually_async(lambda: _is_accepted(lab), 20)


async def _is_accepted(lab: Lab) -> bool:
    return status_of(await lab.ask(signed(GITHUB), wait_s=12)) == 202
