"""One installation for chaos: topics, configuration, model server, gateway."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from contracts.settings import KafkaSettings
from contracts.topics import Topics
from producers.admin import TopicAdmin
from tests.kafkalab.commits import Commits
from tests.stub import Stub
from tests.support import ChildProcess, eventually, read_port

PARTITIONS = 6
LANES = ("interactive", "standard")
SESSION_S = 6.0
# The mock cluster answers the first join after 3 s, and forgets a member that waits for that longer than its session:
# then it answers never (with 2 s always; with 3 s now and then, on a busy machine).
EMBEDDED_SESSION_S = 4.5
SLOTS = 24
# Of the model, half of the calls; the others take longer than the mean would say.
LATENCY_S = 0.2
SECRET = "chaos-secret-0123456789abcdef"
SOURCE = "chaos"
ADMIN_LIMIT_S = 30.0
# In the text of an event; the model refuses it, as real ones refuse some prompts.
POISON = "POISON"
# Types of events of a mixed run: several in one call, and free of order, with long waits on the retry topic.
PACKED, FREE = "chaos.packed", "chaos.free"


class Lab:
    """Names, topics and configuration on given brokers.

    Args:
        replicas: of every topic.
        embedded: on the mock cluster, whose topics somebody else makes, and where a rejoin takes most of a session.
    """

    def __init__(self, bootstrap: str, prefix: str, folder: Path, *, replicas: int = 1, embedded: bool = False) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.folder = folder
        self.partitions = PARTITIONS
        self._session_s = EMBEDDED_SESSION_S if embedded else SESSION_S
        self.topics = Topics(prefix)
        self.sources = tuple(self.topics.events(lane) for lane in LANES)
        self.config = folder / "penstock.yaml"
        self._replicas = replicas
        self._embedded = embedded
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._commits = Commits(bootstrap, prefix)
        self._ids: dict[str, int] = {}

    def configure(self, model_url: str) -> None:
        """Write the configuration."""
        template = {
            "signature_header": "x-chaos-signature",
            "timestamp_header": "x-chaos-timestamp",
            "signed": "{timestamp}.{body}",
        }
        source = {
            "scheme": "hmac",
            "hmac": template,
            "secrets": [{"id": "one", "value": "env:PENSTOCK_CHAOS_SECRET"}],
            "type": "chaos.event",
            "id": "json:/id",
            "key": "json:/key",
        }
        urgent = {"name": "urgent", "match": {"type": "chaos.urgent"}, "deadline_s": 6, **_ROUTE}
        document = {
            "version": 1,
            "kafka": {
                "bootstrap_servers": self.bootstrap,
                "topic_prefix": self.prefix,
                "embedded": self._embedded,
            },
            "gateway": {"port": 0, "ack_timeout_s": 4},
            "sources": {SOURCE: source},
            "providers": {"p": {"kind": "openai", "base_url": f"{model_url}/v1"}},
            "models": {"m": {"provider": "p", "model": "m-1"}},
            "routes": [urgent, *_MIXED, {"name": "usual", "deadline_s": 900, **_ROUTE}],
            "worker": {
                "app_id": self.prefix,
                "lanes": list(LANES),
                "max_in_flight": SLOTS,
                "commit_interval_s": 0.5,
                "session_timeout_s": self._session_s,
                "rebalance_timeout_s": 20,
                "drain_timeout_s": 10,
                "health_port": 0,
            },
        }
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def create(self, *names: str) -> None:
        """Create topics, all that a worker needs when none is named; waits while the last ones are still going.

        The mock cluster cannot be asked to.
        """
        if self._embedded:
            return
        wanted = names or tuple(topic.name for topic in self.topics.table())
        topics = [NewTopic(name, self.partitions, self._replicas) for name in wanted]

        def created() -> bool:
            futures = self.admin.create_topics(topics, operation_timeout=ADMIN_LIMIT_S)
            return all(_done(future, KafkaError.TOPIC_ALREADY_EXISTS) for future in futures.values())

        eventually(created, ADMIN_LIMIT_S)
        eventually(lambda: self._have_leaders(wanted), ADMIN_LIMIT_S)
        self._ids = TopicAdmin(KafkaSettings(bootstrap_servers=(self.bootstrap,)), ADMIN_LIMIT_S).ids(self.sources)

    def _have_leaders(self, names: Sequence[str]) -> bool:
        found = self.admin.list_topics(timeout=5).topics
        return all(
            name in found and len(found[name].partitions) == self.partitions and found[name].error is None
            for name in names
        )

    def recreate(self, *names: str) -> None:
        """Delete topics and create them again."""
        for future in self.admin.delete_topics(list(names), operation_timeout=ADMIN_LIMIT_S).values():
            future.result(ADMIN_LIMIT_S)
        # Creating answers "exists already" until the deletion is through, so it is not taken for success here.
        eventually(lambda: not set(names) & set(self.admin.list_topics(timeout=5).topics), ADMIN_LIMIT_S)
        self.create(*names)

    def remove_topics(self) -> None:
        """Delete all of them, on a broker that others go on using."""
        names = [topic.name for topic in self.topics.table()]
        for future in self.admin.delete_topics(names, operation_timeout=ADMIN_LIMIT_S).values():
            _done(future, KafkaError.UNKNOWN_TOPIC_OR_PART)

    def committed(self) -> dict[tuple[str, int], int]:
        """Return what the group has committed."""
        return self._commits.read((*self.sources, self.topics.retries), range(self.partitions), self._ids)

    def reset(self, starts: dict[tuple[str, int], int]) -> None:
        """Set the group back, as an operator's tool does; waits until nobody is in it."""
        partitions = [TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()]

        def changed() -> bool:
            request = ConsumerGroupTopicPartitions(self.prefix, partitions)
            answer = self.admin.alter_consumer_group_offsets([request])[self.prefix]
            # A static member that has ended is in the group until its session is over: a refusal of each partition.
            return _done(answer) and all(found.error is None for found in answer.result().topic_partitions)

        eventually(changed, ADMIN_LIMIT_S)

    def gateway(self) -> ChildProcess:
        """Return a gateway, not started; `port_file` tells where it will listen."""
        options = ("--config", str(self.config), "--port-file", str(self.folder / "gateway.port"))
        return ChildProcess("gateways.cli", "gateway", *options, env={"PENSTOCK_CHAOS_SECRET": SECRET})

    def worker(self, name: str, instance_id: str | None) -> ChildProcess:
        """Return a worker, not started; it calls the model by its own name, so that results say who made them."""
        env = {"PENSTOCK_CHAOS_SECRET": SECRET, "PENSTOCK_MODELS__M__MODEL": name}
        if instance_id:
            env["PENSTOCK_WORKER__INSTANCE_ID"] = instance_id
        return ChildProcess("streams", "worker", "--config", str(self.config), env=env, grace_s=25)


