"""Signs a body as each kind of sender does; written from the senders' documents, independent of the gateway's verifier.

Source: the documents that gateways/ingress/schemes.py names, Twilio "Webhooks security" (checked 2026-11).
"""

import base64
import hashlib
import hmac
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from contracts.errors import ConfigError
from contracts.settings import HmacTemplate, PublicKeyTemplate, SignatureTemplate, SourceSettings
from contracts.settings.sources import KeyHeader
from producers.samples.fields import is_form
from producers.samples.private_keys import PrivateKey, load_private_key, new_private_key, sign_message, sign_text

_PRIVATE_PREFIX = b"whsk_"
_WRONG = b"not the secret of this source.."
# Kind and writing of the keys of senders that have a pair.
_KEY_PAIRS = {"discord": ("ed25519", "hex"), "sendgrid": ("ecdsa-p256-sha256", "der")}
Headers = dict[str, str]


class Unsigned(NamedTuple):
    """A request that wants a signature.

    Attributes:
        secret: as configured, prefix and all; the private key where the source has the public one.
        key_id: of the secret in the configuration.
        headers: that the request has besides.
    """

    source: SourceSettings
    secret: bytes
    body: bytes
    event_id: str
    timestamp_s: int
    key_id: str = ""
    headers: Mapping[str, str] = {}

    @property
    def url(self) -> str:
        """Return the source's URL as the sender knows it."""
        return self.source.public_url or ""


def sign(
    source: SourceSettings,
    secret: bytes,
    body: bytes,
    *,
    event_id: str,
    timestamp_s: int,
    key_id: str = "",
    headers: Mapping[str, str] | None = None,
) -> Headers:
    """Return the headers that carry the signature, lower-case names.

    Args:
        source: its scheme, and the template of scheme hmac or public-key.
        secret: as configured, prefix and all; the private key where the source has the public one.
        body: exactly what is sent.
        event_id: for schemes that sign an id.
        timestamp_s: sender's time, Unix seconds.
        key_id: of the secret in the configuration, for schemes that name it.
        headers: that the request has besides, for schemes that can sign any of them.

    Raises:
        ConfigError: the secret is not written as the scheme demands, or nobody but the sender can sign.
    """
    request = Unsigned(source, secret, body, event_id, timestamp_s, key_id, headers or {})
    return _SCHEMES[source.scheme](request)


def query_of(source: SourceSettings, body: bytes) -> str:
    """Return the query of the URL that a sender posts to."""
    configured = urlsplit(source.public_url or "").query
    if source.scheme != "twilio" or is_form(source):
        return configured
    digest = f"bodySHA256={hashlib.sha256(body).hexdigest()}"
    return f"{configured}&{digest}" if configured else digest


def key_pair_of(source: SourceSettings) -> tuple[str, str] | None:
    """Return the kind and the writing of the keys of a source that is always verified with a public key."""
    own = source.public_key or source.http_signature
    if own is None:
        return _KEY_PAIRS.get(source.scheme)
    return None if own.algorithm == "hmac-sha256" else (own.algorithm, own.key_encoding)


def needs_private_key(source: SourceSettings, secret: bytes) -> bool:
    """Tell whether a source is verified with a public key, so that its configured secret cannot sign."""
    if source.scheme in {"standard-webhooks", "svix"}:
        return secret.startswith(b"whpk_")
    return key_pair_of(source) is not None


def forge(
    source: SourceSettings,
    body: bytes,
    *,
    event_id: str,
    timestamp_s: int,
    key_id: str = "",
    headers: Mapping[str, str] | None = None,
) -> Headers:
    """Return headers of the right form whose signature is wrong: made with another secret."""
    wrong = _wrong_secret(source)
    return sign(source, wrong, body, event_id=event_id, timestamp_s=timestamp_s, key_id=key_id, headers=headers)


def _wrong_secret(source: SourceSettings) -> bytes:
    key_pair = key_pair_of(source)
    if key_pair is not None:
        return _forgers_key(*key_pair)
    if source.http_signature is not None:
        return _written(_WRONG, source.http_signature.key_encoding)
    if source.hmac is not None:
        return source.hmac.key_prefix.encode() + _written(_WRONG, source.hmac.key_encoding)
    return b"whsec_" + base64.b64encode(_WRONG)


