"""The page of metrics: of this process, or of all processes of this gateway together.

Reads: the files of PROMETHEUS_MULTIPROC_DIR, where there is one. Blocking: some milliseconds then.
Source: prometheus_client 0.26, "Multiprocess mode" (checked 2026-11).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contracts import tallies
from contracts.metrics import KEY_LAST_USED, REGISTRY
from contracts.settings import environment

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PIDS = "pids"
# Of a process, by what its metrics are in: prometheus_client makes sparse files, and writes to them through memory. A
# page that a full disk cannot give then is the end of the process (SIGBUS). A counter of a label takes some 250 bytes.
_GAUGES = ("gauge_livesum", "gauge_livemin", "gauge_livemax", "gauge_max")
_RESERVED_BYTES = {"counter": 1 << 20, "histogram": 1 << 20, **dict.fromkeys(_GAUGES, 1 << 16)}
_DROPPED_AT_0 = next(iter(KEY_LAST_USED.describe())).name


def reserve(folder: Path, number: int) -> None:
    """Take the room for the metrics of a process before it starts; what its predecessor counted stays.

    Raises:
        OSError: there is none.
    """
    for kind, size in _RESERVED_BYTES.items():
        with (folder / f"{kind}_{number}.db").open("ab") as file:
            # Not everywhere, as on macOS.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)


def metrics_page() -> bytes:
    """Return every metric in the Prometheus text format."""
    folder = environment().get(FOLDER_VARIABLE)
    if not folder:
        return generate_latest(REGISTRY)
    # Of this process; the others write theirs every second.
    tallies.flush()
    registry = CollectorRegistry()
    registry.register(_Shared(folder))
    registry.register(_Processes(Path(folder) / PIDS))
    return generate_latest(registry)


def drop_series(gauge: Gauge, *labels: str) -> None:
    """Take a series of `KEY_LAST_USED` off the page; in files that are shared it stays, as 0, which is not shown."""
    if environment().get(FOLDER_VARIABLE):
        gauge.labels(*labels).set(0)
    else:
        gauge.remove(*labels)


class _Shared(Collector):
    """What the processes have in their files, without series that were dropped: files never lose one."""

    def __init__(self, folder: str) -> None:
        self._files = MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]

    def collect(self) -> Iterator[Metric]:
        for metric in self._files.collect():  # type: ignore[no-untyped-call]
            if metric.name == _DROPPED_AT_0:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric


class _Processes(Collector):
    """The usual metrics of a process, summed over several; the start is that of the oldest."""

    def __init__(self, pids: Path) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        pages = [list(ProcessCollector(pid=_constant(pid), registry=None).collect()) for pid in self._living()]
        # Of a process that has just ended there is nothing, or not everything.
        for metrics in zip(*filter(None, pages), strict=False):
            yield _together(metrics)

    def _living(self) -> Iterable[int]:
        try:
            return [int(pid) for pid in self._pids.read_text("ascii").split()]
        except FileNotFoundError:
            return []


def _constant(pid: int) -> Callable[[], int]:
    # ProcessCollector takes a function, so that it can follow a fork.
    return lambda: pid


def _together(metrics: Iterable[Metric]) -> Metric:
    first, *others = metrics
    samples = [metric.samples[0] for metric in (first, *others) if metric.samples]
    join = min if first.name == "process_start_time_seconds" else sum
    first.samples = [samples[0]._replace(value=join(sample.value for sample in samples))] if samples else []
    return first
