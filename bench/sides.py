"""Who is measured: Penstock, the control, and the peers; each as a command and the environment it runs in."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from contracts.topics import Topics

ROOT = Path(__file__).parent.parent
SESSION_S = 6.0


@dataclass(frozen=True)
class Work:
    """One run's job.

    Attributes:
        session_timeout_s: after which the broker gives up a silent member of the group.
        run: tells runs on the same topics apart; each is a consumer group of its own.
    """

    bootstrap: str
    topics: Topics
    in_flight: int
    model_url: str
    folder: Path
    session_timeout_s: float = SESSION_S
    run: str = ""

    @property
    def group(self) -> str:
        """The consumer group."""
        return self.topics.prefix + self.run

    @property
    def source(self) -> str:
        """The topic that is read."""
        return self.topics.events("standard")


@dataclass(frozen=True)
class Side:
    """Somebody who does the job.

    Attributes:
        ordered: whether results of a key are promised in order.
        program: what is run, before the arguments of bench/peers/task.py; Penstock is configured by a file instead.
        versions: what was measured, for the figures.
        tree: the checkout whose code is run.
    """

    name: str
    ordered: bool
    program: Sequence[str]
    versions: str
    tree: Path = ROOT

    @property
    def is_ours(self) -> bool:
        """Whether it is Penstock."""
        return self.name.startswith("penstock")

    def command(self, work: Work) -> Sequence[str]:
        """Return the command that does the job until it is stopped."""
        if self.is_ours:
            return (*self.program, "--config", str(configure(work)))
        topics = (work.source, work.topics.results)
        numbers = (str(work.in_flight), f"{work.model_url}/chat/completions", work.group, str(work.session_timeout_s))
        return (*self.program, work.bootstrap, *topics, *numbers, str(work.folder))


def configure(work: Work) -> Path:
    """Write the worker's configuration: defaults, but for the size of the job and the address of the model."""
    document = {
        "version": 1,
        "worker": {
            "app_id": work.group,
            "instance_id": work.group,
            "health_port": 0,
            "max_in_flight": work.in_flight,
            "session_timeout_s": work.session_timeout_s,
        },
        "kafka": {"bootstrap_servers": work.bootstrap, "topic_prefix": work.topics.prefix},
        "logging": {"level": "info", "format": "json"},
        "providers": {"model": {"kind": "openai", "base_url": work.model_url, "max_in_flight": work.in_flight}},
        "models": {"default": {"provider": "model", "model": "bench"}},
        "routes": [{"name": "all", "model": "default", "prompt": {"user": "{{ data.text }}"}}],
    }
    path = work.folder / "penstock.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


def penstock(tree: Path | None = None) -> Side:
    """Return our side, from this checkout or from another one."""
    program = (sys.executable, "-m", "streams", "worker")
    return Side("penstock", True, program, version("penstock"), tree or ROOT)


CONTROL = Side(
    "control",
    False,
    (sys.executable, "-m", "bench.control"),
    f"aiokafka {version('aiokafka')}, aiohttp {version('aiohttp')}, uvloop {version('uvloop')}",
)

# No peer: it keeps order, and nothing else of what an event is promised.
LEAST = Side(
    "least",
    True,
    (sys.executable, "-m", "bench.least"),
    f"aiokafka {version('aiokafka')}, confluent-kafka {version('confluent-kafka')}, uvloop {version('uvloop')}",
)
