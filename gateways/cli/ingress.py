"""`penstock ingress`: runs the doors that fetch events from queues, until it is told to stop.

Blocking: for the life of the process.
"""

from pathlib import Path

import click

from contracts.settings import load, locating


@click.command()
@click.argument("names", nargs=-1)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def ingress(names: tuple[str, ...], config: Path | None) -> None:
    """Run the doors of section `ingress` (Amazon SQS): all of them, or those named.

    SIGTERM and Ctrl-C finish what is in progress; a second one ends at once.

    \b
    Examples:
      penstock ingress
      penstock ingress orders uploads --config /etc/penstock.yaml
    """  # noqa: D301 - click's \b
    settings = load(config)
    from gateways.ingress.runner import run_doors
    from gateways.openapi import package_version

    with locating(config):
        run_doors(settings, names, package_version())
