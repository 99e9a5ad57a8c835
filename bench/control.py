"""The control: plain aiokafka with a semaphore and aiohttp, unordered, no journal; what one writes in an afternoon.

Run as `python -m bench.control` with the arguments of bench/peers/task.py; ends on SIGTERM. It commits what it has
read, every second, so a kill loses what was in flight or repeats it: that is the afternoon's version.
"""

import asyncio

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.peers import model_call
from bench.peers.task import Task, read_task


async def main(task: Task) -> None:
    """Consume, call, produce."""
    producer = AIOKafkaProducer(
        bootstrap_servers=task.bootstrap, acks="all", enable_idempotence=True, linger_ms=5, compression_type="lz4"
    )
    consumer = AIOKafkaConsumer(
        task.source,
        bootstrap_servers=task.bootstrap,
        group_id=task.group,
        auto_offset_reset="earliest",
        auto_commit_interval_ms=1000,
        session_timeout_ms=int(task.session_timeout_s * 1000),
        heartbeat_interval_ms=int(task.session_timeout_s * 1000 / 5),
    )
    await producer.start()
    await consumer.start()
    slots = asyncio.Semaphore(task.in_flight)
    tasks: set[asyncio.Task[None]] = set()
    async with model_call.session(task.in_flight) as client:

        async def work(key: bytes | None, value: bytes) -> None:
            try:
                answer = await model_call.process(client, task.model_url, value)
                await producer.send_and_wait(task.results, answer, key=key)
            finally:
                slots.release()

        async for message in consumer:
            await slots.acquire()
            running = asyncio.create_task(work(message.key, message.value or b""))
            tasks.add(running)
            running.add_done_callback(tasks.discard)


if __name__ == "__main__":
    uvloop.run(main(read_task()))
