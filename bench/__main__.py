"""`make bench`, or `python -m bench --help`: bounded runs on a real Kafka broker started for them."""

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from bench.cpu_split import profile
from bench.figures import Figure
from bench.memory import memory
from bench.packing import measure as packing
from bench.peers.environments import NotInstallableError
from bench.peers.table import LEFT_OUT, PEERS, peer
from bench.restarts import restart
from bench.scenarios import run_scenarios
from bench.sides import CONTROL, LEAST, Side, penstock
from bench.steadiness import engine
from bench.troubles import faults, kill, stragglers
from tests.kafkalab.jvm import JvmBroker

Scenario = Callable[[str, Sequence[Side], int, Sequence[int]], list[Figure]]
SCENARIOS: dict[str, Scenario] = {
    "engine": lambda bootstrap, sides, runs, in_flight: engine(
        bootstrap, (*sides, LEAST), in_flight or (64, 256, 1024), runs
    ),
    "peers": lambda bootstrap, sides, runs, in_flight: engine(bootstrap, (*sides, LEAST), in_flight or (256,), runs),
    "stragglers": lambda bootstrap, sides, runs, _: stragglers(bootstrap, sides, runs),
    "faults": lambda bootstrap, sides, runs, _: faults(bootstrap, sides, runs),
    "kill": lambda bootstrap, sides, runs, in_flight: kill(bootstrap, sides, runs, (in_flight or (64,))[0]),
    "restart": lambda bootstrap, sides, runs, in_flight: restart(bootstrap, sides, runs, (in_flight or (64,))[0]),
    "memory": lambda bootstrap, sides, runs, in_flight: memory(bootstrap, sides, runs, (in_flight or (256,))[0]),
    "packing": lambda *_: asyncio.run(packing()),
    "profile": lambda bootstrap, sides, _, in_flight: profile(bootstrap, sides[0], (in_flight or (256,))[0]),
}


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*SCENARIOS, "all"]))
@click.option("--kafka", default=None, help="Bootstrap address; a broker is started from its jars when absent.")
@click.option("--runs", default=1, show_default=True, type=click.IntRange(1, 20), help="Runs of each side, in turn.")
@click.option("--in-flight", multiple=True, type=click.IntRange(1, 4096), help="Model calls at a time; repeatable.")
@click.option(
    "--with-peers", is_flag=True, help="Peers also in the scenarios other than `peers`; figures `<name>-peers`."
)
@click.option(
    "--peer",
    "chosen",
    multiple=True,
    type=click.Choice([folder for folder, *_ in PEERS]),
    help="Only this one of the peers, in every scenario; repeatable.",
)
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
    in_flight: tuple[int, ...],
    with_peers: bool,
    chosen: tuple[str, ...],
    tree: Path | None,
) -> None:
    """Measure one worker against controls in the same run; without a name, everything once, in some fifteen minutes.

    Peers are then met at 256 calls in flight only; docs/benchmarks.md has the whole set.
    """
    if not names or "all" in names:
        names = tuple(SCENARIOS)
    ours = (penstock(tree), CONTROL)
    # Fewer runs are taken of all of them, and the figures of ours with more runs are to stay.
    suffix = "-peers" if with_peers else ""
    with_peers = with_peers or bool(chosen)
    with_them = (*ours, *_peers(chosen)) if with_peers or "peers" in names else ours

    def measure(name: str, bootstrap: str, _broker: JvmBroker | None) -> tuple[int, list[Figure]]:
        sides = with_them if with_peers or name == "peers" else ours
        return runs, SCENARIOS[name](bootstrap, sides, runs, in_flight)

    sys.exit(run_scenarios("python -m bench", names, measure, kafka, suffix=suffix, tree=tree))


def _peers(chosen: Sequence[str]) -> list[Side]:
    """Return the peers (those chosen, if any are) that this machine can have; others are named with the reason."""
    found = []
    for folder, ordered, environment in PEERS:
        if chosen and folder not in chosen:
            continue
        try:
            found.append(peer(folder, ordered, environment))
            click.echo(f"{folder}: {found[-1].versions}")
        except NotInstallableError as error:
            click.echo(f"not measured: {folder}: {error}")
    for name, reason in LEFT_OUT.items():
        click.echo(f"not measured: {name}: {reason}")
    return found


if __name__ == "__main__":
    main()
