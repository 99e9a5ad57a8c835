"""The agent of an event topic: hands every record to the engine, acks nothing, raises nothing.

Reads: events. Blocking: waits while the engine has no room, which makes Faust pause the partitions.
"""

import math
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import StreamT

from contracts.codec import Position
from streams.engine.engine import Engine
from streams.pipeline import Pipeline


def register(app: faust.App, topic: str, lane: str, engine: Engine, pipeline: Pipeline) -> None:
    """Add the agent of one lane's topic to the app."""
    channel = app.topic(topic, key_serializer="raw", value_serializer="raw", acks=True)

    async def take(stream: StreamT[Any]) -> None:
        async for event in cast("Stream[Any]", stream).noack().events():
            message = event.message
            # Faust keeps seconds as a float; rounding gives the record's milliseconds back exactly.
            position = Position(message.topic, message.partition, message.offset, _ms(message.timestamp))
            headers = [(name, value) for name, value in message.headers or ()]
            try:
                item = pipeline.item(position, message.key, message.value, headers, lane)
                await engine.submit(item, message.generation_id)
            except Exception as error:  # noqa: BLE001 - the edge: a record that left here unseen would be committed past
                engine.crash(error)
                return
            # Nothing is acked through Faust; without this it would keep account of the message for ever.
            app.consumer.unacked.discard(message)

    app.agent(channel, name=f"events.{lane}", concurrency=1)(take)


def _ms(timestamp_s: float | None) -> int:
    return -1 if timestamp_s is None or math.isnan(timestamp_s) else round(timestamp_s * 1000)
