"""Why a signature is refused: what was changed on the way is recognised, and strangers cannot buy much of our time."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from msgspec import structs

from gateways.ingress.buckets import Bucket
from gateways.ingress.explaining import MAX_BODY_BYTES, Explainer, fitting
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES
from gateways.ingress.signatures import SignatureVerifier
from gateways.ingress.variants import variants
from gateways.ingress.verifying import Incoming, Verified
from tests.support import FakeClock

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = b"k" * 24
DATA = {"zeta": "caf\u00e9 / <b>", "a": [1, 2.50, None], "n": {}}
COMPACT = json.dumps(DATA, ensure_ascii=False, separators=(",", ":")).encode()


def mac(body: bytes) -> bytes:
    return hmac.digest(SECRET, body, hashlib.sha256)


def github(body: bytes, signature: bytes | None = None, **headers: bytes) -> Incoming:
    """Return a request whose signature is that of `body`, or another text."""
    line = b"sha256=" + mac(body).hex().encode() if signature is None else signature
    return Incoming([(b"x-hub-signature-256", line), *((k.encode(), v) for k, v in headers.items())], body)


def explained(request: Incoming, detail: str = "wrong_signature", budget: Bucket | None = None) -> str:
    verifier = SignatureVerifier(SCHEMES["github"], [Key("current", SECRET, SECRET)])
    budget = budget or Bucket(1.0, 100.0, 0.0)
    return Explainer(FakeClock(), budget).explain(verifier, request, NOW, detail)


@pytest.mark.parametrize(
    ("signed", "arrived", "detail"),
    [
        (COMPACT, json.dumps(DATA, ensure_ascii=False, indent=2).encode(), "body_reserialised"),
        (json.dumps(DATA, indent=2, ensure_ascii=False).encode(), COMPACT, "body_reserialised"),
        (json.dumps(DATA, indent=4, ensure_ascii=False).encode(), COMPACT, "body_reserialised"),
        (json.dumps(DATA).encode(), COMPACT, "body_reserialised"),
        (json.dumps(DATA, ensure_ascii=False).encode(), COMPACT, "body_reserialised"),
        (json.dumps(DATA, separators=(",", ":")).replace("/", "\\/").encode(), COMPACT, "body_reserialised"),
        (json.dumps(DATA, separators=(",", ":"), sort_keys=True).encode(), json.dumps(DATA).encode(), "?"),
        (b'{"a":1.0,"b":1e5,"a":2}', b'{ "a": 1.0, "b": 1e5, "a": 2 }', "body_reserialised"),
        (b"a=1+2&b=%C3%A9", b"a=1%202&b=%c3%a9", "body_reserialised"),
        (b"a=1%202&b=3", b"a=1+2&b=3", "body_reserialised"),
        (b"{}", b"{}\n", "body_line_end"),
        (b"{}\n", b"{}", "body_line_end"),
        (b"{}\r\n", b"{}", "body_line_end"),
        (b"a\r\nb\r\n", b"a\nb\n", "body_line_end"),
        (b"a\nb", b"a\r\nb", "body_line_end"),
        (b"{}", b"\xef\xbb\xbf{}", "body_charset"),
        ("caf\u00e9".encode(), "caf\u00e9".encode().decode("latin-1").encode(), "body_charset"),
        (b'{"a":1}', b'{"a":2}', "wrong_signature"),
    ],
)
def test_a_body_that_was_changed_on_its_way_is_recognised(signed: bytes, arrived: bytes, detail: str) -> None:
    request = structs.replace(github(signed), body=arrived)

    # Sorted keys and \u escapes together are one change too many.
    assert explained(request) == ("wrong_signature" if detail == "?" else detail)


@pytest.mark.parametrize(
    ("write", "detail"),
    [
        (lambda digest: b"sha256=" + digest.hex().upper().encode(), "signature_spelling"),
        (lambda digest: b' "sha256=' + digest.hex().encode() + b'"', "signature_spelling"),
        (lambda digest: b"sha256=" + base64.b64encode(digest), "signature_encoding"),
        (lambda digest: b"sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"="), "signature_encoding"),
        (lambda digest: digest.hex().encode(), "signature_prefix"),
    ],
)
def test_a_signature_in_another_spelling_is_recognised(write: Callable[[bytes], bytes], detail: str) -> None:
    assert explained(github(COMPACT, write(mac(COMPACT))), "malformed") == detail


def test_url_safe_base64_without_padding_is_recognised() -> None:
    verifier = SignatureVerifier(SCHEMES["standard-webhooks"], [Key("current", SECRET, SECRET)])
    for number in range(20):
        text = b"id.%d." % int(NOW.timestamp()) + (body := b"%d" % number)
        signature = base64.urlsafe_b64encode(mac(text)).rstrip(b"=")
        lines = [(b"webhook-id", b"id"), (b"webhook-timestamp", b"%d" % int(NOW.timestamp()))]
        found = fitting(verifier, Incoming([*lines, (b"webhook-signature", b"v1," + signature)], body), NOW)

        assert found is not None
        assert found[0].detail == "signature_spelling"


@pytest.mark.parametrize("detail", ["stale", "missing_header", "retired_key", "secret_not_decoded"])
def test_what_is_explained_already_is_left_as_it_is(detail: str) -> None:
    assert explained(structs.replace(github(b"{}"), body=b"{}\n"), detail) == detail


def test_explanations_have_a_budget() -> None:
    request = structs.replace(github(b"{}"), body=b"{}\n")
    budget = Bucket(per_s=0.001, size=3.0, now_s=0.0)

    assert [explained(request, budget=budget) for _ in range(5)] == ["body_line_end"] * 3 + ["wrong_signature"] * 2


def test_a_large_body_is_not_tried_in_other_forms() -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)

    assert explained(structs.replace(github(body[:-1]), body=body)) == "wrong_signature"


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff\xfe", b"[" * 16000, b"[1," * 5000, b"1e999", b"9" * 16000, b'"\\ud800"', b"{", b"NaN",
     b"a=" * 8000, b"%", b"\x00" * 16384, urlencode({str(n): n for n in range(300)}).encode()],
)  # fmt: skip
def test_no_bytes_make_it_fail_and_the_number_of_tries_is_bounded(body: bytes) -> None:
    signatures = [b"sha256=" + b"a" * 64, b"\xff", b"", b"v1," * 5000, b"A" * 8000]
    for signature in signatures:
        request = Incoming([(b"x-hub-signature-256", signature)], body)

        assert len(list(variants(request))) <= 40
        assert explained(request) == "wrong_signature"


def test_of_many_lines_that_look_like_signatures_only_some_are_tried() -> None:
    request = Incoming([(b"x-signature-%d" % number, b"ab" * 32) for number in range(500)], b"{}")

    assert len(list(variants(request))) <= 60


def test_other_forms_are_tried_and_never_accepted() -> None:
    class Verifier:
        def verify(self, request: Incoming, now: datetime) -> Verified:
            assert now == NOW
            return Verified("anything", signed=request.body)

    detail = Explainer(FakeClock(), Bucket(1.0, 1.0, 0.0)).explain(Verifier(), github(b"{}"), NOW, "wrong_signature")

    assert isinstance(detail, str)
