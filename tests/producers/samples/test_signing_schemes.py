"""What we sign for a scheme is what its sender signs: the gateway and the sender's own library agree."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import get_args
from urllib.parse import parse_qsl

import pytest
from discord_interactions import verify_key
from http_message_signatures import HTTPMessageVerifier, MappingKeyResolver
from sendgrid.helpers.eventwebhook import EventWebhook
from square.utils.webhooks_helper import verify_signature
from svix.webhooks import Webhook
from twilio.request_validator import RequestValidator, get_signature_algorithm

from contracts.errors import BadSignature, ConfigError
from contracts.settings import SourceSettings
from gateways.ingress.http_signatures import ALGORITHMS
from gateways.ingress.verifying import Incoming
from producers.samples.private_keys import load_private_key
from producers.samples.signing import forge, query_of, sign
from tests.suites.schemes import CASES, PLAIN, URL, WHSEC, Case
from tests.suites.signatures import lines_of

BODY = b'{"id": "evt_1"}'
Headers = dict[str, str]


def _svix(case: Case, headers: Headers, body: bytes) -> bool:
    del case
    Webhook(WHSEC).verify(body, headers)
    return True


def _twilio(case: Case, headers: Headers, body: bytes) -> bool:
    url = f"{URL}?{query_of(case.source, BODY)}"
    algorithm = get_signature_algorithm(headers.get("x-twilio-webhooks-signature-settings"))
    return bool(RequestValidator(PLAIN).validate(url, body.decode(), headers["x-twilio-signature"], algorithm))


def _square(case: Case, headers: Headers, body: bytes) -> bool:
    del case
    signature = headers["x-square-hmacsha256-signature"]
    accepted: bool = verify_signature(
        request_body=body.decode(), signature_header=signature, signature_key=PLAIN, notification_url=URL
    )
    return accepted


def _discord(case: Case, headers: Headers, body: bytes) -> bool:
    return bool(verify_key(body, headers["x-signature-ed25519"], headers["x-signature-timestamp"], case.held))


def _sendgrid(case: Case, headers: Headers, body: bytes) -> bool:
    prefix = "x-twilio-email-event-webhook"
    library = EventWebhook(case.held)
    return bool(library.verify_signature(body.decode(), headers[f"{prefix}-signature"], headers[f"{prefix}-timestamp"]))


def _http_signature(case: Case, headers: Headers, body: bytes) -> bool:
    settings = case.source.http_signature
    assert settings is not None
    private = load_private_key(case.signing.encode(), settings.algorithm, settings.key_encoding)
    keys = MappingKeyResolver(public_keys={"https://example.com/key": private.public_key()}, private_keys={})

    class Message:
        method = "POST"
        url = case.source.public_url

    message = Message()
    message.headers = headers  # type: ignore[attr-defined]
    HTTPMessageVerifier(signature_algorithm=ALGORITHMS[settings.algorithm], key_resolver=keys).verify(
        message, body=body, require_components=settings.components
    )
    return True


def _twilio_form(case: Case, headers: Headers, body: bytes) -> bool:
    parameters = dict(parse_qsl(body.decode()))
    return bool(RequestValidator(PLAIN).validate(case.source.public_url, parameters, headers["x-twilio-signature"]))


LIBRARIES: dict[str, Callable[[Case, Headers, bytes], bool]] = {
    "svix": _svix,
    "twilio": _twilio,
    "twilio form": _twilio_form,
    "twilio sha256": _twilio,
    "square": _square,
    "discord": _discord,
    "sendgrid": _sendgrid,
    "http-signature ed25519": _http_signature,
    "http-signature ecdsa": _http_signature,
    "http-signature rsa": _http_signature,
}


def _signed(case: Case) -> Headers:
    return sign(
        case.source, case.signing.encode(), case.body, event_id="evt-1", timestamp_s=int(time.time()), key_id="current"
    )


def _accepts(case: Case, headers: Headers, body: bytes) -> bool:
    request = Incoming(lines_of(headers), body, query_of(case.source, case.body).encode(), "127.0.0.1")
    try:
        case.verifier().verify(request, datetime.now(UTC))
    except BadSignature:
        return False
    return True


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    found: Case = CASES[request.param]
    monkeypatch.setenv("TEST_HELD", found.held)
    return found


def test_what_we_sign_the_gateway_accepts_and_nothing_else(case: Case) -> None:
    headers = _signed(case)
    signs_nothing = case.source.scheme in {"api-key", "client-certificate"}

    assert _accepts(case, headers, case.body)
    assert _accepts(case, headers, case.body.replace(b"evt_1", b"evt_2")) is signs_nothing


def test_a_forgery_has_the_right_form_and_is_refused(case: Case) -> None:
    forged = forge(case.source, case.body, event_id="evt-1", timestamp_s=int(time.time()), key_id="current")

    assert forged.keys() == _signed(case).keys() or "v1a" in str(forged | _signed(case))
    assert not _accepts(case, forged, case.body)


@pytest.mark.parametrize("name", sorted(LIBRARIES))
def test_what_we_sign_the_senders_own_library_accepts_and_nothing_else(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = CASES[name]
    monkeypatch.setenv("TEST_HELD", found.held)
    headers = _signed(found)

    assert LIBRARIES[name](found, headers, found.body)
    try:
        is_accepted = LIBRARIES[name](found, headers, found.body.replace(b"evt_1", b"evt_2"))
    except Exception:  # noqa: BLE001 - how a library says no
        is_accepted = False
    assert not is_accepted


def test_every_scheme_can_be_signed_but_sns_and_the_one_that_signs_nothing() -> None:
    schemes = set(get_args(SourceSettings.model_fields["scheme"].annotation))

    assert {case.source.scheme for case in CASES.values()} == schemes - {"sns", "microsoft-graph"}


def test_the_query_of_twilio_names_the_body_and_others_have_the_configured_one() -> None:
    digest = hashlib.sha256(BODY).hexdigest()

    assert query_of(CASES["twilio"].source, BODY) == f"bodySHA256={digest}"
    assert query_of(CASES["twilio sha256"].source, BODY) == f"a=1&bodySHA256={digest}"
    assert query_of(CASES["http-signature hmac"].source, BODY) == "shop=1"
    assert query_of(CASES["github"].source, BODY) == ""


@pytest.mark.parametrize("name", ["discord", "sendgrid", "standard-webhooks v1a", "http-signature rsa", "public-key"])
def test_a_public_key_in_place_of_the_private_one_is_a_fault_of_the_configuration(name: str) -> None:
    found = CASES[name]

    with pytest.raises(ConfigError):
        sign(found.source, b"whsk_!!", BODY, event_id="e", timestamp_s=1, key_id="current")
