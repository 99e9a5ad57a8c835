"""The whole Salesforce example as processes: org stub, gateway, model, worker and the door back, on a real Kafka.

The example's own penstock.yaml is used as it is; what differs here is overridden from the environment.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from contracts.topics import Topics
from tests.examples.salesforce import CONFIG, SECRET
from tests.gateways.orgstub.lab import SECRET as APP_SECRET
from tests.gateways.orgstub.lab import OrgLab
from tests.kafka.worker_lab import wait_for_partitions
from tests.support import ChildProcess, eventually, free_port, read_port

_START_LIMIT_S = 60.0


@dataclass(frozen=True)
class Shown:
    """What became of one opportunity, by the org's own clock.

    Attributes:
        delay_s: from its creation to the first write; None when it shows nothing.
        writes: how often Penstock wrote into it.
        repeats: deliveries that found their result shown already.
    """

    delay_s: float | None
    writes: int
    repeats: int
    values: dict[str, Any]


class Stack:
    """The example's processes.

    Args:
        bootstrap: a Kafka.
        prefix: of the topics, which `topics_of` has made.
        folder: for small files.
        model: options of the model server.
    """

    def __init__(
        self, bootstrap: str, prefix: str, folder: Path, model: tuple[str, ...] = ("--latency", "0.2")
    ) -> None:
        self._folder, self._model_options = folder, model
        self._model_port = free_port()
        self._env: dict[str, str | None] = {
            "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": bootstrap,
            "PENSTOCK_KAFKA__TOPIC_PREFIX": prefix,
            "PENSTOCK_SECRET_SALESFORCE": SECRET,
            "SALESFORCE_CONSUMER_SECRET": APP_SECRET,
            "PENSTOCK_GATEWAY__PORT": "0",
            "PENSTOCK_PROVIDERS__LOCAL__KIND": "openai",
            "PENSTOCK_PROVIDERS__LOCAL__BASE_URL": f"http://127.0.0.1:{self._model_port}/v1",
            "PENSTOCK_WORKER__APP_ID": prefix,
            "PENSTOCK_WORKER__HEALTH_PORT": "0",
            "PENSTOCK_EGRESS_PROCESS__HEALTH_PORT": "0",
            # As a pod has it: who is killed and comes back has its partitions at once.
            "PENSTOCK_EGRESS_PROCESS__INSTANCE_ID": "door-0",
        }
        self._org: OrgLab | None = None
        self._model: ChildProcess | None = None
        self._egress: ChildProcess | None = None

    @property
    def org(self) -> OrgLab:
        """The org."""
        if self._org is None:
            msg = "the stack does not run"
            raise RuntimeError(msg)
        return self._org

    @contextlib.contextmanager
    def running(self) -> Iterator["Stack"]:
        """Run everything, ready."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.model_down)
            self.model_up()
            url = stack.enter_context(self._gateway())
            options = ("--callout-url", url, "--callout-secret", "env:PENSTOCK_SECRET_SALESFORCE")
            self._org = OrgLab(*options, "--callout-wait-scale", "0.02", env={"PENSTOCK_SECRET_SALESFORCE": SECRET})
            stack.callback(self.org.close)
            self.org.start()
            self.org.reset(0)
            worker = stack.enter_context(ChildProcess("streams", "worker", "--config", str(CONFIG), env=self._env))
            stack.callback(self._stop_egress)
            self.start_egress()
            wait_for_partitions(worker)
            yield self

    @contextlib.contextmanager
    def _gateway(self) -> Iterator[str]:
        port_file = self._folder / "gateway.port"
        args = ("gateways.cli", "gateway", "--config", str(CONFIG), "--port-file", str(port_file))
        with ChildProcess(*args, env=self._env):
            yield f"http://127.0.0.1:{read_port(port_file, _START_LIMIT_S)}"

    def model_up(self) -> None:
        """Start the model server, on its one port."""
        args = ("streams", "fm-stub", "--port", str(self._model_port), *self._model_options)
        self._model = ChildProcess(*args).__enter__()
        self._model.wait_for(r"^listening on ", _START_LIMIT_S)

    def model_down(self) -> None:
        """Kill it: connections are refused from now on."""
        if self._model is not None:
            self._model.signal(signal.SIGKILL)
            self._model.stop()
            self._model = None

    @staticmethod
    def pause(duration_s: float) -> None:
        """Let an outage last."""
        threading.Event().wait(duration_s)

    def start_egress(self) -> None:
        """Start the door back to the org."""
        env = self._env | {
            "PENSTOCK_EGRESS__OPPORTUNITIES__LOGIN__URL": self.org.url,
            "PENSTOCK_EGRESS__OPPORTUNITIES__LOGIN__CONSUMER_KEY": "consumer-key",
            "PENSTOCK_EGRESS__OPPORTUNITIES__CA_FILE": str(self.org.ca_file),
        }
        self._egress = ChildProcess("gateways.cli", "egress", "--config", str(CONFIG), env=env).__enter__()
        self._egress.wait_for(r"^delivering opportunities", _START_LIMIT_S)

    def kill_egress(self) -> None:
        """Kill the door back in the middle of what it does, and start it again."""
        if self._egress is not None:
            self._egress.signal(signal.SIGKILL)
            self._egress.stop()
        self.start_egress()

    def _stop_egress(self) -> None:
        if self._egress is not None:
            self._egress.stop()

    def shown(self) -> dict[str, Shown]:
        """Return what the org shows, by opportunity."""
        return {record["id"]: _shown(record) for record in self.org.state()["records"]}

    def wait_until_all_show(self, within_s: float) -> dict[str, Shown]:
        """Return what the org shows once every opportunity has its summary.

        Raises:
            NotReachedError: one has none in time.
        """
        eventually(lambda: all(one.writes for one in self.shown().values()), within_s)
        return self.shown()


def _shown(record: dict[str, Any]) -> Shown:
    ours = [write for write in record["writes"] if "Penstock_Result__c" in write["values"]]
    delay_s = ours[0]["at_s"] - record["created_s"] if ours else None
    repeats = record["reads"] - record["lockouts"] - len(ours)
    return Shown(delay_s, len(ours), repeats, record["values"])


@contextlib.contextmanager
def topics_of(bootstrap: str, prefix: str, partitions: int = 4) -> Iterator[str]:
    """Make the topics of an installation, and delete them afterwards."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    topics = Topics(prefix).table(has_doors=True)
    wanted = [NewTopic(topic.name, partitions, 1, config=topic.config()) for topic in topics]
    for future in admin.create_topics(wanted).values():
        future.result(30)
    try:
        yield prefix
    finally:
        for future in admin.delete_topics([topic.topic for topic in wanted]).values():
            future.result(30)
