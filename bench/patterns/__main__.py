"""`make bench-patterns`, or `python -m bench.patterns --help`: bounded runs of the patterns on real Kafka."""

import sys
from collections.abc import Callable

import click

from bench.figures import Figure
from bench.patterns.batch import batch
from bench.patterns.callbacks import ssrf
from bench.patterns.doors import sqs
from bench.patterns.results import results
from bench.patterns.salesforce import salesforce
from bench.patterns.stream import stream
from bench.patterns.sync import sync, timeout
from bench.scenarios import run_scenarios
from tests.kafkalab.jvm import JvmBroker

# Bootstrap address and seed in, figures out; a scenario starts what it needs and ends it.
Scenario = Callable[[str, int], list[Figure]]
SCENARIOS: dict[str, Scenario] = {
    "batch": batch,
    "sync": sync,
    "timeout": timeout,
    "results": results,
    "stream": stream,
    "sqs": sqs,
    "salesforce": salesforce,
    "ssrf": ssrf,
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*SCENARIOS, "all"]))
@click.option("--kafka", default=None, help="Bootstrap address; a broker is started from its jars when absent.")
@click.option("--seed", default=20261128, show_default=True, help="Of everything random.")
def main(names: tuple[str, ...], kafka: str | None, seed: int) -> None:
    """Measure the patterns; without a name, each once."""
    if not names or "all" in names:
        names = tuple(SCENARIOS)

    def measure(name: str, bootstrap: str, _broker: JvmBroker | None) -> tuple[int, list[Figure]]:
        return 1, SCENARIOS[name](bootstrap, seed)

    sys.exit(run_scenarios("python -m bench.patterns", names, measure, kafka, prefix="patterns-"))


if __name__ == "__main__":
    main()
