"""`crash`: SIGKILL of the gateway or of the broker, again and again under load, and a ledger of every 202.

Senders repeat an event, with its id, until they have a 202 for it. At the end the topic is read from its beginning:
every id in the ledger must be there, with the bytes that were sent. One broker: what it confirmed is in the page cache,
which a SIGKILL of its process leaves alone, as replicas would survive the loss of a machine.
"""

import asyncio
import base64
import hashlib
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

import click
import uvloop
from confluent_kafka import Consumer, TopicPartition

from bench.figures import Figure
from bench.gateway.sides import PARTITIONS, SECRET, Running, Site, penstock, site
from bench.gateway.wire import Connection, connect, signed_head
from tests.kafkalab.jvm import JvmBroker
from tests.support import eventually_async

_SENDERS = 24
# Between two events of a sender: the run is about kills, not about rate.
_PAUSE_S = 0.02
_RETRY_S = 0.1
_ANSWER_LIMIT_S = 15.0
_EVERY_BROKER = 5
_ALIVE_S = (0.2, 1.2)
_RECOVERY_LIMIT_S = 120.0
_SETTINGS = {"gateway": {"ack_timeout_s": 4.0}}
_NASTY = (b"", b"\x00", b"null", b"\xff\xfe", b'{"a":1}\r\n', b"\xef\xbb\xbf{}", b"[" * 500, b"\xed\xa0\x80")
_EXPECTED = frozenset({b"202", b"503", b"lost"})
_LONGEST_BYTES = 4000


@dataclass
class Ledger:
    """What the senders know, and what the log has.

    Attributes:
        promised: id -> digest of the body, of every event with a 202.
        sent: the same, of every event that was sent at least once.
        found: id -> records on the topic.
        changed: ids with a record whose bytes are not those that were sent.
    """

    promised: dict[bytes, bytes] = field(default_factory=dict)
    sent: dict[bytes, bytes] = field(default_factory=dict)
    answers: Counter[bytes] = field(default_factory=Counter)
    found: Counter[bytes] = field(default_factory=Counter)
    changed: set[bytes] = field(default_factory=set)

    @property
    def lost(self) -> int:
        """Return events with a 202 and without a record."""
        return sum(1 for event_id in self.promised if not self.found[event_id])

    @property
    def extra(self) -> int:
        """Return records beyond one per event: repetitions that a sender could not avoid."""
        return sum(count - 1 for count in self.found.values())


