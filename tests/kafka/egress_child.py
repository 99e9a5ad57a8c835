"""The process of the doors out, killed by itself at a given step: `python -m tests.kafka.egress_child STEP CONFIG`.

Every third item fails at its first attempt, so that there is something to park.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contracts.codec import Record
from contracts.settings import load
from gateways.egress.base import Delivered, Item, Later, Verdict
from gateways.egress.process import Process, chosen_doors
from producers.producer import KafkaProducer

# Enough to have committed something before.
_AFTER_ITEMS = 30
_COMMIT_S = 1.6
_WITHOUT_FAULTS = frozenset({"after-put", "after-adopt"})


def _fails(item: Item) -> bool:
    return item.attempt == 1 and item.position.offset % 3 == 0


async def _end() -> None:
    # Long enough for a commit: what is under way must not be in it.
    await asyncio.sleep(_COMMIT_S)
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed:
    """A real door that ends the process at a step of one of its deliveries."""

    def __init__(self, door: Any, step: str) -> None:
        self._door = door
        self._step = step
        self._items = 0
        self._end: asyncio.Task[None] | None = None

    def __getattr__(self, name: str) -> Any:
        """Be the door in everything else."""
        return getattr(self._door, name)

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Deliver, and end where told."""
        if self._end is not None:
            await self._end
        self._items += len(items)
        is_time = self._items > _AFTER_ITEMS
        if is_time and self._step == "before-deliver":
            await _end()
        failing = [item for item in items if self._step not in _WITHOUT_FAULTS and _fails(item)]
        rest = [item for item in items if item not in failing]
        answers = await self._door.deliver(rest) if rest else []
        verdicts = {item.position: verdict for item, verdict in zip(rest, answers, strict=True)}
        if is_time and self._step in {"after-deliver", "after-put"}:
            await _end()
        if self._step == "after-adopt" and any(isinstance(one, Delivered) and one.through >= 0 for one in answers):
            # It is committed, and nothing else is tried until the end.
            self._end = asyncio.create_task(_end())
        return [verdicts.get(item.position, Later("made_to_fail", scope="item")) for item in items]


async def main(step: str, config: Path) -> None:
    """Run until the step comes."""
    settings = load(config)
    producer = KafkaProducer(settings.kafka, settings.producer, client_id="doomed")
    parked = 0

    async def produce(record: Record) -> Any:
        nonlocal parked
        parked += 1
        is_time = parked > _AFTER_ITEMS // 3
        if is_time and step == "before-park":
            await _end()
        done = await producer.produce(record)
        if is_time and step == "after-park":
            await _end()
        return done

    doors: dict[str, Any] = {name: Doomed(door, step) for name, door in chosen_doors(settings, ()).items()}
    process = Process(settings, doors, produce)
    await producer.start()
    await process.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
