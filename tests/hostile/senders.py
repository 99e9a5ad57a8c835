"""Signs webhooks the way each sender does, and checks them again: stdlib only, nothing of the gateway's own code.

Both directions stand here, so that the fuzzer's oracle is not the code that it judges.
"""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Lines = list[tuple[bytes, bytes]]

RAW_SECRET = b"hostile-secret-of-enough-bytes-0"
OTHER_SECRET = b"another-secret-of-enough-bytes-1"
API_KEY = "hostile-api-key-of-enough-characters"
TOLERANCE_S = 300
_STAMP = re.compile(rb"[1-9][0-9]{0,11}")


def whsec(secret: bytes) -> str:
    """Return a key as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secret).decode()


ENVIRONMENT = {
    "PENSTOCK_SECRET_SALESFORCE": RAW_SECRET.decode(),
    "PENSTOCK_SECRET_GITHUB": RAW_SECRET.decode(),
    "PENSTOCK_SECRET_STRIPE": RAW_SECRET.decode(),
    "PENSTOCK_SECRET_SLACK": RAW_SECRET.decode(),
    "PENSTOCK_SECRET_SUPPORT": whsec(RAW_SECRET),
    "PENSTOCK_SECRET_JSON_ONLY": OTHER_SECRET.decode(),
    "PENSTOCK_API_KEY": API_KEY,
}


@dataclass(frozen=True)
class Sender:
    """One kind of sender.

    Attributes:
        source: name of its section in the configuration.
        sign: headers for a body, an id, a stamp and a key.
        is_authentic: the second opinion on a request that was accepted.
        signature: name of the header with the signature.
    """

    source: bytes
    sign: Callable[[bytes, bytes, bytes, bytes], Lines]
    is_authentic: Callable[[Lines, bytes, bytes, float], bool]
    signature: bytes

    def lines(self, body: bytes, *, event_id: bytes, stamp: bytes | None = None, secret: bytes = RAW_SECRET) -> Lines:
        """Return the headers of a signed request."""
        return self.sign(body, event_id, b"%d" % time.time() if stamp is None else stamp, secret)


def request(
    path: bytes,
    lines: Sequence[tuple[bytes, bytes]],
    body: bytes,
    *,
    length: int | None = None,
    method: bytes = b"POST",
) -> bytes:
    """Return a request as bytes; the length is the body's unless told."""
    head = [
        method + b" " + path + b" HTTP/1.1",
        b"host: gateway",
        *(name + b": " + value for name, value in lines),
        b"content-length: %d" % (len(body) if length is None else length),
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _digest(secret: bytes, *parts: bytes) -> bytes:
    return hmac.new(secret, b"".join(parts), hashlib.sha256).digest()


def _values(lines: Lines, name: bytes) -> list[bytes]:
    return [value for line, value in lines if line.lower() == name]


def _is_fresh(stamp: bytes, now_s: float) -> bool:
    # A second more than the gateway's own limit: the answer comes a moment after its decision.
    return bool(_STAMP.fullmatch(stamp)) and abs(int(stamp) - now_s) <= TOLERANCE_S + 1


def _sign_github(body: bytes, event_id: bytes, _stamp: bytes, secret: bytes) -> Lines:
    return [
        (b"x-hub-signature-256", b"sha256=" + _digest(secret, body).hex().encode()),
        (b"x-github-event", b"push"),
        (b"x-github-delivery", event_id),
        (b"content-type", b"application/json"),
    ]


def _check_github(lines: Lines, body: bytes, secret: bytes, _now_s: float) -> bool:
    return _values(lines, b"x-hub-signature-256") == [b"sha256=" + _digest(secret, body).hex().encode()]


def _sign_slack(body: bytes, _event_id: bytes, stamp: bytes, secret: bytes) -> Lines:
    signature = b"v0=" + _digest(secret, b"v0:", stamp, b":", body).hex().encode()
    return [(b"x-slack-signature", signature), (b"x-slack-request-timestamp", stamp)]


def _check_slack(lines: Lines, body: bytes, secret: bytes, now_s: float) -> bool:
    stamps, signatures = _values(lines, b"x-slack-request-timestamp"), _values(lines, b"x-slack-signature")
    if len(stamps) != 1 or not _is_fresh(stamps[0], now_s):
        return False
    return signatures == [b"v0=" + _digest(secret, b"v0:", stamps[0], b":", body).hex().encode()]


def _sign_stripe(body: bytes, _event_id: bytes, stamp: bytes, secret: bytes) -> Lines:
    return [(b"stripe-signature", b"t=" + stamp + b",v1=" + _digest(secret, stamp, b".", body).hex().encode())]


def _check_stripe(lines: Lines, body: bytes, secret: bytes, now_s: float) -> bool:
    values = _values(lines, b"stripe-signature")
    pairs = [pair.partition(b"=") for pair in values[0].split(b",")] if len(values) == 1 else []
    stamps = [value for name, _, value in pairs if name == b"t"]
    if len(stamps) != 1 or not _is_fresh(stamps[0], now_s):
        return False
    return (b"v1", b"=", _digest(secret, stamps[0], b".", body).hex().encode()) in pairs


def _sign_support(body: bytes, event_id: bytes, stamp: bytes, secret: bytes) -> Lines:
    signature = base64.b64encode(_digest(secret, event_id, b".", stamp, b".", body))
    return [
        (b"webhook-id", event_id),
        (b"webhook-timestamp", stamp),
        (b"webhook-signature", b"v1," + signature),
        (b"content-type", b"application/json"),
    ]


def _check_support(lines: Lines, body: bytes, secret: bytes, now_s: float) -> bool:
    fields = [_values(lines, b"webhook-" + name) for name in (b"id", b"timestamp", b"signature")]
    if any(len(values) != 1 for values in fields):
        return False
    (event_id,), (stamp,), (signatures,) = fields
    if not _is_fresh(stamp, now_s) or b"." in event_id:
        return False
    return b"v1," + base64.b64encode(_digest(secret, event_id, b".", stamp, b".", body)) in signatures.split(b" ")


def _sign_salesforce(body: bytes, _event_id: bytes, stamp: bytes, secret: bytes) -> Lines:
    signature = _digest(secret, stamp, b".", body).hex().encode()
    return [(b"x-salesforce-signature", signature), (b"x-salesforce-timestamp", stamp)]


def _check_salesforce(lines: Lines, body: bytes, secret: bytes, now_s: float) -> bool:
    stamps, signatures = _values(lines, b"x-salesforce-timestamp"), _values(lines, b"x-salesforce-signature")
    if len(stamps) != 1 or not _is_fresh(stamps[0], now_s):
        return False
    return signatures == [_digest(secret, stamps[0], b".", body).hex().encode()]


GITHUB = Sender(b"github", _sign_github, _check_github, b"x-hub-signature-256")
SLACK = Sender(b"slack", _sign_slack, _check_slack, b"x-slack-signature")
STRIPE = Sender(b"stripe", _sign_stripe, _check_stripe, b"stripe-signature")
SUPPORT = Sender(b"support", _sign_support, _check_support, b"webhook-signature")
SALESFORCE = Sender(b"salesforce", _sign_salesforce, _check_salesforce, b"x-salesforce-signature")
SENDERS = (GITHUB, SLACK, STRIPE, SUPPORT, SALESFORCE)
