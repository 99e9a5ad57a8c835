"""What is written for a letter: the event as it came, with a header that says so, and the letter's resolution."""

import getpass
import socket
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import click

from contracts.codec import Record, RecordHeaders, encodable, redrive_headers, resolution_headers
from contracts.envelope import EXPIRY_TIME, format_time, parse_time
from contracts.errors import LogUnavailable
from contracts.payloads import DeadLetter, Redrive, Resolution
from gateways.cli.dlq_letters import Letter
from gateways.cli.dlq_write import Refusal, Unit

# Of events that were put back, some 300 bytes each: two letters of one are written within minutes.
_MAX_PUT_BACK = 20_000
_Origin = tuple[str, int, int, int, str, str, str]


def confirm(question: str, found: str = "") -> None:
    """Have the operator say yes; `found` is what a refusal begins with.

    Raises:
        click.Abort: no.
        click.UsageError: nobody is there to be asked.
    """
    if not sys.stdin.isatty():
        message = f"{found}not a terminal, so nobody can be asked: --yes does it, --dry-run shows"
        raise click.UsageError(message)
    click.confirm(question, abort=True, err=True)


def operator() -> str:
    """Return who this is: user and machine, as far as they are known."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


def _resolution(letter: Letter, state: Literal["redriven", "discarded"], by: str, why: str, target: str = "") -> Record:
    record = letter.record
    resolved = Resolution(
        state=state,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        event_id=letter.event_id,
        at=format_time(datetime.now(UTC)),
        by=by,
        # A terminal may send bytes that are no text.
        why=encodable(why),
        topic=target,
    )
    return Record(record.topic, record.key, b"", resolution_headers(resolved), record.partition)


@dataclass(frozen=True)
class Discard:
    """Makes the units of a discard.

    Attributes:
        by, why: the operator's name and words.
    """

    by: str
    why: str

    def __call__(self, letter: Letter) -> Unit:
        """Return what to write for a letter."""
        return Unit(letter, (_resolution(letter, "discarded", self.by, self.why),))

    def refused(self, refusal: Refusal) -> None:
        """Know that a letter stays open; nothing follows from it."""


class Redriving:
    """Makes the units of a redrive.

    Args:
        event_topics: the only ones that are written to.
        partitions: returns the partitions of a topic, or raises LogUnavailable.
        by, why: the operator's name and words.
        app_id: events of its letters are put back for this application alone; empty = all of them for all.
        extend: what an event is given at least until its own deadline; None = events behind theirs stay dead.
    """

    def __init__(
        self,
        event_topics: frozenset[str],
        partitions: Callable[[str], list[int]],
        by: str,
        why: str,
        extend: timedelta | None,
        app_id: str = "",
    ) -> None:
        self._event_topics = event_topics
        self._ask = partitions
        self._partitions: dict[str, list[int]] = {}
        # By where their first records lie, the newest events that were put back, and for which letter.
        self._put_back: OrderedDict[_Origin, str] = OrderedDict()
        self._by = by
        self._why = why
        self._extend = extend
        self._app_id = app_id

    def __call__(self, letter: Letter) -> Unit | Refusal:
        """Return what to write for a letter, or why it must stay open."""
        obstacle = self._obstacle(letter)
        if obstacle or letter.why is None:
            return Refusal(letter, obstacle)
        resolved = _resolution(letter, "redriven", self._by, self._why, letter.why.topic)
        leader = self._leader(letter, letter.why)
        if leader != letter.place:
            return Unit(letter, (resolved,), leader)
        event = Record(
            letter.why.topic,
            letter.record.key,
            letter.record.value,
            self._headers(letter),
            # The same partition as before, whoever wrote it: the order of a key holds only inside of one.
            letter.why.partition,
        )
        return Unit(letter, (event, resolved))

    def refused(self, refusal: Refusal) -> None:
        """Forget that the event of a letter was put back, when that could not be written."""
        letter = refusal.letter
        if letter.why is None or refusal.is_put_back:
            return
        origin = self._origin(letter, letter.why)
        if self._put_back.get(origin) == letter.place:
            del self._put_back[origin]

    def _leader(self, letter: Letter, why: DeadLetter) -> str:
        """Return the place of the letter for which this event is put back, this one or an earlier one.

        A worker that is killed between a letter and its marker leaves one behind, and the next worker writes another.
        """
        # Without its time, a place may be that of an event on a former log.
        if why.timestamp_ms <= 0:
            return letter.place
        leader = self._put_back.setdefault(self._origin(letter, why), letter.place)
        if len(self._put_back) > _MAX_PUT_BACK:
            self._put_back.popitem(last=False)
        return leader

    def _origin(self, letter: Letter, why: DeadLetter) -> _Origin:
        """Return which event a letter is about, and for whom it is put back."""
        place = why.topic, why.partition, why.offset, why.timestamp_ms
        return *place, letter.source, letter.event_id, self._whose(letter)

    def _whose(self, letter: Letter) -> str:
        return self._app_id if letter.why is not None and letter.why.app_id == self._app_id else ""

    def _obstacle(self, letter: Letter) -> str:
        why = letter.why
        if why is None:
            return f"not readable, so nobody knows where it belongs ({letter.fault})"
        if why.topic not in self._event_topics:
            return f"it came from {why.topic[:100]!r}, which is no event topic of this installation"
        missing = self._missing(why.topic, why.partition)
        if missing:
            return missing
        expires_at = parse_time(letter.expiry_time)
        if expires_at is not None and expires_at <= datetime.now(UTC) and self._extend is None:
            return (
                f"its own deadline {letter.expiry_time} has passed, it would expire at once; --extend 1h gives it time"
            )
        return ""

    def _missing(self, topic: str, partition: int) -> str:
        if topic not in self._partitions:
            try:
                self._partitions[topic] = self._ask(topic)
            except LogUnavailable as error:
                return str(error)
        return "" if partition in self._partitions[topic] else f"topic {topic} has no partition {partition} any more"

    def _headers(self, letter: Letter) -> RecordHeaders:
        record, now = letter.record, datetime.now(UTC)
        redrive = Redrive(
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            count=(letter.why.redrives if letter.why else 0) + 1,
            at=format_time(now),
            by=self._by,
            app_id=self._whose(letter),
        )
        headers = redrive_headers(record.headers, redrive)
        expires_at = parse_time(letter.expiry_time)
        if self._extend is None or expires_at is None or expires_at >= now + self._extend:
            return headers
        expiry = format_time(now + self._extend).encode()
        return [(name, expiry if name == f"ce_{EXPIRY_TIME}" else raw) for name, raw in headers]
