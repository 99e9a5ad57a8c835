"""The programs that `demo` and `up` start, and the variables that tie them together."""

from pathlib import Path

from contracts.settings import Settings
from contracts.settings.load import DEFAULT_FILE
from contracts.topics import Topics
from gateways.cli.stack import Program

# As many as the embedded broker gives a topic that appears by itself: every client then sees the same.
EMBEDDED_PARTITIONS = 4
BROKER = "broker"
STUB = "fm-stub"
GATEWAY = "gateway"
WORKER = "worker"


def configuration(config: Path | None) -> Path:
    """Return the file asked for, or ./penstock.yaml, or the one of the checkout that this code stands in."""
    if config is not None:
        return config
    checkout = Path(__file__).resolve().parents[2] / DEFAULT_FILE
    return checkout if checkout.is_file() and not Path(DEFAULT_FILE).is_file() else Path(DEFAULT_FILE)


def broker(settings: Settings) -> Program:
    """Return the embedded broker, with all topics there from the start."""
    outputs = frozenset(route.output_topic for route in settings.routes if route.output_topic)
    topics = Topics(settings.kafka.topic_prefix).table(outputs, has_doors=bool(settings.egress))
    wanted = [part for topic in topics for part in ("--topic", f"{topic.name}:{EMBEDDED_PARTITIONS}")]
    return Program(BROKER, ("gateways.cli", "broker", *wanted), ready_path="")


def stub() -> Program:
    """Return the stand-in for model servers."""
    return Program(STUB, ("streams", "fm-stub", "--port", "0"), ready_path="/healthz")


def gateway(config: Path, port: int) -> Program:
    """Return the HTTP gateway; port 0 is any free one."""
    return Program(
        GATEWAY, ("gateways.cli", "gateway", "--config", str(config)), environ={"PENSTOCK_GATEWAY__PORT": str(port)}
    )


def worker(config: Path, folder: Path) -> Program:
    """Return a worker; Faust makes a data folder even when there is nothing to put into it: below `folder`."""
    environ = {"PENSTOCK_WORKER__HEALTH_PORT": "0", "APP_DATADIR": str(folder / "faust")}
    return Program(WORKER, ("streams", "worker", "--config", str(config)), environ=environ)


def embedded_kafka(port: int) -> dict[str, str]:
    """Return the variables that point every program at the embedded broker."""
    return {
        "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
        "PENSTOCK_KAFKA__EMBEDDED": "true",
        "PENSTOCK_KAFKA__SECURITY_PROTOCOL": "PLAINTEXT",
    }
