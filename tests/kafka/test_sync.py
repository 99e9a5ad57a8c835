"""Waiting for an outcome over real Kafka: budgets that run out, and whoever waits, works or serves being killed.

One installation for all tests: two gateways (one with a budget shorter than the model's answer), a worker, a model
server that takes `MODEL_S`. Blocking: some seconds a test, bounded.
"""

import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kafka.worker_lab import Outcomes, WorkerLab
from tests.kafkalab.broker import Broker
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ChildProcess, eventually, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

MODEL_S = 1.5
SHORT_S, LONG_S = 1.0, 40.0
KEY = "an-api-key-of-enough-characters"
GATEWAY = {
    "port": 0,
    "ticket_secret": "env:TEST_TICKET_SECRET",
    "api_keys": [{"id": "crm", "key": "env:TEST_API_KEY"}],
    "sync_margin_s": 0.3,
    "sync_predicts": False,
}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: dict[str, Any]
    seconds: float


@dataclass
class Site:
    """The installation.

    Attributes:
        short, long: URLs of the gateways with the short and the long budget.
    """

    lab: WorkerLab
    folder: Path
    stub: Stub
    worker: ChildProcess = field(init=False)
    short: str = ""
    long: str = ""

    def gateway(self, name: str, budget_s: float) -> ChildProcess:
        port_file = self.folder / f"{name}.port"
        port_file.unlink(missing_ok=True)
        env = {
            "PENSTOCK_GATEWAY__SYNC_BUDGET_S": str(budget_s),
            "PENSTOCK_GATEWAY__RESULTS_VIEW__PATH": str(self.folder / f"{name}.sqlite"),
            "TEST_API_KEY": KEY,
            "TEST_TICKET_SECRET": "t" * 32,
        }
        args = ("gateways.cli", "gateway", "--config", str(self.lab.config), "--port-file", str(port_file))
        return ChildProcess(*args, env=env)

    def url_of(self, name: str) -> str:
        return f"http://127.0.0.1:{read_port(self.folder / f'{name}.port')}"


