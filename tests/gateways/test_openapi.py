"""The OpenAPI document is true: schemathesis asks a running gateway what it says, and what it does not."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gateways.driver import API_KEY, SECRET
from tests.gateways.test_app import running
from tests.support import ROOT

EXAMPLES = 5
CONFIGURATION = f"""
headers = {{ x-api-key = "{SECRET.decode()}" }}

[auth.openapi.apiKey]
bearer = "{API_KEY}"

[checks]
# What a schema cannot say, such as a deadline in the future or printable text, is refused too.
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409", "415", "503"]

[[operations]]
include-name = "POST /webhooks/{{source}}"
parameters = {{ "path.source" = "keyed" }}

[[operations]]
include-name = "OPTIONS /webhooks/{{source}}"
parameters = {{ "path.source" = "keyed" }}

[[operations]]
include-name = "GET /webhooks/{{source}}"
parameters = {{ "path.source" = "crc" }}
"""


@pytest.mark.long
@pytest.mark.process
@pytest.mark.timeout(150)
def test_a_running_gateway_answers_as_its_document_says(tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIGURATION, encoding="utf-8")
    with running(tmp_path, "--impatient") as (child, port):
        asked = subprocess.run(
            (
                f"{sys.prefix}/bin/schemathesis",
                f"--config-file={config}",
                "run",
                f"http://127.0.0.1:{port}/openapi.json",
                "--phases=examples,coverage,fuzzing,stateful",
                "--checks=all",
                f"--max-examples={EXAMPLES}",
                "--seed=1",
                "--request-timeout=5",
                "--no-color",
                "--no-shrink",
                "--continue-on-failure",
                "--suppress-health-check=all",
            ),
            cwd=ROOT / "build",
            capture_output=True,
            text=True,
            check=False,
            timeout=140,
        )

        assert asked.returncode == 0, asked.stdout + asked.stderr
        assert "request.failed" not in child.output
        # Behind the refusals there were answers too.
        assert " 13 passed" in asked.stdout
