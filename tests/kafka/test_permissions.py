"""A deployment whose Kafka allows each program what docs/operations.md lists, and nothing else.

One broker of its own that asks everybody who comes with a name. Blocking: about a minute.
"""

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.deploy.kafka_acls import rows, rules
from tests.gateways.egress.receiver import Receiver, status
from tests.kafka.worker_lab import wait_for_partitions
from tests.kafkalab.broker import KafkaUnavailableError
from tests.kafkalab.fixtures import KafkaLab
from tests.kafkalab.jvm import SHORT_LIVED, JvmBroker
from tests.stub import Stub
from tests.support import ChildProcess, eventually, free_port, read_port

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180), pytest.mark.long]

PASSWORD = "a-password-for-tests"
KEY = "an-api-key-of-enough-characters"
_DENIED = re.compile(r"Principal = (User:\S+) is Denied operation = (\S+) .* on resource = (\S+) for request = (\S+)")


_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


def bindings(user: str, cells: list[str], prefix: str) -> Iterator[AclBinding]:
    """Yield what one row of the table allows."""
    for kind, name, operation in rules(cells, prefix, prefix):
        pattern = ResourcePatternType.PREFIXED if name.endswith("*") and name != "*" else ResourcePatternType.LITERAL
        stem, allowed = name.rstrip("*") or "*", AclPermissionType.ALLOW
        yield AclBinding(_KINDS[kind], stem, pattern, f"User:{user}", "*", _OPERATIONS[operation], allowed)


