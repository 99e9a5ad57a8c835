"""Reading replies on real Kafka: processes that share a partition, and a topic that comes later."""

from collections.abc import AsyncIterator, Iterator

import pytest

from contracts.codec import Position, Record, outcome_headers
from contracts.envelope import REPLY_TO, Event, ReplyAddress
from contracts.payloads import RESULT_TYPE
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.egress.outcomes import Outcome
from gateways.egress.reading import reader_config
from gateways.egress.replies import Replies
from producers.producer import KafkaProducer
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(90)]


class Site:
    """A topic of replies, who reads it, and who writes to it."""

    def __init__(self, kafka: KafkaLab) -> None:
        self._kafka = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
        self.topic = kafka.name("replies")
        self.producer = KafkaProducer(self._kafka, ProducerSettings(), client_id="test", delivery_timeout_s=30)
        self._readers: list[Replies] = []

    def reader(self) -> tuple[Replies, list[Outcome]]:
        """Start a reader; return it and what it hands on."""
        found: list[Outcome] = []
        reader = Replies(reader_config(self._kafka, "test"), self.topic, found.append)
        self._readers.append(reader)
        reader.start()
        return reader, found

    async def reply(self, event_id: str, address: ReplyAddress) -> None:
        """Copy an outcome as a worker does."""
        event = Event(id=event_id, source="crm", type="t", data=b"")
        headers = outcome_headers(event, RESULT_TYPE, "2026-01-01T00:00:00.000Z", "app", Position("e", 0, 0, 0))
        headers.append((f"ce_{REPLY_TO}", str(address).encode()))
        await self.producer.produce(Record(self.topic, None, b"{}", headers, address.partition))

    def close(self) -> None:
        for reader in self._readers:
            reader.close()


@pytest.fixture
def readers(kafka: KafkaLab) -> Iterator[Site]:
    site = Site(kafka)
    yield site
    site.close()


@pytest.fixture
async def site(readers: Site) -> AsyncIterator[Site]:
    await readers.producer.start()
    yield readers
    await readers.producer.aclose()


async def address_of(reader: Replies) -> ReplyAddress:
    address: ReplyAddress = await eventually_async(lambda: reader.address, within_s=30)  # type: ignore[arg-type,return-value]
    return address


async def test_processes_that_share_a_partition_get_their_own_replies_only(site: Site, kafka: KafkaLab) -> None:
    kafka.create_named(site.topic, partitions=1)
    (one, mine), (other, theirs) = site.reader(), site.reader()
    addresses = await address_of(one), await address_of(other)
    for number in range(3):
        await site.reply(f"mine{number}", addresses[0])
        await site.reply(f"theirs{number}", addresses[1])
    await eventually_async(lambda: len(mine) == len(theirs) == 3, within_s=20)

    assert addresses[0].instance != addresses[1].instance
    assert [outcome.event_id for outcome in mine] == ["mine0", "mine1", "mine2"]
    assert [outcome.event_id for outcome in theirs] == ["theirs0", "theirs1", "theirs2"]


async def test_there_is_no_address_before_the_topic_and_one_when_it_comes(site: Site, kafka: KafkaLab) -> None:
    reader, found = site.reader()
    assert reader.address is None

    kafka.create_named(site.topic, partitions=4)
    address = await address_of(reader)
    await site.reply("e1", address)

    assert 0 <= address.partition < 4
    await eventually_async(lambda: [outcome.event_id for outcome in found] == ["e1"], within_s=20)
    reader.close()
    assert reader.address is None, "nobody reads there any more"
