"""Handshakes of senders: what is answered, what is refused, and that nothing of it becomes an event."""

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from slack_sdk.signature import SignatureVerifier

from contracts import metrics
from contracts.errors import ConfigError
from contracts.settings import Settings, build
from contracts.settings.marks import Document
from gateways.ingress.handshakes.salesforce_ens import MAX_LINES
from tests.gateways.driver import CONFIGURATION, SECRET, Answer, Gateway

# Slack's have 32 characters.
SLACK_SECRET = b"0123456789abcdef0123456789abcdef"
TEXT = "text/plain; charset=utf-8"
# As X signs its events.
X = {"signature_header": "x-twitter-webhooks-signature", "prefix": "sha256=", "encoding": "base64"}
# As Zoom does.
ZOOM = {
    "signature_header": "x-zm-signature",
    "signed": "v0:{timestamp}:{body}",
    "prefix": "v0=",
    "timestamp_header": "x-zm-request-timestamp",
}
GRAPH = "Validation: Testing client application reachability for subscription Request-Id: 5a1d7a6f-1c2b"
REGISTRATION = {"callbackId": "65b885ab-c2b4-46fe-85d0-d6cb8be8057d", "verificationKey": "V27FXfqI3DnhfQW1bhFDeJ=="}


def _document(scheme: str, **source: Any) -> dict[str, Any]:
    variable = "TEST_SLACK_SECRET" if scheme == "slack" else "TEST_SECRET"
    section = {"scheme": scheme, "type": "t", "secrets": [{"id": "current", "value": f"env:{variable}"}]} | source
    return CONFIGURATION | {
        "sources": {"shop": section},
        "gateway": CONFIGURATION["gateway"] | {"max_body_bytes": 10_000},
    }


async def _gateway(scheme: str, **source: Any) -> Gateway:
    gateway = Gateway(Settings.model_validate(_document(scheme, **source)))
    await gateway.producer.start()
    return gateway


def _slack_headers(body: str, secret: bytes = SLACK_SECRET) -> dict[str, str]:
    stamp = str(int(time.time()))
    signature = SignatureVerifier(secret.decode()).generate_signature(timestamp=stamp, body=body)
    assert signature
    return {"x-slack-signature": signature, "x-slack-request-timestamp": stamp}


async def _slack(gateway: Gateway, body: Any, secret: bytes = SLACK_SECRET) -> Answer:
    text = json.dumps(body)
    return await gateway.call("POST", "/webhooks/shop", _slack_headers(text, secret), text.encode())


