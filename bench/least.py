"""The least that an event of ours consists of, written straight on: what the CPU goal is judged by (ADR 0027).

What it does beyond the control, and nothing in more than one way:

- the event is read from its CloudEvents headers and its JSON;
- order per key: an event waits until the one before it of its key is confirmed;
- the call is Penstock's own HTTP client's, the cheapest that we know;
- the result record has the CloudEvents headers, the event's place and where it came from, and goes to the partition
  number of its event; its producer is confluent-kafka, polled by the event loop;
- offsets are committed up to the lowest unfinished one, once a second;
- one count, one duration, one line of JSON, 256 of them written at once.

What it leaves out, although Penstock promises it: everything that happens when something fails. Retries, deadlines,
breakers, poison, dead letters, the journal that pays once, repetitions, leases and hand-over, fairness between lanes
and tenants, routes and templates as data, validation of the answer, prices, cancelling, bounds in bytes; it runs
without Faust. A failed call ends it. Run as bench/control.py is.
"""

import asyncio
import sys
import time
from collections import Counter, defaultdict, deque
from datetime import UTC, datetime
from typing import Any

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from confluent_kafka import Producer

from bench.peers.task import Task, read_task
from contracts.envelope import result_id
from streams.providers.transport.lean import Lean

_TICK_S = 0.005
_COMMIT_S = 1.0
_CALL_S = 30.0
_LINES_AT_ONCE = 256
# Events read and not finished, in calls in flight: keys that are busy must not leave slots empty.
_AHEAD = 16
# Of one partition at a time: the others have keys, too.
_PIECE = 100
_OK = 200
_encode = msgspec.json.encode


