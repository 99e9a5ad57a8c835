"""Makes the configured webhook sources; the one place that tells Amazon SNS from senders that sign by themselves."""

from collections.abc import Mapping

from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.webhooks import WebhookSource

Source = WebhookSource | SnsSource


def build_sources(sources: Mapping[str, SourceSettings], topics: Topics) -> dict[str, Source]:
    """Return the configured sources by name.

    Raises:
        ConfigError: a secret or template of a source cannot be used.
    """
    return {
        name: SnsSource(name, source, topics) if source.scheme == "sns" else WebhookSource(name, source, topics)
        for name, source in sources.items()
    }
