"""The command line of the hand-over: `python -m streams hand-over`."""

from pathlib import Path

import click

from contracts import logs
from contracts.settings import load
from contracts.signals import StopSignals
from streams.handover.service import Service


@click.command("hand-over")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def hand_over(config: Path | None) -> None:
    """Hand patient events over to the provider's batch API, and bring the answers back, until SIGTERM.

    Reads the hand-over topic; providers say under `batch_api` how jobs are made. Run one: a second takes over.
    """
    settings = load(config)
    logs.configure(settings.logging)
    service = Service(settings)
    with StopSignals(lambda _: service.stop()).taken():
        service.run()
