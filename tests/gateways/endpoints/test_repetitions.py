"""A delivery that comes again: which answer it gets, and what then lies on the log."""

import asyncio
import copy
import hashlib
import hmac
import time
from typing import Any

import pytest

from contracts import metrics
from contracts.errors import LogUnavailable, TooLarge
from contracts.repetition import DEDUP, identity_of
from contracts.settings import Settings
from tests.gateways.driver import CONFIGURATION, SECRET, Answer, Gateway, as_caller, github_headers
from tests.support import eventually_async

BODY = b'{"n":1}'
REDELIVERY_SECRET = "a-secret-for-operators"


def counted(state: str, source: str = "github") -> float:
    labels = {"source": source, "state": state}
    return metrics.REGISTRY.get_sample_value("penstock_dedup_decisions_total", labels) or 0.0


def states(gateway: Gateway) -> list[str]:
    return [(dict(record.headers)[DEDUP] or b"").decode().split(" ")[0] for record in gateway.records]


async def made(monkeypatch: pytest.MonkeyPatch, *, ack_timeout_s: float = 5, **source: Any) -> Gateway:
    """Return a gateway whose source `signed` signs its ids, with changes."""
    monkeypatch.setenv("TEST_REDELIVERY", REDELIVERY_SECRET)
    document = copy.deepcopy(CONFIGURATION)
    document["gateway"]["ack_timeout_s"] = ack_timeout_s
    document["sources"]["signed"] = {
        "scheme": "hmac",
        "hmac": {
            "signature_header": "x-signature",
            "timestamp_header": "x-time",
            "id_header": "x-id",
            "signed": "{id}.{timestamp}.{body}",
        },
        "secrets": [{"id": "current", "value": "env:TEST_SECRET"}],
        "type": "t",
        **source,
    }
    gateway = Gateway(Settings.model_validate(document))
    await gateway.producer.start()
    return gateway


