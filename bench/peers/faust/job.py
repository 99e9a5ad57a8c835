"""Plain Faust with concurrency: fetched records are spread over so many coroutines; results go out confirmed."""

import asyncio
import sys
from typing import Any

import faust
import uvloop

from bench.peers import model_call
from bench.peers.task import read_task

task = read_task()
sys.argv = sys.argv[:1]
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
app = faust.App(
    task.group,
    broker=f"kafka://{task.bootstrap}",
    store="memory://",
    web_enabled=False,
    topic_allow_declare=False,
    topic_disable_leader=True,
    broker_session_timeout=task.session_timeout_s,
    broker_heartbeat_interval=task.session_timeout_s / 5,
    broker_commit_interval=1.0,
    stream_buffer_maxsize=max(4096, 2 * task.in_flight),
    producer_acks=-1,
    producer_linger=0.005,
    producer_compression_type="lz4",
)
source = app.topic(task.source, value_serializer="raw")
results = app.topic(task.results, value_serializer="raw")


@app.agent(source, concurrency=task.in_flight)
async def work(stream: Any) -> None:
    """Call the model for each record; the result is confirmed before the record counts as done."""
    client = model_call.session(task.in_flight)
    async for event in stream.events():
        answer = await model_call.process(client, task.model_url, event.value)
        await (await results.send(key=event.key, value=answer))


if __name__ == "__main__":
    faust.Worker(app, loglevel="WARN").execute_from_commandline()
