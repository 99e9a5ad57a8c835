"""Fetches secrets from AWS Secrets Manager, the current version and the one before, and keeps what it knows.

Blocking: every call, up to three times `timeout_s` twice; never on the event loop after the start.
When the service is away, what was fetched before stays; that is logged and counted.
Source: AWS Secrets Manager API reference, GetSecretValue; user guide, "Rotation: staging labels" (checked 2026-11).
"""

import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import boto3
import msgspec
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.metrics import SECRET_FETCHES
from contracts.settings import SecretRef
from contracts.settings.secrets_manager import SecretsManagerSettings
from gateways.ingress.secrets import Value

# Marks the key of the version before in logs and metrics; no configured id has a colon.
PREVIOUS = ":previous"
_ATTEMPTS = 3

_log = logger("gateway")


class _Fetched(NamedTuple):
    version: str
    created_at: datetime
    current: bytes
    previous: bytes | None


class AwsSecrets:
    """The secrets of this process, by name; used by one thread at a time.

    Args:
        settings: region, limits, intervals.
        clock: monotonic seconds.
        session: in place of a new boto3 session, for tests.

    Raises:
        ConfigError: no region, or the endpoint is none.
    """

    def __init__(
        self, settings: SecretsManagerSettings, clock: Callable[[], float] = time.monotonic, session: Any = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._known: dict[str, _Fetched] = {}
        self._asked_at_s: dict[str, float] = {}
        self._wanted_at_s = float("-inf")
        config = Config(
            connect_timeout=settings.timeout_s,
            read_timeout=settings.timeout_s,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
        )
        try:
            made: Any = session or boto3.session.Session()
            self._client: Any = made.client(
                "secretsmanager", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
            )
        except (BotoCoreError, ValueError) as error:
            message = f"secrets_manager: no client: {error}"
            raise ConfigError(message) from error

    def values(self, reference: SecretRef) -> tuple[Value, ...]:
        """Return the current value, then the one before while it counts.

        Raises:
            ConfigError: it cannot be fetched and was never, or has no such field.
        """
        name, _, field = reference.name.partition("#")
        self._wanted_at_s = self._clock()
        self._refresh(name, reference)
        fetched = self._known[name]
        values = [Value(_field(fetched.current, field, reference))]
        if fetched.previous is not None:
            end = fetched.created_at + timedelta(seconds=self._settings.previous_overlap_s)
            try:
                before = _field(fetched.previous, field, reference)
            except ConfigError:
                # The field may be new.
                before = b""
            if before.strip() and before != values[0].text:
                values.append(Value(before, PREVIOUS, end))
        return tuple(values)

    def expire(self) -> None:
        """Ask again for each secret when it is next wanted."""
        self._asked_at_s.clear()

    def keep(self, references: Collection[str]) -> None:
        """Forget the secrets that nobody refers to any more."""
        names = {reference.partition(":")[2].partition("#")[0] for reference in references}
        self._known = {name: known for name, known in self._known.items() if name in names}

    @property
    def is_due(self) -> bool:
        """Tell whether a secret is to be asked for again; not all the time where nobody then asks."""
        soon_s = self._settings.refresh_interval_s / 4
        return self._clock() - self._wanted_at_s >= soon_s and any(self._is_old(name) for name in self._known)

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _is_old(self, name: str) -> bool:
        return self._clock() - self._asked_at_s.get(name, float("-inf")) >= self._settings.refresh_interval_s

    def _refresh(self, name: str, reference: SecretRef) -> None:
        if not self._is_old(name):
            return
        try:
            self._known[name] = self._fetch(name)
        except (ClientError, BotoCoreError) as error:
            reason = _reason(error)
            SECRET_FETCHES.labels("failed").inc()
            if name not in self._known:
                message = f"secret {reference.reference} cannot be fetched: {reason}"
                raise ConfigError(message) from error
            # Not for each of its fields, and not again before the next interval.
            _log.error("secret.not_refreshed", secret=name, error=reason, consequence="the values known so far stay")
        else:
            SECRET_FETCHES.labels("ok").inc()
        self._asked_at_s[name] = self._clock()

    def _fetch(self, name: str) -> _Fetched:
        answer = self._client.get_secret_value(SecretId=name, VersionStage="AWSCURRENT")
        version = str(answer["VersionId"])
        known = self._known.get(name)
        if known is not None and known.version == version:
            # The label of the version before moves only together with this one.
            return known
        return _Fetched(version, answer["CreatedDate"], _text(answer), self._previous(name))

    def _previous(self, name: str) -> bytes | None:
        try:
            return _text(self._client.get_secret_value(SecretId=name, VersionStage="AWSPREVIOUS"))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ResourceNotFoundException":
                return None
            raise


def _text(answer: Any) -> bytes:
    text = answer.get("SecretString")
    # A line end comes from editors and `$(cat ...)`, as in files.
    return (text.encode() if text is not None else bytes(answer.get("SecretBinary", b""))).rstrip(b"\r\n")


def _field(content: bytes, field: str, reference: SecretRef) -> bytes:
    """Return a field of a JSON secret, or all of it; the text of an error never repeats any of it."""
    if not field:
        return content
    try:
        found = msgspec.json.decode(content, type=dict[str, Any]).get(field)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if not isinstance(found, str):
        message = f"secret {reference.reference} is no JSON object with the text field {field!r}"
        raise ConfigError(message)
    return found.encode()


def _reason(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "")) or "unknown"
    return str(error)