def _zoom_headers(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    stamp = str(int(time.time()))
    digest = hmac.new(secret, b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return {"x-zm-signature": f"v0={digest}", "x-zm-request-timestamp": stamp}


def _x_headers(body: bytes) -> dict[str, str]:
    digest = base64.b64encode(hmac.digest(SECRET, body, "sha256")).decode()
    return {"x-twitter-webhooks-signature": f"sha256={digest}"}


pytestmark = pytest.mark.usefixtures("secret_environment")


@pytest.fixture(autouse=True)
def _slack_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SLACK_SECRET", SLACK_SECRET.decode())


async def test_slacks_challenge_comes_back_as_text_and_is_no_event() -> None:
    gateway = await _gateway("slack", handshakes={"slack": True})

    answer = await _slack(gateway, {"type": "url_verification", "token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV2595"})

    assert (answer.status, answer.body) == (200, b"3eZbrw1aBm2rZgRNFdxV2595")
    assert answer.headers["content-type"] == TEXT
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert gateway.records == []


async def test_slacks_challenge_with_a_wrong_signature_is_401_as_any_other() -> None:
    gateway = await _gateway("slack", handshakes={"slack": True})

    wrong = await _slack(gateway, {"type": "url_verification", "challenge": "c"}, b"another-secret-of-enough-bytes")
    missing = await gateway.call("POST", "/webhooks/shop", {}, b'{"type":"url_verification","challenge":"c"}')

    assert wrong.status == 401
    assert wrong.body != b"c"
    assert wrong == missing


@pytest.mark.parametrize("challenge", [None, "", 7, ["a"], "<script>alert(1)</script>", "x" * 1025, "a\r\nb", "\u00fc"])
async def test_a_challenge_that_cannot_be_echoed_safely_is_400(challenge: Any) -> None:
    gateway = await _gateway("slack", handshakes={"slack": True})

    answer = await _slack(gateway, {"type": "url_verification", "challenge": challenge})

    assert answer.status == 400
    assert gateway.records == []


async def test_an_event_that_speaks_of_url_verification_is_an_event() -> None:
    gateway = await _gateway("slack", handshakes={"slack": True})

    answer = await _slack(gateway, {"event_id": "Ev1", "type": "event_callback", "text": "url_verification"})

    assert answer.status == 202
    assert len(gateway.records) == 1


async def test_without_the_setting_a_challenge_is_an_event_as_any_other() -> None:
    gateway = await _gateway("slack")

    assert (await _slack(gateway, {"type": "url_verification", "challenge": "c"})).status == 202
    assert len(gateway.records) == 1


async def test_zooms_token_comes_back_with_its_hmac() -> None:
    gateway = await _gateway("hmac", hmac=ZOOM, handshakes={"zoom": True})
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1}'

    answer = await gateway.call("POST", "/webhooks/shop", _zoom_headers(body), body)

    expected = hmac.new(SECRET, b"qgg8vlvZRS6UYooatFL8Aw", hashlib.sha256).hexdigest()
    assert answer.status == 200
    assert answer.json() == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw", "encryptedToken": expected}
    assert gateway.records == []


async def test_a_stranger_gets_no_hmac_from_zooms_handshake() -> None:
    gateway = await _gateway("hmac", hmac=ZOOM, handshakes={"zoom": True})
    body = b'{"event":"endpoint.url_validation","payload":{"plainToken":"a"}}'

    answer = await gateway.call("POST", "/webhooks/shop", _zoom_headers(body, b"another-secret-of-enough-bytes"), body)

    assert answer.status == 401


@pytest.mark.parametrize("payload", [None, {}, "a", {"plainToken": 7}, {"plainToken": ""}])
async def test_a_signed_zoom_handshake_without_a_token_is_400(payload: Any) -> None:
    gateway = await _gateway("hmac", hmac=ZOOM, handshakes={"zoom": True})
    body = json.dumps({"event": "endpoint.url_validation", "payload": payload}).encode()

    assert (await gateway.call("POST", "/webhooks/shop", _zoom_headers(body), body)).status == 400
    assert gateway.records == []


async def test_a_crc_is_answered_with_the_tokens_hmac() -> None:
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True})

    answer = await gateway.call("GET", "/webhooks/shop?nonce=1&crc_token=NGIxMzYy-ab_c%2B%3D")

    expected = base64.b64encode(hmac.digest(SECRET, b"NGIxMzYy-ab_c+=", "sha256")).decode()
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"response_token": f"sha256={expected}"}


@pytest.mark.parametrize(
    "query",
    [
        "", "?crc_token", "?crc_token=", "?crc_token=a&crc_token=b", "?crc_token=%7B%22a%22%3A1%7D", "?crc_token=a.b",
        "?crc_token=" + "a" * 257, "?crc_token=%FF", "?crc_token=a%0A", "?crc_token=a%20b", "?crc_token=v0:1:a",
        "?" + "a=b&" * 17 + "crc_token=a",
    ],
)  # fmt: skip
async def test_a_crc_token_of_another_form_is_400(query: str) -> None:
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True})

    assert (await gateway.call("GET", f"/webhooks/shop{query}")).status == 400


async def test_the_answer_to_a_crc_is_no_signature_of_an_event() -> None:
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True})
    token = (await gateway.call("GET", "/webhooks/shop?crc_token=null")).json()["response_token"]

    forged = await gateway.call("POST", "/webhooks/shop", {"x-twitter-webhooks-signature": token}, b"null")
    honest = await gateway.call("POST", "/webhooks/shop", _x_headers(b'{"a":1}'), b'{"a":1}')

    assert _x_headers(b"null") == {"x-twitter-webhooks-signature": token}
    assert (forged.status, honest.status) == (401, 202)


