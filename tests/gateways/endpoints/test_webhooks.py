"""POST /webhooks/{source}: which request gets which answer, and what then lies on the log."""

import asyncio

import pytest

from contracts import metrics
from contracts.codec import decode_event
from contracts.envelope import digest_id
from contracts.errors import LogUnavailable
from tests.gateways.driver import SECRET, Gateway, github_headers
from tests.support import eventually_async

ODD_BODIES = [
    b"\xff\xfe\x00",
    b"not json",
    b'{"a":1,"a":2}',
    b'{"a":NaN}',
    b"[" * 900,
    b"1e400",
    b'"\\ud800"',
    b"null",
    b"",
]


def _sample(name: str, **labels: str) -> float:
    return metrics.REGISTRY.get_sample_value(name, labels) or 0.0


async def test_a_signed_webhook_is_on_the_log_byte_for_byte(gateway: Gateway) -> None:
    body = b'{ "repository" : {"full_name":"a/b"} }'

    answer = await gateway.webhook(body)

    (record,) = gateway.records
    event = decode_event(record.key, record.value, record.headers)
    assert answer.status == 202
    assert record.value == body
    assert record.topic == "penstock.events.standard.v1"
    assert (event.id, event.source, event.type, event.key) == ("delivery-1", "github", "com.github.issues", b"a/b")
    assert event.datacontenttype == "application/json"
    assert event.extensions["delivery"] == "notify"


async def test_the_answer_says_where_the_result_will_be(gateway: Gateway) -> None:
    answer = await gateway.webhook()

    assert answer.json()["id"] == "delivery-1"
    assert answer.json()["status"] == "accepted"
    assert answer.json()["status_url"] == answer.headers["location"]
    assert answer.headers["location"].startswith("/v1/results/delivery-1?ticket=")


async def test_the_record_carries_evidence_of_its_verification(gateway: Gateway) -> None:
    await gateway.webhook()

    headers = dict(gateway.records[0].headers)
    assert headers["penstock-scheme"] == b"github"
    assert headers["penstock-key-id"] == b"current"
    assert headers["penstock-received-at"] == headers["ce_time"]


async def test_the_answer_comes_after_the_ack(gateway: Gateway) -> None:
    gateway.producer.hold_acks()
    asking = asyncio.ensure_future(gateway.webhook())
    await eventually_async(lambda: gateway.producer.buffered_bytes)

    assert not asking.done()
    gateway.producer.release_acks()
    assert (await asking).status == 202


async def test_without_an_ack_in_time_the_sender_is_told_to_come_back(gateway: Gateway) -> None:
    gateway.producer.hold_acks()

    answer = await gateway.webhook()

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["reason"] == "log_unavailable"


async def test_a_failed_produce_is_503_without_kafkas_words(gateway: Gateway) -> None:
    gateway.producer.fail_next(LogUnavailable("broker kafka-3.internal says no"))

    answer = await gateway.webhook()

    assert answer.status == 503
    assert b"kafka-3" not in answer.body


async def test_a_retry_after_a_failed_produce_is_accepted(gateway: Gateway) -> None:
    gateway.producer.fail_next(LogUnavailable("down"))
    await gateway.webhook()

    assert (await gateway.webhook()).status == 202
    assert len(gateway.records) == 1


async def test_a_full_buffer_is_503(gateway: Gateway) -> None:
    gateway.parts.admission.reserve(64 * 2**20)

    answer = await gateway.webhook()

    assert answer.status == 503
    assert answer.json()["reason"] == "busy"
    assert "retry-after" in answer.headers


