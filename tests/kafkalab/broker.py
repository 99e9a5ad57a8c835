"""What every way of getting a Kafka broker offers to tests and to fault injection."""

import contextlib
import socket
import time
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.support import POLL_INTERVAL_S


class KafkaUnavailableError(Exception):
    """Raise when this way of getting a broker does not work here; the text says why, for a person."""


class Broker(Protocol):
    """One running broker; every method blocks until its effect holds, or raises KafkaUnavailableError."""

    @property
    def bootstrap(self) -> str:
        """The address for clients, `host:port`; the same after a restart."""
        ...

    @property
    def description(self) -> str:
        """One phrase for reports: which way, which version, where."""
        ...

    @property
    def is_ours(self) -> bool:
        """Whether it was started here, so that faults may be injected: all methods below need it."""
        ...

    def start(self) -> None:
        """Start it again after `stop` or `kill`, with its data; nothing happens when it runs."""
        ...

    def stop(self) -> None:
        """Stop it in an orderly way; the data stays."""
        ...

    def kill(self) -> None:
        """Stop it at once, as a crash would."""
        ...

    def pause(self) -> None:
        """Freeze it: connections stay open and nothing answers."""
        ...

    def resume(self) -> None:
        """Let it go on after `pause`."""
        ...

    def close(self) -> None:
        """End it for good and remove its data."""
        ...


def wait_until_ready(bootstrap: str, within_s: float) -> None:
    """Block until the broker answers a metadata request.

    Raises:
        KafkaUnavailableError: after `within_s` seconds.
    """
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        # librdkafka complains on stderr about every refused connection, so knock first.
        if _is_listening(bootstrap) and _answers(bootstrap):
            return
        time.sleep(POLL_INTERVAL_S)
    msg = f"Kafka at {bootstrap} does not answer within {within_s:g} s"
    raise KafkaUnavailableError(msg)


def _is_listening(bootstrap: str) -> bool:
    host, _, port = bootstrap.partition(",")[0].rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
        return True
    return False


def _answers(bootstrap: str) -> bool:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    with contextlib.suppress(KafkaException):
        return bool(admin.list_topics(timeout=2.0).brokers)
    return False
