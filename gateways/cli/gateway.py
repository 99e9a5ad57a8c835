"""`penstock gateway`: runs the HTTP gateway until it is told to stop.

Blocking: for the life of the process.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from contracts.settings import Settings, Unusable, config_file, load, located, locating, require_secrets
from contracts.settings.load import missing_secrets
from gateways.cli.modules import command_of

if TYPE_CHECKING:
    from gateways.member import Member


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
@click.option("--port-file", type=click.Path(path_type=Path), help="Write the chosen port here once it listens.")
@click.option(
    "--processes", type=click.IntRange(1, 64), help="Processes that share the port. [default: the configured]"
)
@click.option("--member", hidden=True, help="For the supervisor of --processes.")
def gateway(config: Path | None, port_file: Path | None, processes: int | None, member: str | None) -> None:
    """Run the HTTP gateway: webhooks and own events in, results to poll out.

    SIGTERM and Ctrl-C finish what is in progress; a second one ends at once.
    SIGHUP reads sources, API keys and their secrets again.

    \b
    Examples:
      penstock gateway
      PENSTOCK_GATEWAY__PORT=0 penstock gateway --port-file /tmp/port
      penstock gateway --processes 4
    """  # noqa: D301 - click's \b
    settings = load(config)
    _require_secrets(settings, config)
    if member is not None:
        _run_member(settings, config, member)
    elif (processes or settings.gateway.processes) > 1:
        from gateways.supervisor import supervise

        with locating(config):
            sys.exit(supervise(settings, processes or settings.gateway.processes, _command(config), port_file))
    else:
        _run(settings, config, port_file)


def _require_secrets(settings: Settings, config: Path | None) -> None:
    """Refuse to start without secrets, and tell of those that are there and cannot be used at the same time."""
    missing = missing_secrets(settings, settings.secret_places("gateway"))
    if missing:
        from gateways.ingress.secrets import SecretStore
        from gateways.parts import sender_problems

        reading = SecretStore(settings.secrets_manager).reading()
        unusable = sender_problems(settings, reading, [place for place, _ in missing])
        raise located(Unusable([*missing, *unusable]), config)


def _command(config: Path | None) -> tuple[str, ...]:
    chosen = () if config is None else ("--config", str(config))
    return command_of("gateways.cli", "gateway", *chosen)


def _run_member(settings: Settings, config: Path | None, text: str) -> None:
    from gateways.member import Member, share_metrics

    member = Member.parse(text)
    # Before anything makes a metric.
    share_metrics(member.number)
    _run(settings, config, None, member)


def _run(settings: Settings, config: Path | None, port_file: Path | None, member: "Member | None" = None) -> None:
    from gateways.app import run_gateway
    from gateways.reloading import RELOADED, ConfigFile

    def own(settings: Settings) -> Settings:
        return settings if member is None else member.settings(settings)

    def again() -> Settings:
        newer = load(config)
        # What a reload reads; the other secrets were read at the start, and may be gone.
        places = newer.secret_places("gateway")
        require_secrets(newer, [one for one in places if one[:1] in RELOADED or one[:2] in RELOADED], config)
        return own(newer)

    with locating(config):
        run_gateway(own(settings), port_file, ConfigFile(config_file(config), again), member)
