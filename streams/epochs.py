"""Where the epochs of a log's leaders end: Kafka's OffsetForLeaderEpoch, which aiokafka has no request for.

Whoever becomes a leader gives the log a new epoch, and every record carries the one it was written under. A record that
was read under an epoch that ends before it has been lost: an offset alone does not tell, for others may have it now.
Source: KIP-101, KIP-279, KIP-320; Kafka protocol, API 23. Verified, like streams/shell.py, against its TESTED_VERSIONS.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, LeaderNotAvailableError, StaleMetadata, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int16, Int32, Int64, Schema, String

_API_KEY = 23
# Asks for no more than the right to describe the topic, as a consumer has it; Kafka 2.3 and later.
_VERSION = 3
_A_CONSUMER = -1
_ANY_EPOCH = -1


class _Answer(Response):  # type: ignore[misc] # aiokafka has no types here
    API_KEY = _API_KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(("error_code", Int16), ("partition", Int32), ("leader_epoch", Int32), ("end_offset", Int64)),
                ),
            ),
        ),
    )


class _Question(RequestStruct):  # type: ignore[misc] # aiokafka has no types here
    API_KEY = _API_KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = _Answer
    SCHEMA = Schema(
        ("replica_id", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("current_leader_epoch", Int32), ("leader_epoch", Int32))),
            ),
        ),
    )


class _EpochEnds(Request[_Question]):  # type: ignore[misc] # aiokafka has no types here
    API_KEY = _API_KEY

    def __init__(self, epochs: Mapping[Any, int]) -> None:
        self._epochs = epochs

    def build(self, request_struct_class: type[_Question]) -> _Question:
        topics: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
        for (topic, partition), epoch in self._epochs.items():
            topics[topic].append((partition, _ANY_EPOCH, epoch))
        return request_struct_class(_A_CONSUMER, list(topics.items()))


async def epoch_ends(client: Any, epochs: Mapping[Any, int]) -> dict[Any, int]:
    """Ask the leaders where epochs end.

    Args:
        client: aiokafka's.
        epochs: per partition, the epoch of a record that was read.

    Returns:
        Per partition, the offset behind the last record of that epoch; without those of which it is not known: on a
        broker that does not know the question, without the right to describe the topic, of a topic that was made anew.

    Raises:
        KafkaError: a leader did not answer, or is being elected; asked again later, it may.
    """
    await client._maybe_wait_metadata()  # noqa: SLF001
    by_leader: dict[int, dict[Any, int]] = defaultdict(dict)
    for tp, epoch in epochs.items():
        by_leader[_leader(client, tp)][tp] = epoch
    found = await asyncio.gather(*(_ask(client, leader, asked) for leader, asked in by_leader.items()))
    return {tp: end for ends in found for tp, end in ends.items()}


def _leader(client: Any, tp: Any) -> int:
    leader: int | None = client.cluster.leader_for_partition(tp)
    if leader is None:
        client.add_topic(tp[0])
        raise StaleMetadata(tp)
    if leader < 0:
        client.force_metadata_update()
        raise LeaderNotAvailableError(tp)
    return leader


async def _ask(client: Any, leader: int, epochs: Mapping[Any, int]) -> dict[Any, int]:
    try:
        answer = await client.send(leader, _EpochEnds(epochs))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return {}
    ends: dict[Any, int] = {}
    for topic, partitions in answer.topics:
        for code, partition, _, end in partitions:
            error = for_code(code)
            if code and error.retriable:
                client.force_metadata_update()
                raise error(topic)
            if not code and end >= 0:
                ends[TopicPartition(topic, partition)] = end
    return ends
