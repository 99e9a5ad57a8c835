"""The list of providers."""

import subprocess
import sys
from typing import Any, get_args

import pytest

from contracts.errors import ConfigError
from contracts.settings.models import (
    BedrockProvider,
    EmbeddedProvider,
    FakeProvider,
    OpenAIProvider,
    ProviderSettings,
)
from contracts.settings.secrets import SecretRef
from streams.providers.base import Provider
from streams.providers.table import TABLE, create_provider

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (EmbeddedProvider(kind="embedded"), "embedded"),
        (FakeProvider(kind="fake"), "fake"),
        (OpenAIProvider(kind="openai", base_url="http://127.0.0.1:1/v1"), "openai"),
        (BedrockProvider(kind="bedrock", region="us-east-1"), "aws.bedrock"),
    ],
)
async def test_every_section_makes_its_provider(settings: Any, name: str) -> None:
    provider = create_provider(settings)

    assert isinstance(provider, Provider)
    assert provider.name == name
    await provider.aclose()


def test_every_kind_of_section_is_in_the_table() -> None:
    sections = get_args(get_args(ProviderSettings)[0])

    assert {get_args(section.model_fields["kind"].annotation)[0] for section in sections} == set(TABLE)


def test_a_secret_that_is_missing_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    settings = OpenAIProvider(kind="openai", base_url="http://x/v1", api_key=SecretRef("env:NO_SUCH_KEY"))

    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        create_provider(settings)


def test_nothing_is_imported_before_it_is_named() -> None:
    code = "import sys, streams.providers.table; print({'boto3', 'aiohttp'} & set(sys.modules))"

    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert outcome.stdout.strip() == "set()"