_ROUTE: dict[str, Any] = {
    "prompt": {"user": "{{ text }}"},
    "model": "m",
    "attempt_timeout_s": 4,
    # Three failures that may have been billed bury an event by default: none that is healthy is to be buried here.
    "retry": {"max_attempts": 40, "base_s": 0.2, "max_s": 2, "timeout": {"max_attempts": 40}},
}

_MIXED: list[dict[str, Any]] = [
    {
        "name": "packed",
        "match": {"type": PACKED},
        "deadline_s": 900,
        **_ROUTE,
        "output_schema": {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]},
        "batch": {"kind": "pack", "max_events": 4, "max_wait_s": 0.2},
    },
    {
        "name": "free",
        "match": {"type": FREE},
        "deadline_s": 900,
        **_ROUTE,
        "order": "none",
        "retry": {**_ROUTE["retry"], "park_after_s": 0.05},
    },
]


def _done(future: Any, *fine: int) -> bool:
    try:
        future.result(ADMIN_LIMIT_S)
    except KafkaException as error:
        return error.args[0].code() in fine
    return True


class Model:
    """The model server: `fm-stub` in a process of its own.

    Args:
        folder: for its port file.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self._port_file = folder / "model.port"
        options = ("--latency", str(LATENCY_S), "--latency-sigma", "0.5", "--seed", str(seed))
        knobs = folder / "knobs.json"
        scripted = {POISON: {"times": 10**9, "kind": "validation"}}
        knobs.write_text(json.dumps({"fail_first": scripted}), encoding="utf-8")
        self.process = ChildProcess(
            "streams", "fm-stub", *options, "--knobs", str(knobs), "--port-file", str(self._port_file)
        )
        self.url = ""

    def start(self) -> None:
        """Start it."""
        self.process.__enter__()
        self.url = f"http://127.0.0.1:{read_port(self._port_file)}"

    def set_faults(self, rates: dict[str, float]) -> None:
        """Set the share of calls that fail, by kind; none ends it."""
        Stub(self.url).http("PATCH", "/_stub/knobs", {"error_rates": rates})

    def stats(self) -> dict[str, Any]:
        """Return what it has served."""
        return Stub(self.url).stats()