@pytest.mark.parametrize("body", ODD_BODIES)
async def test_any_signed_bytes_are_accepted_when_the_fields_come_from_headers(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.webhook(body)

    assert answer.status == 202
    assert gateway.records[0].value == body
    assert gateway.records[0].key == digest_id("github", body).encode()  # the id is not signed


async def test_a_missing_key_field_falls_back_to_a_digest_of_the_body_and_is_counted(gateway: Gateway) -> None:
    before = _sample("penstock_webhook_key_fallbacks_total", source="github")

    await gateway.webhook(b"{}")

    # Not to the id, which is not signed: a repetition has to find the place of the first.
    assert gateway.records[0].key == digest_id("github", b"{}").encode()
    assert _sample("penstock_webhook_key_fallbacks_total", source="github") == before + 1


@pytest.mark.parametrize("missing", ["x-github-event", "x-github-delivery"])
async def test_a_missing_type_or_id_field_is_400_and_named(gateway: Gateway, missing: str) -> None:
    headers = github_headers(b"{}")
    del headers[missing]

    answer = await gateway.call("POST", "/webhooks/github", headers, b"{}")

    assert answer.status == 400
    assert missing in answer.json()["detail"]
    assert gateway.records == []


@pytest.mark.parametrize("event_id", ["x" * 257, "a\x7fb", "a\u200bb"])
async def test_an_unusable_id_becomes_the_digest_of_the_body(gateway: Gateway, event_id: str) -> None:
    answer = await gateway.webhook(b"{}", x_github_delivery=event_id)

    assert answer.status == 202
    assert answer.json()["id"].startswith("sha256-")


async def test_inbound_cloudevents_headers_and_traces_are_not_believed(gateway: Gateway) -> None:
    parent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

    await gateway.webhook(b"{}", ce_source="other", ce_owner="crm", traceparent=parent)

    (record,) = gateway.records
    event = decode_event(record.key, record.value, record.headers)
    assert (event.source, event.owner) == ("github", "")
    assert event.extensions["traceparent"] != parent


async def test_every_401_is_the_same_answer(gateway: Gateway) -> None:
    wrong = await gateway.webhook(b"{}", x_hub_signature_256="sha256=" + "0" * 64)
    empty = await gateway.webhook(b"{}", x_hub_signature_256="")
    sha1 = await gateway.webhook(b"{}", x_hub_signature_256="sha1=" + "0" * 40)

    assert wrong.status == 401
    assert "www-authenticate" in wrong.headers
    assert wrong == empty == sha1
    assert gateway.records == []


async def test_the_private_reason_of_a_401_is_counted(gateway: Gateway) -> None:
    labels = {"source": "github", "detail": "missing_header"}
    before = _sample("penstock_webhook_signatures_refused_total", **labels)

    await gateway.call("POST", "/webhooks/github", {}, b"{}")

    assert _sample("penstock_webhook_signatures_refused_total", **labels) == before + 1


async def test_outcomes_are_counted_by_source(gateway: Gateway) -> None:
    before = _sample("penstock_webhook_events_total", source="github", outcome="accepted")

    await gateway.webhook()

    assert _sample("penstock_webhook_events_total", source="github", outcome="accepted") == before + 1
    assert _sample("penstock_webhook_key_last_used_timestamp_seconds", source="github", key_id="current") > 0


async def test_two_signature_lines_are_400(gateway: Gateway) -> None:
    lines = [(name.encode(), value.encode()) for name, value in github_headers(b"{}").items()]
    signature = next(line for line in lines if line[0] == b"x-hub-signature-256")

    answer = await gateway.call("POST", "/webhooks/github", [*lines, signature], b"{}")

    assert answer.status == 400


@pytest.mark.parametrize(
    "name",
    [
        b"unknown", b"..", b"%2e%2e", b"%00", b"githu%62", b"GITHUB", b"github%2f", b"x" * 7000, b"__consumer_offsets",
    ],
)  # fmt: skip
async def test_an_unknown_source_is_404_before_the_body(gateway: Gateway, name: bytes) -> None:
    answer = await gateway.call("POST", b"/webhooks/" + name, {"content-length": "999999999"}, is_cut_short=True)

    assert answer.status == 404
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    "path", ["/webhooks/", "/webhooks", "/webhooks/github/", "/webhooks//github", "//webhooks/github"]
)
async def test_paths_are_not_normalised(gateway: Gateway, path: str) -> None:
    assert (await gateway.call("POST", path)).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "TRACE", "OPTIONS", "PATCH"])
async def test_other_methods_are_405_with_allow_whatever_the_source(gateway: Gateway, method: str) -> None:
    known = await gateway.call(method, "/webhooks/github")
    unknown = await gateway.call(method, "/webhooks/unknown")

    assert (known.status, known.headers["allow"]) == (405, "POST")
    assert known == unknown


