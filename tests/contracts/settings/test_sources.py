"""Sections of sources: which belong to which scheme, and what of a template cannot be."""

from typing import Any

import pytest
from pydantic import ValidationError

from contracts.settings import SourceSettings
from tests.suites.schemes import CASES

SECRETS = [{"id": "a", "value": "env:A"}]
URL = "https://hooks.example.com/webhooks/shop"


def source(**section: Any) -> SourceSettings:
    return SourceSettings.model_validate({"type": "t", "secrets": SECRETS} | section)


@pytest.mark.parametrize("scheme", ["hmac", "public-key", "http-signature", "client-certificate", "sns"])
def test_a_scheme_with_a_section_needs_it(scheme: str) -> None:
    with pytest.raises(ValidationError, match=f"scheme {scheme} and the section `{scheme.replace('-', '_')}`"):
        source(scheme=scheme, public_url=URL)


@pytest.mark.parametrize("name", ["hmac", "public-key", "http-signature hmac", "client-certificate", "twilio sha256"])
def test_a_section_belongs_to_its_scheme_only(name: str) -> None:
    section = CASES[name].section | {"scheme": "github"}

    with pytest.raises(ValidationError, match="belong"):
        source(**section)


@pytest.mark.parametrize("name", ["twilio", "square", "http-signature hmac", "hmac url"])
def test_a_scheme_that_signs_the_url_needs_the_configured_one(name: str) -> None:
    section = {key: value for key, value in CASES[name].section.items() if key != "public_url"}

    with pytest.raises(ValidationError, match="public_url is needed"):
        source(**section)


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example.com/x",
        "ftp://hooks.example.com/x",
        "https://user@hooks.example.com/x",
        "https://hooks.example.com",
        "https://hooks.example.com/x y",
        "https://hooks.example.com/\u00fc",
        "https://hooks.example.com:port/x",
        "https://[::1]/x",
    ],
)
def test_a_public_url_is_a_whole_plain_url(url: str) -> None:
    with pytest.raises(ValidationError, match="public_url"):
        source(scheme="square", public_url=url)


@pytest.mark.parametrize(
    "signed", ["{body}{id}", "{body}.{id}.{timestamp}", "{timestamp}", "{body}x", "{body}{timestamp}x", "{body}{url}"]
)
def test_nothing_of_a_length_that_can_be_shifted_stands_behind_the_body(signed: str) -> None:
    template = {"signature_header": "s", "timestamp_header": "t", "id_header": "i", "signed": signed}

    with pytest.raises(ValidationError, match="signed"):
        source(scheme="hmac", hmac=template, public_url=URL)


@pytest.mark.parametrize("name", ["@Method", 'a"b', "a\\b", "\u00fc"])
def test_components_are_plain_names(name: str) -> None:
    settings = {"algorithm": "ed25519", "components": [name]}

    with pytest.raises(ValidationError, match="components"):
        source(scheme="http-signature", http_signature=settings, public_url=URL)


@pytest.mark.parametrize("network", ["10.0.0.1/8", "proxy.internal", "0.0.0.0/33", ""])
def test_trusted_proxies_are_networks(network: str) -> None:
    settings = {"header": "h", "subjects": [{"id": "p", "subject": "CN=p"}], "trusted_proxies": [network]}

    with pytest.raises(ValidationError, match="trusted_proxies"):
        source(scheme="client-certificate", client_certificate=settings)