class Guarded:
    """An installation whose programs come to the broker by their own names.

    Attributes:
        lab: the broker as its owner sees it.
    """

    def __init__(self, lab: KafkaLab, broker: JvmBroker, guarded: str, folder: Path) -> None:
        self.lab = lab
        self._broker = broker
        self._guarded = guarded
        self._folder = folder
        self.config = folder / "penstock.yaml"

    def allow(self) -> None:
        """Give each program what the page says."""
        wanted = [rule for user, cells in rows().items() for rule in bindings(user, cells, self.lab.prefix)]
        for made in self.lab.admin().create_acls(wanted).values():
            made.result(15)

    def configure(self, model: str, receiver: int) -> None:
        """Write the configuration that all programs share."""
        secret = self._folder / "crm.secret"
        secret.write_text("whsec_" + "c2VjcmV0" * 5)
        document = {
            "version": 1,
            "kafka": {
                "bootstrap_servers": self._guarded,
                "topic_prefix": self.lab.prefix,
                "partitions": 2,
                "security_protocol": "SASL_PLAINTEXT",
                "sasl_mechanism": "PLAIN",
                "sasl_password": "env:TEST_KAFKA_PASSWORD",
            },
            "gateway": {
                "port": 0,
                "ticket_secret": "env:TEST_TICKET_SECRET",
                "api_keys": [{"id": "crm", "key": "env:TEST_API_KEY"}],
                "results_view": {"path": str(self._folder / "results.sqlite")},
                "overload": {"max_lag": {"standard": 100_000}, "lag_interval_s": 0.5},
            },
            "providers": {
                "p": {"kind": "openai", "base_url": f"{model}/v1"},
                # Nobody uses it: for the start of `hand-over`.
                "patient": {
                    "kind": "bedrock",
                    "region": "eu-central-1",
                    "batch_api": {
                        "role_arn": "arn:aws:iam::123456789012:role/batch",
                        "input": "s3://jobs/in",
                        "output": "s3://jobs/out",
                    },
                },
            },
            "models": {"m": {"provider": "p", "model": "stub.extract-v1"}},
            "routes": [
                {"name": "strict", "match": {"type": "strict"}, "prompt": {"user": "{{ data.text }}"}, "model": "m"},
                {
                    "name": "r",
                    "prompt": {"user": "{{ text }}"},
                    "model": "m",
                    "order": "none",
                    "retry": {"park_after_s": 0.05},
                },
            ],
            "worker": {"app_id": self.lab.prefix, "health_port": 0, "session_timeout_s": 6, "instance_id": "one"},
            "batch_process": {"health_port": 0},
            "hand_over_process": {"health_port": 0},
            "egress_process": {"health_port": 0, "drain_timeout_s": 5, "session_timeout_s": 6},
            "egress": {
                "crm": {
                    "kind": "callback",
                    "url": f"http://127.0.0.1:{receiver}/hooks",
                    "secrets": [{"id": "k1", "value": f"file:{secret}"}],
                    "allow_http": True,
                    "allow_networks": ["127.0.0.1/32"],
                    "ports": [receiver],
                }
            },
        }
        self.config.write_text(json.dumps(document), encoding="utf-8")

    def program(self, user: str, *args: str) -> ChildProcess:
        """Return a program that comes by a name, not started yet."""
        env = {
            "PENSTOCK_KAFKA__SASL_USERNAME": user,
            "TEST_KAFKA_PASSWORD": PASSWORD,
            "TEST_API_KEY": KEY,
            "TEST_TICKET_SECRET": "t" * 32,
        }
        return ChildProcess(*args, "--config", str(self.config), env=env)

    def command(self, user: str, *args: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command to its end and return what it says."""
        with self.program(user, "gateways.cli", *args) as process:
            assert process.wait(60) in codes, f"{process.output}\n{self.denied()}"
            return process.output

    def denied(self) -> set[tuple[str, ...]]:
        """Return what the broker has refused so far."""
        return set(_DENIED.findall(self._broker.log_tail(100_000)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Guarded]:
    client, guarded, controller = (f"127.0.0.1:{free_port()}" for _ in range(3))
    users = " ".join(f'user_{name}="{PASSWORD}"' for name in rows())
    properties = {
        "listeners": f"CLIENT://{client},GUARDED://{guarded},CONTROLLER://{controller}",
        "advertised.listeners": f"CLIENT://{client},GUARDED://{guarded}",
        "controller.quorum.voters": f"1@{controller}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,GUARDED:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.guarded.plain.sasl.jaas.config":
            f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Whoever comes without a name: the broker itself, and the test.
        "super.users": "User:ANONYMOUS",
    }  # fmt: skip
    flags = (*SHORT_LIVED, "-Dorg.slf4j.simpleLogger.log.kafka.authorizer.logger=info")
    try:
        broker = JvmBroker(int(client.rpartition(":")[2]), properties, flags=flags)
    except KafkaUnavailableError as error:
        pytest.skip(f"no broker with permissions: {error}")
    try:
        broker.start()
        made = Guarded(KafkaLab(broker), broker, guarded, tmp_path)
        made.allow()
        yield made
    finally:
        broker.close()


def post(url: str, body: bytes, **headers: str) -> bytes:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    named |= {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(url, body, named, method="POST")  # noqa: S310 - our own server
    try:
        with urllib.request.urlopen(request, timeout=40) as answer:  # noqa: S310 - our own server
            content: bytes = answer.read()
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
    return content


def invoke(url: str, name: str, body: bytes, ce_type: str = "t") -> bytes:
    return post(f"{url}/v1/invoke", body, ce_type=ce_type, idempotency_key=name)


async def test_the_listed_permissions_are_enough_for_every_program(site: Guarded, tmp_path: Path) -> None:
    port_file, lines = tmp_path / "stub.port", tmp_path / "in.jsonl"
    lines.write_text('{"text": "one"}\n{"text": "two"}\n', encoding="utf-8")
    async with Receiver(answer=status(400)) as receiver:
        with ChildProcess("streams", "fm-stub", "--fail-first", "later=1", "--port-file", str(port_file)):
            stub = Stub(f"http://127.0.0.1:{await asyncio.to_thread(read_port, port_file)}")
            site.configure(stub.url, receiver.port)
            await asyncio.to_thread(_whole_way, site, lines)

    assert site.denied() == set()


def _whole_way(site: Guarded, lines: Path) -> None:
    site.command("topics", "topics", "create", "--wait", "20")
    site.command("topics", "topics", "verify")
    port_file = site.config.with_name("gateway.port")
    gateway = site.program("gateway", "gateways.cli", "gateway", "--port-file", str(port_file))
    egress = site.program("egress", "gateways.cli", "egress")
    with gateway, egress:
        url = f"http://127.0.0.1:{read_port(port_file)}"
        with site.program("worker", "streams", "worker") as worker:
            wait_for_partitions(worker)
            assert b'"succeeded"' in invoke(url, "e1", b'{"text": "now"}')
            assert b'"succeeded"' in invoke(url, "e2", b'{"text": "later"}')
            assert b'"result"' in post(f"{url}/v1/stream", b'{"text": "go"}', ce_type="t", idempotency_key="e3")
            assert b'"prompt_failed"' in invoke(url, "e4", b"{}", ce_type="strict")
            site.command("batch", "batch", "submit", str(lines), "--wait", "-o", str(lines.with_name("out.jsonl")))
            site.command("people", "dlq", "redrive", "--yes")
            eventually(lambda: "status_400" in site.command("people", "undelivered", "list"), 30)
            site.command("people", "undelivered", "redrive", "--yes")
            site.command("people", "callbacks", "disable", "crm")
            site.command("people", "tail", "events", "--from-beginning", "--no-follow")
            site.command("people", "why-stuck", codes=(0, 1, 2))
        # What differs from what should be is asked of the brokers first.
        for user, args, event in (
            ("batch", ("gateways.cli", "batch", "serve"), "batch.serving"),
            ("hand-over", ("streams", "hand-over"), "handover.serving"),
        ):
            with site.program(user, *args) as patient:
                patient.wait_for(event, 60)
                assert "topics_differ" not in patient.output
        # The next one looks at what is answered, and at what may be a repetition.
        with site.program("worker", "streams", "worker") as worker:
            wait_for_partitions(worker)
            assert b'"succeeded"' in invoke(url, "e5", b'{"text": "again"}')
        assert (gateway.process.poll(), egress.process.poll()) == (None, None)
