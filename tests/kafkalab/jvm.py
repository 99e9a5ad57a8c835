"""Runs one Kafka broker (KRaft, combined mode) as a JVM of ours, from the jars.

Blocking: start 3 to 10 s, stop up to 10 s.
Writes: a temporary folder, removed by `close`.
"""

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.kafkalab.broker import KafkaUnavailableError, wait_until_ready
from tests.kafkalab.jars import find_java, jar_folder
from tests.kafkalab.version import kafka_version
from tests.support import Leash, end_group, eventually, free_port

START_LIMIT_S = 60.0
STOP_GRACE_S = 10.0
# For a broker that lives for minutes and has little to do: what C2 and the threads of G1 would make faster costs more
# CPU than it saves (start and stop: 4.8 s of CPU instead of 8.3), and so does looking whether the jars' code is sound
# (a fifth of what is left). A benchmark's broker has neither.
SHORT_LIVED = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",
)
# Four partitions as in the embedded broker, and nothing appears because of a misspelt topic name.
DEFAULT_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "CLIENT",
    "num.partitions": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # After a kill the broker waits for its own old session to end before it serves again: 13 s with the defaults.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Fault tests use short sessions, to see a rebalance within seconds.
    "group.min.session.timeout.ms": "1000",
}


class JvmBroker:
    """A Broker (see tests/kafkalab/broker.py) in one JVM.

    Args:
        port: where clients connect on 127.0.0.1; 0 takes a free one.
        properties: server properties over the defaults above.
        cluster_id: for a broker of a cluster; a new one when absent.
        flags: more options for Java.
    """

    is_ours = True

    def __init__(
        self,
        port: int = 0,
        properties: Mapping[str, str] | None = None,
        *,
        cluster_id: str | None = None,
        flags: tuple[str, ...] = (),
    ) -> None:
        self._cluster_id = cluster_id or new_cluster_id()
        self._flags = flags
        self._version = kafka_version()
        self._java = find_java()
        self._jars = jar_folder(self._version)
        self._port = port or free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: Leash | None = None
        self._write_properties(properties or {})

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def description(self) -> str:
        """Which broker this is."""
        return f"Apache Kafka {self._version} from its jars, one JVM, {self.bootstrap}"

    @property
    def pid(self) -> int | None:
        """Process id of the JVM; None when it does not run."""
        return self._process.pid if self._process else None

    @property
    def data(self) -> Path:
        """Folder of its logs: one folder per partition, with the segments."""
        return self._folder / "data"

    def start(self) -> None:
        """Start the JVM and wait until it answers."""
        if self._process is None:
            self._wait_until_ready(self.launch())

    def launch(self) -> "subprocess.Popen[bytes]":
        """Start the JVM and do not wait: a cluster answers only once most of its brokers run."""
        if self._process is not None:
            return self._process
        if not (self.data / "meta.properties").exists():
            self._format()
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._properties_path)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._leash = Leash(self._process.pid)
        return self._process

    def stop(self) -> None:
        """Stop the JVM with SIGTERM, after 10 s with SIGKILL."""
        self._end(STOP_GRACE_S)

    def kill(self) -> None:
        """Stop the JVM with SIGKILL."""
        if self._process is not None:
            self._process.kill()
        self._end(STOP_GRACE_S)

    def pause(self) -> None:
        """Freeze the JVM with SIGSTOP."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the JVM go on with SIGCONT."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End the JVM and remove its folder; safe to call twice."""
        self._end(STOP_GRACE_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    def wait(self) -> int:
        """Block until the JVM ends by itself, and return its exit code."""
        if self._process is None:
            msg = "the broker does not run"
            raise KafkaUnavailableError(msg)
        return self._process.wait()

    def log_tail(self, lines: int = 8) -> str:
        """Return the last lines of the broker's log."""
        text = self._log_path.read_text("utf-8", errors="replace") if self._log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    @property
    def _properties_path(self) -> Path:
        return self._folder / "server.properties"

    @property
    def _log_path(self) -> Path:
        return self._folder / "broker.log"

    def _write_properties(self, overrides: Mapping[str, str]) -> None:
        controller = f"127.0.0.1:{free_port()}"
        values = {
            **DEFAULT_PROPERTIES,
            "listeners": f"CLIENT://{self.bootstrap},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENT://{self.bootstrap}",
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data),
            **overrides,
        }
        text = "".join(f"{key}={value}\n" for key, value in values.items())
        self._properties_path.write_text(text, encoding="utf-8")

    def _command(self, *main_and_args: str) -> tuple[str, ...]:
        # The star is for java: it expands to the jars of the folder.
        flags = ("-Xms256m", "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
        return (self._java, *flags, *self._flags, "-cp", f"{self._jars}/*", *main_and_args)

    def _format(self) -> None:
        tool = (
            "kafka.tools.StorageTool",
            "format",
            "--cluster-id",
            self._cluster_id,
            "--config",
            str(self._properties_path),
        )
        run = subprocess.run(self._command(*tool), capture_output=True, text=True, check=False)
        if run.returncode != 0:
            msg = f"Kafka could not format its folder: {(run.stderr or run.stdout).strip()}"
            raise KafkaUnavailableError(msg)

    def _wait_until_ready(self, process: "subprocess.Popen[bytes]") -> None:
        def listens_or_ended() -> bool:
            if process.poll() is not None:
                return True
            with contextlib.suppress(KafkaUnavailableError):
                wait_until_ready(self.bootstrap, within_s=0.5)
                return True
            return False

        eventually(listens_or_ended, START_LIMIT_S)
        if process.poll() is not None:
            self._end(0.0)
            msg = f"the broker's JVM ended at once, its log says:\n{self.log_tail()}"
            raise KafkaUnavailableError(msg)

    def _end(self, grace_s: float) -> None:
        process, leash = self._process, self._leash
        self._process = self._leash = None
        if process is not None:
            end_group(process, grace_s)
        if leash is not None:
            leash.release()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)


def new_cluster_id() -> str:
    """Return a random id for a cluster."""
    # Kafka wants 22 characters of URL-safe base64, and none that starts with a dash (its own generator's rule).
    return "A" + base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")[1:]
