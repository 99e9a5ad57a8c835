"""The one configuration: penstock.yaml, environment overrides, secrets by reference."""

from contracts.settings.batch_jobs import BatchInput, BatchJobSettings
from contracts.settings.environ import environment
from contracts.settings.gateway import ApiKey, GatewaySettings, ResultsViewSettings
from contracts.settings.kafka import KafkaSettings, OAuthSettings, ProducerSettings
from contracts.settings.load import build, config_file, load, located, locating, require_secrets
from contracts.settings.logging import LogSettings
from contracts.settings.marks import Unusable, parse
from contracts.settings.models import (
    BedrockProvider,
    EmbeddedProvider,
    FakeProvider,
    ModelSettings,
    OpenAIProvider,
    Price,
    ProviderSettings,
)
from contracts.settings.retry import DeadLetterLimit, Retry, RetryBudgetSettings, RetryClass
from contracts.settings.root import Settings
from contracts.settings.routes import Match, Prompt, RouteSettings
from contracts.settings.secrets import SecretRef
from contracts.settings.signing import HmacTemplate, PublicKeyTemplate, SignatureTemplate
from contracts.settings.sources import SourceSecret, SourceSettings
from contracts.settings.watchdog import WatchdogSettings
from contracts.settings.worker import WorkerSettings

__all__ = [
    "ApiKey",
    "BatchInput",
    "BatchJobSettings",
    "BedrockProvider",
    "DeadLetterLimit",
    "EmbeddedProvider",
    "FakeProvider",
    "GatewaySettings",
    "HmacTemplate",
    "KafkaSettings",
    "LogSettings",
    "Match",
    "ModelSettings",
    "OAuthSettings",
    "OpenAIProvider",
    "Price",
    "ProducerSettings",
    "Prompt",
    "ProviderSettings",
    "PublicKeyTemplate",
    "ResultsViewSettings",
    "Retry",
    "RetryBudgetSettings",
    "RetryClass",
    "RouteSettings",
    "SecretRef",
    "Settings",
    "SignatureTemplate",
    "SourceSecret",
    "SourceSettings",
    "Unusable",
    "WatchdogSettings",
    "WorkerSettings",
    "build",
    "config_file",
    "environment",
    "load",
    "located",
    "locating",
    "parse",
    "require_secrets",
]
