"""Resolves a source's secrets into keys at start, and refuses the ones that protect nothing.

Blocking: reads the files that secrets refer to.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from contracts.errors import ConfigError
from contracts.settings import SourceSecret, SourceSettings
from gateways.ingress.public_keys import PublicKey, decode_base64, load_public_key
from gateways.ingress.schemes import KeyForm, Scheme

_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda text: bytes.fromhex(text.decode("ascii")),
    "base64": decode_base64,
}


class Key(NamedTuple):
    """One key of a source.

    Attributes:
        secret: what HMAC takes; the text itself of a public key.
        text: the secret as configured, to recognise a sender that signs with it undecoded.
        public: the sender's public key, where the source is verified by one.
    """

    id: str
    secret: bytes
    text: bytes
    not_before: datetime | None = None
    not_after: datetime | None = None
    public: PublicKey | None = None

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
    forms = scheme.key_forms
    form = next((form for form in forms if form.prefix and text.startswith(form.prefix.encode())), forms[0])
    key = Key(secret.id, text, text, secret.not_before, secret.not_after)
    if form.algorithm == "hmac":
        return key._replace(secret=_decode(text, form, where))
    try:
        return key._replace(
            public=load_public_key(text.removeprefix(form.prefix.encode()), form.algorithm, form.encoding)
        )
    except ValueError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error


def _decode(text: bytes, form: KeyForm, where: str) -> bytes:
    body = text.removeprefix(form.prefix.encode())
    try:
        decoded = _DECODERS[form.encoding](body)
    except (KeyError, ValueError) as error:
        message = f"{where}: is not {form.encoding}"
        if form.prefix:
            message += f" (the scheme's secrets look like {form.prefix}...)"
        raise ConfigError(message) from error
    smallest, largest = form.key_bytes
    if not smallest <= len(decoded) <= largest:
        message = f"{where}: has {len(decoded)} bytes, needs {smallest} to {largest}"
        raise ConfigError(message)
    return decoded
