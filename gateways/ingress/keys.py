"""Resolves a source's secrets into keys at start, and refuses the ones that protect nothing.

Blocking: reads the files that secrets refer to.
"""

import base64
import binascii
from datetime import datetime
from typing import NamedTuple

from contracts.errors import ConfigError
from contracts.settings import SourceSecret, SourceSettings
from gateways.ingress.schemes import Scheme


class Key(NamedTuple):
    """One key of a source.

    Attributes:
        secret: what HMAC takes.
        text: the secret as configured, to recognise a sender that signs with it undecoded.
    """

    id: str
    secret: bytes
    text: bytes
    not_before: datetime | None = None
    not_after: datetime | None = None

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether this key counts at an instant."""
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now <= self.not_after)


def resolve_keys(name: str, source: SourceSettings, scheme: Scheme) -> tuple[Key, ...]:
    """Return the keys of a source.

    Raises:
        ConfigError: a secret is missing, not decodable, or of a length the scheme does not allow; names source and id.
    """
    return tuple(_resolve(name, secret, scheme) for secret in source.secrets)


def _resolve(name: str, secret: SourceSecret, scheme: Scheme) -> Key:
    where = f"sources.{name}: secret {secret.id!r}"
    try:
        text = secret.value.resolve()
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    decoded = _decode(text, scheme, where)
    smallest, largest = scheme.key_bytes
    if not smallest <= len(decoded) <= largest:
        message = f"{where}: has {len(decoded)} bytes, needs {smallest} to {largest}"
        raise ConfigError(message)
    return Key(secret.id, decoded, text, secret.not_before, secret.not_after)


def _decode(text: bytes, scheme: Scheme, where: str) -> bytes:
    body = text.removeprefix(scheme.template.key_prefix.encode())
    if scheme.template.key_encoding == "raw":
        return body
    try:
        # Some senders show their secrets without the padding, which loses nothing.
        return base64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        message = f"{where}: is not base64"
        if scheme.template.key_prefix:
            message += f" (the scheme's secrets look like {scheme.template.key_prefix}...)"
        raise ConfigError(message) from error
