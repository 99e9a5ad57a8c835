"""Reads the dashboard, the rules and the registry, and takes queries apart as far as the tests need it.

Reads: deploy/grafana/dashboards, deploy/prometheus/rules.
"""

import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from contracts.metrics import REGISTRY
from tests.support import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "penstock.json"
# Given to every series by the scrape, not by us; `endpoint` by the Prometheus operator.
TARGET_LABELS = frozenset({"job", "instance", "namespace", "endpoint"})
_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}
_SELECTOR = re.compile(r"(?P<name>\b(?:penstock|process)[a-z0-9_:]*|\bup\b)(?:\{(?P<labels>[^}]*)\})?")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


@dataclass(frozen=True)
class Query:
    """One expression and where it stands."""

    where: str
    expr: str

    def selectors(self) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield each series name with the labels it is selected by."""
        for match in _SELECTOR.finditer(_GROUPING.sub("", self.expr)):
            yield match["name"], frozenset(re.findall(r"([a-z_]+)\s*(?:=~|!~|!=|=)", match["labels"] or ""))

    def grouped_by(self) -> frozenset[str]:
        """Return every label that the expression groups by."""
        return frozenset(label.strip() for group in _GROUPING.findall(self.expr) for label in group.split(",") if label)

    def on_server(self) -> str:
        """Return the expression with Grafana's variables filled in as Grafana would."""
        return self.expr.replace("$__rate_interval", "20s").replace("$route", ".*")


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    document: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return document


def panel_queries() -> list[Query]:
    """Return the queries of every panel."""
    return [
        Query(f"{panel['title']}/{target['refId']}", target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]


def rules() -> list[dict[str, Any]]:
    """Return every rule of every file."""
    files = sorted((PROMETHEUS / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text("utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def rule_queries() -> list[Query]:
    """Return the expressions of every rule."""
    return [Query(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


@functools.cache
def series_labels() -> dict[str, frozenset[str]]:
    """Return every series that can exist: ours from the registry, the recorded ones, and `up`."""
    known: dict[str, frozenset[str]] = {"up": TARGET_LABELS}
    for collector in REGISTRY._collector_to_names:
        labels = frozenset(getattr(collector, "_labelnames", ()))
        for metric in collector.describe() if hasattr(collector, "describe") else collector.collect():
            extra = {"le"} if metric.type == "histogram" else set()
            for suffix in _SUFFIXES[metric.type]:
                known[metric.name + suffix] = labels | TARGET_LABELS | extra
    for rule in rules():
        if "record" in rule:
            known[rule["record"]] = Query(rule["record"], rule["expr"]).grouped_by() & _outer_labels(rule["expr"])
    return known


def _outer_labels(expr: str) -> frozenset[str]:
    """Return the labels of the outermost aggregation, which are those of the result."""
    match = re.match(r"\s*(?:sum|max|min|count|avg|group)\s+by\s*\(([^)]*)\)", expr)
    return frozenset(label.strip() for label in match[1].split(",")) if match else frozenset()
