"""Says by what a source's deliveries are recognised when they come again, and which of them are wanted twice."""

import hmac
from typing import Literal

from contracts.errors import ConfigError
from contracts.repetition import By, Identity, identify
from contracts.settings import SourceSettings
from gateways.ingress.header_lines import HeaderLines, values_of
from gateways.ingress.schemes import MIN_KEY_BYTES, SCHEMES
from gateways.ingress.secrets import Secrets
from gateways.ingress.verifying import Verified

REDELIVERY_HEADER = b"penstock-redelivery"


class Recogniser:
    """One source's rule.

    Args:
        name: of the source, for messages.
        source: its settings.
        secrets: how references are read; without AWS Secrets Manager when None.

    Raises:
        ConfigError: the secret for redeliveries cannot be used.
    """

    def __init__(self, name: str, source: SourceSettings, secrets: Secrets | None = None) -> None:
        self._by = _rule(source)
        self._window_s = source.idempotency.window_s
        self._source = source.ce_source or name
        self._secrets = _secrets(name, source, secrets or Secrets())

    def by(self, *, is_vouched: bool) -> By | None:
        """Return by what a delivery is recognised; None where none is.

        Args:
            is_vouched: nobody but the sender can have chosen the id.
        """
        if self._by == "auto":
            return "id" if is_vouched else "digest"
        return None if self._by == "none" else self._by

    def identity(self, event_id: str, text: bytes, by: By | None) -> Identity | None:
        """Return the identity of a verified delivery; None where none is recognised."""
        return None if by is None else identify("", self._source, event_id, text, by, self._window_s)

    def is_redelivery(self, headers: HeaderLines) -> bool:
        """Tell whether an operator wants a delivery done again; what is not his own is passed over."""
        if not self._secrets:
            return False
        said = values_of(headers, REDELIVERY_HEADER)
        return any(hmac.compare_digest(value, secret) for value in said for secret in self._secrets)


def _rule(source: SourceSettings) -> Literal["auto", "id", "digest", "none"]:
    """Return the rule that is configured, or `none` where only the bytes could tell a repetition, and do not."""
    scheme = SCHEMES.get(source.scheme)
    by = source.idempotency.by
    is_mute = scheme is not None and scheme.repeats_itself and source.id is None
    return "none" if by == "auto" and is_mute else by


def vouched_text(verified: Verified, body: bytes) -> bytes:
    """Return what is equal in every delivery of an event: the signed text, or the body where that has a time in it.

    A signature may allow more than one body: Twilio's is over sorted parameters.
    """
    return body if verified.signed is None or verified.timestamp is not None else verified.signed


def _secrets(name: str, source: SourceSettings, secrets: Secrets) -> tuple[bytes, ...]:
    """Return the current secret, and the one before it where a service still has that."""
    ref = source.idempotency.redelivery_secret
    if ref is None:
        return ()
    where = f"sources.{name}.idempotency.redelivery_secret"
    try:
        found = tuple(value.text for value in secrets.values(ref))
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    for secret in found:
        if len(secret) < MIN_KEY_BYTES:
            message = f"{where}: has {len(secret)} bytes, needs {MIN_KEY_BYTES} or more"
            raise ConfigError(message)
    return found
