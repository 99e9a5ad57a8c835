"""Runs a real Kafka broker in the foreground: `make kafka`, or `python -m tests.kafkalab --port 9092`.

Blocking: until Ctrl-C, SIGTERM, or the end of the broker.
"""

import signal
import socket
import sys
from types import FrameType
from typing import Never

import click

from tests.kafkalab.broker import KafkaUnavailableError
from tests.kafkalab.jvm import JvmBroker


@click.command()
@click.option("--port", default=9092, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
def main(port: int) -> None:
    """Run Apache Kafka (KRaft, one JVM, data in a temporary folder) until Ctrl-C."""
    signal.signal(signal.SIGTERM, _end)
    try:
        _run(port)
    except KafkaUnavailableError as error:
        click.echo(f"kafka: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("kafka: stopped, its data is gone")


def _run(port: int) -> None:
    _check_free(port)
    click.echo("kafka: starting (the first time fetches its jars)")
    broker = JvmBroker(port)
    try:
        broker.start()
        click.echo(f"kafka: listening on {broker.bootstrap} ({broker.description}); Ctrl-C stops it")
        code = broker.wait()
        click.echo(f"kafka: the broker ended with code {code}, its log says:\n{broker.log_tail()}", err=True)
        sys.exit(1)
    finally:
        broker.close()


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        # A port in TIME_WAIT is free for a server that sets this, as Java does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            msg = f"port {port} is in use: choose another one, for example `make kafka PORT={port + 1}`"
            raise KafkaUnavailableError(msg) from error


def _end(_number: int, _frame: FrameType | None) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m tests.kafkalab")
