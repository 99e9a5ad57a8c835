"""Which dead letters are meant: the options that all `penstock dlq` commands share."""

import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import click

from contracts.envelope import parse_time
from contracts.errors import PenstockError
from contracts.payloads import Disposition
from gateways.cli.dlq_letters import Letter

_AGE = re.compile(r"(\d{1,6})(s|m|h|d)")
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def age(text: str) -> timedelta | None:
    """Read `90s`, `15m`, `2h` or `7d`; None when it is none of them."""
    found = _AGE.fullmatch(text)
    return timedelta(seconds=int(found[1]) * _UNITS_S[found[2]]) if found else None


class Instant(click.ParamType):
    """An instant, or how long ago it was."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """Return an aware instant."""
        if isinstance(value, datetime):
            return value
        ago = age(value)
        # Nothing is older than Kafka's first instant; an age of millennia would not even be a date.
        instant = parse_time(value) if ago is None else max(_EPOCH + ago, datetime.now(UTC)) - ago
        if instant is None:
            self.fail(f"{value!r}: expected an age such as 30m, 2h or 7d, or a time such as 2026-11-24T08:00:00Z",
                      param, ctx)  # fmt: skip
        return instant


class Age(click.ParamType):
    """A length of time."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the length."""
        if isinstance(value, timedelta):
            return value
        length = age(value)
        if length is None:
            self.fail(f"{value!r}: expected a length such as 90s, 15m, 2h or 7d", param, ctx)
        return length


class Finite(click.FloatRange):
    """A number in a range; `inf` and `nan` compare as if they were in many."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r}: expected a finite number", param, ctx)
        return number


class Place(click.ParamType):
    """Where a record lies on its topic, as lists of dead letters and of undelivered outcomes show it."""

    name = "place"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return partition and offset."""
        if isinstance(value, tuple):
            return value
        partition, _, offset = value.partition("/")
        if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            self.fail(f"{value!r}: expected PARTITION/OFFSET, as `list` shows them", param, ctx)
        return int(partition), int(offset)


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which letters are meant: of each option any value, and of all options each; empty = every letter."""

    reason: tuple[str, ...] = ()
    disposition: tuple[str, ...] = ()
    route: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    type: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    app: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    partition: int | None = None
    offset: int | None = None

    @property
    def since_ms(self) -> int | None:
        """Return `since` as a record timestamp."""
        return None if self.since is None else int(self.since.timestamp() * 1000)

    def matches(self, letter: Letter) -> bool:
        """Tell whether a letter is meant; one that is not readable has no reason, disposition and route."""
        return self._is_in_place(letter) and all(
            not wanted or found in wanted
            for wanted, found in (
                (self.reason, letter.why and letter.why.reason),
                (self.disposition, letter.why and letter.why.disposition),
                (self.route, letter.why and letter.why.route),
                (self.source, letter.source),
                (self.type, letter.type),
                (self.id, letter.event_id),
                (self.app, letter.why.app_id if letter.why else ""),
            )
        )

    def _is_in_place(self, letter: Letter) -> bool:
        at_ms = letter.record.timestamp_ms
        return (
            self.partition in (None, letter.record.partition)
            and self.offset in (None, letter.record.offset)
            and (self.since_ms is None or at_ms >= self.since_ms)
            and (self.until is None or at_ms < self.until.timestamp() * 1000)
        )


_MANY = functools.partial(click.option, multiple=True)
_OPTIONS = (
    _MANY("--reason", help="Why it ended, such as output_invalid; repeatable, as are the next six."),
    _MANY("--disposition", type=click.Choice(get_args(Disposition)), help="What kind of end it was."),
    _MANY("--route", help="Name of the route."),
    _MANY("--source", help="CloudEvents source."),
    _MANY("--type", help="CloudEvents type."),
    _MANY("--id", help="Event id."),
    _MANY("--app", help="Application (worker.app_id) whose worker gave it up."),
    click.option("--since", type=Instant(), help="Buried at or after: 30m, 2h, 7d ago, or 2026-11-24T08:00:00Z."),
    click.option("--until", type=Instant(), help="Buried before; written as --since."),
    click.option("--partition", type=click.IntRange(min=0), help="Partition of the dead-letter topic."),
    click.option("--offset", type=click.IntRange(min=0), help="Offset in that partition."),
)


def _warn_of_unknown(reasons: tuple[str, ...]) -> None:
    """Say that a reason is not one of ours; letters of other versions may have it all the same."""
    known = {kind.reason for kind in _kinds(PenstockError)}
    for reason in set(reasons) - known:
        hint = meant(reason, known) or "`penstock dlq stats` shows those there are"
        click.echo(f"no reason of this version is called {reason!r}; {hint}", err=True)


def meant(name: str, known: Iterable[str]) -> str:
    """Ask whether a name is a misspelt one; empty when none is like it."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {close[0]}?" if close else ""


def _kinds(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)


def filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command; it gets them as one argument `chosen`."""

    @functools.wraps(command)
    def with_filter(**options: Any) -> Any:
        if options["offset"] is not None and options["partition"] is None:
            message = "--offset needs --partition: offsets count per partition"
            raise click.UsageError(message)
        _warn_of_unknown(options["reason"])
        wanted = {name: options.pop(name) for name in Filter.__dataclass_fields__}
        return command(chosen=Filter(**wanted), **options)

    for option in reversed(_OPTIONS):
        with_filter = option(with_filter)
    return with_filter
