"""The Lambda door: documented events of API Gateway in, the gateway's verification, Kafka or SQS behind it."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.codec import decode_event
from contracts.errors import ConfigError, InvalidPayload, LogUnavailable
from contracts.settings import Settings
from contracts.topics import Topics
from gateways.ingress import lambda_handler
from gateways.ingress.lambda_handler import Function, handler
from gateways.ingress.lambda_request import read_request, source_name
from gateways.ingress.lambda_targets import queued_event
from gateways.ingress.table import build
from gateways.ingress.webhooks import Accepted, WebhookSource
from producers.embedded import EmbeddedBroker
from producers.memory import MemoryProducer
from tests.awslab.fixtures import unique
from tests.awslab.server import REGION, AwsLab, failing
from tests.gateways.driver import CONFIGURATION, SECRET, github_headers
from tests.gateways.ingress.test_sqs import settings_of
from tests.suites.ingress import running
from tests.support import ROOT, eventually, eventually_async

EVENTS = {
    path.stem: json.loads(path.read_text("utf-8")) for path in sorted((ROOT / "examples/lambda/events").glob("*.json"))
}
BODY = b'{"repository":{"full_name":"a/b"},  "text":"\xc3\xa4"}'
BINARY = b'\xff\xfe{"repository"'
KINDS = sorted(EVENTS)


def request_of(kind: str, body: bytes = BODY, secret: bytes = SECRET, **changes: str) -> dict[str, Any]:
    """Return the documented event of a kind with a signed body; `changes` are headers, underscores for dashes."""
    event: dict[str, Any] = deepcopy(EVENTS[kind])
    headers = github_headers(body, secret) | {name.replace("_", "-"): text for name, text in changes.items()}
    event["headers"] |= headers
    if "multiValueHeaders" in event:
        event["multiValueHeaders"] |= {name.title(): [text] for name, text in headers.items()}
    try:
        event |= {"body": body.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return event


class Target:
    """A target in memory."""

    def __init__(self) -> None:
        self.accepted: list[Accepted] = []
        self.timeouts_s: list[float] = []
        self.error: Exception | None = None

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def put(self, _source: WebhookSource, accepted: Accepted, timeout_s: float) -> None:
        self.timeouts_s.append(timeout_s)
        if self.error:
            raise self.error
        self.accepted.append(accepted)


@pytest.fixture
def target() -> Target:
    return Target()


@pytest.fixture
def function(target: Target, monkeypatch: pytest.MonkeyPatch, secret_environment: None) -> Iterator[Function]:  # noqa: ARG001 - a fixture cannot use usefixtures
    monkeypatch.setattr(lambda_handler, "make_target", lambda _settings: target)
    function = Function(Settings.model_validate(CONFIGURATION))
    yield function
    function.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("body", [BODY, BINARY, b'{"a":1}\n'])
def test_a_signed_request_is_accepted_byte_for_byte(function: Function, target: Target, kind: str, body: bytes) -> None:
    answer = function.answer(request_of(kind, body), 30)

    assert (answer["statusCode"], answer["body"]) == (202, '{"status":"accepted"}')
    assert [accepted.record.value for accepted in target.accepted] == [body]
    event = target.accepted[0].event
    assert (event.id, event.source, event.type) == ("delivery-1", "github", "com.github.issues")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_signature_is_401_unauthorized_whatever_is_wrong_with_it(
    function: Function, target: Target, kind: str
) -> None:
    forged = request_of(kind, secret=b"another-secret-of-enough-bytes")
    changed = request_of(kind) | {"body": "{}"}
    unsigned = request_of(kind, x_hub_signature_256="")

    answers = [function.answer(event, 30) for event in (forged, changed, unsigned)]

    assert [(answer["statusCode"], answer["body"]) for answer in answers] == [(401, "Unauthorized")] * 3
    assert answers[0] == answers[1] == answers[2]
    assert target.accepted == []


def test_a_header_that_stands_there_twice_is_refused_as_at_the_gateway(function: Function, target: Target) -> None:
    event = request_of("rest-api-v1")
    event["multiValueHeaders"]["X-Hub-Signature-256"] *= 2

    answer = function.answer(event, 30)

    assert answer["statusCode"] == 400
    assert target.accepted == []


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"allow_networks": ["192.0.2.0/24"]}, 403),
        ({"allow_networks": ["205.255.255.176", "52.255.255.12"]}, 202),
        ({"content_types": ["application/x-www-form-urlencoded"]}, 415),
        ({"content_types": ["application/json"]}, 202),
    ],
)
def test_what_a_source_lets_in_at_the_gateway_is_what_it_lets_in_here(
    target: Target, kind: str, settings: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lambda_handler, "make_target", lambda _settings: target)
    github = CONFIGURATION["sources"]["github"] | settings
    strict = Function(Settings.model_validate(CONFIGURATION | {"sources": {"github": github}}))

    assert strict.answer(request_of(kind), 30)["statusCode"] == status
    strict.close()


def test_lines_that_a_gateway_joined_match_no_signature(function: Function, target: Target) -> None:
    event = request_of("http-api-v2")
    event["headers"]["x-hub-signature-256"] += "," + event["headers"]["x-hub-signature-256"]

    assert function.answer(event, 30)["statusCode"] == 401
    assert target.accepted == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"path": "/webhooks/nobody"}, 404),
        ({"path": "/webhooks/"}, 404),
        ({"path": "/github"}, 404),
        ({"httpMethod": "GET"}, 405),
        ({"body": "no base64!", "isBase64Encoded": True}, 400),
        ({"body": "x" * 1_001}, 413),
    ],
)
def test_every_other_refusal_has_its_own_code(
    function: Function, target: Target, change: dict[str, Any], status: int
) -> None:
    answer = function.answer(request_of("rest-api-v1") | change, 30)

    assert answer["statusCode"] == status
    assert target.accepted == []


def _with_source(monkeypatch: pytest.MonkeyPatch, target: Target, **changes: Any) -> Function:
    monkeypatch.setattr(lambda_handler, "make_target", lambda _settings: target)
    source = CONFIGURATION["sources"]["github"] | changes
    return Function(Settings.model_validate(CONFIGURATION | {"sources": {"github": source}}))


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize("kind", KINDS)
def test_a_handshake_is_answered_as_at_the_gateway(kind: str, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    function = _with_source(monkeypatch, target, handshakes={"graph": True})
    event = request_of(kind) | {
        "rawQueryString": "validationToken=a%20b",
        "multiValueQueryStringParameters": {"validationToken": ["a b"]},
    }

    answer = function.answer(event, 30)

    function.close()
    assert (answer["statusCode"], answer["body"]) == (200, "a b")
    assert answer["headers"]["content-type"] == "text/plain; charset=utf-8"
    assert answer["headers"]["x-content-type-options"] == "nosniff"
    assert target.accepted == []


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize(
    ("source", "status", "body"),
    [
        ({"success_status": 200}, 200, '{"status":"accepted"}'),
        ({"success_status": 204}, 204, ""),
        ({"success_status": 200, "success_body": "<Response/>"}, 200, "<Response/>"),
    ],
)
def test_a_source_has_its_own_answer_here_too(
    source: dict[str, Any], status: int, body: str, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = _with_source(monkeypatch, target, **source)

    answer = function.answer(request_of("http-api-v2"), 30)

    function.close()
    assert (answer["statusCode"], answer["body"]) == (status, body)
    assert len(target.accepted) == 1


def test_a_compressed_body_is_415(function: Function) -> None:
    assert function.answer(request_of("http-api-v2", content_encoding="gzip"), 30)["statusCode"] == 415


@pytest.mark.parametrize("event", [{}, {"Records": []}, {"version": "2.0"}, {"requestContext": {"http": 3}}])
def test_what_is_no_http_request_is_no_crash(function: Function, event: dict[str, Any]) -> None:
    assert function.answer(event, 30)["statusCode"] == 400


@pytest.mark.parametrize("error", [LogUnavailable("away"), RuntimeError("a bug")])
def test_a_fault_of_ours_is_503_and_says_when_to_come_back(
    function: Function, target: Target, error: Exception
) -> None:
    target.error = error

    answer = function.answer(request_of("http-api-v2"), 30)

    assert answer["statusCode"] == 503
    assert answer["headers"]["retry-after"] == "5"
    assert "bug" not in answer["body"]


def test_the_wait_ends_before_the_functions_time_and_before_api_gateways(function: Function, target: Target) -> None:
    function.answer(request_of("http-api-v2"), 300)
    function.answer(request_of("http-api-v2"), 5)
    function.answer(request_of("http-api-v2"), 0.2)

    assert target.timeouts_s == [20.0, 4.0, 0.001]


def test_one_source_may_have_the_function_for_itself() -> None:
    assert source_name("/anything", "github") == "github"
    assert source_name("/prod/webhooks/github", None) == "github"


def test_a_request_is_read_alike_from_every_kind_of_event() -> None:
    found = {kind: read_request(request_of(kind)) for kind in KINDS}

    assert {request.body for request in found.values()} == {BODY}
    assert {request.method for request in found.values()} == {"POST"}
    for request in found.values():
        assert dict(request.headers)[b"x-github-event"] == b"issues"
        assert all(name == name.lower() for name, _ in request.headers)


def test_a_rest_api_without_multi_value_headers_is_read_too() -> None:
    event = request_of("rest-api-v1")
    del event["multiValueHeaders"]

    assert dict(read_request(event).headers)[b"x-github-event"] == b"issues"


def test_an_event_of_another_service_is_refused() -> None:
    with pytest.raises(InvalidPayload, match="API Gateway"):
        read_request({"Records": [{"eventSource": "aws:sqs"}]})


def test_what_is_queued_carries_type_payload_and_received_at(function: Function, target: Target) -> None:
    function.answer(request_of("http-api-v2"), 30)
    (accepted,) = target.accepted

    raw = queued_event(function._sources["github"], accepted)

    document = json.loads(raw)
    assert document["type"] == "com.github.issues"
    assert document["received_at"] == accepted.event.time
    assert document["payload"] == json.loads(BODY)
    assert BODY in raw


@pytest.mark.parametrize("body", [b"", b"null", b" {}", b"not json", BINARY, b'"\xef\xbf\xbf"'])
def test_a_payload_that_a_message_cannot_carry_is_queued_in_base64(
    function: Function, target: Target, body: bytes
) -> None:
    function.answer(request_of("http-api-v2", body), 30)

    document = json.loads(queued_event(function._sources["github"], target.accepted[0]))

    assert base64.b64decode(document["payload_base64"]) == body
    assert "payload" not in document


def _configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **sections: Any) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(yaml.safe_dump(CONFIGURATION | sections), encoding="utf-8")
    monkeypatch.setenv("PENSTOCK_CONFIG", str(file))


class Context:
    """What Lambda hands over beside the event."""

    def get_remaining_time_in_millis(self) -> int:
        """Return 30 s."""
        return 30_000


@pytest.fixture
def fresh_container(secret_environment: None) -> Iterator[None]:  # noqa: ARG001 - as above
    lambda_handler._container.clear()
    yield
    for function in lambda_handler._container.values():
        function.close()
    lambda_handler._container.clear()


@pytest.mark.usefixtures("fresh_container")
def test_an_unusable_configuration_is_503_until_it_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_CONFIG", str(tmp_path / "none.yaml"))

    answer = handler(request_of("http-api-v2"), Context())

    assert (answer["statusCode"], json.loads(answer["body"])) == (503, {"reason": "config_invalid"})
    assert lambda_handler._container == {}


@pytest.mark.process
def test_a_cold_start_imports_neither_client_before_it_is_chosen() -> None:
    code = (
        "import sys, gateways.ingress.lambda_handler as m;"
        "print([n for n in ('boto3','confluent_kafka','aiohttp','granian','cryptography','faust') if n in sys.modules])"
    )
    run = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"


@pytest.mark.process
@pytest.mark.usefixtures("fresh_container")
async def test_through_a_queue_the_event_is_the_same_as_straight_to_the_log(
    aws: AwsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = aws.queue(unique("accepted.fifo"), FifoQueue="true")
    door = {"target": "sqs", "queue_url": queue.url, "endpoint_url": aws.url, "region": REGION}
    _configuration(tmp_path, monkeypatch, lambda_door=door)
    for kind, body in (("http-api-v2", BODY), ("rest-api-v1", BINARY)):
        event = request_of(kind, body, x_github_delivery=kind)
        assert (await asyncio.to_thread(handler, event, Context()))["statusCode"] == 202
        # A sender that repeats itself within five minutes: the queue keeps one.
        assert (await asyncio.to_thread(handler, event, Context()))["statusCode"] == 202
    producer = MemoryProducer()
    await producer.start()
    async with running(build("functions", settings_of(queue, aws, envelope="penstock"), Topics(), producer)):
        await eventually_async(lambda: len(producer.records) == 2 and queue.is_empty)

    found = {record.value: decode_event(record.key, record.value, record.headers) for record in producer.records}
    assert set(found) == {BODY, BINARY}
    event_found = found[BODY]
    assert (event_found.id, event_found.source, event_found.type) == ("http-api-v2", "github", "com.github.issues")
    assert (event_found.key, event_found.datacontenttype) == (b"a/b", "application/json")
    evidence = {name: raw for record in producer.records for name, raw in record.headers}
    assert (evidence["penstock-scheme"], evidence["penstock-key-id"]) == (b"github", b"current")


@pytest.mark.process
@pytest.mark.usefixtures("fresh_container")
def test_another_event_under_an_id_that_was_just_used_is_queued_and_a_repetition_is_not(
    aws: AwsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = aws.queue(unique("accepted.fifo"), FifoQueue="true")
    door = {"target": "sqs", "queue_url": queue.url, "endpoint_url": aws.url, "region": REGION}
    _configuration(tmp_path, monkeypatch, lambda_door=door)

    for body in (BODY, BODY, BODY + b" "):
        assert handler(request_of("http-api-v2", body), Context())["statusCode"] == 202

    assert len(queue.receive()) == 2


@pytest.mark.process
@pytest.mark.usefixtures("fresh_container")
def test_an_event_that_is_too_large_for_the_queue_is_413(
    aws: AwsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most senders come again after 503, for days, and some give the endpoint up then."""
    queue = aws.queue(unique("accepted"), MaximumMessageSize="1024")
    door = {"target": "sqs", "queue_url": queue.url, "endpoint_url": aws.url, "region": REGION}
    _configuration(tmp_path, monkeypatch, lambda_door=door)

    assert handler(request_of("http-api-v2", BODY + b" " * 1024), Context())["statusCode"] == 413
    assert queue.receive() == []