class Sender:
    """Sends one event after the other, each until it has its 202."""

    def __init__(self, number: int, port: int, ledger: Ledger, seed: int) -> None:
        self._number = number
        self._port = port
        self._ledger = ledger
        self._chance = random.Random(f"{seed} {number}")  # noqa: S311 - not for secrets
        self._connection: Connection | None = None
        self.is_ending = False

    async def run(self) -> None:
        """Send until told to end; what was begun is finished."""
        serial = 0
        while not self.is_ending:
            event_id, body = b"evt-%d-%d" % (self._number, serial), self._body()
            serial += 1
            digest = self._ledger.sent[event_id] = hashlib.sha256(body).digest()
            await self._insist(event_id, body)
            self._ledger.promised[event_id] = digest
            await asyncio.sleep(_PAUSE_S * self._chance.random())
        if self._connection is not None:
            self._connection.close()

    async def _insist(self, event_id: bytes, body: bytes) -> None:
        """Repeat an event until it has its 202."""
        while True:
            if await self._answer(event_id, body) == b"202":
                return
            await asyncio.sleep(_RETRY_S)

    def _body(self) -> bytes:
        if self._chance.random() < 0.1:  # noqa: PLR2004 - one in ten
            return self._chance.choice(_NASTY)
        return self._chance.randbytes(self._chance.randrange(_LONGEST_BYTES))

    async def _answer(self, event_id: bytes, body: bytes) -> bytes:
        """Return the status, or b"lost"."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def on_answer(status: bytes, _head: bytes, _took_s: float) -> None:
            if not answer.done():
                answer.set_result(status)

        try:
            if self._connection is None or not self._connection.is_open:
                self._connection = await connect(self._port, on_answer)
            self._connection.on_answer = on_answer
            stamp = str(int(time.time())).encode()
            self._connection.send((signed_head(base64.b64decode(SECRET), event_id, body, stamp), body))
            status = await asyncio.wait_for(answer, _ANSWER_LIMIT_S)
        except (OSError, TimeoutError):
            status = b"lost"
        if status != b"202" and self._connection is not None:
            self._connection.close()
            self._connection = None
        self._ledger.answers[status] += 1
        return status


class Kills:
    """Kills by plan, and starts what it has killed."""

    def __init__(self, broker: JvmBroker, place: Site, folder: Path, ledger: Ledger, seed: int) -> None:
        self._broker = broker
        self._place = place
        self._folder = folder
        self._ledger = ledger
        self._chance = random.Random(seed)  # noqa: S311 - not for secrets
        self.gateway = self._start()
        self.counts: Counter[str] = Counter()
        self.away_s: dict[str, list[float]] = {"gateway": [], "broker": []}

    def _start(self, port: int = 0) -> Running:
        return Running(penstock(), self._place, self._folder, _SETTINGS, port=port)

    async def run(self, kills: int) -> None:
        """Kill so many times, each time after something was accepted."""
        await asyncio.to_thread(self.gateway.wait_until_it_listens)
        for number in range(1, kills + 1):
            await self._wait_for_a_202()
            await asyncio.sleep(self._chance.uniform(*_ALIVE_S))
            victim = "broker" if number % _EVERY_BROKER == 0 else "gateway"
            killed_s = time.monotonic()
            await asyncio.to_thread(self._kill_broker if victim == "broker" else self._kill_gateway)
            self.counts[victim] += 1
            await self._wait_for_a_202()
            self.away_s[victim].append(time.monotonic() - killed_s)
            if number % 10 == 0:
                click.echo(f"{number} kills, {len(self._ledger.promised)} events with a 202")

    def _kill_gateway(self) -> None:
        self.gateway.process.send_signal(signal.SIGKILL)
        port = self.gateway.port
        self.gateway.end()
        self.gateway = self._start(port)

    def _kill_broker(self) -> None:
        self._broker.kill()
        self._broker.start()

    async def _wait_for_a_202(self) -> None:
        before = len(self._ledger.promised)
        await eventually_async(lambda: len(self._ledger.promised) > before, _RECOVERY_LIMIT_S)


def crash(broker: JvmBroker, seed: int, kills: int) -> list[Figure]:
    """Kill under load, then hold the ledger against the log.

    Raises:
        RunFailedError: the gateway did not start.
    """
    ledger = Ledger()
    began_s = time.monotonic()
    with site(broker.bootstrap, {}) as place, TemporaryDirectory(prefix="penstock-bench-") as folder:
        killing = Kills(broker, place, Path(folder), ledger, seed)
        try:
            uvloop.run(_run(killing, ledger, seed, kills))
        finally:
            killing.gateway.end()
        _read(place, ledger)
    return _figures(ledger, killing, time.monotonic() - began_s)


async def _run(killing: Kills, ledger: Ledger, seed: int, kills: int) -> None:
    senders = [Sender(number, killing.gateway.port, ledger, seed) for number in range(_SENDERS)]
    running = [asyncio.create_task(sender.run()) for sender in senders]
    try:
        await killing.run(kills)
        for sender in senders:
            sender.is_ending = True
        await asyncio.wait_for(asyncio.gather(*running), _RECOVERY_LIMIT_S)
    finally:
        for task in running:
            task.cancel()


def _read(place: Site, ledger: Ledger) -> None:
    """Read the topic from its beginning to its end."""
    options = {"bootstrap.servers": place.bootstrap, "group.id": "ledger", "enable.partition.eof": True}
    consumer = Consumer({**options, "enable.auto.commit": False, "log_level": 0})
    try:
        consumer.assign([TopicPartition(place.topic, number, 0) for number in range(PARTITIONS)])
        still_open = set(range(PARTITIONS))
        while still_open:
            for message in consumer.consume(1000, 0.5):
                if message.error() is not None:
                    still_open.discard(message.partition() or 0)
                    continue
                value = message.value()
                # The binding's types allow other forms of headers, for producing.
                headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
                event_id = next((raw for name, raw in headers if name == "ce_id"), None) or b""
                ledger.found[event_id] += 1
                if value is None or hashlib.sha256(value).digest() != ledger.sent.get(event_id):
                    ledger.changed.add(event_id)
    finally:
        consumer.close()


def _figures(ledger: Ledger, killing: Kills, took_s: float) -> list[Figure]:
    others = sum(count for status, count in ledger.answers.items() if status not in _EXPECTED)

    def none(name: str, value: int, unit: str) -> Figure:
        return Figure(name, value, unit, "= 0", value == 0, is_strict=True)

    figures = [
        Figure("gateway killed", killing.counts["gateway"], "times"),
        Figure("broker killed", killing.counts["broker"], "times"),
        Figure("events with a 202", len(ledger.promised), "events"),
        none("events with a 202 that are not on the log", ledger.lost, "events"),
        none("records with other bytes than were sent", len(ledger.changed), "records"),
        Figure("records beyond one per event, repetitions of senders", ledger.extra, "records"),
        Figure("answers 503", ledger.answers[b"503"], "answers"),
        Figure("requests without an answer", ledger.answers[b"lost"], "requests"),
        none("other answers", others, "answers"),
    ]
    for victim, away_s in killing.away_s.items():
        if away_s:
            name = f"next 202 after a kill of the {victim}"
            figures.append(Figure(f"{name}, median", round(median(away_s), 1), "s"))
            figures.append(Figure(f"{name}, longest", round(max(away_s), 1), "s"))
    return [*figures, Figure("took", round(took_s), "s")]
