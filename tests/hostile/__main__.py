"""`make fuzz-gateway SEED=n N=n`, or `python -m tests.hostile --help`: bounded, seeded, on loopback, ends by itself."""

import random
import sys
import tempfile
from pathlib import Path

import click
import uvloop

from bench.figures import publish
from tests.hostile.fuzz import QUIET, SETTINGS, Ledger, fuzz
from tests.hostile.lab import running

BOOKS = Path("build/fuzz")
_MAX_SHOWN = 5


@click.command()
@click.option("--seed", type=int, default=None, help="Of the mutations; a random one, printed, when absent.")
@click.option("--n", "wanted", default=50_000, show_default=True, type=click.IntRange(1), help="Requests in all.")
@click.option("--budget-s", default=600.0, show_default=True, type=click.FloatRange(1), help="Longest duration.")
def main(seed: int | None, wanted: int, budget_s: float) -> None:
    """Send mutated requests to a gateway process; a run that was cut short by its budget goes on with the same seed."""
    seed = seed if seed is not None else random.SystemRandom().randrange(10**6)
    command = f"python -m tests.hostile --seed {seed} --n {wanted}"
    click.echo(f"again: {command}")
    books = BOOKS / f"{seed}-{wanted}.json"
    ledger = Ledger.read(books)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder), gateway=SETTINGS, more=QUIET) as lab:
        uvloop.run(fuzz(lab, seed, wanted, ledger, budget_s))
    if ledger.requests < wanted:
        ledger.write(books)
        click.echo(f"{ledger.requests:,} of {wanted:,} so far; the same command goes on")
    else:
        books.unlink(missing_ok=True)
    status = publish("gateway-fuzz", command, 1, ledger.figures())
    if ledger.refused:
        click.echo(f"untouched, and refused: {dict(ledger.refused)}")
    for title, lines in (("accepted without proof", ledger.forgeries), ("neither answered nor closed", ledger.hung)):
        for line in lines[:_MAX_SHOWN]:
            click.echo(f"{title}: {line}")
    sys.exit(status)


if __name__ == "__main__":
    main(prog_name="python -m tests.hostile")
