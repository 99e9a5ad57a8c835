"""The control: plain aiokafka with a semaphore, unordered, no retries, no journal; what one writes in an afternoon.

Run as `python -m bench.control BOOTSTRAP SOURCE RESULTS IN_FLIGHT LATENCY_S`; ends on SIGTERM.
"""

import asyncio
import json
import sys

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def main(bootstrap: str, source: str, results: str, in_flight: int, latency_s: float) -> None:
    """Consume, wait as long as the model would take, produce."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=5, compression_type="lz4"
    )
    consumer = AIOKafkaConsumer(
        source, bootstrap_servers=bootstrap, group_id=f"{source}.control", auto_offset_reset="earliest"
    )
    await producer.start()
    await consumer.start()
    slots = asyncio.Semaphore(in_flight)
    tasks: set[asyncio.Task[None]] = set()

    async def work(key: bytes | None, value: bytes, headers: tuple[tuple[str, bytes], ...]) -> None:
        try:
            text = json.loads(value)["text"]
            await asyncio.sleep(latency_s)
            answer = json.dumps({"output": "ok", "chars": len(text)}).encode()
            await producer.send_and_wait(results, answer, key=key, headers=list(headers))
        finally:
            slots.release()

    async for message in consumer:
        await slots.acquire()
        task = asyncio.create_task(work(message.key, message.value or b"", message.headers))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
