"""Knows API callers by their keys, and what each may do.

Blocking: reads the files that keys refer to, or asks AWS Secrets Manager, while it is made.
"""

import hmac
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import NamedTuple

from contracts.errors import ConfigError, Forbidden, InvalidPayload, Unauthenticated
from contracts.metrics import CALLER_FORMER_KEYS
from contracts.settings import ApiKey, SecretRef, Unusable
from contracts.settings.callback_url import UrlRefused, UrlRule
from contracts.settings.egress import CallerCallbackDoor
from contracts.settings.marks import Path, Problem
from contracts.settings.overload import CallerLimit
from gateways.ingress.secrets import Secrets, Value

MIN_KEY_CHARS = 16
_SCHEME = b"bearer "


class Caller(NamedTuple):
    """An authenticated caller: the id of its key, and what the key may do."""

    id: str
    sources: tuple[str, ...]
    lanes: tuple[str, ...]
    callbacks: UrlRule | None = None
    limit: CallerLimit | None = None

    def check_callback(self, url: str) -> None:
        """Let pass a URL that this caller may have its result sent to.

        Raises:
            Forbidden: it may name none.
            InvalidPayload: the URL is not one it may name.
        """
        if self.callbacks is None:
            message = "this key may not ask for callbacks"
            raise Forbidden(message)
        try:
            self.callbacks.check(url)
        except UrlRefused as error:
            message = f"callbackurl must be {error}"
            raise InvalidPayload(message) from error

    def check_source(self, source: str) -> None:
        """Let pass a source this caller may claim.

        Raises:
            Forbidden: any other.
        """
        patterns = self.sources or (self.id, f"{self.id}/*")
        if not any(fnmatchcase(source, pattern) for pattern in patterns):
            message = "this key may not claim this source"
            raise Forbidden(message)

    def choose_lane(self, wanted: str | None, usual: str = "standard") -> str:
        """Return the lane of an event; the usual, or else the first allowed one, when none is asked for.

        Raises:
            Forbidden: the caller may not use it.
        """
        if wanted is None:
            return usual if usual in self.lanes else self.lanes[0]
        if wanted not in self.lanes:
            message = f"this key may use the lanes {', '.join(self.lanes)}"
            raise Forbidden(message)
        return wanted


class _Key(NamedTuple):
    secret: bytes
    not_after: datetime | None
    caller: Caller
    is_former: bool


class Callers:
    """The configured API keys.

    Args:
        keys: their sections.
        door: the one that sends callbacks to URLs of callers, if any.
        secrets: how references are read; without AWS Secrets Manager when None.

    Raises:
        ConfigError: keys are missing, too short, not printable ASCII, equal to another, or allow no lane; one line for
            each.
    """

    def __init__(
        self, keys: Sequence[ApiKey], door: CallerCallbackDoor | None = None, secrets: Secrets | None = None
    ) -> None:
        secrets = secrets or Secrets()
        self._keys: list[_Key] = []
        problems: list[Problem] = []
        for index, key in enumerate(keys):
            caller = Caller(key.id, key.sources, key.lanes, _rule(key, door), key.limit)
            where = f"gateway.api_keys[{index}] ({key.id})"
            if not key.lanes:
                problems.append((("gateway", "api_keys", index, "lanes"), f"{where}: allows no lane"))
            for path, reference, end in _references(key):
                try:
                    found = list(_resolve(where, reference, secrets))
                except ConfigError as error:
                    problems.append((("gateway", "api_keys", index, *path), str(error)))
                else:
                    self._keys += [
                        _Key(
                            value.text, _sooner(end, value.not_after), caller, path != ("key",) or value is not found[0]
                        )
                        for value in found
                    ]
        if len({key.secret for key in self._keys}) != len(self._keys):
            problems.append((("gateway", "api_keys"), "gateway.api_keys: two keys have one value"))
        if problems:
            raise Unusable(problems)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def adopt(self, newer: "Callers") -> None:
        """Take over the keys of another instance, all at once; who has been let in stays in."""
        self._keys = newer._keys  # noqa: SLF001 - of its own class

    def authenticate(self, headers: Sequence[tuple[bytes, bytes]], now: datetime | None = None) -> Caller:
        """Return who calls.

        Raises:
            Unauthenticated: no key, or an unknown one.
            InvalidPayload: two Authorization headers.
        """
        values = [value for name, value in headers if name == b"authorization"]
        if len(values) > 1:
            message = "header authorization stands there twice"
            raise InvalidPayload(message)
        if not values or values[0][: len(_SCHEME)].lower() != _SCHEME:
            message = "an API key is needed: Authorization: Bearer <key>"
            raise Unauthenticated(message)
        presented = values[0][len(_SCHEME) :].strip()
        # Every key is compared, so that the time tells nothing about which one came close.
        matches = [key for key in self._keys if hmac.compare_digest(key.secret, presented)]
        if not matches or (matches[0].not_after is not None and matches[0].not_after < (now or datetime.now(UTC))):
            message = "unknown API key"
            raise Unauthenticated(message)
        if matches[0].is_former:
            CALLER_FORMER_KEYS.labels(matches[0].caller.id).inc()
        return matches[0].caller


def _rule(key: ApiKey, door: CallerCallbackDoor | None) -> UrlRule | None:
    if key.callbacks is None or door is None:
        return None
    return UrlRule(key.callbacks.hosts, door.ports, door.allow_http)


def _references(key: ApiKey) -> Iterator[tuple[Path, SecretRef, datetime | None]]:
    """Yield each of the caller's keys with its place, and how long it counts."""
    yield ("key",), key.key, None
    for index, former in enumerate(key.former_keys):
        yield ("former_keys", index, "value"), former.value, former.not_after


def _sooner(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((end for end in (one, other) if end is not None), default=None)


def _resolve(where: str, reference: SecretRef, secrets: Secrets) -> Iterator[Value]:
    try:
        current, *previous = secrets.values(reference)
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    if not _is_usable(current.text):
        message = f"{where}: needs at least {MIN_KEY_CHARS} printable ASCII characters without spaces"
        raise ConfigError(message)
    yield current
    yield from (value for value in previous if _is_usable(value.text))


def _is_usable(secret: bytes) -> bool:
    return len(secret) >= MIN_KEY_CHARS and all(0x21 <= byte <= 0x7E for byte in secret)  # noqa: PLR2004 - ASCII
