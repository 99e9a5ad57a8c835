"""Runs every check of `make check`, also after one has failed, and ends with one line per check.

The types take longer than all others together, so these run beside them.
"""

import importlib.util
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.support import ROOT

_BIN = f"{sys.prefix}/bin"
CHECKS = {
    "format": (f"{_BIN}/ruff", "format", "--check", "--quiet", "."),
    "lint": (f"{_BIN}/ruff", "check", "--quiet", "."),
    "types": (f"{_BIN}/mypy",),
    "imports": (f"{_BIN}/lint-imports", "--no-cache"),
    "spelling": (f"{_BIN}/codespell",),
    "architecture": (sys.executable, "-m", "pytest", "-q", "tests/architecture"),
    "reference": (sys.executable, "-m", "gateways.cli.reference", "--check"),
}


def main() -> int:
    """Run the checks and return the exit code."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        # The longest first: the other thread does the rest meanwhile.
        started = {name: pool.submit(_verdict, name) for name in sorted(CHECKS, key=lambda name: name != "types")}
    verdicts = {name: started[name].result() for name in CHECKS}
    sys.stdout.write("\n" + "".join(f"{name:<14} {verdict}\n" for name, verdict in verdicts.items()))
    return int(any(verdict.startswith("FAILED") for verdict in verdicts.values()))


def _verdict(name: str) -> str:
    if name == "reference" and importlib.util.find_spec("gateways.cli.reference") is None:
        return "skipped: there is no gateways/cli/reference.py"
    start = time.monotonic()
    run = subprocess.run(CHECKS[name], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.stdout.write(f"== {name} ==\n{run.stdout}{run.stderr}\n")
    return f"{'FAILED' if run.returncode else 'ok':<8} {time.monotonic() - start:.1f} s"


if __name__ == "__main__":
    sys.exit(main())
