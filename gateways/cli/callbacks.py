"""`penstock callbacks`: make signing keys, see how endpoints fare, disable and enable them.

Reads and writes: endpoints. Blocking: up to 15 s for Kafka.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import click

from contracts.codec import encodable
from contracts.envelope import format_time
from contracts.errors import ConfigError, LogUnavailable
from contracts.payloads import EndpointState, EndpointStatus
from contracts.settings import Settings, SourceSecret, load
from contracts.settings.egress import CallbackDoor
from contracts.topics import Topics
from gateways.cli.dlq_units import operator
from gateways.egress.board import KafkaBoard
from gateways.egress.notify_signing import Ed25519Signer, new_ed25519_pair, new_hmac_secret, resolve_keys
from gateways.egress.reading import reader_config

_LIMIT_S = 15.0
_FILE = click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
_WHY = click.option("--why", default="operator", show_default=True, help="Reason that is kept with it.")


@click.group()
def callbacks() -> None:
    """Make signing keys for callbacks; list, disable and enable their endpoints."""


@callbacks.command()
@click.option(
    "--kind",
    type=click.Choice(["v1", "v1a"]),
    default="v1",
    show_default=True,
    help="v1: one secret for both sides, known to every library. v1a: a key pair, the receiver gets the public half.",
)
def keygen(kind: str) -> None:
    """Make a signing key. The secret goes to standard output, and nothing else does.

    \b
    Examples:
      penstock callbacks keygen > crm.secret
      penstock callbacks keygen --kind v1a > crm.secret
    """  # noqa: D301 - click's \b
    if kind == "v1":
        click.echo(new_hmac_secret())
        click.echo("Give the receiver the same secret.", err=True)
        return
    secret, public = new_ed25519_pair()
    click.echo(secret)
    click.echo(f"Give the receiver the public key: {public}", err=True)


@callbacks.command("list")
@_FILE
def list_endpoints(config: Path | None) -> None:
    """Show the endpoints of the configuration.

    Of each its state, since when and why, and the keys that sign now.
    """
    settings = load(config)
    doors = _doors(settings)
    if not doors:
        click.echo("no callback endpoints in the configuration (a section under egress with kind: callback)", err=True)
        return
    states = asyncio.run(_states(settings))
    for name, door in doors.items():
        state = states.get(name)
        told = "active" if state is None else f"{state.status} since {state.since}: {state.reason} ({state.by})"
        click.echo(f"{name}  {told}\n  url  {door.url}")
        for secret in door.secrets:
            click.echo(f"  key  {secret.id}  {_key(name, secret)}")


@callbacks.command()
@click.argument("name")
@_WHY
@_FILE
def enable(name: str, why: str, config: Path | None) -> None:
    """Let an endpoint have callbacks again. What was refused meanwhile lies on the undelivered topic."""
    _write(load(config), name, "active", why)


@callbacks.command()
@click.argument("name")
@_WHY
@_FILE
def disable(name: str, why: str, config: Path | None) -> None:
    """Send an endpoint no more callbacks. They go to the undelivered topic."""
    _write(load(config), name, "disabled", why)


def _doors(settings: Settings) -> dict[str, CallbackDoor]:
    return {name: door for name, door in settings.egress.items() if isinstance(door, CallbackDoor)}


def _key(name: str, secret: SourceSecret) -> str:
    try:
        (key,) = resolve_keys(f"egress.{name}", (secret,))
    except ConfigError:
        # This machine need not have the secrets.
        return "not readable here"
    kind = f"v1a  {key.signer.public_key}" if isinstance(key.signer, Ed25519Signer) else "v1"
    return kind if secret.is_valid_at(datetime.now(UTC)) else f"{kind}  does not sign now"


async def _states(settings: Settings) -> dict[str, EndpointState]:
    topic = Topics(settings.kafka.topic_prefix).endpoints
    board = KafkaBoard(reader_config(settings.kafka, "penstock-callbacks"), topic, _nothing, settings.worker.app_id)
    board.start()
    try:
        if not await board.ready(_LIMIT_S):
            message = "the endpoints' states cannot be read: Kafka does not answer"
            raise LogUnavailable(message)
        return board.states()
    finally:
        board.close()


async def _nothing(_record: object) -> None:
    """Produce nothing: this board only reads."""


def _write(settings: Settings, name: str, status: EndpointStatus, why: str) -> None:
    doors = _doors(settings)
    if name not in doors:
        message = f"no callback endpoint {name!r}; there are: {', '.join(doors) or 'none'}"
        raise click.ClickException(message)
    now = format_time(datetime.now(UTC))
    state = EndpointState(name=name, status=status, since=now, reason=encodable(why)[:200], by=operator())
    asyncio.run(_put(settings, state))
    click.echo(f"{name} is {status}; every running process follows within seconds", err=True)


async def _put(settings: Settings, state: EndpointState) -> None:
    from producers.producer import KafkaProducer

    producer = KafkaProducer(
        settings.kafka, settings.producer, client_id="penstock-callbacks", delivery_timeout_s=_LIMIT_S
    )
    await producer.start()
    try:
        topic = Topics(settings.kafka.topic_prefix).endpoints
        await KafkaBoard({}, topic, producer.produce, settings.worker.app_id).put(state)
    finally:
        await producer.aclose()
