"""The command line of the hand-over: `python -m streams hand-over`."""

import asyncio
import signal
from importlib.metadata import version
from pathlib import Path

import click

from contracts import logs
from contracts.metrics import BUILD_INFO
from contracts.settings import Settings, load, locating
from contracts.signals import StopSignals, end_at_once
from streams.handover.service import Service
from streams.health import HealthServer


@click.command("hand-over", context_settings={"help_option_names": ["--help", "-h"]})
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def hand_over(config: Path | None) -> None:
    """Hand patient events over to the provider's batch API, and bring the answers back.

    Until SIGTERM or Ctrl-C, which end after the step under way; a second one ends at once.
    While Kafka is away it waits.
    Reads the hand-over topic; providers say under `batch_api` how jobs are made. Run one: a second takes over.
    """
    settings = load(config)
    logs.configure(settings.logging)
    with locating(config):
        asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    service, process = Service(settings), settings.hand_over_process
    BUILD_INFO.labels(version("penstock"), "hand-over").set(1)

    def cut_short(number: signal.Signals) -> None:
        service.abandon()
        end_at_once(number)

    StopSignals(lambda _: service.stop(), cut_short).follow(asyncio.get_running_loop().add_signal_handler)
    # A process that answers lives: the end of the service is the end of the process.
    page = HealthServer("hand_over_process", process.health_host, process.health_port, list, service.unready)
    await page.start()
    try:
        click.echo(f"health on {page.address}")
        await asyncio.to_thread(service.run)
    finally:
        await page.aclose()
