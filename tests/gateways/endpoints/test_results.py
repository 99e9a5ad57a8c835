"""GET /v1/results/{id}: who may read what."""

import json
from typing import Literal

import msgspec
import pytest

from contracts.codec import encode_json
from contracts.envelope import result_id
from contracts.errors import Busy, LogUnavailable, UnknownResult
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    EXPIRED_TYPE,
    RESULT_TYPE,
    InferenceResult,
    OutcomeMarker,
    Provenance,
    Usage,
)
from gateways.egress.outcomes import Outcome
from tests.gateways.driver import OTHER_API_KEY, Gateway, as_caller

RESULT = InferenceResult(
    event_id="e1",
    source="crm",
    type="t",
    output={"summary": "text"},
    provenance=Provenance(provider="local", model="m", route="r", prompt_digest="d"),
    usage=Usage(1, 2),
    attempts=1,
    completed_at="2026-01-01T00:00:00.000Z",
    duration_s=1.0,
)


def outcome(
    kind: str = RESULT_TYPE, value: bytes = encode_json(RESULT), source: str = "crm", owner: str = "crm"
) -> Outcome:
    return Outcome(result_id(source, "e1"), "e1", source, owner, kind, value, 0)


async def _accepted_url(gateway: Gateway, event_id: str = "e1") -> str:
    answer = await gateway.call("POST", "/v1/events", as_caller(ce_type="t", ce_id=event_id), b"{}")
    url: str = answer.json()["status_url"]
    return url


async def test_without_an_outcome_the_answer_is_pending_with_retry_after(gateway: Gateway) -> None:
    answer = await gateway.call("GET", await _accepted_url(gateway))

    assert answer.status == 202
    assert answer.json() == {"id": "e1", "source": "crm", "status": "pending"}
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["cache-control"] == "no-store"


async def test_the_ticket_alone_reads_the_result(gateway: Gateway) -> None:
    url = await _accepted_url(gateway)
    gateway.results.outcomes["crm", "e1"] = outcome()

    answer = await gateway.call("GET", url)

    assert answer.status == 200
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["result"] == json.loads(msgspec.json.encode(RESULT))


async def test_the_key_that_sent_the_event_reads_the_result(gateway: Gateway) -> None:
    await _accepted_url(gateway)
    gateway.results.outcomes["crm", "e1"] = outcome()

    assert (await gateway.call("GET", "/v1/results/e1", as_caller())).status == 200
    assert (await gateway.call("GET", "/v1/results/e1?source=crm", as_caller())).status == 200
    assert (await gateway.call("GET", "/v1/results/e1?source=other", as_caller())).status == 404


@pytest.mark.parametrize("status", ["dead_letter", "expired"])
async def test_bad_ends_are_told_with_their_reason(gateway: Gateway, status: Literal["dead_letter", "expired"]) -> None:
    url = await _accepted_url(gateway)
    marker = OutcomeMarker(
        event_id="e1",
        source="crm",
        type="t",
        status=status,
        reason="slug",
        attempts=3,
        completed_at="now",
        message="why",
    )
    kind = EXPIRED_TYPE if status == "expired" else DEAD_LETTER_MARKER_TYPE
    gateway.results.outcomes["crm", "e1"] = outcome(kind, encode_json(marker))

    body = (await gateway.call("GET", url)).json()

    assert (body["status"], body["reason"], body["attempts"], body["message"]) == (status, "slug", 3, "why")


async def test_unknown_foreign_and_forged_look_the_same(gateway: Gateway) -> None:
    url = await _accepted_url(gateway)
    other_url = await _accepted_url(gateway, "e2")
    ticket = url.partition("ticket=")[2]
    gateway.results.outcomes["crm", "e1"] = outcome()

    answers = [
        await gateway.call("GET", "/v1/results/nothing", as_caller()),
        await gateway.call("GET", "/v1/results/e1", as_caller(OTHER_API_KEY)),
        await gateway.call("GET", url + "x"),
        await gateway.call("GET", url.replace("ticket=W", "ticket=X").replace("ticket=.", "ticket=")),
        await gateway.call("GET", f"/v1/results/e2?ticket={ticket}"),
        await gateway.call("GET", other_url.replace("/e2", "/e1")),
        await gateway.call("GET", "/v1/results/e1?ticket=" + "x" * 4000),
        await gateway.call("GET", "/v1/results/%ff?ticket=x"),
    ]

    assert {answer.status for answer in answers} == {404}
    assert len({answer.body for answer in answers}) == 1


async def test_an_outcome_of_another_owner_is_neither_the_keys_nor_the_tickets(gateway: Gateway) -> None:
    url = await _accepted_url(gateway)
    gateway.results.outcomes["crm", "e1"] = outcome(owner="billing")

    assert (await gateway.call("GET", "/v1/results/e1", as_caller())).json()["status"] == "pending"
    assert (await gateway.call("GET", url)).json()["status"] == "pending"


async def test_without_ticket_and_key_the_answer_is_401(gateway: Gateway) -> None:
    answer = await gateway.call("GET", "/v1/results/e1")

    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("error", "status"), [(Busy("x"), 503), (LogUnavailable("x"), 503), (UnknownResult("no such result"), 404)]
)
async def test_errors_of_the_view_become_answers(gateway: Gateway, error: Exception, status: int) -> None:
    url = await _accepted_url(gateway)
    gateway.results.error = error

    answer = await gateway.call("GET", url)

    assert answer.status == status
    assert ("retry-after" in answer.headers) is (status == 503)


async def test_ids_with_any_characters_come_back_through_the_url(gateway: Gateway) -> None:
    url = await _accepted_url(gateway, "a%2Fb%20c%C3%BC%25")

    answer = await gateway.call("GET", url)

    assert answer.json()["id"] == "a/b c\u00fc%"


@pytest.mark.parametrize("query", ["&".join(f"a{n}=1" for n in range(20)), "ticket=%ff", "ticket=\u00fc"])
async def test_an_odd_query_is_a_client_error(gateway: Gateway, query: str) -> None:
    assert 400 <= (await gateway.call("GET", f"/v1/results/e1?{query}")).status < 500


async def test_head_has_the_headers_and_no_body(gateway: Gateway) -> None:
    url = await _accepted_url(gateway)

    answer = await gateway.call("HEAD", url)

    assert (answer.status, answer.body) == (202, b"")
    assert int(answer.headers["content-length"]) > 0


async def test_a_webhook_sender_reads_its_result_by_ticket(gateway: Gateway) -> None:
    url = (await gateway.webhook()).json()["status_url"]

    answer = await gateway.call("GET", url)

    assert answer.json() == {"id": "delivery-1", "source": "github", "status": "pending"}
