"""The gateway as a process, with its log in memory: `python -m tests.gateways.memory_gateway PORT_FILE [--hold]`.

With --hold no record is confirmed until SIGUSR1; with --hasty the end is cut short after a fifth of a second, and
with --brisk after four seconds.
"""

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from contracts.settings import Settings
from gateways import app
from gateways.parts import build_parts
from producers.memory import MemoryProducer
from tests.gateways.driver import CONFIGURATION, Results

SHUTDOWN_S = next((limit_s for option, limit_s in (("--hasty", 0.2), ("--brisk", 4)) if option in sys.argv), 20)
PATIENCE = {"ack_timeout_s": 20, "shutdown_timeout_s": SHUTDOWN_S}
SETTINGS = Settings.model_validate(CONFIGURATION | {"gateway": CONFIGURATION["gateway"] | {"port": 0} | PATIENCE})


async def main(port_file: Path, *, is_holding: bool) -> None:
    """Run until a signal."""
    producer = MemoryProducer(SETTINGS.producer)
    if is_holding:
        producer.hold_acks()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, producer.release_acks)
    await app.run(SETTINGS, producer, build_parts(SETTINGS, producer, Results()), port_file)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), is_holding="--hold" in sys.argv))
