"""What is known of one event's deltas: the newest epoch and its pieces, in order and without gaps.

Reads: nothing; gateways/egress/live.py feeds it, and gateways/egress/catch_up.py.
"""

import asyncio
from typing import NamedTuple

from contracts.codec import RecordHeaders
from contracts.deltas import delta_id, delta_owner
from contracts.payloads import Delta, DeltaEnding
from gateways.egress.outcomes import event_name

# Attempts of one event; older ones are forgotten, as a late record of theirs is unlikely and does no harm.
_MAX_PAST = 64


def delta_name(headers: RecordHeaders) -> str:
    """Return by what the event of a delta is known; empty for any other record."""
    headers = tuple(headers)
    found = delta_id(headers)
    return event_name(found, delta_owner(headers)) if found else ""


class Seen(NamedTuple):
    """How far a watcher has come: everything of an epoch up to a number; (0, 0) is nothing."""

    epoch: int = 0
    sequence: int = 0


class Piece(NamedTuple):
    """One delta; its number is its place in the list, from 1."""

    text: str
    ending: DeltaEnding | None


class Feed:
    """One event's deltas.

    The rules, for records in the order of the log: the first record (number 1) of an unknown epoch begins it and makes
    the one before void; what comes late of a void one is dropped; a number that is known is dropped; one that is too
    high shows that something is missing, and nothing more of that epoch is told.

    Attributes:
        pieces: of the current epoch.
        is_stopped: something is missing, or it is too large: the result will tell.
        size_chars: of the pieces.
        watchers: set when there is news.
    """

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._past: dict[int, None] = {}
        self.epoch = 0
        self.pieces: list[Piece] = []
        self.is_stopped = False
        self.size_chars = 0
        self.watchers: set[asyncio.Event] = set()

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more can be expected of the current epoch."""
        return self.is_stopped or not self.epoch or (bool(self.pieces) and self.pieces[-1].ending is not None)

    def take(self, delta: Delta) -> None:
        """Take the next record of the log."""
        if delta.epoch == self.epoch:
            self._go_on(delta)
        elif delta.sequence == 1 and delta.epoch not in self._past:
            self._past[self.epoch] = None
            if len(self._past) > _MAX_PAST:
                del self._past[next(iter(self._past))]
            self.epoch, self.pieces, self.size_chars, self.is_stopped = delta.epoch, [], 0, False
            self._go_on(delta)

    def _go_on(self, delta: Delta) -> None:
        if self.is_stopped or delta.sequence <= len(self.pieces):
            return
        if delta.sequence > len(self.pieces) + 1:
            self.is_stopped = True
            return
        self.pieces.append(Piece(delta.text, delta.ending))
        self.size_chars += len(delta.text)
        if self.size_chars > self._max_chars:
            self.stop()

    def stop(self) -> None:
        """Tell nothing more of this epoch, and forget its text."""
        self.is_stopped, self.pieces, self.size_chars = True, [], 0

    def adopt(self, other: "Feed") -> None:
        """Become what another one is, that has read the log from the event on; the watchers stay."""
        self._past, self.epoch, self.pieces = other._past, other.epoch, other.pieces  # noqa: SLF001 - its own kind
        self.is_stopped, self.size_chars = other.is_stopped, other.size_chars

    def is_ahead(self, seen: Seen) -> bool:
        """Tell whether a watcher has seen an epoch that has not been read here yet."""
        return seen.epoch > self.epoch and seen.epoch not in self._past

    def wake(self) -> None:
        """Tell the watchers that there is news."""
        for watcher in self.watchers:
            watcher.set()
