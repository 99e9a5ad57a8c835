"""`make bench-gateway`, or `python -m bench.gateway --help`: bounded runs of the gateway on real Kafka."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from bench.figures import Figure
from bench.gateway.cost import CELLS, requests
from bench.gateway.crash import crash
from bench.gateway.overload import overload
from bench.gateway.sides import LEFT_OUT, Side, penstock, servers, sides
from bench.scenarios import run_scenarios
from tests.kafkalab.jvm import JvmBroker

SCENARIOS = ("requests", "servers", "overload", "crash")

# A quota that looks back two seconds instead of eleven: it throttles evenly, not in long halts.
PROPERTIES = {"quota.window.num": "2", "quota.window.size.seconds": "1"}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*SCENARIOS, "all"]))
@click.option("--kafka", default=None, help="Bootstrap address; a broker is started from its jars when absent.")
@click.option("--runs", default=3, show_default=True, type=click.IntRange(1, 20), help="Runs of each side, in turn.")
@click.option("--kills", default=100, show_default=True, type=click.IntRange(1, 1000), help="Of `crash`.")
@click.option("--seed", default=20261128, show_default=True, help="Of everything random.")
@click.option(
    "--side",
    "chosen",
    multiple=True,
    type=click.Choice(["penstock", "fastapi", "uvicorn", "granian", "least"]),
    help="Only this one of the sides of `requests`; repeatable.",
)
@click.option("--small", is_flag=True, help="Bodies of 1 KB only.")
@click.option(
    "--tree",
    default=None,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of Penstock to measure in place of this one.",
)
def main(
    names: tuple[str, ...],
    kafka: str | None,
    runs: int,
    kills: int,
    seed: int,
    chosen: tuple[str, ...],
    small: bool,
    tree: Path | None,
) -> None:
    """Measure the gateway; without a name, everything once, in some 25 minutes."""
    if not names or "all" in names:
        names = SCENARIOS
    if kafka and "crash" in names:
        message = "crash kills its broker, so it takes none of yours: leave --kafka out"
        raise click.UsageError(message)
    click.echo(f"not measured: {LEFT_OUT}")

    def measure(name: str, bootstrap: str, broker: JvmBroker | None) -> tuple[int, list[Figure]]:
        if name == "crash" and broker is not None:
            click.echo(f"to repeat: python -m bench.gateway crash --kills {kills} --seed {seed}")
            return 1, crash(broker, seed, kills)
        some = _chosen(name, chosen, tree)
        if name == "overload":
            return 1, overload(bootstrap, some[0])
        return runs, requests(bootstrap, some, runs, CELLS[:2] if small or name == "servers" else CELLS)

    sys.exit(run_scenarios("python -m bench.gateway", names, measure, kafka, PROPERTIES, prefix="gateway-"))


def _chosen(name: str, chosen: Sequence[str], tree: Path | None) -> Sequence[Side]:
    if name == "overload":
        return (penstock(tree),)
    if name == "servers":
        return servers()
    return [side for side in sides(tree) if not chosen or side.name in chosen]


if __name__ == "__main__":
    main()
