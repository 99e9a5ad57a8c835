"""The SQS door against moto's server: standard and FIFO queues through the suite, then what only SQS has."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from contracts.batch_jobs import BatchRequest
from contracts.codec import decode_event, decode_json
from contracts.envelope import Event
from contracts.errors import ConfigError
from contracts.settings.batch_jobs import BatchInput
from contracts.settings.ingress import SqsDoor
from contracts.topics import Topics
from gateways.ingress.base import Door
from gateways.ingress.s3_objects import object_of
from gateways.ingress.table import build
from producers.base import Producer
from producers.memory import MemoryProducer
from tests.awslab.fixtures import unique
from tests.awslab.server import REGION, AwsLab, Queue, Reply, failing
from tests.suites.ingress import VISIBILITY_S, DoorLab, DoorSuite, OrderedDoorSuite, running
from tests.support import eventually_async

pytestmark = pytest.mark.process

_ACTIONS = {"receive": "ReceiveMessage", "delete": "DeleteMessageBatch", "extend": "ChangeMessageVisibilityBatch"}
_CODES = {"throttled": "RequestThrottled", "access_denied": "AccessDenied"}


def settings_of(queue: Queue, aws: AwsLab, **changes: Any) -> SqsDoor:
    """Return the section of a door."""
    section = {
        "kind": "sqs", "queue_url": queue.url, "endpoint_url": aws.url, "region": REGION, "wait_s": 1,
        "visibility_timeout_s": VISIBILITY_S,
    }  # fmt: skip
    return SqsDoor.model_validate(section | changes)


class SqsLab(DoorLab):
    """A queue of its own on moto's server."""

    def __init__(self, aws: AwsLab, name: str, **attributes: str) -> None:
        self.aws = aws
        self.queue = aws.queue(unique(name), **attributes)
        self._is_fifo = name.endswith(".fifo")

    def make(self, producer: Producer, **settings: Any) -> Door:
        return build("orders", settings_of(self.queue, self.aws, **settings), Topics(), producer)

    def send(self, *bodies: str, group: str = "a") -> list[str]:
        return self.queue.send(*bodies, **({"MessageGroupId": group} if self._is_fifo else {}))

    def counts(self) -> tuple[int, int]:
        return self.queue.counts()

    def receive(self) -> list[tuple[str, int]]:
        return [(found["Body"], int(found["Attributes"]["ApproximateReceiveCount"])) for found in self.queue.receive()]

    def fetches(self) -> int:
        return self.aws.calls["ReceiveMessage"]

    def broken(self, call: str, reason: str, times: int = 1_000) -> AbstractContextManager[None]:
        return self.aws.fault(failing(_ACTIONS[call], _CODES[reason], times))

    def partly_broken(self, *, is_final: bool, times: int = 1) -> AbstractContextManager[None]:
        left = [times]

        def fault(action: str, document: dict[str, Any]) -> Reply:
            if action != "DeleteMessageBatch" or not left[0]:
                return None
            left[0] -= 1
            first, *others = [entry["Id"] for entry in document["Entries"]]
            code = "ReceiptHandleIsInvalid" if is_final else "InternalError"
            failed = {"Id": first, "SenderFault": is_final, "Code": code, "Message": "as the test wants"}
            if others:
                self.queue.delete(*[entry["ReceiptHandle"] for entry in document["Entries"][1:]])
            return 200, {"Successful": [{"Id": name} for name in others], "Failed": [failed]}

        return self.aws.fault(fault)


class TestStandardQueue(DoorSuite):
    """A queue without order."""

    @pytest.fixture
    def lab(self, aws: AwsLab) -> SqsLab:
        return SqsLab(aws, "orders")


class TestFifoQueue(OrderedDoorSuite):
    """A queue whose message groups keep their order."""

    @pytest.fixture
    def lab(self, aws: AwsLab) -> SqsLab:
        return SqsLab(aws, "orders.fifo", FifoQueue="true", ContentBasedDeduplication="true")


async def _one(aws: AwsLab, queue: Queue, **settings: Any) -> tuple[Event, dict[str, bytes | None]]:
    """Run a door until its queue is empty and return the one event with its record's headers."""
    producer = MemoryProducer()
    await producer.start()
    async with running(build("orders", settings_of(queue, aws, **settings), Topics(), producer)):
        await eventually_async(lambda: producer.records)
        await eventually_async(lambda: queue.is_empty)
    (record,) = producer.records
    return decode_event(record.key, record.value, record.headers), dict(record.headers)


async def test_attributes_of_a_message_are_headers_for_templates(aws: AwsLab) -> None:
    queue = aws.queue(unique("q"))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    attributes = {"Kind": "order.placed", "traceparent": parent}
    queue.send(
        '{"order":7}',
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )

    event, _ = await _one(
        aws,
        queue,
        type="shop.{header:kind}",
        key="json:/order",
        id="order-{json:/order}",
        lane="bulk",
        ce_source="shop",
    )

    assert (event.id, event.source, event.type, event.key) == ("order-7", "shop", "shop.order.placed", b"7")
    assert event.extensions["traceparent"] == parent


