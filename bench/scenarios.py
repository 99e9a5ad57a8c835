"""Runs scenarios one after another on one broker: each prints its table and writes its figures and its plot."""

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import click

from bench.figures import FOLDER, Figure, publish
from bench.peers.environments import NotInstallableError
from bench.plot import bars
from bench.runs import RunFailedError
from tests.kafkalab.jvm import JvmBroker

# Of a scenario, by name, on a broker of this address, which is the last one if it was started here: how many runs, and
# the figures.
Measure = Callable[[str, str, JvmBroker | None], tuple[int, list[Figure]]]


def run_scenarios(
    program: str,
    names: Iterable[str],
    measure: Measure,
    kafka: str | None = None,
    properties: Mapping[str, str] | None = None,
    prefix: str = "",
    suffix: str = "",
    tree: Path | None = None,
) -> int:
    """Return the exit status: not 0 when a scenario could not be measured, or one of its strict goals does not hold.

    Args:
        program: what was called, for the figures: `python -m bench`.
        names: of the scenarios.
        measure: runs one.
        kafka: bootstrap address; a broker is started and closed here where it is None.
        properties: of that broker.
        prefix: of the names of the figures.
        suffix: likewise.
        tree: the checkout that is measured; None = this one.
    """
    broker = None if kafka else JvmBroker(0, properties)
    status = 0
    try:
        if broker is not None:
            broker.start()
            click.echo(f"on {broker.description}")
        for name in names:
            try:
                runs, figures = measure(name, kafka or (broker.bootstrap if broker else ""), broker)
            except (NotInstallableError, RunFailedError) as error:
                click.echo(f"not measured: {name}: {error}", err=True)
                status = 1
                continue
            status |= publish(prefix + name + suffix, " ".join([program, *sys.argv[1:]]), runs, figures, tree or Path())
            (FOLDER / f"{prefix}{name}{suffix}.svg").write_text(bars(prefix + name + suffix, figures), encoding="utf-8")
    finally:
        if broker is not None:
            broker.close()
    return status
