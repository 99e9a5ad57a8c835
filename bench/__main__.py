"""`make bench`, or `python -m bench --help`: bounded runs on a real Kafka broker started for them."""

import sys

import click

from bench.worker import bench
from tests.kafkalab.jvm import JvmBroker


@click.command()
@click.option("--kafka", default=None, help="Bootstrap address; a broker is started from its jars when absent.")
@click.option(
    "--in-flight", default=256, show_default=True, type=click.IntRange(1, 4096), help="Model calls at a time."
)
@click.option("--events", default=12_000, show_default=True, type=click.IntRange(1000, 200_000), help="Events per run.")
@click.option(
    "--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Runs of each side, alternating."
)
def main(kafka: str | None, in_flight: int, events: int, runs: int) -> None:
    """Measure one worker against the control; takes a few minutes and stops by itself."""
    if kafka:
        sys.exit(bench(kafka, in_flight, events, runs))
    broker = JvmBroker(0)
    try:
        broker.start()
        click.echo(f"on {broker.description}")
        sys.exit(bench(broker.bootstrap, in_flight, events, runs))
    finally:
        broker.close()


if __name__ == "__main__":
    main()
