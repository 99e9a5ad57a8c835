"""A producer whose client cannot be made anew at once, or takes its time: without brokers."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from structlog.testing import capture_logs

from contracts.codec import Record
from contracts.errors import ConfigError, LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings import KafkaSettings, ProducerSettings
from producers import producer as module
from producers.producer import KafkaProducer
from tests.support import eventually_async

RECORD = Record(topic="t", key=b"k", value=b"v", headers=[])
MSK: dict[str, Any] = {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM", "aws_region": "eu-central-1"}


class Client:
    """Stands in for librdkafka's; each is made as `faults` and `gate` say."""

    made: list["Client"]
    faults: list[Exception]
    gate: threading.Event

    def __init__(self, _config: dict[str, Any], logger: object) -> None:  # noqa: ARG002 - the client's
        self.thread = threading.current_thread()
        self.is_closed = False
        assert self.gate.wait(10)
        if self.faults:
            raise self.faults.pop(0)
        self.made.append(self)

    def poll(self, _timeout_s: float) -> None:
        return

    def purge(self) -> None:
        return

    def close(self) -> None:
        self.is_closed = True

    def produce(self, *_args: object, **_options: object) -> None:
        return


@pytest.fixture(autouse=True)
def _clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    Client.made, Client.faults, Client.gate = [], [], threading.Event()
    Client.gate.set()
    monkeypatch.setattr(module, "ConfluentProducer", Client)
    monkeypatch.setattr(module, "producer_config", lambda *_args: {})
    monkeypatch.setattr(module, "_REBUILD_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "_IDLE_TICK_S", 0.01)
    yield
    Client.gate.set()


async def started(**kafka: Any) -> KafkaProducer:
    producer = KafkaProducer(KafkaSettings(**kafka), ProducerSettings(), client_id="test", is_main=False)
    await producer.start()
    return producer


@pytest.mark.parametrize("kafka", [{}, MSK])
async def test_a_client_that_cannot_be_made_anew_is_tried_again(kafka: dict[str, Any]) -> None:
    producer = await started(**kafka)
    Client.faults = [
        ConfigError("no credentials"),
        KafkaException(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED)),
        OSError("no file"),
    ]
    before = _rebuilds()
    with capture_logs() as lines:
        producer._break("broken")
        await eventually_async(lambda: len(Client.made) == 2 and bool(producer._client))
    producer.post(RECORD, asyncio.get_running_loop().create_future())
    await producer.aclose(0)

    assert [line["event"] for line in lines if line["component"] == "producer"] == [
        "producer.broken",
        *["producer.not_rebuilt"] * 3,
        "producer.rebuilt",
    ]
    assert lines[1]["error"] == "no credentials"
    assert _rebuilds() == before + 4


def _rebuilds() -> float:
    return REGISTRY.get_sample_value("penstock_producer_rebuilds_total") or 0.0


@pytest.mark.parametrize("kafka", [{}, MSK])
async def test_a_start_without_a_token_or_a_thread_is_kafka_that_is_away(kafka: dict[str, Any]) -> None:
    """As of every other client: a program tells it in a line, and not with a traceback."""
    Client.faults = [KafkaException(KafkaError(KafkaError.SASL_AUTHENTICATION_FAILED, "OAuth token not set"))]

    with pytest.raises(LogUnavailable, match="Kafka cannot be asked: OAuth token not set"):
        await started(**kafka)


async def test_a_client_that_waits_for_its_token_does_not_hold_up_the_loop() -> None:
    producer = await started(**MSK)
    Client.gate.clear()
    producer._break("broken")
    # The loop goes round, and no second one is begun.
    await asyncio.sleep(0.05)
    with pytest.raises(LogUnavailable, match="being rebuilt"):
        producer.post(RECORD, asyncio.get_running_loop().create_future())
    Client.gate.set()
    await eventually_async(lambda: producer._client is not None)
    await producer.aclose(0)

    assert len(Client.made) == 2
    assert threading.main_thread() not in {client.thread for client in Client.made}


async def test_a_client_that_comes_after_the_end_is_closed() -> None:
    producer = await started(**MSK)
    Client.gate.clear()
    producer._break("broken")
    building = producer._building
    assert building is not None
    await producer.aclose(0)
    Client.gate.set()
    await building
    await eventually_async(lambda: len(Client.made) == 2 and all(client.is_closed for client in Client.made))


async def test_whatever_a_tick_raises_the_next_one_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            message = "once"
            raise ZeroDivisionError(message)

    producer = await started()
    monkeypatch.setattr(producer._window.stalls, "look", look)
    await eventually_async(lambda: looks >= 3)
    await producer.aclose(0)

    assert [type(error) for error in told] == [ZeroDivisionError]
