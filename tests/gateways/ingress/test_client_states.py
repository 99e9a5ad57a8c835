"""Microsoft Graph's notifications: every item proves itself by its clientState, and nothing else is accepted."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.codec import decode_event
from contracts.errors import BadSignature, ConfigError
from contracts.settings import SourceSettings
from contracts.topics import Topics
from gateways.ingress.client_states import ClientStateVerifier
from gateways.ingress.keys import Key
from gateways.ingress.verifying import Incoming
from gateways.ingress.webhooks import WebhookSource

STATE = "c0ffee-c0ffee-c0ffee"
OLD = "0ld-0ld-0ld-0ld-0ld"
NOW = datetime(2026, 11, 28, 8, tzinfo=UTC)
KEYS = (Key("current", STATE.encode(), b""), Key("old", OLD.encode(), b""))


def item(state: Any = STATE, **more: Any) -> dict[str, Any]:
    """Return a notification as Graph writes it."""
    return {
        "subscriptionId": "7f105c7d-2dc5-4530-97cd-4e7ae6534c07",
        "subscriptionExpirationDateTime": "2026-11-29T18:23:45Z",
        "clientState": state,
        "changeType": "updated",
        "resource": "me/drive/root",
        "tenantId": "84bd8158-6d4d-4958-8b9f-9d6445542f95",
        "resourceData": {"@odata.type": "#Microsoft.Graph.DriveItem"},
    } | more


def body(*items: Any) -> bytes:
    return json.dumps({"value": items}).encode()


def key_of(raw: bytes, *keys: Key) -> str:
    return ClientStateVerifier(keys or KEYS).verify(Incoming([], raw), NOW).key_id


def detail_of(raw: bytes, *keys: Key) -> str:
    with pytest.raises(BadSignature) as caught:
        key_of(raw, *keys)
    return caught.value.detail


def source(monkeypatch: pytest.MonkeyPatch, state: str = STATE, **changes: Any) -> WebhookSource:
    monkeypatch.setenv("TEST_STATE", state)
    document = {
        "scheme": "microsoft-graph",
        "type": "com.microsoft.graph.notifications",
        "secrets": [{"id": "current", "value": "env:TEST_STATE"}],
    }
    return WebhookSource("graph", SourceSettings.model_validate(document | changes), Topics())


def test_a_collection_whose_items_all_carry_the_secret_is_accepted() -> None:
    assert key_of(body(item(), item(lifecycleEvent="missed"))) == "current"


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b"{}", b'"value"', b'{"value":null}', b'{"value":{}}', body(),
                                 body(None), body(item(7)), b'{"value":[{"clientState":"\\ud800"}]}',
                                 b'{"value":' + b"[" * 100_000, body(item()) + b"x", body(item())[:-1]])  # fmt: skip
def test_what_is_no_collection_of_notifications_is_refused(raw: bytes) -> None:
    assert detail_of(raw) == "not_notifications"


@pytest.mark.parametrize("spoilt", [item(None), item(""), {}])
def test_one_item_without_its_proof_spoils_all(spoilt: dict[str, Any]) -> None:
    assert detail_of(body(item(), spoilt, item())) == "missing_client_state"


@pytest.mark.parametrize("state", ["another", STATE.upper(), STATE + " ", STATE[:-1], STATE + "\0", "\u00fc" * 16])
def test_one_item_with_another_proof_spoils_all(state: str) -> None:
    assert detail_of(body(item(), item(state))) == "wrong_client_state"
    assert detail_of(body(item(state), item())) == "wrong_client_state"


def test_in_a_rotation_the_secret_that_goes_is_told_as_long_as_it_is_used() -> None:
    assert key_of(body(item(OLD), item())) == "old"
    assert key_of(body(item(), item(OLD))) == "old"


def test_a_secret_outside_its_time_is_refused_and_recognised() -> None:
    retired = KEYS[1]._replace(not_after=NOW - timedelta(seconds=1))
    future = KEYS[1]._replace(not_before=NOW + timedelta(seconds=1))

    assert detail_of(body(item(), item(OLD)), KEYS[0], retired) == "retired_key"
    assert detail_of(body(item(), item(OLD)), KEYS[0], future) == "key_not_yet_valid"


@given(st.binary(max_size=80) | st.recursive(
    st.none() | st.text(max_size=8) | st.just(STATE),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["value", "clientState", "x"]), inner, max_size=3),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_no_body_gets_past_that_says_less_than_every_item_does(raw: bytes) -> None:
    try:
        key_of(raw)
    except BadSignature:
        return

    items = json.loads(raw)["value"]
    assert items
    assert all(one["clientState"] == STATE for one in items)


def test_the_record_is_the_body_and_its_id_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = body(item(), item(changeType="deleted"))

    accepted = source(monkeypatch).accept([], raw, NOW)

    event = decode_event(accepted.record.key, accepted.record.value, accepted.record.headers)
    assert event.data == raw
    assert event.id.startswith("sha256-")
    assert dict(accepted.record.headers)["penstock-scheme"] == b"microsoft-graph"


def test_equal_bytes_are_two_events_unless_the_source_says_by_what_they_are_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OneDrive says of every change the same: something below this folder is another one now."""
    raw = body(item(id="n-1"))

    assert source(monkeypatch).accept([], raw, NOW).identity is None
    assert source(monkeypatch, id="json:/value/0/id").accept([], raw, NOW).identity is not None
    assert source(monkeypatch, idempotency={"by": "digest"}).accept([], raw, NOW).identity is not None


@pytest.mark.parametrize("state", ["short", "x" * 256])
def test_a_secret_that_graph_cannot_have_or_anybody_can_guess_is_refused_at_start(
    state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"sources\.graph.*needs 16 to 255"):
        source(monkeypatch, state)
