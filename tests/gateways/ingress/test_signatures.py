"""The signature parser beyond what every scheme has in common: lists, pairs, own templates, private reasons."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from pydantic import ValidationError

from contracts.errors import BadSignature, ConfigError, InvalidPayload
from contracts.settings import HmacTemplate
from gateways.ingress.keys import Key
from gateways.ingress.schemes import SCHEMES, Scheme
from gateways.ingress.signatures import MAX_SIGNATURES, SignatureVerifier
from gateways.ingress.verifying import Incoming
from tests.suites.signatures import Template, template_of, verify

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STAMP = b"%d" % int(NOW.timestamp())
KEY = Key("current", b"k" * 24, b"k" * 24)
BODY = b'{"a":1}'
STANDARD = template_of("standard-webhooks")
STRIPE = template_of("stripe")

Lines = list[tuple[bytes, bytes]]


def _digest(text: bytes, algorithm: str = "sha256", secret: bytes = KEY.secret) -> bytes:
    return hmac.new(secret, text, algorithm).digest()


def _standard(entries: bytes | None = None, event_id: bytes = b"msg_1", body: bytes = BODY) -> Lines:
    good = b"v1," + base64.b64encode(_digest(event_id + b"." + STAMP + b"." + body))
    return [
        (b"webhook-id", event_id),
        (b"webhook-timestamp", STAMP),
        (b"webhook-signature", good if entries is None else entries.replace(b"GOOD", good)),
    ]


def _detail(template: Template, lines: Lines, body: bytes = BODY) -> str:
    with pytest.raises(BadSignature) as caught:
        verify(template, [KEY], lines, body, NOW)
    return caught.value.detail


def test_the_id_and_the_time_of_the_sender_are_reported() -> None:
    verified = verify(STANDARD, [KEY], _standard(), BODY, NOW)

    assert (verified.key_id, verified.id, verified.timestamp) == ("current", "msg_1", int(NOW.timestamp()))
    assert verified.signed == b"msg_1." + STAMP + b"." + BODY
    assert verified.signs_id
    assert verified.signed_headers == {b"webhook-id", b"webhook-timestamp"}


@pytest.mark.parametrize(
    "entries",
    [b"v2,abc GOOD", b"v1a,abc GOOD", b"GOOD v9", b", GOOD", b"v1, GOOD", b"\xff\xfe GOOD", b"v1,!! GOOD", b"  GOOD"],
)
def test_garbage_beside_or_before_a_good_signature_does_not_matter(entries: bytes) -> None:
    assert verify(STANDARD, [KEY], _standard(entries), BODY, NOW).key_id == "current"


def test_only_the_first_sixteen_signatures_are_looked_at() -> None:
    inside = b"v1,AAAA " * (MAX_SIGNATURES - 1) + b"GOOD"
    outside = b"v1,AAAA " * MAX_SIGNATURES + b"GOOD"

    assert verify(STANDARD, [KEY], _standard(inside), BODY, NOW).key_id
    assert _detail(STANDARD, _standard(outside)) == "wrong_signature"


@pytest.mark.parametrize("entries", [b"v1,", b"v2,abc", b"v1a,abc", b"v1", b" ", b"sha256=abc"])
def test_a_header_without_a_signature_of_the_scheme_is_malformed(entries: bytes) -> None:
    assert _detail(STANDARD, _standard(entries)) == "malformed"


@pytest.mark.parametrize("event_id", [b"msg.1", b"a\nb", b"a b", b"\xc3\xbc", b"x" * 257, b"a%0d%0a\r\n"])
def test_an_id_that_could_shift_the_signed_boundary_is_refused_though_signed(event_id: bytes) -> None:
    assert _detail(STANDARD, _standard(event_id=event_id)) == "malformed_id"


def test_an_empty_id_is_a_missing_one() -> None:
    assert _detail(STANDARD, _standard(event_id=b"")) == "missing_header"


@pytest.mark.parametrize(
    "change", [str.upper, lambda text: text.replace("+", "-").replace("/", "_"), lambda text: text + "\n"]
)
def test_another_spelling_of_the_right_base64_is_refused(change: object) -> None:
    # Forty bodies: some signature has a + or / in it.
    for number in range(40):
        body = b"%d" % number
        (*_, (name, good)) = lines = _standard(body=body)
        changed = change(good[3:].decode()).encode()  # type: ignore[operator]
        if changed != good[3:]:
            assert _detail(STANDARD, [*lines[:2], (name, b"v1," + changed)], body) == "wrong_signature"


def test_upper_case_hex_is_refused() -> None:
    signature = _digest(BODY).hex().upper().encode()

    assert _detail(template_of("github"), [(b"x-hub-signature-256", b"sha256=" + signature)]) == "wrong_signature"


def test_a_downgrade_to_sha1_is_refused() -> None:
    signature = b"sha1=" + _digest(BODY, "sha1").hex().encode()

    assert _detail(template_of("github"), [(b"x-hub-signature-256", signature)]) == "malformed"
    assert _detail(template_of("github"), [(b"x-hub-signature", signature)]) == "missing_header"


def test_an_unsigned_id_is_reported_when_it_is_usable() -> None:
    signature = (b"x-hub-signature-256", b"sha256=" + _digest(BODY).hex().encode())
    template = template_of("github")

    assert verify(template, [KEY], [signature, (b"x-github-delivery", b"a.b")], BODY, NOW).id == "a.b"
    assert verify(template, [KEY], [signature, (b"x-github-delivery", b"a\x00b")], BODY, NOW).id is None
    assert verify(template, [KEY], [signature], BODY, NOW).id is None


@pytest.mark.parametrize("form", ["t={0},v1={1}", "v1={1},t={0}", "t={0},v0=abc,v1=abc,v1={1}", "t={0},v1,=,v1={1},"])
def test_pairs_may_come_in_any_order_and_beside_others(form: str) -> None:
    good = _digest(STAMP + b"." + BODY).hex()
    line = form.format(STAMP.decode(), good).encode()

    assert verify(STRIPE, [KEY], [(b"stripe-signature", line)], BODY, NOW).key_id


@pytest.mark.parametrize("form", ["t={0},t={0},v1={1}", "t={0},v1={1},t=", "t=1,v1={1},t={0}"])
def test_two_timestamps_are_ambiguous(form: str) -> None:
    line = form.format(STAMP.decode(), _digest(STAMP + b"." + BODY).hex()).encode()

    with pytest.raises(InvalidPayload):
        verify(STRIPE, [KEY], [(b"stripe-signature", line)], BODY, NOW)


def test_pairs_without_a_timestamp_are_refused() -> None:
    line = b"v1=" + _digest(STAMP + b"." + BODY).hex().encode()

    assert _detail(STRIPE, [(b"stripe-signature", line)]) == "missing_timestamp"


def test_twin_headers_that_differ_are_ambiguous_and_equal_ones_are_not() -> None:
    scheme = SCHEMES["standard-webhooks"]
    verifier = SignatureVerifier(scheme, [KEY])

    assert verifier.verify(Incoming([*_standard(), (b"svix-id", b"msg_1")], BODY), NOW).key_id
    with pytest.raises(InvalidPayload):
        verifier.verify(Incoming([*_standard(), (b"svix-id", b"msg_2")], BODY), NOW)


def test_a_secret_used_without_decoding_is_recognised() -> None:
    key = Key("current", b"k" * 24, b"whsec_text")
    lines = _standard()
    signature = b"v1," + base64.b64encode(_digest(b"msg_1." + STAMP + b"." + BODY, secret=b"whsec_text"))

    with pytest.raises(BadSignature) as caught:
        verify(STANDARD, [key], [*lines[:2], (b"webhook-signature", signature)], BODY, NOW)
    assert caught.value.detail == "secret_not_decoded"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_an_own_template_may_choose_algorithm_and_encoding(algorithm: str, encoding: str) -> None:
    template = HmacTemplate.model_validate(
        {"signature_header": "X-Sig", "algorithm": algorithm, "encoding": encoding, "signed": "pre:{body}"}
    )
    digest = _digest(b"pre:" + BODY, algorithm)
    value = digest.hex().encode() if encoding == "hex" else base64.b64encode(digest)

    assert verify(template, [KEY], [(b"x-sig", value)], BODY, NOW).key_id


@pytest.mark.parametrize(
    "signed",
    ["{id}{timestamp}.{body}", "{timestamp}.{id}{body}", "{body}{body}", "{id}.{id}.{body}"],
)
def test_an_ambiguous_template_is_refused_at_start(signed: str) -> None:
    settings = {"signature_header": "s", "signed": signed, "id_header": "i"}
    settings |= {"timestamp_header": "t"} if "{timestamp}" in signed else {}

    with pytest.raises(ConfigError, match=r"sources\.x"):
        SignatureVerifier(Scheme(HmacTemplate.model_validate(settings)), [KEY], where="sources.x.hmac")


@pytest.mark.parametrize("signed", ["{x}{body}", "{{body}"])
def test_a_template_with_an_unknown_name_is_refused_with_its_settings(signed: str) -> None:
    with pytest.raises(ValidationError, match=r"unknown \{.*there are: \{body\}"):
        HmacTemplate.model_validate({"signature_header": "s", "signed": signed, "id_header": "i"})


def test_ids_may_not_contain_the_separator_of_their_own_template() -> None:
    template = HmacTemplate(signature_header="s", signed="{id}|{body}", id_header="i")
    text = b"a|b|" + BODY
    signature = (b"s", hashlib.sha256(b"").hexdigest().encode())

    assert _detail(template, [(b"i", b"a|b"), signature], text) == "malformed_id"


def test_the_senders_clock_may_be_further_off_where_the_source_allows_it() -> None:
    template = STANDARD.model_copy(update={"tolerance_s": 10.0})
    late = datetime.fromtimestamp(NOW.timestamp() + 11, UTC)

    with pytest.raises(BadSignature):
        verify(template, [KEY], _standard(), BODY, late)
    assert verify(STANDARD, [KEY], _standard(), BODY, late).key_id
