"""Makes the configured webhook sources, and holds those that count now.

The one place that tells Amazon SNS from senders that sign by themselves.
"""

from collections.abc import Iterator, Mapping

from contracts.errors import ConfigError
from contracts.settings import SourceSettings, Unusable
from contracts.settings.marks import Problem
from contracts.topics import Topics
from gateways.ingress.secrets import Secrets
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.webhooks import WebhookSource

Source = WebhookSource | SnsSource


class Sources(Mapping[str, Source]):
    """The sources by name; a request takes its source once, and ends with it even when others have come since."""

    def __init__(self, current: Mapping[str, Source]) -> None:
        self.swap(current)

    def swap(self, newer: Mapping[str, Source]) -> None:
        """Let other sources count from now on, all at once."""
        self._current = dict(newer)
        self._by_raw_name = {name.encode(): source for name, source in newer.items()}

    def find(self, raw_name: bytes) -> Source | None:
        """Return the source of a URL's last part; None for an unknown one."""
        return self._by_raw_name.get(raw_name)

    def __getitem__(self, name: str) -> Source:
        """Return a source."""
        return self._current[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._current)

    def __len__(self) -> int:
        """Count them."""
        return len(self._current)


def build_sources(
    sources: Mapping[str, SourceSettings], topics: Topics, secrets: Secrets | None = None
) -> dict[str, Source]:
    """Return the configured sources by name.

    Args:
        sources: their sections.
        topics: names of the topics.
        secrets: how references are read; without AWS Secrets Manager when None.

    Raises:
        ConfigError: a secret or template of a source cannot be used; one line for each problem.
    """
    built: dict[str, Source] = {}
    problems: list[Problem] = []
    for name, source in sources.items():
        try:
            built[name] = (
                SnsSource(name, source, topics, secrets=secrets)
                if source.scheme == "sns"
                else WebhookSource(name, source, topics, secrets)
            )
        except ConfigError as error:
            problems += Unusable.of(error, ("sources", name))
    if problems:
        raise Unusable(problems)
    return built
