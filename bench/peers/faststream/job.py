"""FastStream over confluent-kafka with so many workers, which acks first: any other policy is one per partition."""

import asyncio

import uvloop
from faststream import FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from bench.peers import model_call
from bench.peers.task import Task, read_task


async def main(task: Task) -> None:
    """Run until SIGTERM."""
    broker = KafkaBroker(
        task.bootstrap,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        compression_type="lz4",
        logger=None,
    )
    client = model_call.session(task.in_flight)

    @broker.subscriber(
        task.source,
        group_id=task.group,
        auto_offset_reset="earliest",
        max_workers=task.in_flight,
        session_timeout_ms=int(task.session_timeout_s * 1000),
        heartbeat_interval_ms=int(task.session_timeout_s * 200),
    )
    async def work(message: KafkaMessage) -> None:
        value = message.raw_message.value()
        answer = await model_call.process(client, task.model_url, value)
        await broker.publish(answer, task.results, key=message.raw_message.key())

    await FastStream(broker, logger=None).run()


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main(read_task()))
