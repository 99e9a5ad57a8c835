"""No source without a verifier starts, whichever way somebody tries."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from contracts.settings import Settings, SourceSettings, build
from contracts.settings.marks import Document
from contracts.topics import Topics
from gateways.ingress.keys import resolve_keys
from gateways.ingress.schemes import SCHEMES, scheme_of
from gateways.ingress.sources import build_sources

SECRET = {"id": "k", "value": "env:TEST_SECRET"}
GOOD: dict[str, Any] = {"scheme": "github", "type": "t", "secrets": [SECRET]}


def start(source: Any, environ: dict[str, str] | None = None) -> None:
    """Do what a start does with a source."""
    document = Document("penstock.yaml", {"version": 1, "sources": {"shop": deepcopy(source)}})
    settings: Settings = build(document, environ or {}, Path())
    build_sources(settings.sources, Topics())


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SECRET", "0123456789abcdef0123456789abcdef")


def test_the_source_that_the_others_are_spoilt_from_starts() -> None:
    start(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"secrets": []},
        {"secrets": None},
        {"secrets": [{"id": "k"}]},
        {"secrets": [{"id": "k", "value": ""}]},
        {"secrets": [{"id": "k", "value": None}]},
        {"secrets": [{"id": "k", "value": "0123456789abcdef0123456789abcdef"}]},
        {"scheme": "none"},
        {"scheme": None},
        {"scheme": "hmac"},
        {"scheme": "hmac", "hmac": {"signature_header": ""}},
        {"scheme": "hmac", "hmac": {"signature_header": "x", "signed": ""}},
        {"scheme": "hmac", "hmac": {"signature_header": "x", "signed": "{timestamp}"}},
        {"scheme": "api-key", "secrets": []},
        {"scheme": "sns", "secrets": []},
        {"scheme": "sns", "secrets": [], "sns": {"topic_arns": []}},
        {"scheme": "sns", "secrets": [], "sns": {"topic_arns": ["*"]}},
    ],
)
def test_a_source_without_a_verifier_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sources\.shop"):
        start(GOOD | change)


@pytest.mark.parametrize("scheme", [*SCHEMES, "api-key"])
def test_no_scheme_works_without_a_secret(scheme: str) -> None:
    with pytest.raises(ConfigError, match=r"sources\.shop"):
        start(GOOD | {"scheme": scheme, "secrets": []})


@pytest.mark.parametrize("text", ["[]", "", "null", "~"])
def test_the_environment_cannot_take_the_secrets_away(text: str) -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_SOURCES__SHOP__SECRETS"):
        start(GOOD, {"PENSTOCK_SOURCES__SHOP__SECRETS": text})


def test_settings_that_skip_validation_are_no_way_around_either() -> None:
    source = SourceSettings.model_validate(GOOD).model_copy(update={"secrets": ()})

    with pytest.raises(ConfigError, match="nothing would be verified"):
        resolve_keys("shop", source, scheme_of(source))
