"""The board of endpoints' states, on real Kafka."""

from collections.abc import AsyncIterator

import pytest

from contracts.codec import Record
from contracts.payloads import EndpointState
from contracts.settings import KafkaSettings, ProducerSettings
from gateways.egress.board import KafkaBoard
from gateways.egress.reading import reader_config
from producers.producer import KafkaProducer
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


class Boards:
    """Boards of one topic."""

    def __init__(self, kafka: KafkaLab) -> None:
        self.settings = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
        (self.topic,) = kafka.create("endpoints")
        self.producer = KafkaProducer(self.settings, ProducerSettings(), client_id="test", delivery_timeout_s=30)
        self._started: list[KafkaBoard] = []

    async def start(self, app_id: str = "app") -> KafkaBoard:
        board = KafkaBoard(reader_config(self.settings, "test"), self.topic, self.producer.produce, app_id)
        board.start()
        self._started.append(board)
        assert await board.ready(30)
        return board

    async def close(self) -> None:
        for board in self._started:
            board.close()
        await self.producer.aclose()


@pytest.fixture
async def boards(kafka: KafkaLab) -> AsyncIterator[Boards]:
    boards = Boards(kafka)
    await boards.producer.start()
    yield boards
    await boards.close()


def _state(name: str, status: str, reason: str = "", app_id: str = "app") -> EndpointState:
    since = "2026-01-01T00:00:00.000Z"
    return EndpointState(name=name, status=status, since=since, reason=reason, app_id=app_id)  # type: ignore[arg-type]


async def test_states_outlive_their_process_and_reach_the_others(boards: Boards) -> None:
    first, other = await boards.start(), await boards.start()
    await first.put(_state("crm", "disabled", "gone"))
    await first.put(_state("billing", "failing", "timeout"))

    assert first.get("crm") == _state("crm", "disabled", "gone")
    await eventually_async(lambda: other.get("crm") == _state("crm", "disabled", "gone"), within_s=30)
    restarted = await boards.start()
    assert restarted.states() == {
        "crm": _state("crm", "disabled", "gone"),
        "billing": _state("billing", "failing", "timeout"),
    }
    await restarted.put(_state("crm", "active"))
    await eventually_async(lambda: other.get("crm") == _state("crm", "active"), within_s=30)


async def test_strange_records_are_passed_over_and_a_tombstone_forgets(boards: Boards) -> None:
    first = await boards.start()
    await first.put(_state("crm", "disabled", "gone"))
    await first.put(_state("billing", "disabled", "gone"))
    for key, value in [
        (b"app/crm", b"not json"),
        (b"app/crm", b'{"name": "billing"}'),
        (b"crm", None),
        (None, b"{}"),
        (b"app/billing", None),
    ]:
        await boards.producer.produce(Record(boards.topic, key, value, []))

    restarted = await boards.start()

    assert restarted.states() == {"crm": _state("crm", "disabled", "gone")}
