"""Builds, starts and takes down the stack of docker-compose.yml under a name and on ports of its own.

Blocking: `up` builds an image, up to ten minutes the first time.
"""

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path

from tests.deploy.stack_file import example_environment
from tests.support import ROOT, free_port

# Grafana is left out: it only draws what Prometheus answers, and its queries are put to Prometheus here.
SERVICES = ("kafka", "topics", "gateway", "worker-1", "worker-2", "fm-stub", "aws", "prometheus")
PORTS = ("GATEWAY", "KAFKA", "FM_STUB", "AWS", "PROMETHEUS", "GRAFANA")
BUILD_LIMIT_S = 600
HEALTHY_LIMIT_S = 180
DOWN_LIMIT_S = 180
PROBE_LIMIT_S = 20


def reason_to_skip() -> str:
    """Return why the stack cannot be started here; empty when it can."""
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (("docker", "info", "--format", "{{.ServerVersion}}"), ("docker", "compose", "version")):
        try:
            answer = subprocess.run(command, check=False, capture_output=True, text=True, timeout=PROBE_LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"`{' '.join(command[:2])}` does not answer"
        if answer.returncode:
            last = (answer.stderr.strip() or "no message").splitlines()[-1]
            return f"no Docker engine with docker compose answers: {last}"
    return ""


class ComposeError(AssertionError):
    """Raise when a compose command fails, with the state of the stack."""


class Stack:
    """The stack; `up` it, and `down` it whatever happens."""

    def __init__(self) -> None:
        self.project = f"penstock-test-{uuid.uuid4().hex[:8]}"
        self.ports = {name: free_port() for name in PORTS}
        ports = {f"PENSTOCK_{name}_PORT": str(port) for name, port in self.ports.items()}
        self._environ = {**os.environ, **ports, "COMPOSE_PROJECT_NAME": self.project, "PENSTOCK_IMAGE": "penstock:test"}

    @property
    def bootstrap(self) -> str:
        """Address of Kafka for programs of this machine."""
        return f"localhost:{self.ports['KAFKA']}"

    def url(self, service: str) -> str:
        """Return the base URL of a service, by the name of its port."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def up(self) -> None:
        """Build the image, start the services and wait until all are healthy.

        Raises:
            ComposeError: one of that failed; with `ps` and the last log lines.
        """
        self._compose("build", limit_s=BUILD_LIMIT_S)
        self._compose(
            "up", "-d", "--wait", f"--wait-timeout={HEALTHY_LIMIT_S}", *SERVICES, limit_s=HEALTHY_LIMIT_S + 60
        )

    def down(self) -> None:
        """Stop the services and remove their data."""
        self._compose("down", "-v", "--remove-orphans", "--timeout", "20", limit_s=DOWN_LIMIT_S)

    def send(self, source: str, count: int, seed: int, ids_file: Path) -> "subprocess.CompletedProcess[str]":
        """Send signed sample events."""
        options = ("--url", self.url("GATEWAY"), "--seed", str(seed), "--ids-file", str(ids_file))
        return self.penstock("send", "--source", source, "--count", str(count), *options)

    def penstock(self, *args: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of ours as docker-compose.yml tells a person with a second terminal to."""
        stack = {**example_environment(), "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap}
        return _run((sys.executable, "-m", "gateways.cli", *args), {**_without_settings(self._environ), **stack}, 120)

    def restart_cleanly(self, service: str) -> str:
        """Stop a service, wait until it is healthy again, and return the exit code it stopped with."""
        self._compose("stop", service, limit_s=DOWN_LIMIT_S)
        state = json.loads(self._try("ps", "--all", "--format", "json", service).stdout.splitlines()[0])
        self._compose("up", "-d", "--wait", f"--wait-timeout={HEALTHY_LIMIT_S}", service, limit_s=HEALTHY_LIMIT_S + 60)
        return str(state["ExitCode"])

    def inside(self, service: str, command: str) -> str:
        """Return what a shell command prints in a service's container."""
        return self._try("exec", "-T", service, "sh", "-c", command).stdout

    def state(self) -> str:
        """Return `ps` and the last log lines, for the report of a failure."""
        shown = [self._try("ps", "--all"), self._try("logs", "--no-color", "--tail=40")]
        return "\n".join(result.stdout + result.stderr for result in shown)

    def _compose(self, *args: str, limit_s: float) -> None:
        done = _run(("docker", "compose", *args), self._environ, limit_s)
        if done.returncode:
            message = (
                f"docker compose {' '.join(args)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}\n{self.state()}"
            )
            raise ComposeError(message)

    def _try(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return _run(("docker", "compose", *args), self._environ, 60)


def _run(command: tuple[str, ...], environ: Mapping[str, str], limit_s: float) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, cwd=ROOT, env=dict(environ), check=False, capture_output=True, text=True, timeout=limit_s
    )


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in environ.items() if not name.startswith("PENSTOCK_")}
