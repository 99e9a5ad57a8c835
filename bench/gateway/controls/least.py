"""The least that a 202 of the design consists of, written straight on: what the CPU goals are judged by (ADR 0026).

What it does beyond the bare control, and nothing in more than one way:

- the CloudEvent's attributes are headers of the record, with a trace of its own (12 headers);
- an event that is under way is known by its id, so that a concurrent repetition could be seen;
- the answer names the event and where its result will be, with a signed ticket for the record's place;
- one count, one duration;
- one line of JSON per request, 256 of them written at once.

What it leaves out, although Penstock promises it: every refusal and its reason, bounds of any kind, deadlines, more
than one source, key or scheme, limits per source and address, deduplication behind the answer, reload, and what happens
when Kafka does not confirm.
"""

import base64
import hmac
import os
import secrets
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from bench.gateway.controls.bare import Headers, Log
from bench.gateway.controls.signature import is_authentic

_SECRET = base64.b64decode(os.environ["BENCH_SECRET"])
_TOPIC = os.environ["BENCH_TOPIC"]
_LINES_AT_ONCE = 256

_encode = msgspec.json.encode
_log = Log()
_under_way: set[str] = set()
_counts: Counter[str] = Counter()
_durations_s: defaultdict[str, float] = defaultdict(float)
_lines: list[bytes] = []


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer over ASGI."""
    if scope["type"] != "http":
        return
    began = time.perf_counter()
    headers = dict(scope["headers"])
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    body, event_id = b"".join(parts), headers[b"webhook-id"]
    if not is_authentic(_SECRET, event_id, headers[b"webhook-timestamp"], headers[b"webhook-signature"], body):
        await _answer(send, 401, [], b"")
        return
    now, text = datetime.now(UTC), event_id.decode()
    _under_way.add(text)
    partition, offset = await _log.put(event_id, body, _attributes(event_id, now))
    _under_way.discard(text)
    where = f"/v1/results/{text}?ticket={_ticket(text, partition, offset)}"
    answer = _encode({"id": text, "status": "accepted", "status_url": where})
    length = b"%d" % len(answer)
    await _answer(
        send,
        202,
        [(b"content-length", length), (b"location", where.encode()), (b"content-type", b"application/json")],
        answer,
    )
    _account(text, partition, offset, len(body), began, now)


async def _answer(
    send: Callable[[dict[str, Any]], Awaitable[None]], status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _attributes(event_id: bytes, now: datetime) -> Headers:
    at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode()
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", event_id),
        ("ce_source", b"bench"),
        ("ce_type", b"com.example.bench"),
        ("ce_time", at),
        ("content-type", b"application/json"),
        ("ce_partitionkey", event_id),
        ("ce_delivery", b"notify"),
        ("ce_traceparent", trace),
        ("penstock-scheme", b"standard-webhooks"),
        ("penstock-key-id", b"bench"),
        ("penstock-received-at", at),
    ]


def _ticket(event_id: str, partition: int, offset: int) -> str:
    place = f"bench\n{event_id}\n{partition}\n{offset}".encode()
    signed = hmac.digest(_SECRET, place, "sha256")[:16] + b"%d.%d" % (partition, offset)
    return base64.urlsafe_b64encode(signed).decode()


def _account(event_id: str, partition: int, offset: int, body_bytes: int, began: float, now: datetime) -> None:
    took_s = time.perf_counter() - began
    _counts["accepted"] += 1
    _durations_s["accepted"] += took_s
    line = {
        "component": "gateway",
        "source": "bench",
        "scheme": "standard-webhooks",
        "lane": "standard",
        "event_id": event_id,
        "type": "com.example.bench",
        "key_id": "bench",
        "topic": _TOPIC,
        "partition": partition,
        "offset": offset,
        "body_bytes": body_bytes,
        "status": 202,
        "duration_s": round(took_s, 6),
        "event": "request.accepted",
        "level": "info",
        "timestamp": now.isoformat(),
    }
    _lines.append(_encode(line))
    if len(_lines) >= _LINES_AT_ONCE:
        sys.stderr.buffer.write(b"\n".join((*_lines, b"")))
        sys.stderr.buffer.flush()
        _lines.clear()
