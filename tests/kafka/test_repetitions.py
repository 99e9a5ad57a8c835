"""A delivery that comes again, over real Kafka: two gateways at one moment, then a gateway and a worker that forgot.

Blocking: about 15 s, most of it the starts of five programs.
"""

import hashlib
import hmac
import json
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from contracts.payloads import DUPLICATE_TYPE, RESULT_TYPE
from tests.kafka.worker_lab import Outcomes, WorkerLab
from tests.kafkalab.fixtures import KafkaLab
from tests.stub import Stub
from tests.support import ChildProcess, eventually, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

SECRET = "a-secret-of-enough-bytes"
TICKETS = "t" * 32
BODY = b'{"action": "opened"}'
COPIES = 50
SOURCE = {"scheme": "github", "secrets": [{"id": "k", "value": "env:TEST_SECRET"}], "type": "t"}


class Site:
    """Gateways, and a model server that counts its calls."""

    def __init__(self, kafka: KafkaLab, folder: Path, stub: Stub) -> None:
        self.folder = folder
        self.stub = stub
        more = {"sources": {"github": SOURCE}, "gateway": {"port": 0, "ticket_secret": "env:TEST_TICKETS"}}
        self.lab = WorkerLab(kafka, folder, provider={"kind": "openai", "base_url": f"{stub.url}/v1"}, more=more)
        self.lab.create_topics()

    def gateway(self, name: str) -> ChildProcess:
        args = ("--config", str(self.lab.config), "--port-file", str(self.folder / f"{name}.port"))
        env = {"TEST_SECRET": SECRET, "TEST_TICKETS": TICKETS}
        return ChildProcess("gateways.cli", "gateway", *args, env=env)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{read_port(self.folder / f'{name}.port')}"

    def post(self, gateway: str, delivery: str) -> dict[str, Any]:
        """Send a copy; the id is not signed, and anybody may have changed it."""
        signature = "sha256=" + hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": signature, "x-github-delivery": delivery, "content-type": "application/json"}
        request = urllib.request.Request(f"{gateway}/webhooks/github", BODY, headers)  # noqa: S310 - our own server
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - our own server
            assert response.status == 202
            return dict(json.load(response))

    def get(self, url: str) -> dict[str, Any]:
        with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - our own server
            return dict(json.load(response))


def test_two_gateways_and_a_worker_that_is_restarted_pay_for_one_event_once(kafka: KafkaLab, tmp_path: Path) -> None:
    port_file = tmp_path / "stub.port"
    options = ("--latency", "0.05", "--latency-sigma", "0", "--port-file", str(port_file))
    with ChildProcess("streams", "fm-stub", *options):
        site = Site(kafka, tmp_path, Stub(f"http://127.0.0.1:{read_port(port_file)}"))
        with (
            Outcomes(kafka, site.lab.topics.results) as outcomes,
            site.gateway("a"),
            site.gateway("b") as second,
            ThreadPoolExecutor(2 * COPIES) as clients,
        ):
            gateways = [site.url("a"), site.url("b")]
            with site.lab.running() as worker:
                both = list(clients.map(site.post, gateways * COPIES, ["a", "b"] * COPIES))
                eventually(lambda: outcomes.read().kinds[RESULT_TYPE] + outcomes.tally.kinds[DUPLICATE_TYPE] >= 2, 40)
                worker.signal(signal.SIGTERM)
                worker.wait(20)

            # One of them was new at each gateway, and one of these two was the first.
            assert sum("duplicate" not in answer for answer in both) == 2
            assert (outcomes.tally.kinds[RESULT_TYPE], site.stub.calls) == (1, 1)

            second.signal(signal.SIGKILL)
            (tmp_path / "b.port").unlink()
            with site.gateway("c"), site.lab.running():
                third = site.url("c")
                again = list(clients.map(lambda _: site.post(third, "made-up"), range(COPIES)))
                outcomes.wait_for(3, within_s=40)

                assert sum("duplicate" not in answer for answer in again) == 1
                assert (outcomes.tally.kinds[RESULT_TYPE], outcomes.tally.kinds[DUPLICATE_TYPE]) == (1, 2)
                assert site.stub.calls == 1
                # Whoever asks for the repetition gets the outcome of the first.
                place = third + again[0]["status_url"]
                eventually(lambda: site.get(place)["status"] == "succeeded", within_s=20)