async def signed(gateway: Gateway, event_id: str = "e1", body: bytes = BODY, ago_s: int = 0, **more: str) -> Answer:
    stamp = str(int(time.time()) - ago_s)
    signature = hmac.new(SECRET, f"{event_id}.{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"x-signature": signature, "x-time": stamp, "x-id": event_id}
    named = {name.replace("_", "-"): text for name, text in more.items()}
    return await gateway.call("POST", "/webhooks/signed", headers | named, body)


@pytest.fixture
async def source(secret_environment: None, monkeypatch: pytest.MonkeyPatch) -> Gateway:  # noqa: ARG001 - see the driver
    return await made(monkeypatch)


async def test_a_repetition_is_202_without_a_second_record_and_points_at_the_first(source: Gateway) -> None:
    before = counted("duplicate", "signed")
    first = await signed(source)

    # A retry is signed anew, at its own time.
    again = await signed(source, ago_s=60)

    assert (first.status, again.status, len(source.records)) == (202, 202, 1)
    assert again.json() == first.json() | {"duplicate": True}
    assert again.headers["penstock-duplicate"] == "true"
    assert "penstock-duplicate" not in first.headers
    assert again.headers["location"] == first.headers["location"]
    assert counted("duplicate", "signed") == before + 1


async def test_200_copies_at_one_moment_are_all_202_and_one_record(source: Gateway) -> None:
    source.producer.hold_acks()
    posting = [asyncio.ensure_future(signed(source)) for _ in range(200)]
    await eventually_async(lambda: source.producer.buffered_bytes)
    assert not any(one.done() for one in posting)

    source.producer.release_acks()
    answers = await asyncio.gather(*posting)

    assert {answer.status for answer in answers} == {202}
    assert len({answer.json()["status_url"] for answer in answers}) == 1
    assert len(source.records) == 1


@pytest.mark.usefixtures("secret_environment")
async def test_copies_fail_with_the_first_and_a_retry_afterwards_is_produced(monkeypatch: pytest.MonkeyPatch) -> None:
    source = await made(monkeypatch, ack_timeout_s=0.05)
    source.producer.hold_acks()
    answers = await asyncio.gather(*(signed(source) for _ in range(5)))

    assert {answer.status for answer in answers} == {503}
    assert all("retry-after" in answer.headers for answer in answers)
    source.producer.release_acks()
    before = len(source.records)

    assert (await signed(source)).status == 202
    assert len(source.records) == before + 1


@pytest.mark.parametrize(("error", "status"), [(LogUnavailable("down"), 503), (TooLarge("large"), 413)])
async def test_after_a_failure_of_ours_a_retry_is_produced(source: Gateway, error: Exception, status: int) -> None:
    source.producer.fail_next(error)  # type: ignore[arg-type] # both are ours

    assert (await signed(source)).status == status
    assert (await signed(source)).status == 202
    assert states(source) == ["new"]


async def test_the_same_id_with_another_body_is_produced_and_flagged(source: Gateway) -> None:
    before = counted("conflict", "signed")
    await signed(source, body=b'{"n":1}')

    other = await signed(source, body=b'{"n":2}')

    assert other.status == 202
    assert [record.value for record in source.records] == [b'{"n":1}', b'{"n":2}']
    assert states(source) == ["new", "conflict"]
    assert counted("conflict", "signed") == before + 1
    # Each of the two is known from now on.
    assert [(await signed(source, body=body)).json()["duplicate"] for body in (b'{"n":1}', b'{"n":2}')] == [True, True]


async def test_a_replay_with_a_changed_unsigned_id_is_a_duplicate(gateway: Gateway) -> None:
    first = await gateway.webhook()

    replay = await gateway.webhook(x_github_delivery="made-up")

    assert (replay.status, len(gateway.records)) == (202, 1)
    assert replay.json() == first.json() | {"duplicate": True}


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize(("first", "again"), [("e1", None), (None, "e1"), ("e1", "not an id")])
async def test_a_replay_without_the_unsigned_id_is_a_duplicate(
    first: str | None, again: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = {"signature_header": "x-signature", "id_header": "x-id"}
    gateway = await made(monkeypatch, hmac=template)
    headers = {"x-signature": hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()}

    async def delivered(event_id: str | None) -> Answer:
        named = headers if event_id is None else headers | {"x-id": event_id}
        return await gateway.call("POST", "/webhooks/signed", named, BODY)

    answers = [await delivered(first), await delivered(again)]

    assert [(answer.status, answer.json().get("duplicate")) for answer in answers] == [(202, None), (202, True)]
    assert len(gateway.records) == 1


async def test_an_unsigned_id_with_another_body_is_flagged_too(gateway: Gateway) -> None:
    await gateway.webhook(b'{"n":1}')
    await gateway.webhook(b'{"n":2}')

    assert states(gateway) == ["new", "conflict"]


async def test_where_it_cannot_be_told_the_event_is_produced_and_says_so(
    source: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_identity: object) -> None:
        raise MemoryError

    monkeypatch.setattr(source.parts.claims, "find", broken)

    answers = [await signed(source), await signed(source)]

    assert [answer.status for answer in answers] == [202, 202]
    assert states(source) == ["unknown", "unknown"]
    # The worker decides.
    assert identity_of(source.records[0].headers, "e1") == identity_of(source.records[1].headers, "e1") is not None


@pytest.mark.usefixtures("secret_environment")
async def test_nobody_but_an_operator_can_have_a_delivery_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await made(monkeypatch, idempotency={"redelivery_secret": "env:TEST_REDELIVERY"})
    await signed(gateway)

    refused = await signed(gateway, penstock_redelivery="true")
    wanted = await signed(gateway, penstock_redelivery=REDELIVERY_SECRET)

    assert refused.json()["duplicate"]
    assert "duplicate" not in wanted.json()
    assert states(gateway) == ["new", "redelivery"]
    assert identity_of(gateway.records[1].headers, "e1") is None


@pytest.mark.usefixtures("secret_environment")
async def test_a_source_can_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await made(monkeypatch, idempotency={"by": "none"})

    answers = [await signed(gateway), await signed(gateway)]

    assert [answer.status for answer in answers] == [202, 202]
    assert len(gateway.records) == 2
    assert DEDUP not in dict(gateway.records[0].headers)


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({}, b"id"),
        ({"id": "json:/n"}, b"id"),
        ({"id": "header:x-other"}, b"digest"),
        ({"id": "header:x-other", "idempotency": {"by": "id"}}, b"id"),
        ({"idempotency": {"by": "digest"}}, b"digest"),
    ],
)
async def test_the_id_counts_where_the_signature_covers_it(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], by: bytes
) -> None:
    gateway = await made(monkeypatch, **changes)
    await signed(gateway, x_other="o")

    assert (dict(gateway.records[0].headers)[DEDUP] or b"").split(b" ")[1] == by


@pytest.mark.usefixtures("secret_environment")
async def test_a_sender_with_a_key_vouches_for_its_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = await made(monkeypatch, scheme="api-key", hmac=None, id="header:x-id")
    answers = []
    for event_id in ("e1", "e2", "e1"):
        headers = {"x-api-key": SECRET.decode(), "x-id": event_id}
        answers.append((await gateway.call("POST", "/webhooks/signed", headers, BODY)).json())

    assert [answer.get("duplicate") for answer in answers] == [None, None, True]
    assert [record.key for record in gateway.records] == [b"e1", b"e2"]


async def test_equal_idempotency_keys_are_one_event_and_other_callers_are_others(gateway: Gateway) -> None:
    headers = as_caller(idempotency_key="k1", ce_type="t")
    first = await gateway.call("POST", "/v1/events", headers, BODY)

    again = await gateway.call("POST", "/v1/events", headers, BODY)

    assert (first.status, again.status, len(gateway.records)) == (202, 202, 1)
    assert again.json() == first.json() | {"duplicate": True}
    await gateway.call("POST", "/v1/events", headers | {"penstock-redelivery": "true"}, BODY)
    await gateway.call("POST", "/v1/events", as_caller(ce_type="t"), BODY)
    await gateway.call("POST", "/v1/events", as_caller(ce_type="t"), BODY)
    assert [DEDUP in dict(record.headers) for record in gateway.records] == [True, True, False, False]


async def test_a_header_of_this_name_from_outside_means_nothing(gateway: Gateway) -> None:
    await gateway.call("POST", "/webhooks/github", github_headers(BODY) | {DEDUP: "redelivery"}, BODY)

    assert states(gateway) == ["new"]
