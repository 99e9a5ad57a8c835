"""Bytewax: batches of as many events as calls are allowed, gathered, in order per key; offsets in its recovery store.

It has no asynchronous map, so a batch waits for its slowest call. Small polls of every partition make a batch of many
keys; large ones would bring one partition's few keys, and a key's events of one batch wait for each other.
"""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TypeAlias

import bytewax.operators as op
import uvloop
from aiohttp import ClientSession
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.peers import model_call
from bench.peers.task import Task, read_task

Incoming: TypeAlias = KafkaSourceMessage[bytes | None, bytes | None]
Outgoing: TypeAlias = KafkaSinkMessage[bytes | None, bytes | None]
_PARTITIONS = 16
_FILL = timedelta(milliseconds=20)
_PRODUCER = {"acks": "all", "enable.idempotence": "true", "linger.ms": "5", "compression.type": "lz4"}


class Caller:
    """Calls the model for a batch: keys at the same time, the events of a key one after the other."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._loop = uvloop.new_event_loop()
        self._client: ClientSession | None = None

    def __call__(self, batches: list[tuple[str, list[Incoming]]]) -> list[Outgoing]:
        """Return the results of all of them."""
        return [result for _, batch in batches for result in self._loop.run_until_complete(self._all(batch))]

    async def _all(self, batch: list[Incoming]) -> list[Outgoing]:
        if self._client is None:
            self._client = model_call.session(self._task.in_flight)
        chains: dict[bytes | None, list[Incoming]] = {}
        for message in batch:
            chains.setdefault(message.key, []).append(message)
        found = await asyncio.gather(*(self._chain(self._client, chain) for chain in chains.values()))
        return [result for chain in found for result in chain]

    async def _chain(self, client: ClientSession, chain: list[Incoming]) -> list[Outgoing]:
        url = self._task.model_url
        return [
            KafkaSinkMessage(message.key, await model_call.process(client, url, message.value or b""))
            for message in chain
        ]


def dataflow(task: Task) -> Dataflow:
    """Build the flow."""
    flow = Dataflow("job")
    brokers, poll = [task.bootstrap], max(1, task.in_flight // _PARTITIONS)
    source = kop.input("source", flow, brokers=brokers, topics=[task.source], batch_size=poll)
    together = op.key_on("together", source.oks, lambda _: "all")
    batches = op.collect("batches", together, timeout=_FILL, max_size=task.in_flight)
    results = op.flat_map_batch("call", batches, Caller(task))
    kop.output("results", results, brokers=brokers, topic=task.results, add_config=_PRODUCER)
    return flow


def main(task: Task) -> None:
    """Run until it is killed; a new start goes on from the store."""
    store = Path(task.folder) / "recovery"
    if not store.exists():
        store.mkdir()
        init_db_dir(store, 1)
    cli_main(dataflow(task), epoch_interval=timedelta(seconds=1), recovery_config=RecoveryConfig(store))


if __name__ == "__main__":
    main(read_task())
