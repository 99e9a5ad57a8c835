"""The gateway as a process, with its log in memory: `python -m tests.gateways.memory_gateway PORT_FILE [--hold]`.

With --hold no record is confirmed until SIGUSR1; with --hasty the end is cut short after a fifth of a second, and
with --brisk after four seconds. With --limited its source may send 20 events at once and 20 a second, and with
--crowded 16 connections are taken at a time. A last argument FILE.yaml is its configuration, which it follows.
"""

import asyncio
import functools
import signal
import sys
from pathlib import Path

import uvloop

from contracts.settings import Settings, load
from gateways import app
from gateways.parts import build_parts
from gateways.reloading import ConfigFile
from producers.memory import MemoryProducer
from tests.gateways.driver import CONFIGURATION, Results

SHUTDOWN_S = next((limit_s for option, limit_s in (("--hasty", 0.2), ("--brisk", 4)) if option in sys.argv), 20)
PATIENCE = {"ack_timeout_s": 20, "body_timeout_s": 10, "shutdown_timeout_s": SHUTDOWN_S}
FILE = Path(sys.argv[-1]) if sys.argv[-1].endswith(".yaml") else None
CONNECTIONS = {"max_connections": 16} if "--crowded" in sys.argv else {}
LIMIT = {"limit": {"events_per_s": 20, "burst": 20}} if "--limited" in sys.argv else {}
OWN = {
    "gateway": CONFIGURATION["gateway"] | {"port": 0} | PATIENCE | CONNECTIONS,
    "sources": {"github": CONFIGURATION["sources"]["github"] | LIMIT},
}
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
