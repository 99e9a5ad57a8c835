"""Asks a Prometheus server.

Blocking: one HTTP request each, 10 s at most.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from tests.metrics.promql import Query, panel_queries

LIMIT_S = 10.0
# What a stack that has answered events and had no fault must show; the other panels are about faults.
ALWAYS_DRAWN = frozenset({
    "Accepted",
    "Finished",
    "Waiting",
    "Workers",
    "Routes paused now",
    "Webhooks by source and outcome",
    "Answers by status",
    "Answer time",
    "Key last used",
    "Finished by outcome",
    "Age at the outcome",
    "Finished by route",
    "Calls by outcome",
    "Call time",
    "In flight and limit",
    "Wait for a first call",
    "Tokens",
    "Waiting events by topic",
    "Commits",
    "Records produced",
    "Time to the broker's ack",
    "Producer buffer",
    "Held events",
    "Oldest unfinished event",
    "Bytes held",
    "Event loop",
    "Memory",
    "CPU",
    "Versions",
})  # fmt: skip


class Prometheus:
    """A running server.

    Args:
        url: its base URL.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return the `data` of an answer of its API.

        Raises:
            AssertionError: it does not answer, or the query is wrong.
        """
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as answer:  # noqa: S310 - the server's own address
                document = json.load(answer)
        except OSError as error:
            body = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
            message = f"{url}: {error} {body}"
            raise AssertionError(message) from error
        assert document["status"] == "success", document
        return document["data"]

    def series(self, query: Query) -> list[Any]:
        """Return what a panel's query finds now."""
        found: list[Any] = self.get("query", query=query.on_server())["result"]
        return found

    def targets(self) -> dict[str, str]:
        """Return the health of each target by job and instance."""
        active = self.get("targets")["activeTargets"]
        return {
            f"{t['labels']['job']} {t['labels']['instance']}": f"{t['health']} {t['lastError']}".strip() for t in active
        }

    def rules_with_health(self, health: str) -> list[str]:
        """Return the rules that are `unknown` (not evaluated yet) or in `err`, with their errors."""
        groups = self.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return [f"{rule['name']}: {rule.get('lastError', '')}" for rule in rules if rule["health"] == health]

    def firing(self) -> list[str]:
        """Return the names of the firing alerts."""
        return sorted(
            {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"] if alert["state"] == "firing"}
        )

    def panels_without_data(self) -> list[str]:
        """Run every query of the dashboard; return those that found nothing and should have."""
        empty = [query.where for query in panel_queries() if not self.series(query)]
        return [where for where in empty if where.rsplit("/", 1)[0] in ALWAYS_DRAWN]
