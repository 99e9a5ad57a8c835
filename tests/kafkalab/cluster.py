"""Three Kafka brokers (KRaft, combined mode) from the jars, for faults that one broker cannot have.

Blocking: start 5 to 20 s.
Writes: a temporary folder per broker, removed by `close`.
"""

import contextlib
import time

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafkalab.broker import KafkaUnavailableError
from tests.kafkalab.jvm import SHORT_LIVED, JvmBroker, new_cluster_id
from tests.kafkalab.version import kafka_version
from tests.support import free_port

START_LIMIT_S = 90.0
# Small and quick to start: chaos needs brokers that come and go, not throughput.
JAVA_FLAGS = ("-Xms64m", "-Xmx256m", *SHORT_LIVED)
_NEARBY = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
# Replicas 3, of which 2 must have a record before it is acknowledged: one broker may go at any time.
SAFE = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "share.coordinator.state.topic.replication.factor": "3",
    "share.coordinator.state.topic.min.isr": "2",
    "replica.lag.time.max.ms": "5000",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.fetch.timeout.ms": "2000",
}


class JvmCluster:
    """Brokers and controllers 1 to 3 on 127.0.0.1, each a JVM that can be stopped, killed or frozen alone.

    Args:
        has_racks: broker 1 stands in `zone-1`, and so on; consumers that say where they run read from a replica there.
        flags: more options for Java.
    """

    def __init__(self, *, has_racks: bool = False, flags: tuple[str, ...] = ()) -> None:
        controllers = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        voters = ",".join(f"{number}@{address}" for number, address in enumerate(controllers, 1))
        cluster_id = new_cluster_id()
        self.brokers = []
        for number, controller in enumerate(controllers, 1):
            port = free_port()
            own = {
                "node.id": str(number),
                "listeners": f"CLIENT://127.0.0.1:{port},CONTROLLER://{controller}",
                "controller.quorum.voters": voters,
            }
            if has_racks:
                own |= {"broker.rack": f"zone-{number}", "replica.selector.class": _NEARBY}
            broker = JvmBroker(port, {**SAFE, **own}, cluster_id=cluster_id, flags=(*JAVA_FLAGS, *flags))
            self.brokers.append(broker)
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers)
        self.description = f"Apache Kafka {kafka_version()} from its jars, three JVMs, {self.bootstrap}"

    def start(self) -> None:
        """Start what does not run, and wait until all three brokers are in the metadata.

        Raises:
            KafkaUnavailableError: they are not within 90 s.
        """
        for broker in self.brokers:
            broker.launch()
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        end_s = time.monotonic() + START_LIMIT_S
        while time.monotonic() < end_s:
            with contextlib.suppress(KafkaException):
                if len(admin.list_topics(timeout=2.0).brokers) == len(self.brokers):
                    return
            # Refused connections are answered at once.
            time.sleep(0.2)
        msg = f"the cluster is not complete within {START_LIMIT_S:g} s:\n{self.brokers[0].log_tail()}"
        raise KafkaUnavailableError(msg)

    def close(self) -> None:
        """End all brokers and remove their folders."""
        for broker in self.brokers:
            broker.kill()
            broker.close()
