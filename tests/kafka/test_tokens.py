"""Programs that show the brokers tokens, which end while they work: an event in, a result out.

One broker of its own, with Kafka's OIDC validator. Blocking: about a minute.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from contracts.settings import KafkaSettings
from producers import kafka_client
from tests.kafka.token_lab import CLIENT, SCOPE, SECRET, TokenServer, token_broker
from tests.kafka.worker_lab import wait_for_partitions
from tests.kafkalab.broker import KafkaUnavailableError
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import JvmBroker
from tests.support import ChildProcess, eventually, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180), pytest.mark.long]

KEY = "an-api-key-of-enough-characters"
# librdkafka has the next token at 0.8 of it, and shows it at 0.9.
LIFE_S = 8.0
AWAY = 503, b'{"error": "temporarily_unavailable"}'
# librdkafka tells it at once; of what may pass, as 503, it tells after the fourth try, most of a minute later.
REFUSED = 401, b'{"error": "invalid_client", "error_description": "who is it"}'


class Site:
    """An installation behind the broker's listener for tokens."""

    def __init__(self, tokens: TokenServer, broker: JvmBroker, guarded: str, folder: Path) -> None:
        self.tokens = tokens
        self.lab = KafkaLab(broker)
        self.guarded = guarded
        self.config = folder / "penstock.yaml"
        self.config.write_text(json.dumps(self._document()), encoding="utf-8")

    def _document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "kafka": {
                "bootstrap_servers": self.guarded,
                "topic_prefix": self.lab.prefix,
                "partitions": 2,
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "OAUTHBEARER",
                "oauth": {
                    "token_url": self.tokens.url,
                    "client_id": CLIENT,
                    "client_secret": "env:TEST_SECRET",
                    "scope": SCOPE,
                    "extensions": {"traceId": "7"},
                    "ca_file": str(self.tokens.ca_file),
                },
            },
            "gateway": {
                "port": 0,
                "ticket_secret": "env:TEST_TICKET_SECRET",
                "api_keys": [{"id": "crm", "key": "env:TEST_API_KEY"}],
            },
            "providers": {"p": {"kind": "fake"}},
            "models": {"m": {"provider": "p", "model": "m-1"}},
            "routes": [{"name": "r", "prompt": {"user": "{{ text }}"}, "model": "m"}],
            "worker": {"app_id": self.lab.prefix, "health_port": 0, "session_timeout_s": 6, "commit_interval_s": 0.2},
        }

    def program(self, *args: str) -> ChildProcess:
        env = {"TEST_SECRET": SECRET, "TEST_API_KEY": KEY, "TEST_TICKET_SECRET": "t" * 32}
        return ChildProcess(*args, "--config", str(self.config), env=env)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with TokenServer(tmp_path, LIFE_S) as tokens:
        try:
            broker, guarded = token_broker(tokens)
        except KafkaUnavailableError as error:
            pytest.skip(f"no broker that wants tokens: {error}")
        try:
            broker.start()
            yield Site(tokens, broker, guarded, tmp_path)
        finally:
            broker.close()


def post(url: str, body: bytes, headers: dict[str, str]) -> bytes:
    request = urllib.request.Request(url, body, headers | {"content-type": "application/json"}, method="POST")  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310 - our own server
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.read()


def invoke(url: str, number: int) -> bool:
    headers = {"authorization": f"Bearer {KEY}", "ce-type": "t", "idempotency-key": f"e{number}"}
    return b'"succeeded"' in post(f"{url}/v1/invoke", json.dumps({"n": number}).encode(), headers)


def test_events_come_through_while_tokens_end_and_the_token_endpoint_is_away(site: Site) -> None:
    with site.program("gateways.cli", "topics", "create", "--wait", "30") as made:
        assert made.wait(60) == 0, made.output
    port_file = site.config.with_name("port")
    gateway = site.program("gateways.cli", "gateway", "--port-file", str(port_file))
    with gateway, site.program("streams", "worker") as worker:
        url = f"http://127.0.0.1:{read_port(port_file)}"
        wait_for_partitions(worker)
        numbers = iter(range(1000))
        asked = site.tokens.asked
        # Every client has shown several tokens by then.
        eventually(lambda: invoke(url, next(numbers)) and site.tokens.asked > asked + 20, 40)
        assert "kafka_unreachable" not in worker.output

        site.tokens.refusal = AWAY
        worker.wait_for('answers 503: temporarily_unavailable","former_valid_s":[1-9].*kafka.token_refused', 20)
        worker.wait_for("there is no token for Kafka: the token endpoint answers 503: temporarily_unavailable", 20)
        site.tokens.refusal = None
        eventually(lambda: invoke(url, next(numbers)), 40)
        assert (gateway.process.poll(), worker.process.poll()) == (None, None)
        assert SECRET not in worker.output + gateway.output


def test_a_worker_that_gets_no_token_says_so_and_begins_when_it_gets_one(site: Site) -> None:
    with site.program("gateways.cli", "topics", "create", "--wait", "30") as made:
        assert made.wait(60) == 0, made.output
    site.tokens.refusal = REFUSED
    with site.program("streams", "worker") as worker:
        worker.wait_for("invalid_client.*who is it", 40)
        site.tokens.refusal = None
        wait_for_partitions(worker)


def test_the_tokens_for_amazon_msk_reach_the_brokers_through_every_client(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What Amazon MSK takes is no JWT; the way there is the same."""
    given: list[str] = []

    def token(region: str) -> tuple[str, float]:
        given.append(region)
        return site.tokens.token(), time.time() + LIFE_S

    monkeypatch.setattr(kafka_client, "msk_token", token)
    kafka = KafkaSettings(
        bootstrap_servers=(site.guarded,),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="AWS_MSK_IAM",
        aws_region="eu-central-1",
    )
    producer = Producer(kafka_client.client_config(kafka))

    eventually(lambda: producer.list_topics(timeout=5).brokers and len(given) > 2, 20)

    assert set(given) == {"eu-central-1"}