@lru_cache(maxsize=8)
def _forgers_key(algorithm: str, encoding: str) -> bytes:
    # Made once: one of RSA costs half a second.
    return new_private_key(algorithm, encoding)


def _written(raw: bytes, encoding: str) -> bytes:
    return {"hex": raw.hex().encode(), "raw": raw}.get(encoding) or base64.b64encode(raw)


def _decoded(secret: bytes, prefix: bytes, encoding: str = "base64") -> bytes:
    text = secret.removeprefix(prefix)
    if encoding == "raw":
        return text
    try:
        return bytes.fromhex(text.decode("ascii")) if encoding == "hex" else base64.b64decode(text, validate=True)
    except (Base64Error, ValueError) as error:
        message = f"the secret is not {encoding} behind {prefix.decode()!r}"
        raise ConfigError(message) from error


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _api_key(request: Unsigned) -> Headers:
    where, secret = request.source.key_header or KeyHeader(), request.secret
    if where.form == "basic":
        return {where.header: f"Basic {_base64(secret)}"}
    return {where.header: f"{'Bearer ' if where.form == 'bearer' else ''}{secret.decode()}"}


def _client_certificate(request: Unsigned) -> Headers:
    settings = request.source.client_certificate
    if settings is None or settings.form != "text":
        message = "nobody but the proxy can send a certificate; with form text, samples can be sent in its place"
        raise ConfigError(message)
    return {settings.header: settings.subjects[0].subject, settings.proof_header: request.secret.decode("latin-1")}


def _standard_webhooks(request: Unsigned, family: str = "webhook") -> Headers:
    text = f"{request.event_id}.{request.timestamp_s}.".encode() + request.body
    if request.secret.startswith(_PRIVATE_PREFIX):
        key = load_private_key(request.secret.removeprefix(_PRIVATE_PREFIX), "ed25519", "base64")
        signature = f"v1a,{_base64(sign_text(key, text))}"
    else:
        signature = f"v1,{_base64(hmac.digest(_decoded(request.secret, b'whsec_'), text, 'sha256'))}"
    return {
        f"{family}-id": request.event_id,
        f"{family}-timestamp": str(request.timestamp_s),
        f"{family}-signature": signature,
    }


def _github(request: Unsigned) -> Headers:
    return {"x-hub-signature-256": f"sha256={hmac.digest(request.secret, request.body, 'sha256').hex()}"}


def _stripe(request: Unsigned) -> Headers:
    digest = hmac.digest(request.secret, f"{request.timestamp_s}.".encode() + request.body, "sha256")
    return {"stripe-signature": f"t={request.timestamp_s},v1={digest.hex()}"}


def _slack(request: Unsigned) -> Headers:
    digest = hmac.digest(request.secret, f"v0:{request.timestamp_s}:".encode() + request.body, "sha256")
    return {"x-slack-request-timestamp": str(request.timestamp_s), "x-slack-signature": f"v0={digest.hex()}"}


def _shopify(request: Unsigned) -> Headers:
    digest = hmac.digest(request.secret, request.body, "sha256")
    return {"x-shopify-hmac-sha256": _base64(digest), "x-shopify-webhook-id": request.event_id}


def _twilio(request: Unsigned) -> Headers:
    query = query_of(request.source, request.body)
    text = request.url.partition("?")[0] + (f"?{query}" if query else "")
    if is_form(request.source):
        pairs = set(parse_qsl(request.body.decode(), keep_blank_values=True))
        text += "".join(name + value for name, value in sorted(pairs))
    headers = {"i-twilio-idempotency-token": request.event_id}
    algorithm = "sha1"
    if request.source.twilio is not None and "sha1" not in request.source.twilio.algorithms:
        algorithm = "sha256"
        headers["x-twilio-webhooks-signature-settings"] = f"key={request.key_id},algorithm=HMAC_SHA256"
    return headers | {"x-twilio-signature": _base64(hmac.digest(request.secret, text.encode(), algorithm))}


def _square(request: Unsigned) -> Headers:
    digest = hmac.digest(request.secret, request.url.encode() + request.body, "sha256")
    return {"x-square-hmacsha256-signature": _base64(digest)}


