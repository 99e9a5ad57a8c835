"""The gateway as a process, with its log in memory: `python -m tests.gateways.memory_gateway PORT_FILE [--hold]`.

With --impatient nobody waits or watches for more than a moment. With --hold no record is confirmed until SIGUSR1; with
--hasty the end is cut short after a fifth of a second, and with --brisk after four seconds. With --limited its source
may send 20 events at once and 20 a second, and with --crowded 16 connections are taken at a time. A last argument
FILE.yaml is its configuration, which it follows.
"""

import asyncio
import functools
import signal
import sys
from pathlib import Path
from typing import Any

import uvloop

from contracts.settings import Settings, load
from gateways import app
from gateways.parts import build_parts
from gateways.reloading import ConfigFile
from producers.memory import MemoryProducer
from tests.gateways.driver import CONFIGURATION, Results

SHUTDOWN_S = next((limit_s for option, limit_s in (("--hasty", 0.2), ("--brisk", 4)) if option in sys.argv), 20)
SOURCES: dict[str, Any] = dict(CONFIGURATION["sources"])
PATIENCE: dict[str, Any] = {"ack_timeout_s": 20, "body_timeout_s": 10, "shutdown_timeout_s": SHUTDOWN_S}
if "--impatient" in sys.argv:
    PATIENCE |= {
        "sync_budget_s": 0.2,
        "sync_margin_s": 0.1,
        "streams": {"max_duration_s": 0.1},
        "max_body_bytes": 900_000,
        "body_timeout_s": 5,
        "api_keys": [{"id": "crm", "key": "env:TEST_API_KEY", "sources": ["*"]}],
    }
    # A sender that cannot sign, so that a tool can send what is accepted.
    SOURCES["keyed"] = {
        "scheme": "api-key",
        "secrets": [{"id": "current", "value": "env:TEST_SECRET"}],
        "type": "com.example.keyed",
        "handshakes": {"cloudevents": {"origins": ["events.example"]}},
    }
    SOURCES["crc"] = {
        "scheme": "hmac",
        "hmac": {"signature_header": "x-signature"},
        "secrets": [{"id": "current", "value": "env:TEST_SECRET"}],
        "type": "com.example.crc",
        "handshakes": {"crc": True},
    }
if "--limited" in sys.argv:
    SOURCES["github"] = SOURCES["github"] | {"limit": {"events_per_s": 20, "burst": 20}}
if "--crowded" in sys.argv:
    PATIENCE["max_connections"] = 16
FILE = Path(sys.argv[-1]) if sys.argv[-1].endswith(".yaml") else None
OWN = {"gateway": CONFIGURATION["gateway"] | {"port": 0} | PATIENCE, "sources": SOURCES}
SETTINGS = load(FILE) if FILE else Settings.model_validate(CONFIGURATION | OWN)
CONFIG = ConfigFile(FILE, functools.partial(load, FILE)) if FILE else None


async def main(port_file: Path, *, is_holding: bool) -> None:
    """Run until a signal."""
    producer = MemoryProducer(SETTINGS.producer)
    if is_holding:
        producer.hold_acks()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, producer.release_acks)
    await app.run(SETTINGS, producer, build_parts(SETTINGS, producer, Results()), port_file, CONFIG)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), is_holding="--hold" in sys.argv))
