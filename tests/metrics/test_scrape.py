"""A running gateway and worker, their real metrics pages, and a real Prometheus that scrapes them."""

import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from contracts.topics import Topics
from producers.embedded import EmbeddedBroker
from tests.deploy.stack_file import example_environment
from tests.metrics.prometheus import Prometheus
from tests.metrics.server import BINARY, PrometheusServer
from tests.metrics.test_rules import needs_promtool, promtool
from tests.support import ChildProcess, eventually

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(120)]
READY_LIMIT_S = 40.0
SEEN_LIMIT_S = 40.0
SOURCES = ("salesforce", "github", "stripe", "support")


@dataclass(frozen=True)
class Running:
    """Addresses of the two processes, `host:port`."""

    gateway: str
    worker: str


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start a gateway and a worker, and let them answer some events of every source and one forged one."""
    folder = tmp_path_factory.mktemp("ports")
    with ExitStack() as processes:
        topics = {topic.name: 4 for topic in Topics().table()}
        # Not the session's broker: a worker belongs to the group and the topics that all others use by default.
        broker = processes.enter_context(EmbeddedBroker(topics))
        environ = {
            **example_environment(),
            "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
            "PENSTOCK_KAFKA__EMBEDDED": "true",
            "PENSTOCK_GATEWAY__PORT": "0",
            "PENSTOCK_WORKER__HEALTH_PORT": "0",
        }
        files = {"gateway": folder / "gateway", "worker": folder / "worker"}
        programs = {"gateway": "gateways.cli", "worker": "streams"}
        children = {
            name: processes.enter_context(ChildProcess(module, name, "--port-file", str(files[name]), env=environ))
            for name, module in programs.items()
        }
        addresses = {name: _ready(child, files[name]) for name, child in children.items()}
        for source in SOURCES:
            _send(source, f"http://{addresses['gateway']}", environ)
        yield Running(**addresses)


def _ready(child: ChildProcess, port_file: Path) -> str:
    def address() -> str:
        assert child.process.poll() is None, child.output
        if not port_file.exists():
            return ""
        found = f"127.0.0.1:{port_file.read_text('ascii').strip()}"
        return found if _status(f"http://{found}/readyz") == 200 else ""

    try:
        return eventually(address, READY_LIMIT_S)
    except AssertionError as error:
        message = f"{child.args} is not ready: {child.output}"
        raise AssertionError(message) from error


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return int(answer.status)
    except OSError:
        return 0


def _send(source: str, url: str, environ: Mapping[str, str]) -> None:
    options = ("--count", "10", "--forge", "1", "--seed", "3", "--url", url)
    with ChildProcess("gateways.cli", "send", "--source", source, *options, env=environ) as sending:
        assert sending.wait(30) == 0, sending.output


def _page(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text: str = answer.read().decode()
        return text


@pytest.fixture
def prometheus(running: Running, tmp_path: Path) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes both."""
    if BINARY is None:
        pytest.skip("prometheus is not installed (Debian: prometheus)")
    targets = {"penstock-gateway": running.gateway, "penstock-worker": running.worker}
    with PrometheusServer(tmp_path, targets) as client:
        yield client


@needs_promtool
@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_promtool_has_nothing_to_say_about_a_metrics_page(running: Running, name: str, tmp_path: Path) -> None:
    page = tmp_path / "page"
    page.write_text(_page(getattr(running, name)), encoding="utf-8")

    with page.open(encoding="utf-8") as text:
        checked = promtool("check", "metrics", stdin=text)

    assert checked.stdout == ""
    assert checked.returncode == 0


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_a_metrics_page_says_what_runs_and_shows_no_event_id_or_secret(running: Running, name: str) -> None:
    page = _page(getattr(running, name))

    assert f'penstock_build_info{{component="{name}"' in page
    assert not any(secret in page for secret in example_environment().values())


def test_a_real_prometheus_scrapes_both_and_draws_the_dashboard(prometheus: Prometheus) -> None:
    def seen() -> bool:
        assert set(prometheus.targets().values()) == {"up"}
        assert prometheus.panels_without_data() == []
        assert prometheus.rules_with_health("unknown") == []
        return True

    eventually(seen, SEEN_LIMIT_S)
    assert prometheus.rules_with_health("err") == []