async def test_an_sns_notification_is_unwrapped(aws: AwsLab) -> None:
    queue, sns = aws.queue(unique("q")), aws.client("sns")
    topic = sns.create_topic(Name=unique("t"))["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)
    kind = {"kind": {"DataType": "String", "StringValue": "placed"}}
    message_id = sns.publish(TopicArn=topic, Message='{"a": 1}', Subject="hello", MessageAttributes=kind)["MessageId"]

    event, _ = await _one(aws, queue, envelope="sns", key="header:x-amz-sns-topic-arn", type="sns.{header:kind}")

    assert (event.id, event.type, event.subject, event.data) == (message_id, "sns.placed", "hello", b'{"a": 1}')
    assert event.key == topic.encode()


async def test_raw_message_delivery_of_sns_is_a_plain_body(aws: AwsLab) -> None:
    queue, sns = aws.queue(unique("q")), aws.client("sns")
    topic = sns.create_topic(Name=unique("t"))["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn, Attributes={"RawMessageDelivery": "true"})
    sns.publish(TopicArn=topic, Message="plain text")

    event, _ = await _one(aws, queue)

    assert (event.type, event.data) == ("com.amazonaws.sqs.message", b"plain text")
    assert event.datacontenttype == "text/plain; charset=utf-8"


async def test_an_eventbridge_event_comes_whole(aws: AwsLab) -> None:
    queue, bus = aws.queue(unique("q")), aws.client("events")
    rule = unique("rule")
    bus.put_rule(Name=rule, EventPattern=f'{{"source":["{rule}"]}}')
    bus.put_targets(Rule=rule, Targets=[{"Id": "1", "Arn": queue.arn}])
    entry = {"Source": rule, "DetailType": "Order Placed", "Detail": '{"order": 7}', "Resources": ["arn:shop"]}
    event_id = bus.put_events(Entries=[entry])["Entries"][0]["EventId"]

    event, _ = await _one(aws, queue, envelope="eventbridge", key="json:/detail/order")

    assert (event.id, event.type, event.subject) == (event_id, f"{rule}.Order Placed", "arn:shop")
    assert event.key == b"7"


async def test_an_s3_notification_is_one_event_and_its_test_event_none(aws: AwsLab) -> None:
    queue, s3 = aws.queue(unique("q")), aws.client("s3")
    bucket = unique("bucket")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    target = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [target]})
    s3.put_object(Bucket=bucket, Key="in/a b+\u00e9.jsonl", Body=b"{}\n")

    event, _ = await _one(aws, queue, envelope="s3")

    assert event.type == "com.amazonaws.s3.ObjectCreated:Put"
    assert event.subject == f"{bucket}/in/a b+\u00e9.jsonl"
    assert event.key == event.subject.encode()
    assert event.id.startswith(f"{bucket}/in/a b+\u00e9.jsonl@")
    found = object_of(event.data)
    assert (found.bucket, found.key, found.size) == (bucket, "in/a b+\u00e9.jsonl", 3)


async def test_an_object_of_a_batch_input_asks_for_a_job_and_any_other_is_an_event(aws: AwsLab) -> None:
    queue, s3 = aws.queue(unique("q")), aws.client("s3")
    bucket = unique("bucket")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    target = {"QueueArn": queue.arn, "Events": ["s3:ObjectCreated:*"]}
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [target]})
    etag = s3.put_object(Bucket=bucket, Key="in/a b.jsonl", Body=b"{}\n")["ETag"].strip('"')
    s3.put_object(Bucket=bucket, Key="pictures/a.jpg", Body=b"x")
    section = {"name": "nightly", "bucket": bucket, "key": "in/*.jsonl", "output": "s3://results-bucket/out"}
    producer, topics = MemoryProducer(), Topics()
    door = build(
        "objects",
        settings_of(queue, aws, envelope="s3", batch_jobs=True),
        topics,
        producer,
        [BatchInput.model_validate(section)],
    )

    await producer.start()
    async with running(door):
        await eventually_async(lambda: len(producer.records) == 2 and queue.counts() == (0, 0))

    by_topic = {record.topic: record for record in producer.records}
    request = decode_json(by_topic[topics.batch_jobs].value or b"", BatchRequest)
    assert (request.input, request.object.uri, request.object.etag, request.object.size_bytes) == (
        "nightly",
        f"s3://{bucket}/in/a b.jsonl",
        etag,
        3,
    )
    assert by_topic[topics.batch_jobs].key == f"{request.id}/request".encode()
    assert object_of(by_topic[topics.events("standard")].value or b"").key == "pictures/a.jpg"


async def test_without_a_region_anywhere_the_door_does_not_start(
    aws: AwsLab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    queue = aws.queue(unique("q"))
    door = build("orders", settings_of(queue, aws, region=None), Topics(), MemoryProducer())

    with pytest.raises(ConfigError, match=r"ingress\.orders\.region"):
        await door.start()
    await door.aclose()


async def test_a_queue_that_does_not_exist_is_named_and_waited_for(aws: AwsLab) -> None:
    queue = aws.queue(unique("q"))
    door = build("orders", settings_of(queue, aws, queue_url=f"{queue.url}-none"), Topics(), MemoryProducer())

    async with running(door):
        await eventually_async(lambda: door.unready() == ["configuration_fault"])
