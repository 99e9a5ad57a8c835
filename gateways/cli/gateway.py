"""`penstock gateway`: runs the HTTP gateway until it is told to stop.

Blocking: for the life of the process.
"""

import functools
from pathlib import Path

import click

from contracts.settings import config_file, load


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
@click.option("--port-file", type=click.Path(path_type=Path), help="Write the chosen port here once it listens.")
def gateway(config: Path | None, port_file: Path | None) -> None:
    """Run the HTTP gateway: webhooks and own events in, results to poll out.

    SIGTERM and Ctrl-C finish what is in progress; a second one ends at once.
    SIGHUP reads sources, API keys and their secrets again.

    \b
    Examples:
      penstock gateway
      PENSTOCK_GATEWAY__PORT=0 penstock gateway --port-file /tmp/port
    """  # noqa: D301 - click's \b
    settings = load(config)
    from gateways.app import run_gateway
    from gateways.reloading import ConfigFile

    run_gateway(settings, port_file, ConfigFile(config_file(config), functools.partial(load, config)))
