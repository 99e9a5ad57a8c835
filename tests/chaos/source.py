"""Sends the events of a run: most through a producer of its own, some as signed webhooks through the real gateway."""

import contextlib
import hmac
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from confluent_kafka import Producer

from contracts.codec import encode_event
from contracts.envelope import Event
from contracts.payloads import DEAD_LETTER_MARKER_TYPE, EXPIRED_TYPE, RESULT_TYPE
from tests.chaos.lab import FREE, PACKED, POISON, SECRET, SOURCE, Lab

KEYS = 60
_SILENCE_MS = 1000
WEBHOOK_SHARE, URGENT_SHARE, POISON_SHARE, UNDECODABLE_SHARE = 0.1, 0.1, 0.02, 0.01
STREAMED_SHARE = 0.1


class Source:
    """A seeded sender in a thread of its own; ends by itself, `stop` ends it earlier.

    Args:
        rate: events a second.
        gateway: its address; None leaves webhooks out.
        is_mixed: some are packed, free of order, or streamed.

    Attributes:
        sent: names of everything that was tried.
        accepted: names that the broker or the gateway has confirmed, and where they lie as far as that is known.
        fates: how an event may end, by name, where that is not with a result.
    """

    def __init__(
        self,
        lab: Lab,
        seed: int,
        rate: float,
        gateway: Callable[[], str | None] = lambda: None,
        *,
        is_mixed: bool = False,
    ) -> None:
        self._lab = lab
        self._dice = random.Random(f"{seed}/source")  # noqa: S311 - reproducible on purpose
        self._rate = rate
        # Of its own: a seed's events are the same without.
        self._mixer = random.Random(f"{seed}/mixed")  # noqa: S311 - as above
        self._is_mixed = is_mixed
        self._gateway = gateway
        self._stop = threading.Event()
        self._number = 0
        self._producer = Producer(
            {
                "bootstrap.servers": lab.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "log_level": 0,
                "delivery.timeout.ms": 120_000,
                # Else it may find a broker that is back up to 10 s late, and its silence excuses the workers' stalls.
                "reconnect.backoff.max.ms": 200,
            }
        )
        self.sent: list[str] = []
        self.accepted: dict[str, str] = {}
        self.fates: dict[str, tuple[str, ...]] = {}
        self.errors: list[str] = []
        # When each record was given to the client, and when a broker has confirmed it.
        self._acks_ms: list[tuple[float, float]] = []
        self._thread: threading.Thread | None = None

    def start(self, seconds: float) -> None:
        """Send for so long."""
        self._thread = threading.Thread(target=self._run, args=(seconds,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sending and wait until the brokers have confirmed everything."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(60)
        self._producer.flush(130)

    def send(self, count: int) -> None:
        """Send so many at once, in this thread, and wait until they are confirmed."""
        for _ in range(count):
            self._produce(self._draw())
        self._producer.flush(130)

    def silences(self) -> list[tuple[float, float]]:
        """Return when no broker confirmed anything for a second or longer, in Unix milliseconds: (from, until)."""
        return silences(self._acks_ms)

    def _run(self, seconds: float) -> None:
        start_s = time.monotonic()
        done = 0
        while not self._stop.is_set() and time.monotonic() < start_s + seconds:
            due = int((time.monotonic() - start_s) * self._rate)
            for _ in range(done, due):
                event = self._draw()
                address = self._gateway()
                if address and event.type == "chaos.event" and self._dice.random() < WEBHOOK_SHARE:
                    self._post(address, event)
                else:
                    self._produce(event)
            done = max(done, due)
            self._producer.poll(0)
            self._stop.wait(0.02)

    def _draw(self) -> Event:
        number, self._number = self._number, self._number + 1
        name, key = f"e{number}", f"k{self._dice.randrange(KEYS)}"
        kind = "chaos.urgent" if self._dice.random() < URGENT_SHARE else "chaos.event"
        text = f"{POISON} " if self._dice.random() < POISON_SHARE else ""
        may_expire = (EXPIRED_TYPE,) if kind == "chaos.urgent" else ()
        if text or may_expire:
            self.fates[name] = (DEAD_LETTER_MARKER_TYPE if text else RESULT_TYPE, *may_expire)
        body = {"id": name, "key": key, "text": f"{text}event {number} of a chaos run"}
        self.sent.append(name)
        extensions = {"partitionkey": key}
        if self._is_mixed and kind == "chaos.event":
            kind = self._mixer.choices((kind, PACKED, FREE), (2, 1, 1))[0]
            extensions |= {"delivery": "stream"} if self._mixer.random() < STREAMED_SHARE else {}
        return Event(id=name, source=SOURCE, type=kind, data=json.dumps(body).encode(), extensions=extensions)

    def _produce(self, event: Event) -> None:
        topic = self._lab.sources[int(self._dice.random() < 0.8)]
        headers: list[tuple[str, str | bytes | None]] = list(encode_event(event))
        if self._dice.random() < UNDECODABLE_SHARE:
            headers = [(name, value) for name, value in headers if name != "ce_specversion"]
            self.fates[event.id] = (DEAD_LETTER_MARKER_TYPE,)

        def reported(error: Any, message: Any) -> None:
            # A report without an offset is no ack: see producers/producer.py.
            offset = message.offset()
            if error is None and offset is not None and offset >= 0:
                self.accepted[event.id] = f"{message.topic()}/{message.partition()}/{offset}"
                # Not when it is reported: this thread may have waited for the gateway.
                given_ms = message.timestamp()[1]
                self._acks_ms.append((given_ms, given_ms + 1000 * message.latency()))
            else:
                self.errors.append(f"{event.id}: {error or 'no offset'}")

        while True:
            with contextlib.suppress(BufferError):
                self._producer.produce(topic, key=event.key, value=event.data, headers=headers, on_delivery=reported)
                return
            self._producer.poll(0.1)

    def _post(self, address: str, event: Event) -> None:
        """Post once; whatever is not a 202 was not accepted, though it may be on the log all the same."""
        stamp = str(int(time.time()))
        signature = hmac.digest(SECRET.encode(), f"{stamp}.".encode() + event.data, sha256).hex()
        headers = {"x-chaos-signature": signature, "x-chaos-timestamp": stamp, "content-type": "application/json"}
        request = urllib.request.Request(f"{address}/webhooks/{SOURCE}", event.data, headers, method="POST")  # noqa: S310 - loopback
        try:
            with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310 - loopback
                if response.status == 202:
                    self.accepted[event.id] = "the gateway"
        except OSError as error:
            self.errors.append(f"{event.id}: {error}")


def silences(acks_ms: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return when records waited and none was confirmed for a second or longer.

    A sender that waits for the gateway gives the brokers nothing to confirm: that is no silence of theirs.

    Args:
        acks_ms: when each record was sent, and when it was confirmed.
    """
    found: list[tuple[float, float]] = []
    acks = sorted(acks_ms, key=lambda ack: ack[1])
    waiting_since_ms = float("inf")
    # From the end: the oldest record that still waits at each moment.
    for (_, before_ms), (given_ms, until_ms) in zip(reversed(acks[:-1]), reversed(acks), strict=False):
        waiting_since_ms = min(waiting_since_ms, given_ms)
        since_ms = max(before_ms, waiting_since_ms)
        if until_ms - since_ms >= _SILENCE_MS:
            found.append((since_ms, until_ms))
    return found[::-1]
