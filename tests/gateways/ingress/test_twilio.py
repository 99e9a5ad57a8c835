"""Twilio's two ways to sign, held against its own library."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from twilio.request_validator import RequestValidator, get_signature_algorithm

from contracts.errors import BadSignature, InvalidPayload
from contracts.settings.signing import TwilioSettings
from gateways.ingress.keys import Key
from gateways.ingress.twilio import TwilioVerifier
from gateways.ingress.verifying import Incoming
from tests.suites.signatures import Headers, SignatureSuite

URL = "https://hooks.example.com/webhooks/sms"
TOKEN = "0123456789abcdef0123456789abcdef"
KEY = Key("token", TOKEN.encode(), TOKEN.encode())
NOW = datetime(2026, 11, 24, tzinfo=UTC)
FORM = b"From=%2B15550100&Body=Hello+w%C3%B6rld%26more&To=&Body=second&Body=second"


def parameters(body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode(), keep_blank_values=True, errors="strict")


class Form(dict[str, list[str]]):
    """What a web framework gives: several values of one name."""

    def getlist(self, name: str) -> list[str]:
        return self[name]


class TestForm(SignatureSuite):
    scheme = "twilio"
    signature_header = "x-twilio-signature"
    section: ClassVar[dict[str, Any]] = {"public_url": URL}
    body = "AccountSid=AC1&Body=hello+there"
    bodies = ("", "A=", "B=2&A=1&A=0", "Body=%C3%BC%26&From=%2B1", FORM.decode())

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - Twilio signs no time
        signature = RequestValidator(secret).compute_signature(URL, Form(parameters(body.encode())))
        return {"x-twilio-signature": signature}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        return bool(RequestValidator(self.secret).validate(URL, Form(parameters(body)), headers["x-twilio-signature"]))


class TestJson(SignatureSuite):
    scheme = "twilio"
    signature_header = "x-twilio-signature"
    section: ClassVar[dict[str, Any]] = {"public_url": f"{URL}?a=1"}

    def query(self, body: bytes) -> bytes:
        return b"a=1&bodySHA256=" + hashlib.sha256(body).hexdigest().encode()

    def sign(self, body: str, secret: str, at: datetime) -> Headers:  # noqa: ARG002 - Twilio signs no time
        url = f"{URL}?{self.query(body.encode()).decode()}"
        return {"x-twilio-signature": RequestValidator(secret).compute_signature(url, {})}

    def library_accepts(self, body: bytes, headers: Headers) -> bool:
        url = f"{URL}?{self.query(body).decode()}"
        return bool(RequestValidator(self.secret).validate(url, body.decode(), headers["x-twilio-signature"]))


def accept(
    body: bytes,
    url: str = URL,
    *,
    query: bytes = b"",
    signed_url: str = URL,
    algorithm: str = "HMAC_SHA1",
    settings: str | None = None,
    allowed: tuple[str, ...] = ("sha1",),
    lines: tuple[tuple[bytes, bytes], ...] = (),
    is_form: bool = True,
) -> None:
    """Sign as Twilio does and verify."""
    signed = Form(parameters(body)) if is_form else {}
    signature = RequestValidator(TOKEN).compute_signature(signed_url, signed, algorithm)
    headers = [(b"x-twilio-signature", signature.encode()), *lines]
    if settings is not None:
        headers.append((b"x-twilio-webhooks-signature-settings", settings.encode()))
    verifier = TwilioVerifier(TwilioSettings.model_validate({"algorithms": allowed}), url, [KEY])
    verifier.verify(Incoming(headers, body, query), NOW)


def detail(body: bytes = FORM, **options: object) -> str:
    with pytest.raises(BadSignature) as caught:
        accept(body, **options)  # type: ignore[arg-type]
    return caught.value.detail


@pytest.mark.parametrize("port", ["", ":443"])
def test_the_port_of_https_may_be_written_or_not(port: str) -> None:
    accept(FORM, URL.replace(".com", f".com{port}"), signed_url=URL)
    accept(FORM, URL.replace(".com", f".com{port}"), signed_url=URL.replace(".com", ".com:443"))


def test_the_configured_url_counts_and_no_header_of_the_request() -> None:
    other = "https://evil.example/webhooks/sms"
    lines = ((b"host", b"evil.example"), (b"x-forwarded-host", b"evil.example"), (b"x-forwarded-proto", b"https"))

    assert detail(signed_url=other, lines=lines) == "wrong_signature"
    accept(FORM, lines=lines)


def test_sha256_counts_only_where_it_is_enabled() -> None:
    named = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"
    assert get_signature_algorithm(named) == "HMAC_SHA256"

    assert detail(algorithm="HMAC_SHA256", settings=named) == "algorithm_not_enabled"
    accept(FORM, algorithm="HMAC_SHA256", settings=named, allowed=("sha1", "sha256"))


def test_where_only_sha256_is_enabled_a_request_cannot_ask_for_less() -> None:
    assert detail(allowed=("sha256",)) == "algorithm_not_enabled"
    assert detail(settings="algorithm=HMAC_SHA1", allowed=("sha256",)) == "algorithm_not_enabled"


@pytest.mark.parametrize("name", ["HMAC_MD5", "none", "hmac_sha256", "\u00fc"])
def test_an_algorithm_that_nobody_knows_is_refused(name: str) -> None:
    assert detail(settings=f"algorithm={name}", allowed=("sha1", "sha256")) == "algorithm_not_enabled"


def test_two_algorithms_are_ambiguous() -> None:
    with pytest.raises(InvalidPayload):
        accept(FORM, settings="algorithm=HMAC_SHA1,algorithm=HMAC_SHA256", allowed=("sha1", "sha256"))


@pytest.mark.parametrize("query", [b"x=1", b"bodySHA256=", b"bodySHA256=" + b"0" * 63, b"a=1&x=2"])
def test_a_query_that_is_not_the_configured_one_is_refused(query: bytes) -> None:
    assert detail(query=query, signed_url=f"{URL}?{query.decode()}") == "url_differs"


def test_text_cannot_move_from_the_form_into_the_url() -> None:
    # Both are signed as one text: the form's first parameter must not become a part of the query.
    signature = base64.b64encode(hmac.digest(TOKEN.encode(), f"{URL}?a=1Body5".encode(), "sha1"))
    verifier = TwilioVerifier(TwilioSettings(), f"{URL}?a=1", [KEY])
    headers = [(b"x-twilio-signature", signature)]

    assert verifier.verify(Incoming(headers, b"Body=5", b"a=1"), NOW).key_id
    with pytest.raises(BadSignature):
        verifier.verify(Incoming(headers, b"", b"a=1Body5"), NOW)


def test_a_body_with_another_hash_than_the_url_names_is_refused() -> None:
    query = b"bodySHA256=" + hashlib.sha256(b"{}").hexdigest().encode()

    assert detail(b"{ }", query=query, signed_url=f"{URL}?{query.decode()}", is_form=False) == "body_hash_differs"


def test_a_query_with_more_in_it_than_the_hash_is_refused() -> None:
    digest = b"bodySHA256=" + hashlib.sha256(b"{}").hexdigest().encode()

    accept(b"{}", query=digest, signed_url=f"{URL}?{digest.decode()}", is_form=False)
    assert detail(b"{}", query=b"x=1&" + digest, signed_url=f"{URL}?{digest.decode()}", is_form=False) == "url_differs"


@pytest.mark.parametrize("body", [b'{"a":1}', b"a=1&b", b"a=1&", b"a=%", b"a=%zz", b"a=%ff", b"&".join([b"a=1"] * 501)])
def test_a_body_that_is_not_a_form_all_through_is_refused(body: bytes) -> None:
    assert detail(body, is_form=False) == "malformed_form"


def test_a_form_in_another_order_fits_the_same_signature_and_is_told_to() -> None:
    signature = RequestValidator(TOKEN).compute_signature(URL, {"A": "1", "B": "2"}).encode()
    verifier = TwilioVerifier(TwilioSettings(), URL, [KEY])
    first, second = (
        verifier.verify(Incoming([(b"x-twilio-signature", signature)], body), NOW) for body in (b"A=1&B=2", b"B=2&A=1")
    )

    assert first.signed == second.signed
    assert not first.is_body_exact


def test_its_id_is_read_and_told_to_be_unsigned() -> None:
    signature = RequestValidator(TOKEN).compute_signature(URL, {}).encode()
    headers = [(b"x-twilio-signature", signature), (b"i-twilio-idempotency-token", b"abc-1")]

    verified = TwilioVerifier(TwilioSettings(), URL, [KEY]).verify(Incoming(headers, b""), NOW)

    assert (verified.id, verified.signs_id) == ("abc-1", False)
    with pytest.raises(InvalidPayload):
        TwilioVerifier(TwilioSettings(), URL, [KEY]).verify(Incoming([*headers, headers[1]], b""), NOW)
