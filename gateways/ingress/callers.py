"""Knows API callers by their keys, and what each may do.

Blocking: reads the files that keys refer to, at start.
"""

import hmac
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from contracts.errors import ConfigError, Forbidden, InvalidPayload, Unauthenticated
from contracts.settings import ApiKey
from contracts.settings.callback_url import UrlRefused, UrlRule
from contracts.settings.egress import CallerCallbackDoor

MIN_KEY_CHARS = 16
_SCHEME = b"bearer "


class Caller(NamedTuple):
    """An authenticated caller: the id of its key, and what the key may do."""

    id: str
    sources: tuple[str, ...]
    lanes: tuple[str, ...]
    callbacks: UrlRule | None = None

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


class Callers:
    """The configured API keys.

    Args:
        keys: their sections.
        door: the one that sends callbacks to URLs of callers, if any.

    Raises:
        ConfigError: a key is missing, too short, not printable ASCII, equal to another, or allows no lane.
    """

    def __init__(self, keys: Sequence[ApiKey], door: CallerCallbackDoor | None = None) -> None:
        self._keys = [
            (_resolve(index, key), Caller(key.id, key.sources, key.lanes, _rule(key, door)))
            for index, key in enumerate(keys)
        ]
        if len({secret for secret, _ in self._keys}) != len(self._keys):
            message = "gateway.api_keys: two keys have one value"
            raise ConfigError(message)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def authenticate(self, headers: Sequence[tuple[bytes, bytes]]) -> Caller:
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
        matches = [caller for secret, caller in self._keys if hmac.compare_digest(secret, presented)]
        if not matches:
            message = "unknown API key"
            raise Unauthenticated(message)
        return matches[0]


def _rule(key: ApiKey, door: CallerCallbackDoor | None) -> UrlRule | None:
    if key.callbacks is None or door is None:
        return None
    return UrlRule(key.callbacks.hosts, door.ports, door.allow_http)


def _resolve(index: int, key: ApiKey) -> bytes:
    where = f"gateway.api_keys[{index}] ({key.id})"
    try:
        secret = key.key.resolve()
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    if len(secret) < MIN_KEY_CHARS or any(not 0x21 <= byte <= 0x7E for byte in secret):  # noqa: PLR2004 - ASCII
        message = f"{where}: needs at least {MIN_KEY_CHARS} printable ASCII characters without spaces"
        raise ConfigError(message)
    if not key.lanes:
        message = f"{where}: allows no lane"
        raise ConfigError(message)
    return secret
