"""Reference pages from definitions: topics, metrics, errors, endpoints."""

import inspect

from prometheus_client.metrics import MetricWrapperBase

from contracts import metrics as metric_definitions
from contracts.errors import PenstockError
from contracts.settings import KafkaSettings
from contracts.topics import Topic, Topics
from gateways.cli.reference_tables import code, table
from gateways.cli.wording import lasting

_DAY_MS = 86_400_000


def topics() -> str:
    """Return the page about topics."""
    prefix = KafkaSettings().topic_prefix
    rows = [
        (code(topic.name), topic.kind, _kept(topic), topic.purpose) for topic in Topics(prefix).table(has_doors=True)
    ]
    settings = ", ".join(f"`{name}={value}`" for name, value in Topics().table()[0].config().items())
    return (
        "# Topics\n\n"
        f"`{prefix}` is `kafka.topic_prefix`. A route's own `output_topic` is one more [result topic](../results.md).\n"
        "Result topics need at least as many partitions as event topics: an outcome goes to its event's partition "
        "number.\n"
        "Those of the kinds `deliveries`, `undelivered` and `endpoints` are made only where doors out are "
        "configured.\n\n"
        + table(("topic", "kind", "kept for", "what it holds"), rows)
        + f"\nCreated by `penstock topics create` with, for example, {settings}.\n"
    )


def _kept(topic: Topic) -> str:
    """Return for how long; of a topic that is compacted and nothing else, time deletes nothing."""
    return "the last of each key, for ever" if topic.cleanup == "compact" else lasting(topic.retention_ms / _DAY_MS)


def metrics() -> str:
    """Return the page about metrics."""
    rows = []
    for metric in vars(metric_definitions).values():
        if isinstance(metric, MetricWrapperBase):
            described = next(iter(metric.describe()))
            suffix = "_total" if described.type == "counter" else ""
            labels = ", ".join(map(code, metric._labelnames))  # noqa: SLF001 - the only place that has the names
            rows.append((code(described.name + suffix), described.type, labels, described.documentation))
    return (
        "# Metrics\n\nServed at `/metrics` by every program that keeps running, in the Prometheus text format.\n"
        "Not every process moves every metric.\n\n" + table(("metric", "type", "labels", "meaning"), sorted(rows))
    )


def errors() -> str:
    """Return the page about errors."""
    rows = [
        (
            kind.__name__,
            "" if kind is PenstockError else kind.__mro__[1].__name__,
            code(kind.reason),
            str(kind.http_status),
            "yes" if kind.retryable else "no",
            inspect.cleandoc(kind.__doc__ or "").split("\n\n")[0],
        )
        for kind in _tree(PenstockError)
    ]
    return (
        "# Errors\n\n"
        "`reason` is what answers, dead letters and metric labels carry. `retryable`: the same work may succeed later "
        "without anybody changing anything.\n\n"
        + table(("kind", "is a", "reason", "HTTP status", "retryable", "when"), rows)
    )


def _tree(kind: type[PenstockError]) -> list[type[PenstockError]]:
    # Only the published tree: a subclass that some module adds for itself is not part of the contract.
    children = [child for child in kind.__subclasses__() if child.__module__ == PenstockError.__module__]
    return [kind, *(inner for child in children for inner in _tree(child))]


def endpoints() -> str:
    """Return the page about the gateway's endpoints."""
    from gateways.endpoints.table import ENDPOINTS

    parts = ["# Endpoints of the gateway\n\nThe whole contract: [openapi.json](openapi.json).\n"]
    for endpoint in ENDPOINTS:
        operation = endpoint.operation
        parts.append(f"## {endpoint.method} {endpoint.path}\n\n{operation['summary']}\n")
        if "description" in operation:
            parts.append(operation["description"] + "\n")
        if operation.get("parameters"):
            rows = [(code(p["name"]), p["in"], p.get("description", "")) for p in operation["parameters"]]
            parts.append(table(("parameter", "in", "meaning"), rows))
        answers = [(status, answer["description"]) for status, answer in sorted(operation["responses"].items())]
        parts.append(table(("answer", "meaning"), answers))
    return "\n".join(parts)
