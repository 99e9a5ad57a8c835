"""Puts letters back or discards them: a batch at a time, as fast as allowed, until done or Ctrl-C.

Reads: dead-letters. Writes: event topics, dead-letters. Blocking: until done.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import click

from contracts.errors import PenstockError
from contracts.signals import StopSignals
from gateways.cli.dlq_letters import Letter
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_write import Refusal, Unit, Writer
from gateways.cli.wording import printable

_MAX_BATCH = 100
_MAX_BATCH_BYTES = 8 * 2**20
# How much of the rate's allowance goes out at once.
_BURST_S = 0.5
_NAP_S = 0.1


class Make(Protocol):
    """Makes the units of what is done."""

    def __call__(self, letter: Letter) -> Unit | Refusal:
        """Return what to write for a letter, or why it must stay open."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Know that a unit could not be written."""
        ...


class Stop:
    """Set by the first Ctrl-C or SIGTERM: what is under way is finished, nothing new is begun."""

    def __init__(self) -> None:
        self.is_set = False


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Give a stop that listens to the signals."""
    stop = Stop()

    def begin(_number: object) -> None:
        stop.is_set = True

    def cut_short(_number: object) -> None:
        raise KeyboardInterrupt

    with StopSignals(begin, cut_short).taken():
        yield stop


@dataclass
class Tally:
    """What became of the letters."""

    done: int = 0
    refused: int = 0
    error: str = ""

    def refuse(self, refusal: Refusal) -> None:
        """Count a letter that stays open, and say why."""
        self.refused += 1
        text = f"{refusal.letter.place} {refusal.letter.event_id or '-'}: {refusal.error}"
        click.echo(printable(text), err=True)


def carry_out(
    writer: Writer,
    letters: Iterable[Letter | None],
    make: Make,
    rate: float | None,
    told: Told,
    stop: Stop,
    tally: Tally,
) -> None:
    """Write what becomes of every letter.

    Args:
        writer: started.
        letters: None while nothing comes.
        make: of what is done.
        rate: letters per second; None = no limit.
        told: is told how many have ended.
        stop: ends it between two batches.
        tally: of what has become of them so far, also when an exception ends it.
    """
    size = _MAX_BATCH if rate is None else max(1, min(_MAX_BATCH, int(rate * _BURST_S)))
    free_at_s = time.monotonic()
    try:
        for batch in _batches(letters, size):
            free_at_s = max(free_at_s, time.monotonic())
            while not stop.is_set and time.monotonic() < free_at_s:
                time.sleep(min(_NAP_S, max(0.0, free_at_s - time.monotonic())))
            if stop.is_set:
                break
            _batch(writer, batch, make, tally)
            told.advance(len(batch))
            free_at_s += len(batch) / rate if rate else 0.0
    except PenstockError as error:
        tally.error = str(error)


def _batch(writer: Writer, batch: list[Letter], make: Make, tally: Tally) -> None:
    made = [make(letter) for letter in batch]
    units = [unit for unit in made if isinstance(unit, Unit)]
    refusals = writer.write(units) if units else []
    tally.done += len(units) - len(refusals)
    for refusal in refusals:
        make.refused(refusal)
    for refusal in (*(one for one in made if isinstance(one, Refusal)), *refusals):
        tally.refuse(refusal)


def _batches(letters: Iterable[Letter | None], size: int) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    size_bytes = 0
    for letter in letters:
        if letter is not None:
            batch.append(letter)
            size_bytes += letter.size_bytes
        # Also an empty one when nothing comes: our caller may have been told to stop.
        if letter is None or len(batch) >= size or size_bytes >= _MAX_BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch
