"""Callbacks on real Kafka, by real processes that are killed: nothing is lost, ids are stable, disabled stays disabled.

Blocking: about a minute together, bounded by the timeout below.
"""

import asyncio
import base64
import itertools
import operator
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import standardwebhooks
import yaml

from contracts.codec import Record, delivery_note
from contracts.payloads import DeliveryNote
from contracts.settings import KafkaSettings, ProducerSettings, load
from gateways.cli.main import run
from gateways.cli.reading import TopicReader
from producers.admin import TopicAdmin
from producers.producer import KafkaProducer
from producers.topic_plan import wanted_topics
from tests.gateways.egress.receiver import OK, Receiver, Request, status
from tests.kafkalab.fixtures import KafkaLab
from tests.suites.egress import result_item
from tests.support import ROOT, ChildProcess, eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
COUNT = 12
WITHIN_S = 60.0


class CallbackLab:
    """An installation with one callback endpoint, and its receiver."""

    def __init__(self, kafka: KafkaLab, folder: Path, receiver: Receiver) -> None:
        self.receiver = receiver
        self.prefix = kafka.prefix
        secret = folder / "crm.secret"
        secret.write_text(SECRET)
        self.config = folder / "penstock.yaml"
        document = {
            "version": 1,
            "kafka": {"bootstrap_servers": kafka.bootstrap, "topic_prefix": kafka.prefix, "partitions": 2},
            "worker": {"app_id": kafka.prefix},
            "egress_process": {"health_port": 0, "drain_timeout_s": 5, "session_timeout_s": 6},
            "egress": {
                "crm": {
                    "kind": "callback",
                    "url": f"http://127.0.0.1:{receiver.port}/hooks",
                    "secrets": [{"id": "k1", "value": f"file:{secret}"}],
                    "allow_http": True,
                    "allow_networks": ["127.0.0.1/32"],
                    "ports": [receiver.port],
                    # Every failure waits on a delay topic, as single failures of a busy endpoint do.
                    "breaker": {"failures": 1000},
                }
            },
        }
        self.config.write_text(yaml.safe_dump(document))
        settings = load(self.config, {})
        self.kafka = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
        self.producer = KafkaProducer(self.kafka, ProducerSettings(), client_id="test", delivery_timeout_s=30)
        wanted = wanted_topics(settings)
        TopicAdmin(settings.kafka).create(wanted)
        kafka._created.extend(want.topic.name for want in wanted)

    async def result(self, number: int) -> str:
        """Put the result of an event on the log; return by what its callback is known."""
        item = result_item(number)
        topic = f"{self.prefix}.results.v1"
        await self.producer.produce(Record(topic, item.key, item.outcome.value, item.headers))
        return item.delivery_id

    @contextmanager
    def process(self) -> Iterator[ChildProcess]:
        """Run the doors out."""
        with ChildProcess("gateways.cli", "egress", "--config", str(self.config)) as child:
            child.wait_for("delivering crm", within_s=WITHIN_S)
            yield child

    def undelivered(self) -> list[DeliveryNote]:
        """Return everything on the undelivered topic, in the order of time: its partitions have none among them."""
        notes: list[tuple[int, DeliveryNote]] = []
        with TopicReader(self.kafka, [f"{self.prefix}.undelivered.v1"], from_beginning=True) as reader:
            while not reader.at_end:
                record = reader.poll(0.1)
                if record is not None:
                    notes.append((record.timestamp_ms, delivery_note(record.headers)[0]))
        return [note for _, note in sorted(notes, key=operator.itemgetter(0))]


@pytest.fixture
async def lab(kafka: KafkaLab, tmp_path: Path) -> AsyncIterator[CallbackLab]:
    async with Receiver() as receiver:
        lab = CallbackLab(kafka, tmp_path, receiver)
        await lab.producer.start()
        yield lab
        await lab.producer.aclose()


def _by_id(requests: list[Request]) -> dict[str, list[Request]]:
    found: dict[str, list[Request]] = {}
    for request in requests:
        found.setdefault(request.headers["webhook-id"], []).append(request)
    return found


@pytest.mark.long
async def test_an_outage_and_a_kill_in_it_lose_no_callback_and_ids_are_stable(lab: CallbackLab) -> None:
    lab.receiver.answer = status(503)
    ids = {await lab.result(number) for number in range(COUNT)}
    with lab.process() as first:
        await eventually_async(lambda: set(_by_id(lab.receiver.requests)) == ids, WITHIN_S)
        first.signal(signal.SIGKILL)
        first.wait()
    refused_at_s = time.time()
    refused = len(lab.receiver.requests)
    # Down altogether for a while: a process started meanwhile must bear that as well.
    await lab.receiver.stop()
    with lab.process():
        await lab.receiver.__aenter__()
        lab.receiver.answer = OK
        await eventually_async(lambda: set(_by_id(lab.receiver.requests[refused:])) == ids, WITHIN_S)

    for attempts in _by_id(lab.receiver.requests).values():
        first_at_s, last_at_s = (int(attempts[n].headers["webhook-timestamp"]) for n in (0, -1))
        assert first_at_s <= refused_at_s < last_at_s + 1
        assert last_at_s - first_at_s >= 4, "the second attempt came before its time on the schedule"
        assert len({attempt.body for attempt in attempts}) == 1
        for attempt in attempts:
            standardwebhooks.Webhook(SECRET).verify(attempt.body, attempt.headers)


@pytest.mark.long
async def test_a_gone_endpoint_stays_disabled_after_a_restart_until_an_operator_helps(lab: CallbackLab) -> None:
    numbers = itertools.count()
    lab.receiver.answer = status(410)
    with lab.process() as first:
        await lab.result(next(numbers))
        await eventually_async(lambda: len(lab.undelivered()) == 1, WITHIN_S)
        first.stop()
    lab.receiver.answer = OK
    with lab.process():
        refused_id = await lab.result(next(numbers))
        await eventually_async(lambda: len(lab.undelivered()) == 2, WITHIN_S)
        asked_while_disabled = len(lab.receiver.requests)
        assert await asyncio.to_thread(run, ["callbacks", "enable", "crm", "--config", str(lab.config)]) == 0

        async def delivered() -> bool:
            # The running process hears of it within a second or two; what comes before is refused.
            await lab.result(next(numbers))
            await asyncio.sleep(0.3)
            return len(lab.receiver.requests) > asked_while_disabled

        await eventually_async(delivered, WITHIN_S)
        # A program of its own: it listens to signals, which only a main thread can.
        redrive = (sys.executable, "-m", "gateways.cli", "undelivered", "redrive", "--config", str(lab.config), "--yes")
        chosen = ("--door", "crm", "--reason", "endpoint_disabled")
        done = await asyncio.to_thread(subprocess.run, (*redrive, *chosen), cwd=ROOT, check=False)
        assert done.returncode == 0
        await eventually_async(lambda: refused_id in _by_id(lab.receiver.requests), WITHIN_S)

    assert [(note.state, note.reason) for note in lab.undelivered()[:2]] == [
        ("refused", "endpoint_gone"),
        ("refused", "endpoint_disabled"),
    ]
    assert asked_while_disabled == 1
