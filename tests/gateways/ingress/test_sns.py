"""Amazon SNS as a sender: what it signs is an event, everything else is refused before anything is fetched for it."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import aiohttp
import pytest
from aiohttp import web

from contracts.errors import BadSignature, InvalidPayload, Retryable
from contracts.settings import Settings, SourceSettings
from contracts.topics import Topics
from gateways.ingress.secrets import Secrets, Value
from gateways.ingress.sns_certificates import Certificates
from gateways.ingress.sns_fetch import MAX_ANSWER_BYTES, fetch
from gateways.ingress.sns_source import SnsSource
from gateways.ingress.sources import build_sources
from gateways.ingress.webhooks import Accepted
from tests.awslab.fixtures import unique
from tests.awslab.server import REGION, AwsLab
from tests.gateways.driver import CONFIGURATION, Gateway
from tests.gateways.ingress.sns_lab import (
    AWAY,
    CERTIFICATE_URL,
    HOST,
    NOW,
    OTHER_KEY,
    SUBSCRIBE_URL,
    TOPIC,
    Sns,
    body,
    message,
)
from tests.support import FakeClock, eventually

SECTION: dict[str, Any] = {"scheme": "sns", "sns": {"topic_arns": [TOPIC]}, "type": "shop.order"}


def source(sns: Sns, topics: dict[str, Any] | None = None, **settings: Any) -> SnsSource:
    section = SECTION | settings | {"sns": SECTION["sns"] | (topics or {})}
    return SnsSource("orders", SourceSettings.model_validate(section), Topics(), sns.fetch)


async def accepted(found: SnsSource, raw: bytes, now: datetime = NOW) -> Accepted:
    """Return the event that must come of a body."""
    outcome = await found.accept([], raw, now)
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("subject", ["My First Message", None])
async def test_a_notification_becomes_an_event(version: str, subject: str | None) -> None:
    outcome = await accepted(source(Sns(), key="json:/order"), body(version=version, Subject=subject))

    event = outcome.event
    assert (event.id, event.source, event.type) == ("22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324", "orders", "shop.order")
    assert (event.data, event.key, event.subject) == (b'{"order": 7}', b"7", subject or "")
    assert (event.datacontenttype, event.time) == ("application/json", "2026-11-24T08:00:00.000Z")


async def test_fields_of_the_envelope_are_headers_for_templates() -> None:
    outcome = await accepted(source(Sns(), subject="header:x-amz-sns-topic-arn"), body(Message="text"))

    assert (outcome.event.subject, outcome.event.datacontenttype) == (TOPIC, "text/plain; charset=utf-8")


@pytest.mark.parametrize("name", ["Message", "MessageId", "Subject", "Timestamp", "Type"])
async def test_whatever_is_signed_cannot_be_changed(name: str) -> None:
    changed = message() | {name: "2026-11-24T08:00:01.000Z" if name == "Timestamp" else "Notification "}
    with pytest.raises((BadSignature, InvalidPayload)):
        await source(Sns()).accept([], json.dumps(changed).encode(), NOW)


async def test_another_key_is_refused() -> None:
    with pytest.raises(BadSignature, match="wrong_signature"):
        await source(Sns()).accept([], body(key=OTHER_KEY), NOW)


@pytest.mark.parametrize("signature", ["", "AAAA", "no base64!", "\u00e4"])
async def test_a_signature_that_is_none_is_refused(signature: str) -> None:
    raw = json.dumps(message() | {"Signature": signature}).encode()
    with pytest.raises(BadSignature):
        await source(Sns()).accept([], raw, NOW)


@pytest.mark.parametrize(
    "url",
    [
        "http://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com.evil.example/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com:8443/SimpleNotificationService-0123.pem",
        "https://evil@sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com@evil.example/SimpleNotificationService-0123.pem",
        "https://sns.us-east-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://s3.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com/../SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem?x=1",
        "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem#x",
        "https://sns.eu-central-1.amazonaws.com/bucket/evil.pem",
        "https://SNS.eu-central-1.amazonaws.com/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com\\@evil.example/SimpleNotificationService-0123.pem",
        "https://sns.eu-central-1.amazonaws.com/\tSimpleNotificationService-0123.pem",
        "https://[::1",
        "",
    ],
)
async def test_a_certificate_from_anywhere_else_is_refused_and_not_fetched(url: str) -> None:
    sns = Sns()
    with pytest.raises(BadSignature, match="certificate_url"):
        await source(sns).accept([], body(SigningCertURL=url), NOW)

    assert sns.asked == []


async def test_a_topic_that_is_not_ours_is_refused_and_nothing_fetched() -> None:
    sns = Sns()
    for kind in ("Notification", "SubscriptionConfirmation"):
        with pytest.raises(BadSignature, match="unknown_topic"):
            await source(sns).accept([], body(kind, TopicArn=f"{TOPIC}s"), NOW)

    assert sns.asked == []


@pytest.mark.parametrize("certificate", ["expired", "weak", "elliptic", "garbage"])
async def test_a_certificate_that_proves_nothing_is_refused(certificate: str) -> None:
    with pytest.raises(BadSignature, match="certificate"):
        await source(Sns(certificate)).accept([], body(), NOW)


@pytest.mark.parametrize(("hours", "detail"), [(1.1, "stale"), (-1.1, "in_future")])
async def test_an_old_message_is_refused(hours: float, detail: str) -> None:
    with pytest.raises(BadSignature, match=detail):
        await source(Sns()).accept([], body(), NOW + timedelta(hours=hours))


async def test_only_the_versions_that_are_wanted_count() -> None:
    found = source(Sns(), {"signature_versions": ["2"]})

    await accepted(found, body(version="2"))
    with pytest.raises(BadSignature, match="signature_version"):
        await found.accept([], body(version="1"), NOW)


async def test_raw_delivery_has_no_signature_and_is_refused() -> None:
    with pytest.raises(BadSignature, match="raw_delivery"):
        await source(Sns()).accept([(b"x-amz-sns-rawdelivery", b"true")], b'{"order": 7}', NOW)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"Type":"Other"}', b"[" * 100_000])
async def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidPayload):
        await source(Sns()).accept([], raw, NOW)


async def test_a_subscription_of_a_known_topic_is_confirmed() -> None:
    sns = Sns()

    assert await source(sns).accept([], body("SubscriptionConfirmation"), NOW) is None
    assert sns.asked == [CERTIFICATE_URL, SUBSCRIBE_URL]


@pytest.mark.parametrize("url", ["https://evil.example/", "http://127.0.0.1/", f"{HOST}/other", f"{HOST}:1/", None])
async def test_a_subscription_that_leads_elsewhere_is_not_followed(url: str | None) -> None:
    sns = Sns()
    with pytest.raises(InvalidPayload, match="SubscribeURL"):
        await source(sns).accept([], body("SubscriptionConfirmation", SubscribeURL=url), NOW)

    assert sns.asked == [CERTIFICATE_URL]


async def test_a_forged_confirmation_is_not_followed() -> None:
    sns = Sns()
    with pytest.raises(BadSignature):
        await source(sns).accept([], body("SubscriptionConfirmation", key=OTHER_KEY), NOW)

    assert sns.asked == [CERTIFICATE_URL]


async def test_confirming_can_be_left_to_the_operator() -> None:
    sns = Sns()

    assert await source(sns, {"confirm": False}).accept([], body("SubscriptionConfirmation"), NOW) is None
    assert sns.asked == [CERTIFICATE_URL]


async def test_the_end_of_a_subscription_is_taken_note_of() -> None:
    sns = Sns()

    assert await source(sns).accept([], body("UnsubscribeConfirmation"), NOW) is None
    assert sns.asked == [CERTIFICATE_URL]


async def test_a_certificate_is_fetched_once_for_many_messages() -> None:
    sns = Sns()
    found = source(sns)

    await asyncio.gather(*(accepted(found, body(MessageId=str(number))) for number in range(20)))

    assert sns.asked == [CERTIFICATE_URL]


async def test_a_certificate_is_fetched_anew_after_a_day() -> None:
    sns, clock = Sns(), FakeClock()
    certificates = Certificates(sns.fetch, 1.0, clock)

    for hours in (0, 23, 2):
        clock.advance(hours * 3600)
        await certificates.get(CERTIFICATE_URL)

    assert len(sns.asked) == 2


async def test_a_failed_fetch_is_not_repeated_at_once_and_pushes_nothing_good_out() -> None:
    sns, clock = Sns(), FakeClock()
    certificates = Certificates(sns.fetch, 1.0, clock)
    await certificates.get(CERTIFICATE_URL)

    for _ in range(2):
        for number in range(300):
            with pytest.raises(BadSignature):
                await certificates.get(f"{HOST}/SimpleNotificationService-{number % 100}.pem")
    await certificates.get(CERTIFICATE_URL)

    assert len(sns.asked) == 101


async def test_an_outage_of_sns_is_ours_to_wait_out_and_ends() -> None:
    sns, clock = Sns(), FakeClock()
    certificates = Certificates(sns.fetch, 1.0, clock)
    sns.error = AWAY
    for _ in range(2):
        with pytest.raises(Retryable):
            await certificates.get(CERTIFICATE_URL)
    sns.error = None
    clock.advance(11)

    await certificates.get(CERTIFICATE_URL)

    assert len(sns.asked) == 2


@pytest.fixture
async def doors(secret_environment: None) -> tuple[Gateway, Sns]:  # noqa: ARG001 - a fixture cannot use usefixtures
    """A gateway with a source of scheme sns, and what it asks."""
    sections = {"sources": CONFIGURATION["sources"] | {"orders": SECTION}}
    settings = Settings.model_validate(CONFIGURATION | sections)
    gateway, sns = Gateway(settings), Sns()
    orders = SnsSource("orders", settings.sources["orders"], gateway.parts.topics, sns.fetch)
    gateway.parts.sources.swap({**gateway.parts.sources, "orders": orders})
    await gateway.producer.start()
    return gateway, sns


def fresh(kind: str = "Notification", **changes: Any) -> bytes:
    return body(kind, Timestamp=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), **changes)


@pytest.fixture(autouse=True)
def _small_limit_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGURATION, "gateway", CONFIGURATION["gateway"] | {"max_body_bytes": 10_000})


async def test_the_gateway_answers_202_to_a_notification_and_200_to_a_handshake(doors: tuple[Gateway, Sns]) -> None:
    gateway, _ = doors
    text = {"content-type": "text/plain; charset=UTF-8"}

    notified = await gateway.call("POST", "/webhooks/orders", text, fresh())
    greeted = await gateway.call("POST", "/webhooks/orders", text, fresh("SubscriptionConfirmation"))

    assert (notified.status, greeted.status) == (202, 200)
    assert [record.value for record in gateway.records] == [b'{"order": 7}']


async def test_a_notification_is_done_again_where_an_operator_wants_it(
    doors: tuple[Gateway, Sns], monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway, sns = doors
    monkeypatch.setenv("TEST_REDELIVERY", "a-secret-for-operators")
    wanted = {"idempotency": {"redelivery_secret": "env:TEST_REDELIVERY"}}
    orders = SnsSource("orders", SourceSettings.model_validate(SECTION | wanted), gateway.parts.topics, sns.fetch)
    gateway.parts.sources.swap({"orders": orders})
    again = {"penstock-redelivery": "a-secret-for-operators"}
    answers = [await gateway.call("POST", "/webhooks/orders", headers, fresh()) for headers in ({}, {}, again)]

    assert [answer.json().get("duplicate") for answer in answers] == [None, True, None]
    assert len(gateway.records) == 2


def test_the_redelivery_secret_may_lie_in_a_service() -> None:
    reading = Secrets()
    reading.seen["aws-sm:redelivery"] = (Value(b"a-secret-for-operators"),)
    section = SECTION | {"idempotency": {"redelivery_secret": "aws-sm:redelivery"}}

    found = build_sources({"orders": SourceSettings.model_validate(section)}, Topics(), reading)

    assert list(found) == ["orders"]


async def test_the_gateway_answers_401_to_a_forgery_and_503_while_sns_is_away(doors: tuple[Gateway, Sns]) -> None:
    gateway, sns = doors
    sns.error = AWAY
    away = await gateway.call("POST", "/webhooks/orders", {}, fresh())
    nowhere = await gateway.call("POST", "/webhooks/orders", {}, fresh(SigningCertURL="https://evil.example/x.pem"))

    assert (away.status, nowhere.status) == (503, 401)
    assert int(away.headers["retry-after"]) >= 1
    assert gateway.records == []


@pytest.mark.parametrize(
    ("path", "outcome"),
    [("/good", None), ("/large", Retryable), ("/moved", Retryable), ("/missing", InvalidPayload), ("/slow", Retryable)],
)
async def test_what_is_fetched_is_bounded(path: str, outcome: type[Exception] | None) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/slow":
            await asyncio.sleep(30)
        status = {"/moved": 302, "/missing": 403}.get(request.path, 200)
        size = MAX_ANSWER_BYTES + (request.path == "/large")
        return web.Response(status=status, body=b"x" * size, headers={"location": "/good"} if status == 302 else {})

    app = web.Application()
    app.router.add_get("/{path}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}{path}"
    try:
        if outcome is None:
            assert len(await fetch(url, 5.0)) == MAX_ANSWER_BYTES
        else:
            with pytest.raises(outcome):
                await fetch(url, 0.3 if path == "/slow" else 5.0)
    finally:
        await runner.cleanup()


class _Mailbox(http.server.BaseHTTPRequestHandler):
    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_args: Any) -> None: ...


@pytest.fixture
def mailbox() -> Iterator[tuple[str, list[bytes]]]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Mailbox)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    _Mailbox.bodies.clear()
    yield f"http://127.0.0.1:{server.server_port}/", _Mailbox.bodies
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.process
async def test_what_another_implementation_signs_is_accepted(aws: AwsLab, mailbox: tuple[str, list[bytes]]) -> None:
    sns, (endpoint, bodies) = aws.client("sns"), mailbox
    topic = await asyncio.to_thread(lambda: sns.create_topic(Name=unique("t"))["TopicArn"])
    await asyncio.to_thread(lambda: sns.subscribe(TopicArn=topic, Protocol="http", Endpoint=endpoint))
    await asyncio.to_thread(lambda: sns.publish(TopicArn=topic, Message='{"a": "\u00e4"}'))
    raw = await asyncio.to_thread(lambda: eventually(lambda: bodies[-1] if bodies else b""))

    async def from_moto(url: str, _timeout_s: float) -> bytes:
        host = f"sns.{REGION}.amazonaws.com"
        # By this moto knows which service is meant.
        scope = f"AWS4-HMAC-SHA256 Credential=testing/20261124/{REGION}/sns/aws4_request"
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                url.replace(f"https://{host}", aws.url), headers={"host": host, "authorization": scope}
            ) as response,
        ):
            return await response.read()

    section = SECTION | {"sns": {"topic_arns": [topic]}}
    found = SnsSource("orders", SourceSettings.model_validate(section), Topics(), from_moto)
    outcome = await found.accept([], raw)

    assert outcome is not None
    assert outcome.event.data == '{"a": "\u00e4"}'.encode()
