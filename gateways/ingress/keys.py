"""Resolves a source's secrets into keys, and refuses the ones that protect nothing.

Blocking: reads the files that secrets refer to, or asks AWS Secrets Manager.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.settings import SourceSecret, SourceSettings, Unusable
from gateways.ingress.schemes import KeyForm, Scheme
from gateways.ingress.secrets import Secrets, Value
from gateways.ingress.text import decode_base64

if TYPE_CHECKING:
    from gateways.ingress.public_keys import PublicKey

_DECODERS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda text: bytes.fromhex(text.decode("ascii")),
    "base64": decode_base64,
}

_log = logger("gateway")


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
    public: "PublicKey | None" = None

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether this key counts at an instant."""
        return (self.not_before is None or self.not_before <= now) and (self.not_after is None or now <= self.not_after)


def resolve_keys(name: str, source: SourceSettings, scheme: Scheme, secrets: Secrets | None = None) -> tuple[Key, ...]:
    """Return the keys of a source.

    Args:
        name: of the source.
        source: its settings.
        scheme: of the source.
        secrets: how references are read; without AWS Secrets Manager when None.

    Raises:
        ConfigError: secrets are missing, not decodable, or of a length the scheme does not allow; names source and id,
            one line for each.
    """
    secrets = secrets or Secrets()
    keys: list[Key] = []
    problems = []
    for index, secret in enumerate(source.secrets):
        try:
            keys += _resolve(name, secret, scheme, secrets)
        except ConfigError as error:
            problems.append((("sources", name, "secrets", index, "value"), str(error)))
    if problems:
        raise Unusable(problems)
    if not keys:
        # The settings refuse it already; there is no way around it.
        message = f"sources.{name}: has no secret, so nothing would be verified"
        raise ConfigError(message)
    return tuple(keys)


def _resolve(name: str, secret: SourceSecret, scheme: Scheme, secrets: Secrets) -> Iterator[Key]:
    where = f"sources.{name}: secret {secret.id!r}"
    try:
        current, *previous = secrets.values(secret.value)
    except ConfigError as error:
        message = f"{where}: {error}"
        raise ConfigError(message) from error
    yield _key(secret, current, scheme, where)
    for value in previous:
        try:
            yield _key(secret, value, scheme, where)
        except ConfigError as error:
            # What was there before a good secret may well have been a placeholder.
            _log.warning("secret.previous_unusable", source=name, key_id=secret.id, error=str(error))


def _key(secret: SourceSecret, value: Value, scheme: Scheme, where: str) -> Key:
    text = value.text
    forms = scheme.key_forms
    form = next((form for form in forms if form.prefix and text.startswith(form.prefix.encode())), forms[0])
    ends = [end for end in (secret.not_after, value.not_after) if end is not None]
    key = Key(secret.id + value.suffix, text, text, secret.not_before, min(ends, default=None))
    if form.algorithm == "hmac":
        return key._replace(secret=_decode(text, form, where))
    # Only sources with public keys pay for the library: the Lambda door imports all of this at a cold start.
    from gateways.ingress.public_keys import load_public_key

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
