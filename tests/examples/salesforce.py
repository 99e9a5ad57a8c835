"""The parts of the Salesforce example, loaded as the programs load them."""

import hmac
import json
from pathlib import Path
from typing import Any

from contracts.settings import Settings, SourceSettings, load
from tests.support import ROOT

FOLDER = ROOT / "examples/salesforce-opportunity-summary"
CONFIG = FOLDER / "penstock.yaml"
SAMPLE = FOLDER / "sample-event.json"
APEX = FOLDER / "salesforce/PenstockOpportunitySender.cls"
RULES = FOLDER / "prometheus"
SECRET = "a-secret-of-the-tests-0123456789"


def settings() -> Settings:
    """Load the example's configuration without this machine's environment."""
    return load(CONFIG, {})


def source() -> SourceSettings:
    """Return the example's one source."""
    return settings().sources["salesforce"]


def schema() -> dict[str, Any]:
    """Return the schema of the summaries."""
    found: dict[str, Any] = json.loads((FOLDER / "prompt/schema.json").read_text("utf-8"))
    return found


def apex(path: Path = APEX) -> str:
    """Return the Apex class."""
    return path.read_text("utf-8")


def signed(body: bytes, timestamp_s: int) -> list[tuple[bytes, bytes]]:
    """Sign a body as the README and the Apex class describe it, independent of the project's own code."""
    signature = hmac.digest(SECRET.encode(), f"{timestamp_s}.".encode() + body, "sha256").hex()
    return [
        (b"content-type", b"application/json"),
        (b"x-salesforce-timestamp", str(timestamp_s).encode()),
        (b"x-salesforce-signature", signature.encode()),
    ]