async def test_the_answer_to_a_crc_signs_no_empty_body_either() -> None:
    template = {"signature_header": "x-signature", "timestamp_header": "x-time", "signed": "{timestamp}{body}"}
    gateway = await _gateway(
        "hmac", hmac=template | {"prefix": "sha256=", "encoding": "base64"}, handshakes={"crc": True}
    )
    stamp = str(int(time.time()))
    token = (await gateway.call("GET", f"/webhooks/shop?crc_token={stamp}")).json()["response_token"]

    forged = await gateway.call("POST", "/webhooks/shop", {"x-signature": token, "x-time": stamp})

    assert forged.status == 401


async def test_a_forgery_by_crc_is_counted_with_its_private_reason() -> None:
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True})
    labels = {"source": "shop", "detail": "crc_token"}
    before = metrics.REGISTRY.get_sample_value("penstock_webhook_signatures_refused_total", labels) or 0

    await gateway.call("POST", "/webhooks/shop", _x_headers(b"null"), b"null")

    assert metrics.REGISTRY.get_sample_value("penstock_webhook_signatures_refused_total", labels) == before + 1


async def test_handshakes_are_counted_apart_from_events() -> None:
    gateway = await _gateway("slack", handshakes={"slack": True})
    labels = {"source": "shop", "outcome": "handshake"}
    before = metrics.REGISTRY.get_sample_value("penstock_webhook_events_total", labels) or 0

    await _slack(gateway, {"type": "url_verification", "challenge": "c"})

    assert metrics.REGISTRY.get_sample_value("penstock_webhook_events_total", labels) == before + 1


async def test_a_crc_is_401_when_no_secret_is_valid_any_more() -> None:
    old = [{"id": "old", "value": "env:TEST_SECRET", "not_after": "2020-01-01T00:00:00Z"}]
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True}, secrets=old)

    assert (await gateway.call("GET", "/webhooks/shop?crc_token=a")).status == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_without_the_setting_there_is_no_get_and_no_options(method: str) -> None:
    gateway = await _gateway("hmac", hmac=X)
    headers = {"webhook-request-origin": "eventgrid.azure.net"}

    answer = await gateway.call(method, "/webhooks/shop?crc_token=a", headers)

    assert (answer.status, answer.headers["allow"]) == (405, "POST")


async def test_allow_names_the_methods_that_a_source_has() -> None:
    gateway = await _gateway("hmac", hmac=X, handshakes={"crc": True, "cloudevents": {"origins": ["a.example"]}})

    answer = await gateway.call("PUT", "/webhooks/shop")

    assert (answer.status, answer.headers["allow"]) == (405, "POST, GET, HEAD, OPTIONS")


async def _options(gateway: Gateway, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await gateway.call("OPTIONS", "/webhooks/shop", named)


@pytest.mark.parametrize(
    ("asked", "most", "granted"),
    [("120", 60, "60"), ("30", 60, "30"), (None, 60, "60"), ("120", None, "120"), (None, None, "*")],
)
async def test_a_known_sending_system_gets_its_permission(asked: str | None, most: int | None, granted: str) -> None:
    section = {"origins": ["eventgrid.azure.net"], "rate_per_minute": most}
    gateway = await _gateway("github", handshakes={"cloudevents": section})
    rate = {"webhook_request_rate": asked} if asked else {}

    answer = await _options(
        gateway, webhook_request_origin="EventGrid.azure.net", webhook_request_callback="https://evil.example/x", **rate
    )

    assert answer.status == 200
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == granted
    assert answer.headers["allow"] == "POST, OPTIONS"
    assert answer.body == b""


async def test_the_callback_of_a_sending_system_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await _gateway("github", handshakes={"cloudevents": {"origins": ["a.example"]}})
    dialled: list[Any] = []
    monkeypatch.setattr("socket.socket.connect", lambda *args: dialled.append(args))
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_more: dialled.append(args))

    await _options(gateway, webhook_request_origin="a.example", webhook_request_callback="http://127.0.0.1:9/")

    assert dialled == []


@pytest.mark.parametrize("origin", ["", "evil.example", "sub.a.example", "a.example.evil.example", "*"])
async def test_an_unknown_sending_system_gets_no_permission(origin: str) -> None:
    gateway = await _gateway("github", handshakes={"cloudevents": {"origins": ["a.example"]}})

    answer = await _options(gateway, webhook_request_origin=origin)

    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("webhook-allowed")]