def _salesforce_ens(request: Unsigned) -> Headers:
    return {"x-sfmc-ens-signature": _base64(hmac.digest(request.secret, request.body, "sha256"))}


def _discord(request: Unsigned) -> Headers:
    key = load_private_key(request.secret, *_KEY_PAIRS["discord"])
    signature = sign_text(key, str(request.timestamp_s).encode() + request.body)
    return {"x-signature-ed25519": signature.hex(), "x-signature-timestamp": str(request.timestamp_s)}


def _sendgrid(request: Unsigned) -> Headers:
    key = load_private_key(request.secret, *_KEY_PAIRS["sendgrid"])
    signature = sign_text(key, str(request.timestamp_s).encode() + request.body)
    return {
        "x-twilio-email-event-webhook-signature": _base64(signature),
        "x-twilio-email-event-webhook-timestamp": str(request.timestamp_s),
    }


def _http_signature(request: Unsigned) -> Headers:
    settings = request.source.http_signature
    if settings is None:
        message = "scheme http-signature without its section"
        raise ConfigError(message)
    keyids = {secret_id: keyid for keyid, secret_id in settings.keyids.items()}
    key: PrivateKey | bytes = (
        _decoded(request.secret, b"", settings.key_encoding)
        if settings.is_hmac
        else (load_private_key(request.secret, settings.algorithm, settings.key_encoding))
    )
    keyid = keyids.get(request.key_id, request.key_id)
    return sign_message(settings, key, keyid, request.url, request.headers, request.body, request.timestamp_s)


def _by_template(request: Unsigned) -> Headers:
    template = request.source.template
    stamp = request.timestamp_s * (1000 if template is not None and template.timestamp_unit == "ms" else 1)
    if isinstance(template, HmacTemplate):
        key = _decoded(request.secret, template.key_prefix.encode(), template.key_encoding)
        signature = hmac.digest(key, _signed_text(template, request, stamp), template.algorithm)
    elif isinstance(template, PublicKeyTemplate):
        private = load_private_key(request.secret, template.algorithm, template.key_encoding)
        signature = sign_text(private, _signed_text(template, request, stamp))
    else:
        message = f"scheme {request.source.scheme} without its template"
        raise ConfigError(message)
    written = signature.hex() if template.encoding == "hex" else _base64(signature)
    headers = {template.signature_header: _lay_out(template, written, stamp)}
    if template.timestamp_header:
        headers[template.timestamp_header] = str(stamp)
    if template.id_header:
        headers[template.id_header] = request.event_id
    return headers


def _signed_text(template: SignatureTemplate, request: Unsigned, stamp: int) -> bytes:
    def filled(text: str) -> bytes:
        text = text.replace("{id}", request.event_id).replace("{timestamp}", str(stamp))
        return text.replace("{url}", request.url).encode()

    head, _, tail = template.signed.partition("{body}")
    return filled(head) + request.body + filled(tail)


def _lay_out(template: SignatureTemplate, written: str, stamp: int) -> str:
    if template.layout != "pairs":
        return f"{template.prefix}{written}"
    before = f"{template.timestamp_pair}={stamp}{template.pair_separator}" if template.timestamp_pair else ""
    return f"{before}{template.prefix}={written}"


def _sns(_request: Unsigned) -> Headers:
    message = "only Amazon SNS can sign for a source of scheme sns"
    raise ConfigError(message)


def _microsoft_graph(_request: Unsigned) -> Headers:
    message = "Microsoft Graph signs nothing: its secret, the clientState, stands in each item of the body"
    raise ConfigError(message)


_SCHEMES: dict[str, Callable[[Unsigned], Headers]] = {
    "standard-webhooks": _standard_webhooks,
    "svix": lambda request: _standard_webhooks(request, "svix"),
    "github": _github,
    "stripe": _stripe,
    "slack": _slack,
    "shopify": _shopify,
    "twilio": _twilio,
    "square": _square,
    "salesforce-ens": _salesforce_ens,
    "discord": _discord,
    "sendgrid": _sendgrid,
    "http-signature": _http_signature,
    "client-certificate": _client_certificate,
    "hmac": _by_template,
    "public-key": _by_template,
    "api-key": _api_key,
    "sns": _sns,
    "microsoft-graph": _microsoft_graph,
}