async def test_a_declared_length_above_the_cap_is_413_unread(gateway: Gateway) -> None:
    headers = github_headers(b"") | {"content-length": "1001", "expect": "100-continue"}

    # A body that never comes: reading it would end in 408.
    answer = await gateway.call("POST", "/webhooks/github", headers, [])

    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_an_undeclared_body_above_the_cap_is_413(gateway: Gateway) -> None:
    headers = github_headers(b"x" * 1200) | {"transfer-encoding": "chunked"}

    answer = await gateway.call("POST", "/webhooks/github", headers, [b"x" * 600] * 2, is_declared=False)

    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert gateway.parts.admission.held_bytes == 0


async def test_a_body_that_does_not_come_is_408(gateway: Gateway) -> None:
    answer = await gateway.call("POST", "/webhooks/github", github_headers(b"") | {"content-length": "5"}, [])

    assert answer.status == 408
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_body_that_is_cut_short_is_400(gateway: Gateway, body: bytes) -> None:
    headers = github_headers(body) | {"content-length": "9"}

    answer = await gateway.call("POST", "/webhooks/github", headers, body, is_cut_short=True)

    assert answer.status == 400
    assert gateway.records == []


@pytest.mark.parametrize("length", ["3", "1"])
async def test_a_body_of_another_length_than_declared_is_400(gateway: Gateway, length: str) -> None:
    headers = github_headers(b"{}") | {"content-length": length}

    assert (await gateway.call("POST", "/webhooks/github", headers, b"{}")).status == 400


@pytest.mark.parametrize("length", ["+5", "-1", "5 ", "0x5", "", "\u0665"])
async def test_an_odd_content_length_is_400(gateway: Gateway, length: str) -> None:
    headers = github_headers(b"{}") | {"content-length": length}

    assert (await gateway.call("POST", "/webhooks/github", headers, b"{}")).status == 400


async def test_a_compressed_body_is_415(gateway: Gateway) -> None:
    assert (await gateway.webhook(b"{}", content_encoding="gzip")).status == 415
    assert gateway.records == []


@pytest.mark.usefixtures("secret_environment")
async def test_a_record_above_the_topics_limit_is_413() -> None:
    from contracts.settings import Settings
    from tests.gateways.driver import CONFIGURATION

    limits = {"gateway": CONFIGURATION["gateway"] | {"max_body_bytes": 10_000}, "producer": {"max_record_bytes": 1024}}
    gateway = Gateway(Settings.model_validate(CONFIGURATION | limits))
    await gateway.producer.start()

    assert (await gateway.webhook(b"x" * 2000)).status == 413


@pytest.mark.parametrize(("status", "has_body"), [(200, True), (201, True), (204, False)])
@pytest.mark.usefixtures("secret_environment")
async def test_a_source_may_ask_for_another_status(status: int, has_body: bool) -> None:
    from contracts.settings import Settings
    from tests.gateways.driver import CONFIGURATION

    source = CONFIGURATION["sources"]["github"] | {"success_status": status}
    gateway = Gateway(Settings.model_validate(CONFIGURATION | {"sources": {"github": source}}))
    await gateway.producer.start()

    answer = await gateway.webhook()

    assert answer.status == status
    assert bool(answer.body) is has_body
    assert "location" in answer.headers


@pytest.mark.usefixtures("secret_environment")
async def test_a_public_url_stands_before_the_status_url() -> None:
    from contracts.settings import Settings
    from tests.gateways.driver import CONFIGURATION

    public = {"gateway": CONFIGURATION["gateway"] | {"public_url": "https://hooks.example.com/in/"}}
    gateway = Gateway(Settings.model_validate(CONFIGURATION | public))
    await gateway.producer.start()

    status_url = (await gateway.webhook()).json()["status_url"]

    assert status_url.startswith("https://hooks.example.com/in/v1/results/delivery-1?ticket=")


async def test_forwarded_headers_change_nothing(gateway: Gateway) -> None:
    answer = await gateway.webhook(b"{}", x_forwarded_host="evil.example", x_forwarded_proto="https")

    assert answer.headers["location"].startswith("/v1/results/")


async def test_a_secret_never_appears_in_an_answer(gateway: Gateway) -> None:
    answers = [await gateway.webhook(), await gateway.webhook(b"{}", x_hub_signature_256="sha256=00")]

    assert all(SECRET not in answer.body for answer in answers)
