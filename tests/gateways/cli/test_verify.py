"""`penstock verify`: the verdict, the cause, and that no secret is ever shown."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import stripe
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateways.cli import main
from gateways.cli.verify_advice import explained_reasons

CHAT = Ed25519PrivateKey.from_private_bytes(b"c" * 32)
SECRETS = {
    "PENSTOCK_SECRET_STRIPE": "whsec_stripe-secret-of-enough-length",
    "PENSTOCK_SECRET_OLD": "whsec_the-stripe-secret-of-last-year",
    "PENSTOCK_SECRET_GITHUB": "c2VjcmV0LW9mLWdpdGh1Yi1hcy1iYXNlNjQ=",
    "PENSTOCK_SECRET_SHOP": "a-secret-of-the-shop-of-enough-length",
    "PENSTOCK_SECRET_GRAPH": "the-client-state-of-our-subscriptions",
    "PENSTOCK_KEY_CHAT": CHAT.public_key().public_bytes_raw().hex(),
    "PENSTOCK_SECRET_SUPPORT": "whsec_" + base64.b64encode(b"support-secret-of-32-bytes-or-so").decode(),
}
CONFIGURATION = """\
version: 1
gateway: {max_body_bytes: 5000}
sources:
  stripe:
    scheme: stripe
    secrets:
      - {id: current, value: "env:PENSTOCK_SECRET_STRIPE"}
      - {id: old, value: "env:PENSTOCK_SECRET_OLD", not_after: 2026-01-01T00:00:00Z}
    type: t
  github:
    scheme: github
    secrets: [{id: only, value: "env:PENSTOCK_SECRET_GITHUB"}]
    type: t
  support:
    scheme: standard-webhooks
    secrets: [{id: only, value: "env:PENSTOCK_SECRET_SUPPORT"}]
    type: t
  shop:
    scheme: square
    public_url: https://hooks.example.com/in/webhooks/shop
    secrets: [{id: only, value: "env:PENSTOCK_SECRET_SHOP"}]
    type: t
  chat:
    scheme: discord
    secrets: [{id: only, value: "env:PENSTOCK_KEY_CHAT"}]
    type: t
  partner:
    scheme: client-certificate
    client_certificate:
      header: x-client-subject
      subjects: [{id: hooks, subject: "CN=hooks.partner.example"}]
      trusted_proxies: [10.0.0.0/8]
    secrets: [{id: proxy, value: "env:PENSTOCK_SECRET_SHOP"}]
    type: t
  missing:
    scheme: github
    secrets: [{id: only, value: "env:PENSTOCK_SECRET_NOT_SET"}]
    type: t
  graph:
    scheme: microsoft-graph
    secrets:
      - {id: current, value: "env:PENSTOCK_SECRET_GRAPH"}
    type: t
  topic:
    scheme: sns
    sns: {topic_arns: ["arn:aws:sns:eu-central-1:123456789012:events"]}
    type: t
"""
NOW = 1_790_000_000
BODY = b'{"id": "evt_1", "object": "event"}'


class Lab:
    """Runs the command on a request."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture
        (folder / "penstock.yaml").write_text(CONFIGURATION, encoding="utf-8")
        self.output = ""

    def run(self, source: str, raw: bytes, *options: str, now: int | None = NOW) -> int:
        file = self.folder / "request.http"
        file.write_bytes(raw)
        clock = () if now is None else ("--now", str(now))
        code = main.run(
            ["verify", "--source", source, str(file), "--config", str(self.folder / "penstock.yaml"), *clock, *options]
        )
        captured = self._capture.readouterr()
        self.output = captured.out + captured.err
        for secret in SECRETS.values():
            assert secret.removeprefix("whsec_") not in self.output
        return code

    def cause(self, source: str, raw: bytes, now: int = NOW) -> str:
        """Return the reason of a refusal; empty when it is authentic."""
        code = self.run(source, raw, "--json", now=now)
        report = json.loads(self.output)
        assert code == (0 if report["is_authentic"] else 1)
        return report["reason"] or ""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lab:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return Lab(tmp_path, capsys)


