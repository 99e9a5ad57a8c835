"""The page of metrics: of this process, or of all processes of this gateway together.

Reads: the files of PROMETHEUS_MULTIPROC_DIR, where there is one. Blocking: some milliseconds then.
Source: prometheus_client 0.26, "Multiprocess mode" (checked 2026-11).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from contracts import tallies
from contracts.metrics import REGISTRY
from contracts.settings import environment

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
PIDS = "pids"


def metrics_page() -> bytes:
    """Return every metric in the Prometheus text format."""
    folder = environment().get(FOLDER_VARIABLE)
    if not folder:
        return generate_latest(REGISTRY)
    # Of this process; the others write theirs every second.
    tallies.flush()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]
    registry.register(_Processes(Path(folder) / PIDS))
    return generate_latest(registry)


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
