"""Verifies messages that Amazon SNS posts: which topic, which certificate, which signature. Pure; fetches nothing.

Source: Amazon SNS Developer Guide, "Verifying the signatures of Amazon SNS messages" (checked 2026-11).
MessageAttributes are not part of what is signed, so nothing is read from them here.
"""

import base64
import binascii
import re
from datetime import datetime
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from contracts.envelope import parse_time
from contracts.errors import BadSignature, InvalidPayload

MIN_KEY_BITS = 2048
_CERTIFICATE_PATH = re.compile(r"/SimpleNotificationService-[0-9a-zA-Z]{1,64}\.pem")
_NOTIFICATION = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_HANDSHAKE = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")
_HASHES: dict[str, hashes.HashAlgorithm] = {
    # What SNS calls version 1; which versions count is the source's setting.
    "1": hashes.SHA1(),  # noqa: S303 - as above
    "2": hashes.SHA256(),
}


class SnsMessage(msgspec.Struct, rename="pascal"):
    """A message as SNS posts it."""

    type: Literal["Notification", "SubscriptionConfirmation", "UnsubscribeConfirmation"]
    message_id: str
    topic_arn: str
    message: str
    timestamp: str
    signature: str
    signature_version: str
    signing_cert_url: str = msgspec.field(name="SigningCertURL")
    subject: str | None = None
    token: str | None = None
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)


def read_message(body: bytes) -> SnsMessage:
    """Read a message.

    Raises:
        InvalidPayload: it is none.
    """
    try:
        return msgspec.json.decode(body, type=SnsMessage)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = "the body is no message of Amazon SNS"
        raise InvalidPayload(message) from error


def host_of(topic_arn: str) -> str:
    """Return SNS's host of a topic's region: the only one that is ever asked for anything."""
    partition, region = topic_arn.split(":")[1], topic_arn.split(":")[3]
    return f"sns.{region}.amazonaws.com{'.cn' if partition == 'aws-cn' else ''}"


def check_certificate_url(message: SnsMessage) -> str:
    """Return the URL of the certificate.

    Raises:
        BadSignature: it is not where SNS keeps its certificates.
    """
    parts = _parts(message.signing_cert_url)
    if parts is None or parts.netloc != host_of(message.topic_arn) or not _CERTIFICATE_PATH.fullmatch(parts.path):
        raise _refused(detail="certificate_url")
    if parts.query or parts.fragment:
        raise _refused(detail="certificate_url")
    return message.signing_cert_url


def check_subscribe_url(message: SnsMessage) -> str:
    """Return the URL that confirms a subscription.

    Raises:
        InvalidPayload: it is not SNS's own.
    """
    parts = _parts(message.subscribe_url or "")
    if parts is None or parts.netloc != host_of(message.topic_arn) or parts.path not in {"", "/"}:
        text = "SubscribeURL does not lead to Amazon SNS"
        raise InvalidPayload(text)
    return message.subscribe_url or ""


def _parts(url: str) -> SplitResult | None:
    """Return the parts of an https URL without port and user; None for any other text."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    # urlsplit drops tabs and line ends, which the library that fetches may not.
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return parts if is_plain and parts.scheme == "https" else None


def read_certificate(pem: bytes) -> x509.Certificate:
    """Read a certificate.

    Raises:
        BadSignature: it is none, or its key is weak.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, TypeError) as error:
        raise _refused(detail="certificate") from error
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size < MIN_KEY_BITS:
        raise _refused(detail="certificate")
    return certificate


def verify(
    message: SnsMessage,
    certificate: x509.Certificate,
    versions: tuple[str, ...],
    tolerance_s: float,
    now: datetime,
) -> None:
    """Return if SNS has signed this message lately.

    Raises:
        BadSignature: with the private reason.
    """
    if message.signature_version not in versions:
        raise _refused(detail="signature_version")
    if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
        raise _refused(detail="certificate")
    _check_age(message.timestamp, tolerance_s, now)
    key = certificate.public_key()
    try:
        signature = base64.b64decode(message.signature, validate=True)
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed_text(message), padding.PKCS1v15(), _HASHES[message.signature_version])
            return
    except (binascii.Error, ValueError) as error:
        raise _refused(detail="malformed") from error
    except InvalidSignature as error:
        raise _refused(detail="wrong_signature") from error
    raise _refused(detail="certificate")


def signed_text(message: SnsMessage) -> bytes:
    """Return what SNS signs: names and values, a line each, in the order of the names."""
    values = {
        "Message": message.message,
        "MessageId": message.message_id,
        "Subject": message.subject,
        "SubscribeURL": message.subscribe_url,
        "Timestamp": message.timestamp,
        "Token": message.token,
        "TopicArn": message.topic_arn,
        "Type": message.type,
    }
    names = _NOTIFICATION if message.type == "Notification" else _HANDSHAKE
    lines = [f"{name}\n{values[name]}\n" for name in names if values[name] is not None]
    return "".join(lines).encode("utf-8", "surrogatepass")


def _check_age(text: str, tolerance_s: float, now: datetime) -> None:
    sent_at = parse_time(text)
    if sent_at is None:
        raise _refused(detail="malformed_timestamp")
    age_s = (now - sent_at).total_seconds()
    if abs(age_s) > tolerance_s:
        raise _refused(detail="stale" if age_s > 0 else "in_future")


def _refused(detail: str) -> BadSignature:
    return BadSignature(detail)
