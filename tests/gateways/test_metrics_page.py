"""The page of metrics where several processes share one."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, values

from gateways.metrics_page import FOLDER_VARIABLE, drop_series, metrics_page

NAME = "penstock_webhook_key_last_used_timestamp_seconds"


def test_the_series_of_a_key_that_is_gone_leaves_the_page_of_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: 0))  # type: ignore[no-untyped-call]
    gauge = Gauge(NAME, "text", ("source", "key_id"), registry=CollectorRegistry(), multiprocess_mode="max")
    for key_id in ("old", "new"):
        gauge.labels("shop", key_id).set(1)

    drop_series(gauge, "shop", "old")

    page = metrics_page().decode()
    assert f'{NAME}{{key_id="new",source="shop"}} 1.0' in page
    assert 'key_id="old"' not in page
