"""`penstock up`: gateway, worker and broker kept running for play, until Ctrl-C.

Blocking: until it is told to stop or one of its programs ends.
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import click
from pydantic import ValidationError

from contracts.settings import KafkaSettings, Settings, environment, load
from contracts.settings.environ import overrides
from gateways.cli import programs, running, throwaway
from gateways.cli.modules import command_of
from gateways.cli.stack import Stack
from gateways.listening import reached_at

FOLDER = Path("build/up")
_CHECK_INTERVAL_S = 0.3
_WARNINGS_INTERVAL_S = 3.0


def _servers(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an address here: the programs would name a variable that nobody has set."""
    try:
        return value if value is None else ",".join(KafkaSettings(bootstrap_servers=value).bootstrap_servers)
    except ValidationError as error:
        message = f"{value!r}: expected HOST:PORT, or several of them separated by commas"
        raise click.BadParameter(message) from error


@click.command()
@click.option(
    "--kafka",
    metavar="HOST:PORT",
    callback=_servers,
    help="Use this Kafka and make missing topics; else an embedded broker.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the gateway, 0 = any. [default: the configured]")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def up(kafka: str | None, port: int | None, config: Path | None) -> None:
    """Run gateway, worker and (without --kafka) an embedded broker until Ctrl-C.

    Secrets that the configuration takes from the environment and that are not set are made up for this run. `penstock
    send`, `tail`, `verify` and the other commands for people find them by themselves in the same folder.
    Ctrl-C and SIGTERM finish what is in work, such as model calls; a second one ends everything at once.

    \b
    Examples:
      penstock up
      penstock up --kafka localhost:9092 --port 9000
    """  # noqa: D301 - click's \b
    named = config or environment().get("PENSTOCK_CONFIG")
    file = programs.configuration(Path(named) if named else None)
    settings = load(file)
    port = settings.gateway.port if port is None else port
    with running.claimed() as state:
        _check_free(settings.gateway.host, port)
        FOLDER.mkdir(parents=True, exist_ok=True)
        made_up = throwaway.environment_of(settings, environment(), renew=False)
        with Stack(FOLDER, {**environment(), **made_up}) as stack, _ended_by_hand():
            connection = _connect(stack, kafka, file, settings)
            stack.lend(connection)
            stack.start(programs.gateway(file, port, settings))
            stack.start(programs.worker(file, FOLDER, settings))
            url = reached_at(settings.gateway.host, stack.wait_ready(programs.GATEWAY))
            health_port = stack.wait_ready(programs.WORKER)
            worker_url = reached_at(settings.worker.health_host, health_port)
            # Own secrets of this terminal's user stay out of the file.
            lent = {**settings_of_environment(), **made_up, **connection, "PENSTOCK_CONFIG": str(file.resolve())}
            # For `why-stuck`: the worker took any free port.
            lent["PENSTOCK_WORKER__HEALTH_PORT"] = str(health_port)
            running.publish(state, lent, url)
            click.echo(_welcome(file, url, worker_url, connection["PENSTOCK_KAFKA__BOOTSTRAP_SERVERS"], settings))
            _watch(stack, worker_url)
    click.echo("stopped")


@contextlib.contextmanager
def _ended_by_hand() -> Iterator[None]:
    """Take Ctrl-C as the wish to end; what is in work is finished first."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("\nstopping: what is in work is finished first; Ctrl-C again ends everything at once")


def settings_of_environment() -> dict[str, str]:
    """Return the variables by which this terminal overrides settings."""
    return dict(overrides(environment()).values())


def _connect(stack: Stack, kafka: str | None, file: Path, settings: Settings) -> dict[str, str]:
    """Return the variables for the Kafka to use, which is there afterwards, with its topics."""
    if kafka is None:
        stack.start(programs.broker(settings))
        click.echo(
            "embedded broker: in memory only, everything is gone when this ends; --kafka HOST:PORT uses a real one"
        )
        return programs.embedded_kafka(stack.wait_ready(programs.BROKER))
    connection = {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": kafka, "PENSTOCK_KAFKA__EMBEDDED": "false"}
    if _topics("create", file, connection) != 0:
        message = f"the topics could not be made on {kafka}"
        raise click.ClickException(message)
    if _topics("verify", file, connection) != 0:
        click.echo("the topics differ from the configuration (above); going on, since this is for play", err=True)
    return connection


def _topics(what: str, file: Path, connection: dict[str, str]) -> int:
    args = command_of("gateways.cli", "topics", what, "--config", str(file))
    return subprocess.run(args, env={**environment(), **connection}, check=False).returncode  # noqa: S603 - our own


def _check_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # A machine without IPv6 makes no such socket.
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        message = f"port {port} of {host}: {error.strerror}; choose another one with --port, 0 takes any free one"
        raise click.ClickException(message) from error


def _welcome(file: Path, url: str, worker_url: str, kafka: str, settings: Settings) -> str:
    name = running.command_name()
    source = next(iter(settings.sources), "SOURCE")
    return f"""
gateway   {url}   (webhooks: {url}/webhooks/<source>; sources: {", ".join(settings.sources) or "none"})
worker    {worker_url}   (health and metrics)
kafka     {kafka}
config    {file}
logs      {FOLDER}/*.log

In other terminals, in this folder:
  {name} tail results
  {name} send --source {source} --count 20
  curl {url}/metrics

Ctrl-C ends everything."""


def _watch(stack: Stack, worker_url: str) -> None:
    told: dict[str, str] = {}
    ask_at_s = 0.0
    while True:
        stack.check()
        if time.monotonic() >= ask_at_s:
            found = programs.warnings(worker_url)
            for slug in found.keys() - told.keys():
                click.echo(f"the worker warns, {slug}: {found[slug]}", err=True)
            for slug in told.keys() - found.keys():
                click.echo(f"the worker warns no longer: {slug}", err=True)
            told, ask_at_s = found, time.monotonic() + _WARNINGS_INTERVAL_S
        time.sleep(_CHECK_INTERVAL_S)