@pytest.mark.parametrize("rate", ["0", "-1", "1e3", "*", " 5"])
async def test_an_odd_rate_is_400(rate: str) -> None:
    gateway = await _gateway("github", handshakes={"cloudevents": {"origins": ["a.example"]}})

    assert (await _options(gateway, webhook_request_origin="a.example", webhook_request_rate=rate)).status == 400


async def test_two_origins_are_400() -> None:
    gateway = await _gateway("github", handshakes={"cloudevents": {"origins": ["a.example"]}})
    lines = [(b"webhook-request-origin", b"a.example"), (b"webhook-request-origin", b"b.example")]

    assert (await gateway.call("OPTIONS", "/webhooks/shop", lines)).status == 400


@pytest.mark.parametrize(("scheme", "wanted"), [("api-key", {"handshakes": {"graph": True}}), ("microsoft-graph", {})])
async def test_graphs_validation_token_comes_back_decoded(scheme: str, wanted: dict[str, Any]) -> None:
    gateway = await _gateway(scheme, **wanted)

    answer = await gateway.call("POST", f"/webhooks/shop?validationToken={quote(GRAPH)}", {}, b"")

    assert (answer.status, answer.body.decode()) == (200, GRAPH)
    assert answer.headers["content-type"] == TEXT
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_graphs_notifications_are_events_and_forged_ones_are_not() -> None:
    gateway = await _gateway("microsoft-graph")
    text = json.dumps({"value": [{"clientState": SECRET.decode(), "changeType": "updated"}]})

    assert (await gateway.call("POST", "/webhooks/shop", {}, text.encode())).status == 202
    assert (await gateway.call("POST", "/webhooks/shop", {}, b'{"value": []}')).status == 401
    assert [record.value for record in gateway.records] == [text.encode()]


async def test_a_request_with_a_validation_token_is_never_an_event_however_well_it_is_signed() -> None:
    gateway = await _gateway("api-key", handshakes={"graph": True})
    headers = {"x-api-key": SECRET.decode()}

    answer = await gateway.call("POST", "/webhooks/shop?validationToken=abc", headers, b'{"value":[]}')

    assert (answer.status, answer.body) == (200, b"abc")
    assert gateway.records == []


@pytest.mark.parametrize(
    "token", ["", "%3Cscript%3E", "a%0D%0Ab", "%00", "%C3%BC", "%FF", "x" * 1025, "a&validationToken=b"]
)
async def test_a_validation_token_that_cannot_be_echoed_safely_is_400(token: str) -> None:
    gateway = await _gateway("api-key", handshakes={"graph": True})

    answer = await gateway.call("POST", f"/webhooks/shop?validationToken={token}")

    assert answer.status == 400
    assert b"<" not in answer.body
    assert gateway.records == []


async def test_without_the_setting_a_validation_token_opens_nothing() -> None:
    gateway = await _gateway("api-key")

    assert (await gateway.call("POST", "/webhooks/shop?validationToken=abc")).status == 401


async def _register(gateway: Gateway, body: Any = REGISTRATION, **headers: str) -> Answer:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return await gateway.call("POST", "/webhooks/shop", named, json.dumps(body).encode())


LONG = [{"id": "current", "value": "env:TEST_SLACK_SECRET"}]
ENS = {"signature_header": "x-sfmc-ens-signature", "encoding": "base64"}


async def test_a_registration_goes_with_the_scheme_of_marketing_cloud(tmp_path: Path) -> None:
    file = tmp_path / "ens.jsonl"
    gateway = await _gateway("salesforce-ens", secrets=LONG, handshakes={"salesforce_ens": {"file": str(file)}})

    assert (await _register(gateway)).status == 200


async def test_a_registration_at_marketing_cloud_is_kept_for_the_operator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ens.jsonl"
    gateway = await _gateway("hmac", hmac=ENS, handshakes={"salesforce_ens": {"file": str(file)}})

    answer = await _register(gateway)

    assert (answer.status, answer.body) == (200, b"")
    assert json.loads(file.read_text()).items() >= REGISTRATION.items()
    assert file.stat().st_mode & 0o777 == 0o600
    assert gateway.records == []
    printed = "".join(capsys.readouterr())
    assert REGISTRATION["callbackId"] in printed
    assert REGISTRATION["verificationKey"] not in printed