class Log:
    """The producer."""

    def __init__(self, task: Task) -> None:
        self._topic = task.results
        self._client = Producer(
            {
                "bootstrap.servers": task.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "compression.type": "lz4",
            }
        )
        self._waiting = 0

    async def put(self, key: bytes | None, value: bytes, headers: list[Any], partition: int) -> None:
        """Return when the record is confirmed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def report(error: Any, _message: Any) -> None:
            self._waiting -= 1
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(RuntimeError(error.str()))

        self._client.produce(self._topic, value, key, partition, headers=headers, on_delivery=report)
        self._waiting += 1
        if self._waiting == 1:
            self._tick()
        await future

    def _tick(self) -> None:
        self._client.poll(0)
        if self._waiting:
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)


class Least:
    """The worker."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._log = Log(task)
        base_url, _, self._path = task.model_url.rpartition("/")
        self._model = Lean(base_url, {"Content-Type": "application/json"}, task.in_flight)
        self._slots = asyncio.Semaphore(task.in_flight)
        self._room = asyncio.Semaphore(_AHEAD * task.in_flight)
        self._by_key: dict[bytes | None, deque[Any]] = {}
        self._unfinished: dict[int, dict[int, None]] = defaultdict(dict)
        self._next: dict[int, int] = {}
        self._counts: Counter[str] = Counter()
        self._durations_s: defaultdict[str, float] = defaultdict(float)
        self._lines: list[bytes] = []
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Consume, call, produce, commit."""
        task = self._task
        await self._model.start()
        consumer = AIOKafkaConsumer(
            task.source,
            bootstrap_servers=task.bootstrap,
            group_id=task.group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=int(task.session_timeout_s * 1000),
            heartbeat_interval_ms=int(task.session_timeout_s * 1000 / 5),
        )
        await consumer.start()
        commit_at_s = time.monotonic()
        while True:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=_PIECE)).values():
                for record in records:
                    await self._room.acquire()
                    self._take(record)
            if time.monotonic() > commit_at_s:
                commit_at_s = time.monotonic() + _COMMIT_S
                await consumer.commit(self._committable())

    def _committable(self) -> dict[TopicPartition, int]:
        lowest = {number: next(iter(self._unfinished[number]), end) for number, end in self._next.items()}
        return {TopicPartition(self._task.source, number): offset for number, offset in lowest.items()}

    def _take(self, record: Any) -> None:
        self._unfinished[record.partition][record.offset] = None
        self._next[record.partition] = record.offset + 1
        waiting = self._by_key.get(record.key)
        if waiting is not None:
            waiting.append(record)
            return
        self._by_key[record.key] = deque()
        running = asyncio.get_running_loop().create_task(self._work(record))
        self._running.add(running)
        running.add_done_callback(self._ended)

    def _ended(self, running: asyncio.Task[None]) -> None:
        self._running.discard(running)
        if not running.cancelled() and running.exception() is not None:
            sys.exit(f"a call failed: {running.exception()}")

    async def _work(self, record: Any) -> None:
        """Work on the events of a key, one after the other."""
        waiting = self._by_key[record.key]
        while True:
            await self._event(record)
            del self._unfinished[record.partition][record.offset]
            self._room.release()
            if not waiting:
                del self._by_key[record.key]
                return
            record = waiting.popleft()

    async def _event(self, record: Any) -> None:
        began_s = time.perf_counter()
        attributes = {name: value.decode() for name, value in record.headers if name.startswith("ce_")}
        data = msgspec.json.decode(record.value)
        event_id, source = attributes["ce_id"], attributes["ce_source"]
        body = {
            "model": "bench",
            "messages": [{"role": "user", "content": data["text"]}],
            "max_tokens": 1024,
        }
        async with self._slots:
            answer = await self._model.post(f"/{self._path}", _encode(body), {"X-Client-Request-Id": event_id}, _CALL_S)
        if answer.status != _OK:
            message = f"status {answer.status}"
            raise RuntimeError(message)
        found = msgspec.json.decode(answer.body)
        choice = found["choices"][0]
        now = datetime.now(UTC)
        completed_at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        duration_s = time.perf_counter() - began_s
        result = {
            "n": data["n"],
            "output": choice["message"]["content"],
            "error": None,
            "event_id": event_id,
            "source": source,
            "type": attributes["ce_type"],
            "provenance": {"provider": "model", "model": found.get("model"), "route": "all"},
            "usage": found.get("usage"),
            "attempts": 1,
            "completed_at": completed_at,
            "duration_s": round(duration_s, 3),
            "finish_reason": choice.get("finish_reason"),
        }
        headers = _headers(self._task.group, record, attributes, completed_at.encode())
        await self._log.put(record.key, _encode(result), headers, record.partition)
        self._account(record, event_id, source, duration_s, now)

    def _account(self, record: Any, event_id: str, source: str, duration_s: float, now: datetime) -> None:
        self._counts["result"] += 1
        self._durations_s["result"] += duration_s
        line = {
            "component": "worker",
            "event_id": event_id,
            "source": source,
            "route": "all",
            "outcome": "result",
            "attempts": 1,
            "age_s": round(duration_s, 3),
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "event": "event.finished",
            "level": "info",
            "timestamp": now.isoformat(),
        }
        self._lines.append(_encode(line))
        if len(self._lines) >= _LINES_AT_ONCE:
            sys.stderr.buffer.write(b"\n".join((*self._lines, b"")))
            sys.stderr.buffer.flush()
            self._lines.clear()


def _headers(group: str, record: Any, attributes: dict[str, str], completed_at: bytes) -> list[tuple[str, bytes]]:
    event_id, source = attributes["ce_id"], attributes["ce_source"]
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", result_id(source, event_id).encode()),
        ("ce_source", b"penstock/" + group.encode()),
        ("ce_type", b"penstock.result.v1"),
        ("ce_time", completed_at),
        ("content-type", b"application/json"),
        ("ce_eventid", event_id.encode()),
        ("ce_eventsource", source.encode()),
        ("ce_eventtype", attributes["ce_type"].encode()),
        ("ce_partitionkey", record.key),
        ("penstock-source-app", group.encode()),
        ("penstock-source-topic", record.topic.encode()),
        ("penstock-source-partition", b"%d" % record.partition),
        ("penstock-source-offset", b"%d" % record.offset),
        ("penstock-source-timestamp", b"%d" % record.timestamp),
    ]


if __name__ == "__main__":
    uvloop.run(Least(read_task()).run())
