"""The dashboard and the rules speak of metrics that exist, and the dashboard is one that Grafana can draw."""

import itertools
import re
from typing import Any

import pytest
import yaml

from tests.metrics.promql import Query, dashboard, panel_queries, rule_queries, series_labels
from tests.support import ROOT

ALL_QUERIES = [*panel_queries(), *rule_queries()]
GRID_WIDTH = 24


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.where)
def test_every_series_in_a_query_exists_with_the_labels_it_is_selected_by(query: Query) -> None:
    known = series_labels()

    wrong = [(name, labels - known.get(name, frozenset())) for name, labels in query.selectors()]
    assert [entry for entry in wrong if entry[0] not in known or entry[1]] == []


@pytest.mark.parametrize("query", ALL_QUERIES, ids=lambda query: query.where)
def test_every_label_a_query_groups_by_is_one_of_its_series(query: Query) -> None:
    known = series_labels()
    available = frozenset().union(*(known[name] for name, _ in query.selectors()))

    assert query.grouped_by() - available == frozenset()


def test_every_metric_that_an_alert_is_about_is_on_the_dashboard() -> None:
    recorded = {query.where: query for query in rule_queries() if ":" in query.where}
    drawn = {name for query in panel_queries() for name, _ in query.selectors()}
    behind_drawn = {name for query in recorded.values() if query.where in drawn for name, _ in query.selectors()}
    in_alerts = {name for query in rule_queries() for name, _ in query.selectors()}

    assert sorted(in_alerts - drawn - behind_drawn - recorded.keys()) == []


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    return panels


def _cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    grid = panel["gridPos"]
    columns, lines = range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"])
    return set(itertools.product(columns, lines))


def test_panels_that_the_runbook_sends_to_are_on_the_dashboard() -> None:
    text = (ROOT / "docs/runbook.md").read_text("utf-8")
    lists = re.findall(r'[Pp]anels? ("[^"]+"(?:(?:,| and|, and) "[^"]+")*)', text)
    named = {name for one in lists for name in re.findall(r'"([^"]+)"', one)}

    assert len(named) > 10
    assert sorted(named - {panel["title"] for panel in dashboard()["panels"]}) == []


def test_no_two_panels_overlap_and_none_leaves_the_grid() -> None:
    overlaps = [
        (one["title"], other["title"])
        for one, other in itertools.combinations(_panels(), 2)
        if _cells(one) & _cells(other)
    ]

    assert overlaps == []
    assert [panel["title"] for panel in _panels() if max(x for x, _ in _cells(panel)) >= GRID_WIDTH] == []


def test_panel_ids_are_unique_and_every_panel_has_a_title_and_a_unit() -> None:
    ids = [panel["id"] for panel in _panels()]
    drawn = [panel for panel in _panels() if panel["type"] != "row"]

    assert len(ids) == len(set(ids))
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in drawn)


def test_every_panel_uses_the_provisioned_data_source() -> None:
    text = (ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text("utf-8")
    provisioned = {source["uid"] for source in yaml.safe_load(text)["datasources"]}
    used = {target["datasource"]["uid"] for panel in _panels() for target in panel.get("targets", ())}

    assert used == provisioned


def test_each_row_of_the_dashboard_is_there() -> None:
    assert [panel["title"] for panel in _panels() if panel["type"] == "row"] == [
        "Intake",
        "Outcomes",
        "Model calls",
        "Cost and tokens",
        "Kafka",
        "Engine",
        "Doors out",
        "Overload",
        "Batch jobs and hand-over",
    ]
