"""Which secrets are refused at start."""

import base64
from datetime import UTC, datetime

import pytest

from contracts.errors import ConfigError
from contracts.settings import SourceSettings
from gateways.ingress.keys import Key, resolve_keys
from gateways.ingress.schemes import scheme_of


def _resolve(scheme: str, secret: str, monkeypatch: pytest.MonkeyPatch) -> Key:
    monkeypatch.setenv("TEST_SECRET", secret)
    source = SourceSettings.model_validate(
        {
            "scheme": scheme,
            "type": "t",
            "secrets": [{"id": "current", "value": "env:TEST_SECRET"}],
            "public_url": "https://hooks.example.com/webhooks/shop",
        }
    )
    return resolve_keys("shop", source, scheme_of(source))[0]


@pytest.mark.parametrize("form", ["whsec_{}", "{}"])
def test_a_standard_webhooks_secret_is_decoded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = base64.b64encode(b"s" * 32).decode()

    assert _resolve("standard-webhooks", form.format(secret), monkeypatch).secret == b"s" * 32


def test_padding_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = base64.b64encode(b"s" * 32).decode().rstrip("=")

    assert _resolve("standard-webhooks", f"whsec_{secret}", monkeypatch).secret == b"s" * 32


def test_a_stripe_secret_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _resolve("stripe", "whsec_0123456789abcdef", monkeypatch).secret == b"whsec_0123456789abcdef"


@pytest.mark.parametrize("size", [1, 23, 65])
def test_a_standard_webhooks_secret_of_another_length_is_refused(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"sources\.shop: secret 'current'.*24 to 64"):
        _resolve("standard-webhooks", base64.b64encode(b"s" * size).decode(), monkeypatch)


@pytest.mark.parametrize("text", ["whsec_!!!", "whsec_\u00fc", "whsec_A", "whpk_AAAA"])
def test_a_secret_that_is_not_base64_is_refused_and_not_repeated(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"sources\.shop: secret 'current'") as caught:
        _resolve("standard-webhooks", text, monkeypatch)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "smallest"),
    [("github", 16), ("stripe", 16), ("salesforce-ens", 16), ("square", 16), ("slack", 32), ("shopify", 32),
     ("twilio", 32)],
)  # fmt: skip
def test_a_secret_shorter_than_the_vendors_is_refused(
    scheme: str, smallest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _resolve(scheme, "x" * smallest, monkeypatch)
    with pytest.raises(ConfigError, match=f"needs {smallest}"):
        _resolve(scheme, "x" * (smallest - 1), monkeypatch)


def test_an_empty_secret_is_refused_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"sources\.shop: secret 'current': secret env:TEST_SECRET is not set"):
        _resolve("github", "", monkeypatch)


def test_a_key_counts_from_its_first_to_its_last_instant() -> None:
    key = Key("k", b"", b"", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 3, tzinfo=UTC))

    valid = [key.is_valid_at(datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    assert valid == [True, True, True, False]
    assert not key.is_valid_at(datetime(2025, 12, 31, tzinfo=UTC))