@pytest.fixture(scope="module")
def site(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("sync")
    kafka = KafkaLab(kafka_broker)
    port_file = folder / "stub.port"
    options = ("--latency", str(MODEL_S), "--latency-sigma", "0", "--port-file", str(port_file))
    with ChildProcess("streams", "fm-stub", *options):
        stub = Stub(f"http://127.0.0.1:{read_port(port_file)}")
        provider = {"kind": "openai", "base_url": f"{stub.url}/v1"}
        lab = WorkerLab(kafka, folder, provider=provider, more={"gateway": GATEWAY})
        lab.create_topics()
        kafka.create_named(lab.topics.replies, partitions=4)
        made = Site(lab, folder, stub)
        with made.gateway("short", SHORT_S), made.gateway("long", LONG_S), lab.running() as worker:
            made.worker, made.short, made.long = worker, made.url_of("short"), made.url_of("long")
            invoke(made.long)
            yield made
            made.worker.__exit__()
    kafka.clean_up()


def ask(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
    named = {"authorization": f"Bearer {KEY}"} | {name.replace("_", "-"): text for name, text in headers.items()}
    request = urllib.request.Request(url, body, named, method=method)  # noqa: S310 - our own server
    started_s = time.monotonic()
    try:
        with urllib.request.urlopen(request, timeout=LONG_S + 10) as response:  # noqa: S310 - our own server
            status, lines, text = response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, lines, text = error.code, error.headers, error.read()
    found = {name.lower(): value for name, value in lines.items()}
    return Answer(status, found, json.loads(text), time.monotonic() - started_s)


def invoke(gateway: str, **headers: str) -> Answer:
    return ask(f"{gateway}/v1/invoke", "POST", b'{"a": 1}', ce_type="t", content_type="application/json", **headers)


class Waiting(threading.Thread):
    """An invocation in a thread of its own; its client survives the end of the gateway."""

    def __init__(self, gateway: str, **headers: str) -> None:
        super().__init__(daemon=True)
        self._gateway, self._headers = gateway, headers
        self.answer: Answer | None = None
        self.start()

    def run(self) -> None:
        try:
            self.answer = invoke(self._gateway, **self._headers)
        except OSError:
            return


def test_the_answer_is_the_result_and_takes_hardly_longer_than_the_model(site: Site) -> None:
    answer = invoke(site.long)

    assert (answer.status, answer.body["status"]) == (200, "succeeded")
    assert answer.seconds < MODEL_S + 5


def test_a_call_longer_than_the_budget_is_answered_in_time_and_paid_once(site: Site) -> None:
    before = site.stub.calls
    answer = invoke(site.short, idempotency_key="longer")
    polled = ask(site.short + answer.headers["location"], prefer="wait=20")
    while polled.status == 202:
        polled = ask(site.short + answer.headers["location"], prefer="wait=20")
    again = invoke(site.short, idempotency_key="longer")
    # The other gateway follows the result topic by itself, and may be a moment behind.
    elsewhere = ask(site.long + answer.headers["location"], prefer="wait=20")

    assert (answer.status, answer.body["status"]) == (202, "accepted")
    assert "retry-after" in answer.headers
    assert polled.body["status"] == "succeeded"
    assert (again.status, again.body) == (200, polled.body)
    assert elsewhere.body == polled.body
    assert site.stub.calls - before == 1


def test_the_gateways_own_reply_is_what_wakes_the_caller(site: Site) -> None:
    with Outcomes(site.lab.kafka, site.lab.topics.replies) as replies:
        invoke(site.long, idempotency_key="reply")
        tally = replies.wait_for(1, within_s=20)

    assert tally.by_id["reply"] == 1


def test_a_client_that_hangs_up_cancels_nothing(site: Site) -> None:
    host, _, port = site.long.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        lines = ("POST /v1/invoke HTTP/1.1", "host: x", f"authorization: Bearer {KEY}", "ce-type: t", "ce-id: hung-up")
        client.sendall("\r\n".join((*lines, "content-length: 2", "", "{}")).encode())
        eventually(lambda: site.stub.stats()["in_flight"] > 0, within_s=30)

    assert result_of(site.long, "hung-up")["status"] == "succeeded"


def test_a_gateway_killed_while_somebody_waits_loses_nothing_and_pays_once(site: Site) -> None:
    before = site.stub.calls
    with site.gateway("doomed", LONG_S) as gateway:
        waiting = Waiting(site.url_of("doomed"), idempotency_key="orphan")
        eventually(lambda: site.stub.calls > before, within_s=30)
        gateway.signal(signal.SIGKILL)
        waiting.join(10)
    assert waiting.answer is None

    with site.gateway("doomed", LONG_S):
        again = invoke(site.url_of("doomed"), idempotency_key="orphan")

    assert (again.status, again.body["status"]) == (200, "succeeded")
    assert site.stub.calls - before == 1


def test_a_worker_killed_while_somebody_waits_is_waited_for(site: Site) -> None:
    before = site.stub.calls
    waiting = Waiting(site.long, idempotency_key="patient")
    eventually(lambda: site.stub.calls > before, within_s=30)
    site.worker.signal(signal.SIGKILL)
    site.worker.stop()
    site.worker = site.lab.worker()
    site.worker.__enter__()
    waiting.join(LONG_S + 10)
    assert waiting.answer is not None

    # Taken back only by its session's end, the event may take longer than the budget on a busy machine.
    assert waiting.answer.status in {200, 202}
    assert result_of(site.long, "patient")["status"] == "succeeded"
    assert site.stub.calls - before <= 2


def result_of(gateway: str, event_id: str) -> dict[str, Any]:
    """Return the outcome of an event, asked for by key alone."""

    def found() -> Any:
        answer = ask(f"{gateway}/v1/results/{event_id}", prefer="wait=5")
        return answer.body if answer.status == 200 else None

    body: dict[str, Any] = eventually(found, within_s=60)
    return body
