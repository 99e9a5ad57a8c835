"""A stand-in for Amazon SNS as a signer: a key and certificates of our own, and what it has been asked for."""

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID

from contracts.envelope import format_time
from contracts.errors import InvalidPayload, Retryable

TOPIC = "arn:aws:sns:eu-central-1:123456789012:orders"
HOST = "https://sns.eu-central-1.amazonaws.com"
CERTIFICATE_URL = f"{HOST}/SimpleNotificationService-0123456789abcdef0123456789abcdef.pem"
SUBSCRIBE_URL = f"{HOST}/?Action=ConfirmSubscription&TopicArn={TOPIC}&Token=abc"
NOW = datetime(2026, 11, 24, 8, tzinfo=UTC)
SIGNED = {
    "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
    "SubscriptionConfirmation": (
        "Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type",
    ),
}  # fmt: skip
SIGNED["UnsubscribeConfirmation"] = SIGNED["SubscriptionConfirmation"]


def make_certificate(key: Any, *, begins_at: datetime = NOW - timedelta(days=1), days: int = 30) -> bytes:
    """Return a self-signed certificate as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(begins_at).not_valid_after(begins_at + timedelta(days=days))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
CERTIFICATES = {
    "good": make_certificate(KEY),
    "expired": make_certificate(KEY, begins_at=NOW - timedelta(days=60)),
    "weak": make_certificate(rsa.generate_private_key(65537, 1024)),  # noqa: S505 - that is the point
    "elliptic": make_certificate(ec.generate_private_key(ec.SECP256R1())),
    "garbage": b"-----BEGIN CERTIFICATE-----\nnone\n",
}


class Sns:
    """What is at SNS's URLs.

    Attributes:
        asked: URLs in the order in which they were asked for.
        error: raised in place of an answer.
    """

    def __init__(self, certificate: str = "good") -> None:
        self.asked: list[str] = []
        self.error: Exception | None = None
        self._certificate = CERTIFICATES[certificate]

    async def fetch(self, url: str, timeout_s: float) -> bytes:
        """Answer as `gateways.ingress.sns_fetch.fetch` does."""
        assert timeout_s > 0
        self.asked.append(url)
        if self.error:
            raise self.error
        if url == SUBSCRIBE_URL:
            return b"<ConfirmSubscriptionResponse/>"
        if url != CERTIFICATE_URL:
            message = "Amazon SNS answered 403"
            raise InvalidPayload(message)
        return self._certificate


AWAY = Retryable("Amazon SNS cannot be reached")


def message(kind: str = "Notification", *, version: str = "1", key: Any = KEY, **changes: Any) -> dict[str, Any]:
    """Return a signed message; `changes` are fields before signing, None leaves one out."""
    fields: dict[str, Any] = {
        "Type": kind,
        "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
        "TopicArn": TOPIC,
        "Subject": "My First Message",
        "Message": '{"order": 7}',
        "Timestamp": format_time(NOW),
        "SignatureVersion": version,
        "SigningCertURL": CERTIFICATE_URL,
        "UnsubscribeURL": f"{HOST}/?Action=Unsubscribe",
    }
    if kind != "Notification":
        fields |= {"Token": "abc", "SubscribeURL": SUBSCRIBE_URL}
        del fields["Subject"]
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    text = "".join(f"{name}\n{fields[name]}\n" for name in SIGNED[kind] if name in fields)
    algorithm = hashes.SHA1() if version == "1" else hashes.SHA256()  # noqa: S303 - SNS's version 1
    signature = key.sign(text.encode("utf-8", "surrogatepass"), padding.PKCS1v15(), algorithm)
    return fields | {"Signature": base64.b64encode(signature).decode()}


def body(kind: str = "Notification", **options: Any) -> bytes:
    """Return the same as the body of a request."""
    return json.dumps(message(kind, **options)).encode()
