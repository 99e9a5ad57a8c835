"""The one list of providers; each is imported only when a configuration names it."""

from collections.abc import Callable
from typing import Any

from contracts.settings.models import (
    BedrockProvider,
    EmbeddedProvider,
    FakeProvider,
    OpenAIProvider,
    ProviderSettings,
)
from contracts.settings.secrets import SecretRef
from streams.providers.base import Provider
from streams.providers.limited import Limited
from streams.providers.measured import Measured


def _secret(reference: SecretRef | None) -> bytes | None:
    return reference.resolve() if reference is not None else None


def _embedded(settings: EmbeddedProvider) -> Provider:
    from streams.providers.embedded import Embedded

    return Embedded(settings)


def _bedrock(settings: BedrockProvider) -> Provider:
    from streams.providers.bedrock import Bedrock

    return Bedrock(settings, bearer_token=_secret(settings.bearer_token))


def _openai(settings: OpenAIProvider) -> Provider:
    from streams.providers.openai import OpenAI

    return OpenAI(settings, api_key=_secret(settings.api_key))


def _fake(settings: FakeProvider) -> Provider:
    from streams.providers.fake import Fake

    return Fake(settings)


TABLE: dict[str, Callable[[Any], Provider]] = {
    "embedded": _embedded,
    "bedrock": _bedrock,
    "openai": _openai,
    "fake": _fake,
}


def create_provider(settings: ProviderSettings) -> Provider:
    """Return the provider for a section of the configuration, measured, and limited when the section has a limit.

    Raises:
        ConfigError: a secret is missing, or the section cannot work.
    """
    measured = Measured(TABLE[settings.kind](settings))
    limit = getattr(settings, "max_in_flight", None)
    return Limited(measured, limit) if limit is not None else measured
