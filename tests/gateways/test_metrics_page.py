"""The page of metrics where several processes share one."""

import os
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from contracts.metrics import REGISTRY
from gateways.metrics_page import FOLDER_VARIABLE, drop_series, metrics_page, reserve

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


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="room cannot be reserved here")
def test_a_process_has_the_room_for_its_metrics_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of a sparse file that a full disk cannot give is the end of whoever writes to it."""
    reserve(tmp_path, 0)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue(lambda: 0))  # type: ignore[no-untyped-call]
    ours = CollectorRegistry()
    modes = {gauge._multiprocess_mode for gauge in REGISTRY._collector_to_names if isinstance(gauge, Gauge)}
    gauges = [Gauge(f"gauge_{mode}", "text", registry=ours, multiprocess_mode=mode) for mode in sorted(modes)]
    Counter("counted", "text", registry=ours).inc(3)
    Histogram("seen", "text", registry=ours).observe(1)
    for gauge in gauges:
        gauge.set(1)
    files = {file.name: file.stat() for file in tmp_path.iterdir()}

    assert files.keys() == {f"{kind}_0.db" for kind in ("counter", "histogram", *(f"gauge_{mode}" for mode in modes))}
    assert [name for name, stat in files.items() if stat.st_blocks * 512 < stat.st_size] == []
    reserve(tmp_path, 0)
    assert "counted_total 3.0" in metrics_page().decode()