@pytest.mark.parametrize(
    "body",
    [REGISTRATION | {"more": 1}, {"callbackId": "a"}, {"verificationKey": "a"}, ["verificationKey"], "verificationKey"],
)
async def test_what_is_not_exactly_a_registration_needs_a_signature(body: Any, tmp_path: Path) -> None:
    file = tmp_path / "ens.jsonl"
    gateway = await _gateway("hmac", hmac=ENS, handshakes={"salesforce_ens": {"file": str(file)}})

    assert (await _register(gateway, body)).status == 401
    assert not file.exists()


async def test_a_registration_with_a_signature_is_verified_as_an_event(tmp_path: Path) -> None:
    file = tmp_path / "ens.jsonl"
    gateway = await _gateway("hmac", hmac=ENS, handshakes={"salesforce_ens": {"file": str(file)}})

    answer = await _register(gateway, x_sfmc_ens_signature="AAAA")

    assert answer.status == 401
    assert not file.exists()


async def test_a_registration_needs_its_setting() -> None:
    gateway = await _gateway("hmac", hmac=ENS)

    assert (await _register(gateway)).status == 401


async def test_a_flood_of_registrations_fills_a_few_lines_and_the_first_stay(tmp_path: Path) -> None:
    file = tmp_path / "ens.jsonl"
    gateway = await _gateway("hmac", hmac=ENS, handshakes={"salesforce_ens": {"file": str(file)}})

    answers = [await _register(gateway, {"callbackId": f"c-{n}", "verificationKey": "k"}) for n in range(MAX_LINES + 3)]

    assert [answer.status for answer in answers] == [200] * MAX_LINES + [503] * 3
    assert file.read_text().count("\n") == MAX_LINES
    assert '"c-0"' in file.read_text()


async def test_a_registration_that_cannot_be_kept_is_our_fault(tmp_path: Path) -> None:
    section = {"file": str(tmp_path / "none" / "ens.jsonl")}
    gateway = await _gateway("hmac", hmac=ENS, handshakes={"salesforce_ens": section})

    answer = await _register(gateway)

    assert answer.status == 503
    assert b"tmp" not in answer.body


@pytest.mark.parametrize(
    ("scheme", "source", "what"),
    [
        ("github", {"handshakes": {"slack": True}}, "handshakes.slack"),
        ("api-key", {"handshakes": {"crc": True}}, "handshakes.crc"),
        ("api-key", {"handshakes": {"zoom": True}}, "handshakes.crc and handshakes.zoom"),
        ("github", {"handshakes": {"salesforce_ens": {"file": "/x"}}}, "handshakes.salesforce_ens"),
        ("github", {"success_status": 204, "success_body": "x"}, "success_body"),
        ("github", {"success_content_type": "text/plain\r\nx: y"}, "success_content_type"),
        ("github", {"handshakes": {"cloudevents": {"origins": []}}}, "origins"),
        ("github", {"handshakes": {"cloudevents": {"origins": ["a b"]}}}, "origins"),
        ("github", {"handshakes": {"salesforce_ens": {}}}, "file"),
    ],
)
def test_a_handshake_that_does_not_go_with_its_source_is_refused_at_start(
    scheme: str, source: dict[str, Any], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        build(Document("penstock.yaml", _document(scheme, **source)), {}, Path())


@pytest.mark.parametrize(
    ("source", "body", "content_type"),
    [
        ({"success_body": "<Response/>", "success_content_type": "text/xml"}, b"<Response/>", "text/xml"),
        ({"success_body": "ok"}, b"ok", TEXT),
        ({"success_body": ""}, b"", None),
    ],
)
async def test_a_source_may_ask_for_another_body(source: dict[str, Any], body: bytes, content_type: str | None) -> None:
    gateway = await _gateway("slack", success_status=200, **source)

    answer = await _slack(gateway, {"event_id": "Ev1"})

    assert (answer.status, answer.body, answer.headers.get("content-type")) == (200, body, content_type)
    assert len(gateway.records) == 1
