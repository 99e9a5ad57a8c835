"""`penstock ingress` with its log in memory: `python -m tests.gateways.ingress.door_process CONFIG [--hold]`.

With --hold no record is confirmed until SIGUSR1.
"""

import asyncio
import signal
import sys

from contracts import logs
from contracts.settings import load
from contracts.topics import Topics
from gateways.ingress import runner
from gateways.ingress.table import build
from producers.memory import MemoryProducer


async def main(config: str, *, is_holding: bool) -> None:
    """Run until a signal."""
    settings = load(config)
    logs.configure(settings.logging)
    producer = MemoryProducer(settings.producer)
    if is_holding:
        producer.hold_acks()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, producer.release_acks)
    topics = Topics(settings.kafka.topic_prefix)
    doors = [build(name, door, topics, producer) for name, door in settings.ingress.items()]
    await runner.run(settings, doors, producer)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], is_holding="--hold" in sys.argv))
