"""Signs a body as each kind of sender does; written from the senders' documents, independent of the gateway's verifier.

Source: Standard Webhooks 1.0, GitHub "Validating webhook deliveries", Stripe "Resolve webhook signature verification
errors", Slack "Verifying requests from Slack" (checked 2026-11).
"""

import base64
import hmac
from binascii import Error as Base64Error
from collections.abc import Callable

from contracts.errors import ConfigError
from contracts.settings import HmacTemplate, SourceSettings
from contracts.settings.sources import KeyHeader


def sign(source: SourceSettings, secret: bytes, body: bytes, *, event_id: str, timestamp_s: int) -> dict[str, str]:
    """Return the headers that carry the signature, lower-case names.

    Args:
        source: its scheme, and the template of scheme hmac.
        secret: as configured, prefix and all.
        body: exactly what is sent.
        event_id: for schemes that sign an id.
        timestamp_s: sender's time, Unix seconds.

    Raises:
        ConfigError: the secret is not written as the scheme demands.
    """
    if source.scheme == "hmac":
        if source.hmac is None:
            message = "scheme hmac without its template"
            raise ConfigError(message)
        return _by_template(source.hmac, secret, body, event_id, timestamp_s)
    if source.scheme == "api-key":
        return _api_key(source.key_header or KeyHeader(), secret)
    if source.scheme == "sns":
        message = "only Amazon SNS can sign for a source of scheme sns"
        raise ConfigError(message)
    return _SCHEMES[source.scheme](secret, body, event_id, timestamp_s)


def forge(source: SourceSettings, body: bytes, *, event_id: str, timestamp_s: int) -> dict[str, str]:
    """Return headers of the right form whose signature is wrong: made with another secret."""
    wrong = b"whsec_" + base64.b64encode(b"not the secret of this source..")
    template = source.hmac
    if template is not None:
        wrong = template.key_prefix.encode() + base64.b64encode(b"not the secret of this source..")
    return sign(source, wrong, body, event_id=event_id, timestamp_s=timestamp_s)


def _decode_base64(secret: bytes, prefix: bytes) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(prefix), validate=True)
    except Base64Error as error:
        message = f"the secret is not base64 behind {prefix.decode()!r}"
        raise ConfigError(message) from error


def _api_key(where: KeyHeader, secret: bytes) -> dict[str, str]:
    if where.form == "basic":
        return {where.header: f"Basic {base64.b64encode(secret).decode()}"}
    return {where.header: f"{'Bearer ' if where.form == 'bearer' else ''}{secret.decode()}"}


def _standard_webhooks(secret: bytes, body: bytes, event_id: str, timestamp_s: int) -> dict[str, str]:
    key = _decode_base64(secret, b"whsec_")
    digest = hmac.digest(key, f"{event_id}.{timestamp_s}.".encode() + body, "sha256")
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def _github(secret: bytes, body: bytes, _event_id: str, _timestamp_s: int) -> dict[str, str]:
    return {"x-hub-signature-256": f"sha256={hmac.digest(secret, body, 'sha256').hex()}"}


def _stripe(secret: bytes, body: bytes, _event_id: str, timestamp_s: int) -> dict[str, str]:
    digest = hmac.digest(secret, f"{timestamp_s}.".encode() + body, "sha256")
    return {"stripe-signature": f"t={timestamp_s},v1={digest.hex()}"}


def _slack(secret: bytes, body: bytes, _event_id: str, timestamp_s: int) -> dict[str, str]:
    digest = hmac.digest(secret, f"v0:{timestamp_s}:".encode() + body, "sha256")
    return {"x-slack-request-timestamp": str(timestamp_s), "x-slack-signature": f"v0={digest.hex()}"}


_SCHEMES: dict[str, Callable[[bytes, bytes, str, int], dict[str, str]]] = {
    "standard-webhooks": _standard_webhooks,
    "github": _github,
    "stripe": _stripe,
    "slack": _slack,
}


def _by_template(template: HmacTemplate, secret: bytes, body: bytes, event_id: str, timestamp_s: int) -> dict[str, str]:
    prefix = template.key_prefix.encode()
    key = _decode_base64(secret, prefix) if template.key_encoding == "base64" else secret.removeprefix(prefix)
    head = template.signed.removesuffix("{body}")
    head = head.replace("{id}", event_id).replace("{timestamp}", str(timestamp_s))
    digest = hmac.digest(key, head.encode() + body, template.algorithm)
    written = digest.hex() if template.encoding == "hex" else base64.b64encode(digest).decode()
    headers = {template.signature_header: _lay_out(template, written, timestamp_s)}
    if template.timestamp_header:
        headers[template.timestamp_header] = str(timestamp_s)
    if template.id_header:
        headers[template.id_header] = event_id
    return headers


def _lay_out(template: HmacTemplate, written: str, timestamp_s: int) -> str:
    if template.layout != "pairs":
        return f"{template.prefix}{written}"
    stamp = f"{template.timestamp_pair}={timestamp_s}," if template.timestamp_pair else ""
    return f"{stamp}{template.prefix}={written}"
