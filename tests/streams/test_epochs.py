"""Where the epochs of a log's leaders end, as brokers tell it."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, LeaderNotAvailableError, StaleMetadata
from aiokafka.protocol.api import Request

from streams.epochs import epoch_ends

AT, BESIDE = TopicPartition("events", 0), TopicPartition("events", 1)
VERSIONS = {23: (2, 4)}


class Client:
    """Stands for aiokafka's: knows who leads, answers, and notes what is asked of whom.

    Args:
        answers: per partition, error code and end offset.
        leaders: per partition; None = not known, -1 = being elected.
    """

    def __init__(self, answers: dict[Any, tuple[int, int]], leaders: dict[Any, int | None]) -> None:
        self.answers, self.leaders = answers, leaders
        self.asked: list[tuple[int, Any]] = []
        self.topics: list[str] = []
        self.updates = 0
        self.versions = VERSIONS
        self.cluster = SimpleNamespace(leader_for_partition=leaders.get)

    async def _maybe_wait_metadata(self) -> None:
        pass

    def add_topic(self, topic: str) -> None:
        self.topics.append(topic)

    def force_metadata_update(self) -> None:
        self.updates += 1

    def _answer(self, topic: str, number: int) -> tuple[int, int, int, int]:
        code, end = self.answers[topic, number]
        return code, number, 1, end

    async def send(self, leader: int, request: Request[Any]) -> Any:
        struct = request.prepare(self.versions)
        assert type(struct).decode(struct.encode()).topics == struct.topics
        self.asked.append((leader, struct.topics))
        found = [(topic, [self._answer(topic, number) for number, *_ in asked]) for topic, asked in struct.topics]
        raw = struct.RESPONSE_TYPE(0, found).encode()
        return struct.RESPONSE_TYPE.decode(raw)


async def test_each_leader_is_asked_once_for_its_partitions() -> None:
    client = Client({AT: (0, 7), BESIDE: (0, 9)}, {AT: 1, BESIDE: 2})

    assert await epoch_ends(client, {AT: 3, BESIDE: 4}) == {AT: 7, BESIDE: 9}
    assert client.asked == [(1, [("events", [(0, -1, 3)])]), (2, [("events", [(1, -1, 4)])])]


@pytest.mark.parametrize("answer", [(0, -1), (29, -1), (35, -1)])
async def test_an_end_that_is_not_known_is_left_out(answer: tuple[int, int]) -> None:
    """An epoch that the log never had, no right to describe the topic, a version that the broker does not have."""
    client = Client({AT: answer, BESIDE: (0, 9)}, {AT: 1, BESIDE: 1})

    assert await epoch_ends(client, {AT: 3, BESIDE: 4}) == {BESIDE: 9}


@pytest.mark.parametrize("versions", [{}, {23: (0, 2)}])
async def test_a_broker_that_does_not_know_the_question_tells_of_no_end(versions: dict[int, tuple[int, int]]) -> None:
    client = Client({AT: (0, 7)}, {AT: 1})
    client.versions = versions

    assert await epoch_ends(client, {AT: 3}) == {}


async def test_an_answer_of_a_former_leader_is_to_be_asked_for_again() -> None:
    client = Client({AT: (6, -1)}, {AT: 1})
    with pytest.raises(KafkaError) as raised:
        await epoch_ends(client, {AT: 3})

    assert raised.value.retriable
    assert client.updates == 1


@pytest.mark.parametrize(("leader", "error"), [(None, StaleMetadata), (-1, LeaderNotAvailableError)])
async def test_nobody_is_asked_while_a_leader_is_not_known(leader: int | None, error: type[KafkaError]) -> None:
    client = Client({}, {AT: leader})
    with pytest.raises(error):
        await epoch_ends(client, {AT: 3})

    assert client.asked == []


def test_aiokafka_tells_of_a_question_that_a_broker_does_not_know() -> None:
    assert issubclass(IncompatibleBrokerVersion, KafkaError)
