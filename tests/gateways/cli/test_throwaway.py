"""Tests of gateways/cli/throwaway.py."""

import base64
from pathlib import Path

import pytest

from contracts.settings import SecretRef, Settings, build, load, parse
from gateways.cli import throwaway
from tests.gateways.cli.settings import SMALL
from tests.suites.schemes import CASES
from tests.support import ROOT

EXAMPLE = load(ROOT / "penstock.yaml", {})


def test_every_secret_of_sources_and_api_keys_gets_a_value() -> None:
    made = throwaway.environment_of(EXAMPLE, {}, renew=True)

    assert set(made) == {
        "PENSTOCK_API_KEY",
        "PENSTOCK_SECRET_GITHUB",
        "PENSTOCK_SECRET_SALESFORCE",
        "PENSTOCK_SECRET_STRIPE",
        "PENSTOCK_SECRET_SUPPORT",
    }


def test_the_secret_for_redeliveries_gets_a_value_too() -> None:
    support = EXAMPLE.sources["support"]
    wanted = support.idempotency.model_copy(update={"redelivery_secret": SecretRef("env:PENSTOCK_REDELIVERY")})
    sources = {"support": support.model_copy(update={"idempotency": wanted})}

    made = throwaway.environment_of(EXAMPLE.model_copy(update={"sources": sources}), {}, renew=True)

    assert len(made["PENSTOCK_REDELIVERY"]) >= 16


def test_the_secret_of_tickets_gets_a_value_too() -> None:
    gateway = EXAMPLE.gateway.model_copy(update={"ticket_secret": SecretRef("env:PENSTOCK_TICKET_SECRET")})

    made = throwaway.environment_of(EXAMPLE.model_copy(update={"gateway": gateway}), {}, renew=True)

    assert len(made["PENSTOCK_TICKET_SECRET"]) >= 32


def test_two_runs_share_no_secret() -> None:
    first = throwaway.environment_of(EXAMPLE, {}, renew=True)
    second = throwaway.environment_of(EXAMPLE, {}, renew=True)

    assert not set(first.values()) & set(second.values())


def test_a_standard_webhooks_secret_has_its_form() -> None:
    text = throwaway.environment_of(EXAMPLE, {}, renew=True)["PENSTOCK_SECRET_SUPPORT"]

    assert text.startswith("whsec_")
    assert len(base64.b64decode(text.removeprefix("whsec_"), validate=True)) == 32


def test_secrets_that_are_set_are_left_alone() -> None:
    made = throwaway.environment_of(EXAMPLE, {"PENSTOCK_SECRET_GITHUB": "mine"}, renew=False)

    assert "PENSTOCK_SECRET_GITHUB" not in made
    assert "PENSTOCK_SECRET_STRIPE" in made


def test_secrets_from_files_are_left_alone() -> None:
    settings = build(parse(SMALL.replace("env:PENSTOCK_SECRET_GITHUB", "file:/run/secret"), "x"), {}, Path())

    assert throwaway.environment_of(settings, {}, renew=True) == {}


def test_provider_keys_are_never_made_up() -> None:
    text = SMALL.replace(
        "{kind: embedded}", "{kind: openai, base_url: 'http://127.0.0.1:9/v1', api_key: 'env:OPENAI_API_KEY'}"
    )
    settings = build(parse(text, "x"), {}, Path())

    assert set(throwaway.environment_of(settings, {}, renew=True)) == {"PENSTOCK_SECRET_GITHUB"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_secret_of_every_scheme_is_one_that_a_gateway_starts_with(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    made = throwaway.environment_of(Settings(version=1, sources={"shop": case.source}), {}, renew=True)
    monkeypatch.setenv("TEST_HELD", made["TEST_HELD"])

    assert case.verifier() is not None
