"""Tokens for Amazon MSK: their form, and their signature calculated here from what AWS has written down.

Source: AWS Signature Version 4, "Authenticating requests: using query parameters"; aws-msk-iam-sasl-signer-python.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from contracts.errors import ConfigError, LogUnavailable
from contracts.settings import KafkaSettings
from producers import kafka_client
from producers.kafka_client import client_config, made, msk_token

REGION, KEY_ID, KEY = "eu-central-1", "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
SESSION = "a/session+token=="


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    session = kafka_client._aws_session
    session.cache_clear()
    kafka_client._see_credentials.cache_clear()
    yield
    session.cache_clear()
    kafka_client._see_credentials.cache_clear()


def url_in(token: str) -> str:
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    return base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()


def signature(host: str, fields: dict[str, str]) -> str:
    """Return the signature of a GET of `/` with these fields of the query."""
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(fields[name], safe='-_.~')}" for name in sorted(fields))
    nothing = hashlib.sha256(b"").hexdigest()
    canonical = f"GET\n/\n{query}\nhost:{host}\n\nhost\n{nothing}"
    stamp = fields["X-Amz-Date"]
    scope = f"{stamp[:8]}/{REGION}/kafka-cluster/aws4_request"
    signed = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{KEY}".encode()
    for part in (*scope.split("/"), signed):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def test_a_token_is_the_signed_url_that_the_brokers_check() -> None:
    token, ends_s = msk_token(REGION)
    parts = urlsplit(url_in(token))
    fields = dict(parse_qsl(parts.query, strict_parsing=True))
    agent, signed = fields.pop("User-Agent"), fields.pop("X-Amz-Signature")
    asked_at = datetime.strptime(fields["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)

    assert (parts.scheme, parts.netloc, parts.path) == ("https", f"kafka.{REGION}.amazonaws.com", "/")
    assert fields == {
        "Action": "kafka-cluster:Connect",
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{KEY_ID}/{asked_at:%Y%m%d}/{REGION}/kafka-cluster/aws4_request",
        "X-Amz-Date": fields["X-Amz-Date"],
        "X-Amz-Expires": "900",
        "X-Amz-Security-Token": SESSION,
        "X-Amz-SignedHeaders": "host",
    }
    assert signed == signature(parts.netloc, fields)
    assert agent == "penstock"
    # Never later than the brokers take it for ended.
    assert 0 <= ends_s - (asked_at.timestamp() + 900) < 1.1
    assert abs(asked_at.timestamp() - time.time()) < 60


def test_without_credentials_that_is_said_before_a_client_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM", aws_region=REGION)

    with pytest.raises(ConfigError, match="needs credentials of AWS, and its default chain finds none"):
        client_config(kafka)


def test_credentials_that_cannot_be_had_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)

    with pytest.raises(LogUnavailable, match=r"the credentials of AWS cannot be had: .*nobody"):
        msk_token(REGION)


REFUSED = ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRoleWithWebIdentity")


class Refusing:
    """A session of which the credentials cannot be had any more."""

    def __init__(self, fault: Exception) -> None:
        self.fault = fault

    def get_credentials(self) -> object:
        raise self.fault


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (REFUSED, "AccessDenied"),
        (FileNotFoundError("no token file"), "no token file"),
        (RuntimeError("refreshed credentials are still expired"), "still expired"),
        (BotoCoreError(), "unspecified"),
        (KeyError(), "KeyError"),
    ],
)
def test_whatever_a_provider_of_credentials_raises_is_told_at_the_start_and_passes_later(
    fault: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM", aws_region=REGION)
    good = kafka_client._aws_session()
    monkeypatch.setattr(kafka_client, "_aws_session", lambda: Refusing(fault))
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"the credentials of AWS cannot be had: .*{said}"):
            client_config(kafka)
    monkeypatch.setattr(kafka_client, "_aws_session", lambda: good)
    assert "oauth_cb" in client_config(kafka)
    monkeypatch.setattr(kafka_client, "_aws_session", lambda: Refusing(fault))

    ask = client_config(kafka)["oauth_cb"]
    with capture_logs() as told, pytest.raises(LogUnavailable, match=said):
        ask("")
    assert [(line["event"], said in line["error"]) for line in told] == [("kafka.token_refused", True)]


def test_a_client_that_is_given_no_token_in_time_is_kafka_that_is_away() -> None:
    def make() -> None:
        # What the binding (2.16) raises after 10 s.
        error = KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "OAuth token not set within 10 seconds timeout")
        raise KafkaException(error)

    with pytest.raises(LogUnavailable, match="Kafka cannot be asked: OAuth token not set"):
        made(make)


def test_all_clients_ask_the_same_so_that_who_shares_them_can() -> None:
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM", aws_region=REGION)
    first, second = client_config(kafka), client_config(kafka)

    assert first == second
    assert hash(frozenset(first.items())) == hash(frozenset(second.items()))
    assert first["sasl.mechanism"] == "OAUTHBEARER"
    assert url_in(first["oauth_cb"]("")[0]).startswith(f"https://kafka.{REGION}.amazonaws.com/?Action=kafka-cluster%3A")