def http(headers: Mapping[str, str], body: bytes = BODY, target: str = "/webhooks/stripe") -> bytes:
    lines = [f"POST {target} HTTP/1.1", "Host: gateway", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def stripe_line(body: bytes = BODY, secret: str | bytes = SECRETS["PENSTOCK_SECRET_STRIPE"], at: int = NOW) -> str:
    secret = secret if isinstance(secret, bytes) else secret.encode()
    return f"t={at},v1=" + hmac.new(secret, b"%d." % at + body, hashlib.sha256).hexdigest()


def stripes(body: bytes = BODY, **changes: object) -> bytes:
    return http({"Stripe-Signature": stripe_line(body, **changes)}, body)  # type: ignore[arg-type]


def github(secret: bytes, body: bytes = BODY) -> bytes:
    return http({"X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()}, body)


def test_a_request_signed_by_stripes_own_library_is_authentic(lab: Lab) -> None:
    line = stripe.WebhookSignature.generate_signature_header(
        BODY.decode(), SECRETS["PENSTOCK_SECRET_STRIPE"], timestamp=NOW - 12
    )

    assert lab.run("stripe", http({"Stripe-Signature": line})) == 0
    assert "authentic: source stripe, scheme stripe, key current" in lab.output
    assert "12 s in the past" in lab.output
    assert re.search(r"old: +retired|old: retired at 2026-01-01", lab.output)


def test_an_old_capture_is_stale_and_otherwise_authentic(lab: Lab) -> None:
    assert lab.run("stripe", stripes(), now=NOW + 86_400) == 1
    assert "refused: stale" in lab.output
    assert "86400 s in the past" in lab.output
    assert "apart from its time it is authentic" in lab.output


def test_a_time_in_the_future_is_told_with_its_distance(lab: Lab) -> None:
    assert lab.cause("stripe", stripes(at=NOW + 1000)) == "in_future"
    assert json.loads(lab.output)["age_s"] == -1000


def test_an_old_capture_with_another_fault_tells_both(lab: Lab) -> None:
    raw = http({"Stripe-Signature": stripe_line(b"other")})

    assert lab.cause("stripe", raw, NOW + 86_400) == "stale"
    assert "not all that is wrong" in lab.output
    assert lab.cause("stripe", stripes()[:-1] + b" \n", NOW + 86_400) == "stale"


def test_without_now_the_time_is_now(lab: Lab) -> None:
    assert lab.run("stripe", stripes(at=1_000_000_000), "--json", now=None) == 1
    assert json.loads(lab.output)["reason"] == "stale"


CAUSES: list[tuple[str, Callable[[], bytes], str]] = [
    ("body_reserialised", lambda: http({"Stripe-Signature": stripe_line(b'{"id":"evt_1","object":"event"}')}), "JSON"),
    ("body_line_end", lambda: http({"Stripe-Signature": stripe_line(BODY + b"\n")}), "line feed at its end"),
    ("retired_key", lambda: stripes(secret=SECRETS["PENSTOCK_SECRET_OLD"]), ""),
    ("secret_decoded", lambda: github(base64.b64decode(SECRETS["PENSTOCK_SECRET_GITHUB"])), "decoded from base64"),
    ("secret_spaces", lambda: github(SECRETS["PENSTOCK_SECRET_GITHUB"].encode() + b"\n"), "with a line feed"),
    ("other_source", lambda: stripes(secret=SECRETS["PENSTOCK_SECRET_GITHUB"]), "only of source github"),
    ("other_scheme", lambda: github(SECRETS["PENSTOCK_SECRET_GITHUB"].encode()), "belongs to scheme github"),
    ("missing_header", lambda: http({}), ""),
    ("stamp_in_ms", lambda: stripes(at=NOW * 1000), ""),
    ("wrong_signature", lambda: stripes(secret="another-secret-that-nobody-knows"), ""),
    ("malformed", lambda: http({"Stripe-Signature": f"t={NOW},v0=abc"}), ""),
    ("invalid_payload", lambda: http({"Stripe-Signature": f"t=1,t=2,{stripe_line()}"}), ""),
    ("signature_spelling", lambda: http({"Stripe-Signature": stripe_line().upper().replace("T=", "t=", 1)
                                         .replace("V1=", "v1=")}), "lower-case hex"),
]  # fmt: skip


def notification(state: str | None, target: str = "/webhooks/graph") -> bytes:
    return http({}, json.dumps({"value": [{"clientState": state}]}).encode(), target)


@pytest.mark.parametrize(
    ("raw", "reason", "words"),
    [
        (notification(SECRETS["PENSTOCK_SECRET_GRAPH"]), "", "fits current, which proves who sends"),
        (notification("another-secret-that-nobody-knows"), "wrong_client_state", "wrong_client_state"),
        (notification(None), "missing_client_state", "missing_client_state"),
        (http({}, b'{"value": []}'), "not_notifications", "not_notifications"),
        (http({}, b"", "/webhooks/graph?validationToken=a"), "not_notifications", "answers with the token"),
        (notification(SECRETS["PENSTOCK_SECRET_GRAPH"] + "\n"), "secret_spaces", "with a line feed"),
        (notification(SECRETS["PENSTOCK_SECRET_SHOP"]), "other_source", "only of source shop"),
    ],
)
def test_notifications_of_microsoft_graph_are_explained(lab: Lab, raw: bytes, reason: str, words: str) -> None:
    assert lab.cause("graph", raw) == reason
    assert words in lab.output
    if reason:
        assert reason in explained_reasons()


@pytest.mark.parametrize(("reason", "make", "words"), CAUSES, ids=[reason for reason, _, _ in CAUSES])
def test_each_cause_is_found_and_has_an_advice(lab: Lab, reason: str, make: Callable[[], bytes], words: str) -> None:
    source = "github" if reason.startswith("secret_") else "stripe"

    assert lab.cause(source, make()) == reason
    assert words in lab.output
    assert reason in explained_reasons()


def test_a_secret_used_undecoded_is_found(lab: Lab) -> None:
    secret = SECRETS["PENSTOCK_SECRET_SUPPORT"]
    text = b"msg_1.%d." % NOW + BODY
    causes = []
    for key in (secret.encode(), secret.removeprefix("whsec_").encode()):
        signature = base64.b64encode(hmac.new(key, text, hashlib.sha256).digest()).decode()
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": f"v1,{signature}"}
        causes.append(lab.cause("support", http(headers)))

    assert causes == ["secret_not_decoded"] * 2


@pytest.mark.parametrize(
    "signed",
    ["http://hooks.example.com/in/webhooks/shop", "https://hooks.example.com/in/webhooks/shop/",
     "https://gateway/webhooks/shop", "https://hooks.example.com/in/webhooks/shop?a=1"],
)  # fmt: skip
def test_another_url_than_the_configured_one_is_found(lab: Lab, signed: str) -> None:
    mac = hmac.new(SECRETS["PENSTOCK_SECRET_SHOP"].encode(), signed.encode() + BODY, hashlib.sha256).digest()
    raw = http({"x-square-hmacsha256-signature": base64.b64encode(mac).decode()}, target="/webhooks/shop?a=1")

    assert lab.cause("shop", raw) == "url_differs"
    assert signed in lab.output


def test_public_keys_are_explained_as_well(lab: Lab) -> None:
    good = CHAT.sign(b"%d" % NOW + BODY).hex()
    headers = {"X-Signature-Ed25519": good, "X-Signature-Timestamp": str(NOW)}

    assert lab.cause("chat", http(headers)) == ""
    assert lab.cause("chat", http(headers, BODY + b"\n")) == "body_line_end"
    assert lab.cause("chat", http(headers, b"{}")) == "wrong_signature"
    assert lab.cause("chat", http(headers), NOW + 86_400) == "stale"
    assert "apart from its time it is authentic" in lab.output


def test_what_the_gateway_would_refuse_besides_is_told(lab: Lab) -> None:
    body = b'"' + b"x" * 5000 + b'"'
    raw = http({"Stripe-Signature": stripe_line(body), "Content-Encoding": "gzip"}, body).replace(b"POST", b"PUT", 1)

    assert lab.run("stripe", raw) == 0
    assert "answers 405" in lab.output
    assert "answers 413" in lab.output
    assert "answers 415" in lab.output


def test_who_connected_may_be_given_for_a_certificate_behind_a_proxy(lab: Lab) -> None:
    secret = SECRETS["PENSTOCK_SECRET_SHOP"]
    raw = http({"x-client-subject": "CN=hooks.partner.example", "x-proxy-proof": secret})

    assert lab.cause("partner", raw) == "untrusted_peer"
    assert lab.run("partner", raw, "--peer", "10.1.2.3") == 0
    assert "nothing about the body" in lab.output


def test_the_body_may_be_a_file_of_its_own(lab: Lab) -> None:
    body = lab.folder / "body.json"
    body.write_bytes(BODY)
    head = stripes().removesuffix(BODY)

    assert lab.run("stripe", head, "--body", str(body)) == 0


def test_text_of_a_request_cannot_control_the_terminal(lab: Lab) -> None:
    lab.run("stripe", http({"Stripe-Signature": "x"}, target="/\x9b31m"))

    assert "\x9b" not in lab.output


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("nobody", (), "there is no source 'nobody'"),
        ("topic", (), "not fetched offline"),
        ("missing", (), "PENSTOCK_SECRET_NOT_SET is not set"),
        ("stripe", ("--now", "yesterday"), "expected Unix seconds"),
        ("stripe", ("--body", "no/such/file"), "No such file"),
    ],
)
def test_a_wrong_command_line_ends_with_2(lab: Lab, source: str, options: tuple[str, ...], said: str) -> None:
    assert lab.run(source, stripes(), *options, now=None) == 2
    assert said in lab.output


def test_a_time_may_be_iso_8601(lab: Lab) -> None:
    assert lab.run("stripe", stripes(), "--now", "2026-09-21T14:13:20Z", now=None) == 0
    assert lab.run("stripe", stripes(), "--now", "2026-09-21 14:13:20", now=None) == 0
