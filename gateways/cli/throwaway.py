"""Makes random secrets for a run of `demo` or `up`: new ones each time, passed to the children's environment only."""

import base64
import secrets
from collections.abc import Iterable, Mapping

from contracts.settings import SecretRef, Settings, SourceSettings
from producers.samples.private_keys import new_private_key, public_text_of
from producers.samples.signing import key_pair_of

_KEY_BYTES = 32


def environment_of(settings: Settings, environ: Mapping[str, str], *, renew: bool) -> dict[str, str]:
    """Return variables for the secrets of our doors in (sources, API keys, tickets) that come from the environment.

    Secrets of providers are never made up: an invented API key helps nobody.

    Args:
        settings: names the variables.
        environ: variables that are set there are left alone, unless `renew`.
        renew: make new ones for all.
    """
    wanted: dict[str, str] = {}
    for source in settings.sources.values():
        wanted |= {name: _text(source) for name in _names(secret.value for secret in source.secrets)}
    plain = [ref for key in settings.gateway.api_keys for ref in (key.key, *(one.value for one in key.former_keys))]
    plain += [ref for source in settings.sources.values() if (ref := source.idempotency.redelivery_secret) is not None]
    plain += [ref for ref in [settings.gateway.ticket_secret] if ref is not None]
    plain += settings.gateway.former_ticket_secrets
    wanted |= {name: secrets.token_urlsafe(_KEY_BYTES) for name in _names(plain)}
    return {name: text for name, text in wanted.items() if renew or not environ.get(name)}


def _names(secrets_of: Iterable[SecretRef]) -> list[str]:
    return [secret.reference.removeprefix("env:") for secret in secrets_of if secret.reference.startswith("env:")]


def _text(source: SourceSettings) -> str:
    """Return a secret in the form that the source's scheme expects."""
    pair = key_pair_of(source)
    if pair is not None:
        # Its private half is thrown away at once: such a source starts, and nobody can send to it.
        return public_text_of(new_private_key(*pair), *pair)
    key = secrets.token_bytes(_KEY_BYTES)
    if source.scheme in {"standard-webhooks", "svix"}:
        return "whsec_" + base64.b64encode(key).decode()
    own = source.hmac or source.http_signature
    if own is not None and own.key_encoding == "base64":
        return (source.hmac.key_prefix if source.hmac else "") + base64.b64encode(key).decode()
    if source.key_header is not None and source.key_header.form == "basic":
        return f"penstock:{key.hex()}"
    return (source.hmac.key_prefix if source.hmac is not None else "") + key.hex()
