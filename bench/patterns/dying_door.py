"""`penstock ingress` that kills itself: `python -m bench.patterns.dying_door CONFIG STEP AFTER`.

STEP is where SIGKILL strikes, at the record of number AFTER: `received` before it is handed to the producer, `produced`
before its ack can have come, `acked` before its message can be deleted, `deleted` in the middle of a deletion; `never`.
"""

import asyncio
import os
import signal
import sys
from typing import Any

from contracts import logs
from contracts.codec import Record
from contracts.settings import load
from contracts.topics import Topics
from gateways.ingress import runner
from gateways.ingress.sqs_client import SqsClient
from gateways.ingress.table import build
from producers.base import Delivered
from producers.producer import KafkaProducer


def die() -> None:
    """End as by `kill -9`: nothing is flushed, nothing said."""
    os.kill(os.getpid(), signal.SIGKILL)


class DyingProducer(KafkaProducer):
    """Kills the process at its appointed record."""

    step = "never"
    after = 0
    _count = 0

    async def produce(self, record: Record) -> Delivered:
        """Produce, or die at the step."""
        self._count += 1
        is_last = self._count == self.after
        if is_last and self.step == "received":
            die()
        confirmed = asyncio.ensure_future(super().produce(record))
        if is_last and self.step == "produced":
            # Long enough for the client to have sent it, or not.
            await asyncio.sleep(0.006)
            die()
        delivered = await confirmed
        if is_last and self.step == "acked":
            die()
        return delivered


def die_in_deletion(after: int) -> None:
    """Let the deletion that passes so many messages kill the process while it is on its way."""
    delete = SqsClient.delete
    count = 0

    async def dying(self: SqsClient, receipts: Any) -> Any:
        nonlocal count
        count += len(receipts)
        if count >= after:
            task = asyncio.ensure_future(delete(self, receipts))
            await asyncio.sleep(0.003)
            die()
            return await task
        return await delete(self, receipts)

    SqsClient.delete = dying  # type: ignore[method-assign]


def main(config: str, step: str, after: str) -> None:
    """Run the configured doors."""
    settings = load(config)
    logs.configure(settings.logging)
    producer = DyingProducer(settings.kafka, settings.producer, client_id="penstock-ingress")
    producer.step, producer.after = step, int(after)
    if step == "deleted":
        die_in_deletion(int(after))
    topics = Topics(settings.kafka.topic_prefix)
    doors = [build(name, door, topics, producer) for name, door in settings.ingress.items()]
    asyncio.run(runner.run(settings, doors, producer))


if __name__ == "__main__":
    main(*sys.argv[1:])
