"""Runs one Kafka broker in a container, through testcontainers.

Blocking: start up to a minute, longer when the image has to be pulled.
"""

import contextlib
import os
import socket
from collections.abc import Iterator

import docker
from docker.errors import DockerException, ImageNotFound
from docker.models.containers import Container
from testcontainers.core.container import DockerContainer

from tests.kafkalab.broker import KafkaUnavailableError, wait_until_ready
from tests.kafkalab.jvm import DEFAULT_PROPERTIES
from tests.kafkalab.version import kafka_image
from tests.support import free_port

START_LIMIT_S = 90.0
STOP_GRACE_S = 10
ENGINE_LIMIT_S = 10
_LISTENERS = {
    "listeners": "CLIENT://:9092,CONTROLLER://:9093",
    "controller.quorum.voters": "1@localhost:9093",
    "log.dirs": "/tmp/kafka-data",  # noqa: S108 - a path inside the container
}


class ContainerBroker:
    """A Broker (see tests/kafkalab/broker.py) in a container; its port is fixed, so that it survives a restart."""

    is_ours = True

    def __init__(self) -> None:
        self._image = kafka_image()
        _ensure_image(self._image)
        self._port = free_port()
        properties = {**DEFAULT_PROPERTIES, **_LISTENERS, "advertised.listeners": f"CLIENT://{self.bootstrap}"}
        self._container = DockerContainer(self._image).with_bind_ports(9092, self._port)
        for key, value in properties.items():
            # The image's own rule: listener.name -> KAFKA_LISTENER_NAME.
            self._container.with_env(f"KAFKA_{key.upper().replace('.', '_')}", value)
        self._is_created = False

    @property
    def bootstrap(self) -> str:
        """The address for clients."""
        return f"127.0.0.1:{self._port}"

    @property
    def description(self) -> str:
        """Which broker this is."""
        return f"container {self._image}, {self.bootstrap}"

    def start(self) -> None:
        """Start the container and wait until the broker answers."""
        with _docker_errors():
            if self._is_created:
                self._wrapped.start()
            else:
                self._is_created = True
                self._container.start()
        wait_until_ready(self.bootstrap, START_LIMIT_S)

    def stop(self) -> None:
        """Stop the container; its data stays."""
        with _docker_errors():
            self._wrapped.stop(timeout=STOP_GRACE_S)

    def kill(self) -> None:
        """Kill the container's process; its data stays."""
        with _docker_errors():
            self._wrapped.kill()

    def pause(self) -> None:
        """Freeze the container."""
        with _docker_errors():
            self._wrapped.pause()

    def resume(self) -> None:
        """Let the container go on."""
        with _docker_errors():
            self._wrapped.unpause()

    def close(self) -> None:
        """Remove the container and its data; safe to call twice."""
        if self._is_created:
            self._is_created = False
            with _docker_errors():
                self._container.stop()

    @property
    def _wrapped(self) -> Container:
        return self._container.get_wrapped_container()


def _ensure_engine() -> None:
    # Asked here, because the docker package leaks its socket when nobody answers, and warnings are errors.
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    if not address.startswith("unix://"):
        return
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(ENGINE_LIMIT_S)
            probe.connect(address.removeprefix("unix://"))
    except OSError as error:
        msg = f"no Docker engine answers at {address}"
        raise KafkaUnavailableError(msg) from error


def _ensure_image(image: str) -> None:
    _ensure_engine()
    with _docker_errors():
        client = docker.from_env(timeout=ENGINE_LIMIT_S)
        try:
            client.ping()
            with contextlib.suppress(ImageNotFound):
                client.images.get(image)
                return
            client.images.pull(image)
        finally:
            client.close()


@contextlib.contextmanager
def _docker_errors() -> Iterator[None]:
    try:
        yield
    except DockerException as error:
        first_line = str(error).partition("\n")[0]
        msg = f"Docker: {first_line}"
        raise KafkaUnavailableError(msg) from error
