"""Runs a real Prometheus with the project's configuration and rules, pointed at given targets.

Blocking: until it listens, at most 20 s.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.metrics.prometheus import Prometheus
from tests.metrics.promql import PROMETHEUS
from tests.support import Leash, end_group, eventually

BINARY = shutil.which("prometheus")
START_LIMIT_S = 20.0
STOP_LIMIT_S = 10.0
_LISTENING = re.compile(r'msg="Listening on" address="?(127\.0\.0\.1:\d+)')


class PrometheusServer:
    """A server on a free port; a context manager that gives its client.

    Args:
        folder: for its data and configuration.
        targets: `host:port` by job.
    """

    def __init__(self, folder: Path, targets: Mapping[str, str]) -> None:
        self._folder = folder
        self._targets = targets
        self._log = folder / "prometheus.log"

    def __enter__(self) -> Prometheus:
        """Start it."""
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()), encoding="utf-8")
        command = (
            str(BINARY),
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            "--web.listen-address=127.0.0.1:0",
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._leash = Leash(self._process.pid)
        try:
            return Prometheus(f"http://{eventually(self._address, START_LIMIT_S)}")
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc_info: object) -> None:
        """End it, however the test ended."""
        end_group(self._process, STOP_LIMIT_S)
        self._leash.release()

    def _address(self) -> str:
        text = self._log.read_text("utf-8")
        assert self._process.poll() is None, text
        found = _LISTENING.search(text)
        return found[1] if found else ""

    def _config(self) -> dict[str, Any]:
        """Return the project's configuration with other targets and short intervals."""
        config: dict[str, Any] = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text("utf-8"))
        config["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(PROMETHEUS / pattern) for pattern in config["rule_files"]]
        config["scrape_configs"] = [
            job | {"static_configs": [{"targets": [self._targets[job["job_name"]]]}]}
            for job in config["scrape_configs"]
            if job["job_name"] in self._targets
        ]
        return config
