"""What a worker's consumer is told of the group's commits while the only broker comes back."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from streams.joining import hear_refusals
from tests.kafkalab.fixtures import KafkaLab

pytestmark = pytest.mark.timeout(90)


async def test_no_commit_is_missing_while_the_broker_that_has_it_comes_back(kafka: KafkaLab) -> None:
    """It answers before it has loaded the group, and aiokafka takes that for "nothing was ever committed"."""
    (topic,) = kafka.create("asked", partitions=1)
    place = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap, group_id=kafka.name("group"), enable_auto_commit=False
    ) as consumer:
        consumer.assign([place])
        await consumer.commit({place: OffsetAndMetadata(7, "mark")})
        coordinator = consumer._coordinator
        hear_refusals(coordinator)
        # It keeps to the broker that it knows, as while nobody has told it that this one was away.
        coordinator.coordinator_dead = lambda: None
        refusals: list[str] = []
        restart = asyncio.create_task(asyncio.to_thread(kafka.restart))
        found: dict[TopicPartition, OffsetAndMetadata] | None = None
        while found is None or not restart.done():
            try:
                found = await coordinator._do_fetch_commit_offsets([place])
            except KafkaError as error:
                refusals.append(repr(error))
                await asyncio.sleep(0.01)
            else:
                assert found == {place: OffsetAndMetadata(7, "mark")}
        await restart
    assert refusals
