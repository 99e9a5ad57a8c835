"""Reports on one captured request: what the gateway would say, and which key fits.

Blocking: reads secrets.
"""

from collections.abc import Iterator
from datetime import datetime

import msgspec

from contracts.errors import BadSignature, PenstockError
from contracts.settings import Settings, SourceSettings
from gateways.cli.captured import Captured
from gateways.cli.verify_causes import Case
from gateways.ingress.keys import Key, resolve_keys
from gateways.ingress.schemes import scheme_of
from gateways.ingress.secrets import SecretStore
from gateways.ingress.verifiers import build_verifier
from gateways.ingress.verifying import Incoming, Verified


class Check(msgspec.Struct, frozen=True):
    """One step: what was looked at, how it went (ok, failed, found, note), and in words."""

    what: str
    outcome: str
    words: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be said about a request.

    Attributes:
        reason: private reason code of a refusal, that of the gateway's log or a better one.
        key_id: which key fitted, if one did.
        age_s: of the sender's time at `now`, seconds.
    """

    source: str
    scheme: str
    is_authentic: bool
    reason: str | None
    key_id: str | None
    age_s: float | None
    now: str
    checks: tuple[Check, ...]


def examine(settings: Settings, name: str, captured: Captured, now: datetime, peer: str = "") -> Report:
    """Return the report about a request to a source.

    Raises:
        ConfigError: a secret or template of the source cannot be used.
    """
    source = settings.sources[name]
    secrets = SecretStore(settings.secrets_manager).reading()
    keys = resolve_keys(name, source, scheme_of(source), secrets)
    request = Incoming(captured.headers, captured.body, captured.query, peer)
    verifier = build_verifier(name, source, keys)
    checks = [_about(captured), *_before(captured, source, settings), *(_about_key(key, now) for key in keys)]
    reason, age_s, key_id = None, None, None
    try:
        verified = verifier.verify(request, now)
    except BadSignature as error:
        reason, age_s = error.detail, error.age_s
        checks.append(Check("signature", "failed", _refusal(error)))
        found = Case(settings, name, keys, request, secrets, captured.target).cause(error, now)
        if found is not None:
            checks.append(Check("signature", "found", found.words))
            reason, key_id = found.detail, found.key_id
    except PenstockError as error:
        reason = error.reason
        checks.append(Check("headers", "failed", str(error)))
    else:
        key_id = verified.key_id
        age_s = None if verified.timestamp is None else round(now.timestamp() - verified.timestamp, 3)
        checks += _about_success(verified, age_s)
    return Report(
        source=name,
        scheme=source.scheme,
        is_authentic=reason is None,
        reason=reason,
        key_id=key_id,
        age_s=age_s,
        now=now.isoformat(),
        checks=tuple(checks),
    )


def _about(captured: Captured) -> Check:
    target = captured.target.decode("latin-1")
    return Check(
        "request",
        "ok" if captured.method == "POST" else "note",
        f"{captured.method} {target}, {len(captured.headers)} headers, {len(captured.body)} bytes of body",
    )


def _before(captured: Captured, source: SourceSettings, settings: Settings) -> Iterator[Check]:
    """Yield what the gateway looks at before the signature, and how the file was read."""
    for remark in captured.remarks:
        yield Check("capture", "note", remark)
    if source.scheme == "microsoft-graph" and b"validationToken=" in captured.query:
        yield Check("request", "note", "a handshake of Microsoft Graph: the gateway answers with the token")
    if captured.method != "POST":
        yield Check("request", "failed", "the gateway takes events by POST; it answers 405")
    limit_bytes = min(settings.gateway.max_body_bytes, source.max_body_bytes or settings.gateway.max_body_bytes)
    if len(captured.body) > limit_bytes:
        yield Check("body", "failed", f"larger than {limit_bytes} bytes; the gateway answers 413")
    if any(name == b"content-encoding" and value.lower() != b"identity" for name, value in captured.headers):
        yield Check("body", "failed", "compressed; the gateway answers 415")


def _about_key(key: Key, now: datetime) -> Check:
    if key.is_valid_at(now):
        return Check("secret", "ok", f"{key.id}: counts at that time")
    if key.not_after is not None and key.not_after < now:
        return Check("secret", "note", f"{key.id}: retired at {key.not_after.isoformat()}")
    return Check("secret", "note", f"{key.id}: counts from {key.not_before.isoformat() if key.not_before else '?'}")


def _about_success(verified: Verified, age_s: float | None) -> Iterator[Check]:
    if age_s is not None:
        yield Check("time", "ok", f"the sender's time is {_off(age_s)}")
    if verified.signed is None:
        yield Check("signature", "ok", f"fits {verified.key_id}, which proves who sends, and nothing about the body")
    else:
        yield Check("signature", "ok", f"fits {verified.key_id}; it covers {len(verified.signed)} bytes")
    if verified.id is not None and not verified.signs_id:
        yield Check("id", "note", "the id is not signed: whoever captured the request can send it under another one")


def _refusal(error: BadSignature) -> str:
    return error.detail if error.age_s is None else f"{error.detail}: the sender's time is {_off(error.age_s)}"


def _off(age_s: float) -> str:
    return f"{abs(age_s):.0f} s {'in the past' if age_s >= 0 else 'in the future'}"
