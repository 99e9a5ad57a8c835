"""pyrallel-consumer in its asynchronous mode, ordered by key; results through one confluent-kafka producer."""

import asyncio
import signal

import uvloop
from confluent_kafka import KafkaError, Message, Producer
from pyrallel_consumer.config import KafkaConfig
from pyrallel_consumer.consumer import PyrallelConsumer
from pyrallel_consumer.dto import ExecutionMode, WorkItem

from bench.peers import model_call
from bench.peers.task import Task, read_task

_TICK_S = 0.005


async def main(task: Task) -> None:
    """Run until SIGTERM."""
    loop = asyncio.get_running_loop()
    producer = Producer(
        {
            "bootstrap.servers": task.bootstrap,
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
        }
    )
    client = model_call.session(task.in_flight)
    config = KafkaConfig(
        BOOTSTRAP_SERVERS=[task.bootstrap],
        CONSUMER_GROUP=task.group,
        SESSION_TIMEOUT_MS=int(task.session_timeout_s * 1000),
        dlq_enabled=False,
    )
    tuned = config.parallel_consumer
    tuned.ordering_mode, tuned.execution.mode = "key_hash", ExecutionMode.ASYNC
    tuned.execution.max_in_flight = task.in_flight
    tuned.worker_pool_size = max(8, task.in_flight)
    tuned.queue_max_messages = max(5000, 20 * task.in_flight)

    async def work(item: WorkItem) -> None:
        answer = await model_call.process(client, task.model_url, item.payload)
        confirmed = loop.create_future()

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            confirmed.set_exception(RuntimeError(str(error))) if error else confirmed.set_result(None)

        producer.produce(task.results, answer, key=item.key, on_delivery=on_delivery)
        await confirmed

    consumer = PyrallelConsumer(config=config, worker=work, topic=task.source)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await consumer.start()
    while not stop.is_set():
        producer.poll(0)
        await asyncio.sleep(_TICK_S)
    await consumer.stop()
    await client.close()


if __name__ == "__main__":
    uvloop.run(main(read_task()))
