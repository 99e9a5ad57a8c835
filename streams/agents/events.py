"""The agent of an event topic: hands every record to the engine, acks nothing, raises nothing.

What Faust calls a message is a bundle of records here; see streams/fetching.py.

Reads: events. Blocking: waits while the engine has no room, which makes Faust pause the partitions.
"""

from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import StreamT

from contracts.codec import Position
from streams.engine.engine import Engine
from streams.engine.item import Item
from streams.fetching import Bundle
from streams.pipeline import Pipeline


def register(app: faust.App, topic: str, lane: str, engine: Engine, pipeline: Pipeline) -> None:
    """Add the agent of one lane's topic to the app."""
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=True)

    def _item(record: Any) -> Item:
        # Some old clients write none.
        stamp_ms = -1 if record.timestamp is None else record.timestamp
        position = Position(topic, record.partition, record.offset, stamp_ms)
        return pipeline.item(position, record.key, record.value, record.headers, lane)

    async def take(stream: StreamT[Any]) -> None:
        async for event in cast("Stream[Any]", stream).noack().events():
            bundle = cast("Bundle", event.message)
            try:
                # First all are decoded, then all are taken: each step finds the caches full of its own code.
                await engine.submit_all([_item(record) for record in bundle.records], bundle.generation)
            except Exception as error:  # noqa: BLE001 - the edge: a record that left here unseen would be committed past
                engine.crash(error)
                return
            # Nothing is acked through Faust; without this it would keep account of the message for ever.
            app.consumer.unacked.discard(bundle)

    app.agent(channel, name=f"events.{lane}", concurrency=1)(take)
