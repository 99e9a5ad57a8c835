"""What was read before the commit points at a start, on the embedded broker."""

import asyncio

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from contracts.settings import KafkaSettings
from producers.mock_cluster import MockCluster
from streams.engine.item import TP
from streams.recall import Recall
from streams.tail import TailReader

pytestmark = pytest.mark.embedded
EVENTS = "events"


class BrokenName(str):
    """A header name that goes out as bytes that are not UTF-8, as a client in another language may send them."""

    __slots__ = ()

    def encode(self, _encoding: str = "utf-8", _errors: str = "strict") -> bytes:
        return b"\xffname"


async def send(bootstrap: str, *names: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        for name in names:
            await producer.send_and_wait(EVENTS, b"{}", headers=[(name, b"1")], partition=0)
    finally:
        await producer.stop()


def test_a_header_name_that_is_not_utf_8_stops_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    # The fast builder encodes names itself.
    monkeypatch.setattr("aiokafka.producer.producer.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    monkeypatch.setattr(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
    with MockCluster() as cluster:
        # After some calls the interpreter takes a shorter way to the client's own function.
        asyncio.run(send(cluster.bootstrap, *["a"] * 40, BrokenName("x"), "b"))
        kafka = KafkaSettings(bootstrap_servers=(cluster.bootstrap,))

        windows = Recall(kafka, "app", 100, frozenset({EVENTS})).read({TP(EVENTS, 0): (0, 42)})
        tails = TailReader(kafka, "app", frozenset({EVENTS})).read({TP("source", 0): (0, {EVENTS: 0})})

    assert list(windows) == [TP(EVENTS, 0)]
    assert tails[TP("source", 0)].ends == {EVENTS: 42}
