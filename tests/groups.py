"""Runs the test groups one after another, each in a pytest of its own, and ends with one line per group.

A group that could not run here is named with its reason. Exits non-zero when a test failed.
Blocking: the whole suite takes some 20 minutes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import ROOT

GROUPS = {
    "offline": "not process and not embedded and not kafka and not e2e and not compose and not browser",
    "process": "process and not embedded and not kafka and not e2e and not compose and not browser",
    "embedded": "embedded and not kafka and not e2e and not compose and not browser",
    "kafka": "kafka and not e2e and not compose and not browser",
    "e2e": "e2e and not compose and not browser",
    "compose": "compose and not browser",
    "browser": "browser",
}
# Offline tests leave a third of their core idle, and the others half: they wait for programs and brokers. Two cores
# bear three or four processes at a time.
PARALLEL = {
    "offline": str((os.cpu_count() or 1) + 1),
    "process": "3",
    "embedded": "3",
    "kafka": "4",
    "e2e": "3",
}
# Written by whoever still builds a Docker engine in the background when the tests begin; see .ci/run.
ENGINE_MARKER = ROOT / "build" / "ci" / "engine-is-coming"
ENGINE_LIMIT_S = 600.0
# Set by whoever has run `make check` just before, tests/architecture among it; see .ci/run.
CHECKED = "PENSTOCK_TEST_CHECKED"
NO_TESTS_COLLECTED = 5
MAX_REASONS = 5
# Which files have tests of which group, as the first group has found them.
_PLACES = ROOT / "build" / "tests" / "places.json"


@dataclass(frozen=True)
class Outcome:
    """How one group ended."""

    name: str
    exit_code: int
    seconds: float
    counts: dict[str, int]
    reasons: dict[str, int]

    @property
    def is_failure(self) -> bool:
        """Whether the whole run fails because of it; a group without tests does not, except the offline one."""
        return self.exit_code not in ({0} if self.name == "offline" else {0, NO_TESTS_COLLECTED})

    def lines(self) -> list[str]:
        """Return what a person should read about it."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count) or "no tests"
        verdict = "FAILED" if self.is_failure else "skipped" if self._is_skipped else "ok"
        lines = [f"{self.name:<10} {verdict:<8} {counts}, {self.seconds:.0f} s"]
        reasons = sorted(self.reasons.items(), key=lambda item: -item[1])
        lines += [f"{'':<10} {count} skipped: {reason}" for reason, count in reasons[:MAX_REASONS]]
        return lines

    @property
    def _is_skipped(self) -> bool:
        return self.counts.get("passed", 0) == 0


def main(names: Sequence[str]) -> int:
    """Run the named groups, all when none is named, and return the exit code."""
    unknown = [name for name in names if name not in GROUPS]
    if unknown:
        sys.stderr.write(f"unknown group {', '.join(unknown)}; there are: {', '.join(GROUPS)}\n")
        return 2
    places: dict[str, list[str]] = {}
    outcomes = []
    for name in names or GROUPS:
        outcomes.append(_run(name, places))
        # The first one has collected every test; the others need not do it again, each in several processes.
        places = places or _json(_PLACES)
    sys.stdout.write("\n" + "\n".join(line for outcome in outcomes for line in outcome.lines()) + "\n")
    return int(any(outcome.is_failure for outcome in outcomes))


def _run(name: str, places: dict[str, list[str]]) -> Outcome:
    sys.stdout.write(f"\n== {name} ==\n")
    sys.stdout.flush()
    report = ROOT / "build" / "tests" / f"{name}.json"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    if not places:
        _PLACES.unlink(missing_ok=True)
    options: tuple[str, ...] = (
        *places.get(name, ()),
        *(() if places else (f"--where-file={_PLACES}",)),
        "-q",
        "-m",
        GROUPS[name],
        "--durations=3",
        "--durations-min=5",
        f"--outcome-file={report}",
        # Only offline tests use it, and it takes 0.8 s to import.
        *(() if name == "offline" else ("-p", "no:hypothesispytest")),
    )
    if name == "offline" and os.environ.get(CHECKED):
        # Not ignored: the other groups learn from this one where their tests are.
        options = (*options, "--deselect=tests/architecture/")
    if name == "compose":
        _await_engine()
    start = time.monotonic()
    if name in PARALLEL:
        # Offline tests share nothing that takes long to make, and are quickest when handed out in bundles.
        options = (*options, "-n", PARALLEL[name], "--dist", "load" if name == "offline" else "loadgroup")
    run = subprocess.run((sys.executable, "-m", "pytest", *options), cwd=ROOT, check=False)
    counts, reasons = _read(report)
    return Outcome(name, run.returncode, time.monotonic() - start, counts, reasons)


def _await_engine() -> None:
    """Wait for an engine that is being built; without one the tests say themselves why they are skipped."""
    end_s = time.monotonic() + ENGINE_LIMIT_S
    while ENGINE_MARKER.exists() and time.monotonic() < end_s:
        time.sleep(1)


def _read(report: Path) -> tuple[dict[str, int], dict[str, int]]:
    document = _json(report)
    reasons = document.pop("reasons", {})
    return document, reasons


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