@pytest.mark.process
@pytest.mark.usefixtures("fresh_container")
@pytest.mark.parametrize("code", ["RequestThrottled", "AccessDenied"])
def test_a_queue_that_does_not_take_the_event_is_503_and_never_202(
    aws: AwsLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    queue = aws.queue(unique("accepted"))
    door = {"target": "sqs", "queue_url": queue.url, "endpoint_url": aws.url, "region": REGION}
    _configuration(tmp_path, monkeypatch, lambda_door=door)

    with aws.fault(failing("SendMessage", code)):
        refused = handler(request_of("http-api-v2"), Context())
    accepted = handler(request_of("http-api-v2"), Context())

    assert (refused["statusCode"], accepted["statusCode"]) == (503, 202)
    assert len(queue.receive()) == 1


@pytest.mark.embedded
@pytest.mark.usefixtures("fresh_container")
def test_on_kafka_the_record_is_the_gateways_and_one_container_keeps_one_producer(
    embedded_broker: EmbeddedBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from confluent_kafka import Consumer

    prefix = unique("lambda")
    kafka = {"bootstrap_servers": embedded_broker.bootstrap, "topic_prefix": prefix, "embedded": True}
    _configuration(tmp_path, monkeypatch, kafka=kafka)

    answers = [handler(request_of(kind, x_github_delivery=kind), Context()) for kind in KINDS]

    assert [answer["statusCode"] for answer in answers] == [202] * 3
    consumer = Consumer(
        {"bootstrap.servers": embedded_broker.bootstrap, "group.id": prefix, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([Topics(prefix).events("standard")])
    found: list[Any] = []

    def all_are_there() -> bool:
        found.extend(consumer.consume(10, 0.2))
        return len(found) == 3

    eventually(all_are_there, 20)
    consumer.close()
    assert [message.value() for message in found] == [BODY] * 3
    assert sorted(dict(message.headers())["ce_id"].decode() for message in found) == KINDS


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("http-api-v2", {"rawQueryString": "a=1&b=%2F"}),
        ("function-url", {"rawQueryString": "a=1&b=%2F"}),
        ("rest-api-v1", {"multiValueQueryStringParameters": {"a": ["1"], "b": ["/"]}}),
    ],
)
def test_the_query_is_read_for_schemes_that_sign_it(kind: str, changes: dict[str, Any]) -> None:
    assert read_request(EVENTS[kind] | changes).query == b"a=1&b=%2F"
    assert read_request(EVENTS[kind]).query == b""


def test_a_source_that_needs_a_proxys_address_keeps_the_function_from_starting(secret_environment: None) -> None:  # noqa: ARG001 - a fixture cannot use usefixtures
    certificate = {"header": "h", "subjects": [{"id": "p", "subject": "CN=p"}], "trusted_proxies": ["10.0.0.0/8"]}
    source = {
        "scheme": "client-certificate",
        "type": "t",
        "secrets": [{"id": "a", "value": "env:TEST_SECRET"}],
        "client_certificate": certificate,
    }

    with pytest.raises(ConfigError, match=r"sources\.partner\.scheme"):
        Function(Settings.model_validate(CONFIGURATION | {"sources": {"partner": source}}))
