"""`penstock egress`: runs the doors out until it is told to stop.

Blocking: for the life of the process.
"""

from pathlib import Path

import click

from contracts.settings import Settings, load, locating, require_secrets

_FLUSH_TIMEOUT_S = 10.0


@click.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def egress(names: tuple[str, ...], config: Path | None) -> None:
    """Run the doors out of the section `egress`: all of them, or those named.

    Each door reads the result topics in a consumer group of its own, so several processes share its work, and a
    destination that is slow or down holds up no other.
    SIGTERM and Ctrl-C finish what is in progress; a second one ends at once.

    \b
    Examples:
      penstock egress
      penstock egress archive orders-queue
    """  # noqa: D301 - click's \b
    import uvloop

    from contracts import logs

    settings = load(config)
    require_secrets(settings, settings.secret_places("egress", names), config)
    logs.configure(settings.logging)
    with locating(config):
        uvloop.run(_run(settings, names))


async def _run(settings: Settings, names: tuple[str, ...]) -> None:
    from contracts.metrics import BUILD_INFO
    from gateways.egress.process import Process, board_of, chosen_doors
    from gateways.openapi import package_version
    from producers.producer import KafkaProducer

    producer = KafkaProducer(settings.kafka, settings.producer, client_id="penstock-egress")
    board = board_of(settings, producer.produce)
    process = Process(settings, chosen_doors(settings, names, board), producer.produce, board)
    BUILD_INFO.labels(package_version(), "egress").set(1)
    await producer.start()
    try:
        await process.run()
    finally:
        await producer.aclose(_FLUSH_TIMEOUT_S)
