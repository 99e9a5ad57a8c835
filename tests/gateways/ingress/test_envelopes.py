"""What a message may be, beyond what real queues show: documented shapes, several objects, and everything broken."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from contracts.codec import Headers, Position, decode_event
from contracts.errors import Undecodable
from contracts.repetition import outcome_marks
from contracts.settings.batch_jobs import BatchInput
from contracts.settings.ingress import SqsDoor
from contracts.topics import Topics
from gateways.ingress.base import Message
from gateways.ingress.batch_notices import BatchNotices
from gateways.ingress.envelopes.table import ENVELOPES
from gateways.ingress.intake import Intake
from gateways.ingress.mapping import Mapping
from gateways.ingress.s3_objects import S3Object, object_of
from gateways.ingress.sqs_client import _translate
from producers.memory import MemoryProducer

# Amazon S3 User Guide, "Event message structure", shortened.
S3_RECORD: dict[str, Any] = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "s3": {
        "bucket": {"name": "amzn-s3-demo-bucket", "arn": "arn:aws:s3:::amzn-s3-demo-bucket"},
        "object": {
            "key": "Happy+Face%2B.jpg",
            "size": 1024,
            "eTag": "d41d8cd98f00b204e9800998ecf8427e",
            "versionId": "096fKKXTRTtl3on89fVO.nfljtsv6qko",
            "sequencer": "0055AED6DCD90281E5",
        },
    },
}
# Amazon S3 User Guide, "EventBridge event message structure", shortened: its keys are not encoded.
S3_BUS_EVENT: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::amzn-s3-demo-bucket1"],
    "detail": {
        "version": "0",
        "bucket": {"name": "amzn-s3-demo-bucket1"},
        "object": {"key": "a+b%20.jpg", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "version-id": "IYV3p4"},
    },
}
NOTIFICATION: dict[str, Any] = {
    "Type": "Notification",
    "MessageId": "dc1e94d9-56c5-5e96-808d-cc7f68faa162",
    "TopicArn": "arn:aws:sns:us-east-2:111122223333:ExampleTopic1",
    "Message": "Hello",
    "Timestamp": "2021-02-16T21:41:19.978Z",
}


def message(document: Any, group: str = "") -> Message:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return Message("m1", [], body, group, "2026-11-24T08:00:00.000Z")


def record_of(envelope: str, found: Message, **settings: Any) -> Any:
    """Return the decoded event of a message with one item."""
    section = {"kind": "sqs", "queue_url": "http://q/1/orders", "envelope": envelope} | settings
    mapping = Mapping("orders", SqsDoor.model_validate(section), Topics())
    (item,) = ENVELOPES[envelope](found)
    record = mapping.record(found, item)
    return decode_event(record.key, record.value, record.headers)


def test_an_event_is_known_at_the_doors_by_the_message_that_it_came_in() -> None:
    """A killed door leaves two records of one message; one that was sent twice is meant twice."""
    mapping = Mapping("orders", SqsDoor(kind="sqs", queue_url="http://q/1/orders", envelope="body"), Topics())

    def mark(message_id: str, offset: int) -> Headers:
        found = message({})._replace(id=message_id)
        record = mapping.record(found, ENVELOPES["body"](found)[0])
        return outcome_marks(record.headers, Position(record.topic, 0, offset, 0), 0.0)

    assert mark("m1", 7) == mark("m1", 8) != mark("m2", 9)


async def test_the_events_of_one_message_are_told_apart_at_the_doors_also_under_one_id() -> None:
    """A second delivery of the message gives them the same marks again."""
    other = S3_RECORD | {"eventName": "ObjectRemoved:Delete"}
    notification = message({"Records": [S3_RECORD, other]})
    door = SqsDoor(kind="sqs", queue_url="http://q/1/orders", envelope="s3", id="json:/s3/object/key")
    producer = MemoryProducer()
    await producer.start()
    intake = Intake("orders", ENVELOPES["s3"], Mapping("orders", door, Topics()), producer, None)
    for _ in range(2):
        assert await intake.settle(notification) == "accepted"

    records = [stored.record for stored in producer.stored]
    marks = [outcome_marks(one.headers, Position(one.topic, 0, at, 0), 0.0) for at, one in enumerate(records)]
    assert len({dict(one.headers)["ce_id"] for one in records}) == 1
    assert marks[0] == marks[2] != marks[1] == marks[3]


def test_every_object_of_a_notification_is_an_event_of_its_own() -> None:
    other = json.loads(json.dumps(S3_RECORD))
    other["s3"]["object"]["key"] = "b"

    items = ENVELOPES["s3"](message({"Records": [S3_RECORD, other]}))

    assert [object_of(item.body).key for item in items] == ["Happy Face+.jpg", "b"]
    assert items[0].id == ("amzn-s3-demo-bucket/Happy Face+.jpg@096fKKXTRTtl3on89fVO.nfljtsv6qko#0055AED6DCD90281E5")
    assert items[0].id != items[1].id


def test_an_object_is_read_alike_from_s3_and_from_eventbridge() -> None:
    event = record_of("eventbridge", message(S3_BUS_EVENT))

    assert object_of(json.dumps(S3_RECORD).encode()) == S3Object(
        "amzn-s3-demo-bucket", "Happy Face+.jpg", "096fKKXTRTtl3on89fVO.nfljtsv6qko",
        "d41d8cd98f00b204e9800998ecf8427e", 1024,
    )  # fmt: skip
    assert object_of(event.data) == S3Object(
        "amzn-s3-demo-bucket1", "a+b%20.jpg", "IYV3p4", "b1946ac92492d2347c6235b4d2611184", 5
    )
    assert event.type == "aws.s3.Object Created"


@pytest.mark.parametrize("data", [b"", b"{}", b"not json", b'{"detail":{}}', b"[1]"])
def test_what_is_about_no_object_says_so(data: bytes) -> None:
    with pytest.raises(Undecodable, match="no S3 object"):
        object_of(data)


@pytest.mark.parametrize("envelope", ["s3", "eventbridge"])
def test_an_sns_notification_around_it_is_seen_through(envelope: str) -> None:
    inner = {"Records": [S3_RECORD]} if envelope == "s3" else S3_BUS_EVENT
    wrapped = message(NOTIFICATION | {"Message": json.dumps(inner)})

    event = record_of(envelope, wrapped, subject="header:x-amz-sns-topic-arn")

    assert event.subject == NOTIFICATION["TopicArn"]
    assert object_of(event.data).size > 0


def test_a_key_of_a_thousand_characters_still_gives_an_id_and_a_key() -> None:
    long = json.loads(json.dumps(S3_RECORD))
    long["s3"]["object"]["key"] = "k" * 1_000

    first = record_of("s3", message({"Records": [long]}))
    again = record_of("s3", message({"Records": [long]}))

    assert first.id.startswith("sha256-")
    assert (first.id, first.key) == (again.id, again.key)
    assert len(first.key) <= 256


def test_a_message_group_is_the_key_unless_a_template_says_otherwise() -> None:
    assert record_of("body", message({"a": 1}, group="g")).key == b"g"
    assert record_of("body", message({"a": 1}, group="g"), key="json:/a").key == b"1"
    assert record_of("sns", message(NOTIFICATION, group="g")).key == b"g"


def test_without_a_group_the_id_is_the_key() -> None:
    assert record_of("body", message({"a": 1})).key == b"m1"


@pytest.mark.parametrize("envelope", ["sns", "eventbridge", "s3", "penstock"])
@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"Records":[]}', b'{"Records":[{}]}']
)
def test_what_is_not_what_the_door_expects_is_undecodable(envelope: str, body: bytes) -> None:
    with pytest.raises(Undecodable):
        ENVELOPES[envelope](message(body))


@pytest.mark.parametrize("change", [{}, {"payload_base64": "?"}, {"type": 3}, {"payload": 1, "id": None}])
def test_a_queued_event_without_its_parts_is_undecodable(change: dict[str, Any]) -> None:
    document = {"type": "t", "received_at": "2026-11-24T08:00:00Z", "id": "1", "source": "s"} | change
    with pytest.raises(Undecodable):
        ENVELOPES["penstock"](message(document))


def test_a_missing_type_or_id_is_undecodable() -> None:
    for settings in ({"type": "shop.{json:/none}"}, {"id": "json:/none"}):
        with pytest.raises(Undecodable, match="missing or not usable"):
            record_of("body", message({"a": 1}), **settings)


def _client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "ReceiveMessage")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_client_error("RequestThrottled"), "throttled"),
        (_client_error("AccessDenied"), "access_denied"),
        (_client_error("AWS.SimpleQueueService.NonExistentQueue"), "configuration_fault"),
        (_client_error("InternalError"), "transient"),
        (NoCredentialsError(), "access_denied"),
        (EndpointConnectionError(endpoint_url="http://q"), "transient"),
        (ReadTimeoutError(endpoint_url="http://q"), "transient"),
    ],
)
def test_an_error_of_boto3_has_its_meaning(error: Any, reason: str) -> None:
    assert _translate(error, "ingress.orders").reason == reason


def test_a_deletion_asks_for_no_batch_job_and_a_repeated_creation_for_the_same() -> None:
    section = {"name": "n", "bucket": "amzn-s3-demo-bucket", "output": "s3://results-bucket/out"}
    notices = BatchNotices([BatchInput.model_validate(section)], Topics())
    gone = json.loads(json.dumps(S3_RECORD))
    del gone["s3"]["object"]["eTag"]
    created, deleted = (ENVELOPES["s3"](message({"Records": [one]}))[0] for one in (S3_RECORD, gone))

    assert notices.record(deleted) is None
    first, again = notices.record(created), notices.record(created)
    assert first is not None
    assert first == again
