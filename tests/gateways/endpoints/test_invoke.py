"""POST /v1/invoke: waiting for the outcome, and every way in which the answer is 202 instead."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from contracts.codec import Position, decode_event, encode_json
from contracts.envelope import Event, result_id
from contracts.errors import Busy, LogUnavailable
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    EXPIRED_TYPE,
    RESULT_TYPE,
    OutcomeMarker,
)
from contracts.settings import Settings
from gateways.egress.outcomes import Accepted, Outcome
from gateways.egress.waiting import Waiters
from tests.gateways.driver import API_KEY, CONFIGURATION, OTHER_API_KEY, Answer, Gateway, as_caller
from tests.gateways.endpoints.test_results import RESULT
from tests.support import eventually_async

SYNC = {"ack_timeout_s": 20, "sync_budget_s": 20, "sync_margin_s": 0.5, "sync_max_waiting": 3}


@pytest.fixture
async def gateway(secret_environment: None) -> AsyncIterator[Gateway]:  # noqa: ARG001 - a fixture cannot use usefixtures
    gateway = Gateway(Settings.model_validate(CONFIGURATION | {"gateway": CONFIGURATION["gateway"] | SYNC}))
    await gateway.producer.start()
    yield gateway
    gateway.parts.waiters.end()


def outcome(event: Event, kind: str = RESULT_TYPE, value: bytes = encode_json(RESULT), owner: str = "crm") -> Outcome:
    return Outcome(result_id(event.source, event.id), event.id, event.source, owner, kind, value, 0)


def marker(status: Any, reason: str) -> bytes:
    return encode_json(
        OutcomeMarker(
            event_id="e1",
            source="crm",
            type="t",
            status=status,
            reason=reason,
            attempts=3,
            completed_at="now",
            message="why",
        )
    )


def begin(gateway: Gateway, key: str = API_KEY, path: str = "/v1/invoke", **headers: str) -> "asyncio.Task[Answer]":
    call = gateway.call("POST", path, as_caller(key, **({"ce_type": "t"} | headers)), b"{}")
    return asyncio.create_task(call)


async def waits(gateway: Gateway, count: int = 1) -> Event:
    """Return the newest event once so many requests wait."""
    waiters = gateway.parts.waiters
    await eventually_async(lambda: sum(map(len, waiters._waiting.values())) == count and len(gateway.records) > 0)
    record = gateway.records[-1]
    return decode_event(record.key, record.value, record.headers)


async def test_the_answer_is_the_result(gateway: Gateway) -> None:
    answering = begin(gateway)
    event = await waits(gateway)
    gateway.parts.waiters.offer(outcome(event))
    answer = await answering

    assert answer.status == 200
    assert answer.json() == {
        "id": event.id,
        "source": "crm",
        "status": "succeeded",
        "result": json.loads(encode_json(RESULT)),
    }
    assert (await gateway.call("GET", answer.headers["content-location"])).status == 202, "the place of the result"


async def test_the_event_is_interactive_and_says_where_to_reply(gateway: Gateway) -> None:
    answering = begin(gateway)
    event = await waits(gateway)
    answering.cancel()

    assert gateway.records[0].topic.endswith(".interactive.v1")
    assert (event.extensions["delivery"], event.extensions["replyto"]) == ("sync", "3." + "ab" * 16)


async def test_who_may_not_use_the_interactive_lane_gets_its_own(gateway: Gateway) -> None:
    answer = await begin(gateway, OTHER_API_KEY, ce_source="shop/1", prefer="wait=0")

    assert answer.status == 202
    assert gateway.records[0].topic.endswith(".bulk.v1")


async def test_without_a_reader_of_replies_the_outcome_comes_from_the_result_topic(gateway: Gateway) -> None:
    gateway.replies.address = None
    answering = begin(gateway)
    event = await waits(gateway)

    assert "replyto" not in event.extensions
    gateway.parts.waiters.offer(outcome(event))
    assert (await answering).status == 200


@pytest.mark.parametrize("name", ["replyto", "owner"])
@pytest.mark.parametrize("path", ["/v1/invoke", "/v1/events"])
async def test_a_caller_cannot_say_where_to_reply(gateway: Gateway, name: str, path: str) -> None:
    assert (await begin(gateway, path=path, **{f"ce_{name}": "0." + "ab" * 16})).status == 400
    structured = {"specversion": "1.0", "id": "e", "source": "crm", "type": "t", name: "0." + "ab" * 16}
    headers = as_caller(content_type="application/cloudevents+json")
    assert (await gateway.call("POST", path, headers, json.dumps(structured).encode())).status == 400
    assert gateway.records == []


@pytest.mark.parametrize(
    ("kind", "status", "reason", "expected"),
    [
        (DEAD_LETTER_MARKER_TYPE, "dead_letter", "content_blocked", 422),
        (DEAD_LETTER_MARKER_TYPE, "dead_letter", "no_route", 422),
        (DEAD_LETTER_MARKER_TYPE, "dead_letter", "output_invalid", 502),
        (DEAD_LETTER_MARKER_TYPE, "dead_letter", "attempts_exhausted", 502),
        (DEAD_LETTER_MARKER_TYPE, "dead_letter", "internal", 502),
        (EXPIRED_TYPE, "expired", "deadline_exceeded", 504),
    ],
)
async def test_a_bad_end_is_a_problem(gateway: Gateway, kind: str, status: str, reason: str, expected: int) -> None:
    answering = begin(gateway, ce_id="e1")
    event = await waits(gateway)
    gateway.parts.waiters.offer(outcome(event, kind, marker(status, reason)))
    answer = await answering

    assert answer.status == expected
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json().items() >= {"id": "e1", "outcome": status, "reason": reason, "attempts": 3}.items()


async def test_when_the_budget_runs_out_the_answer_is_202_with_the_place_of_the_result(gateway: Gateway) -> None:
    answer = await begin(gateway, prefer="wait=0")
    place = answer.headers["location"]

    assert answer.status == 202
    assert answer.headers["preference-applied"] == "wait=0"
    assert int(answer.headers["retry-after"]) >= 1
    gateway.results.outcomes["crm", answer.json()["id"]] = outcome(decode_event(None, b"", gateway.records[0].headers))
    assert (await gateway.call("GET", place)).json()["status"] == "succeeded"


async def test_a_reply_that_was_lost_is_looked_up_at_the_end_of_the_budget(gateway: Gateway) -> None:
    gateway.producer.hold_acks()
    answering = begin(gateway, ce_id="e1", prefer="wait=0")
    await eventually_async(lambda: gateway.producer._held)
    gateway.results.outcomes["crm", "e1"] = outcome(Event(id="e1", source="crm", type="t", data=b""))
    gateway.producer.release_acks()

    assert (await answering).status == 200


async def test_nothing_is_waited_for_when_the_caller_prefers_so(gateway: Gateway) -> None:
    answer = await begin(gateway, prefer="respond-async")

    assert (answer.status, answer.headers["preference-applied"]) == (202, "respond-async")


async def test_the_same_id_again_joins_what_is_under_way(gateway: Gateway) -> None:
    first = begin(gateway, idempotency_key="order-1")
    event = await waits(gateway)
    second = begin(gateway, idempotency_key="order-1")
    await waits(gateway, 2)
    gateway.parts.waiters.offer(outcome(event))

    assert (await first).body == (await second).body
    assert len(gateway.records) == 1


def post(gateway: Gateway, body: bytes, path: str = "/v1/invoke", **headers: str) -> "asyncio.Task[Answer]":
    return asyncio.create_task(gateway.call("POST", path, as_caller(**({"ce_type": "t"} | headers)), body))


@pytest.mark.parametrize("path", ["/v1/invoke", "/v1/events", "/v1/stream"])
@pytest.mark.parametrize("has_ended", [False, True])
async def test_the_same_id_with_another_body_gets_nobody_elses_answer(
    gateway: Gateway, path: str, *, has_ended: bool
) -> None:
    first = post(gateway, b'{"a":1}', path, idempotency_key="order-1", prefer="wait=0")
    await eventually_async(lambda: len(gateway.records) == 1)
    if has_ended:
        event = decode_event(None, b"", gateway.records[0].headers)
        gateway.results.outcomes["crm", "order-1"] = outcome(event)

    answer = await post(gateway, b'{"a":2}', idempotency_key="order-1")

    assert (answer.status, answer.json()["reason"]) == (422, "id_reused")
    assert len(gateway.records) == 1
    assert not gateway.parts.waiters._waiting
    first.cancel()


async def test_two_bodies_under_one_id_at_one_moment_are_one_event(gateway: Gateway) -> None:
    gateway.producer.hold_acks()
    calls = [post(gateway, b'{"a":%d}' % number, idempotency_key="order-1", prefer="wait=0") for number in range(2)]
    await eventually_async(lambda: len(gateway.producer._held) > 0)
    gateway.producer.release_acks()

    assert sorted([(await call).status for call in calls]) == [202, 422]
    assert len(gateway.records) == 1


@pytest.mark.parametrize("body", [b'{"a":1}', b'{"a":2}'])
async def test_an_id_of_another_key_is_another_event_whatever_its_body(gateway: Gateway, body: bytes) -> None:
    named = {"idempotency_key": "order-1", "prefer": "wait=0", "ce_source": "crm", "ce_type": "t"}
    callers = gateway.parts.callers
    callers._keys = [key._replace(caller=key.caller._replace(sources=("crm",))) for key in callers._keys]
    await gateway.call("POST", "/v1/invoke", as_caller(**named), b'{"a":1}')
    gateway.results.outcomes["crm", "order-1"] = outcome(decode_event(None, b"", gateway.records[0].headers))

    answer = await gateway.call("POST", "/v1/invoke", as_caller(OTHER_API_KEY, **named), body)

    assert (answer.status, len(gateway.records)) == (202, 2)


async def test_of_two_bodies_that_are_known_under_one_id_each_joins_its_own(gateway: Gateway) -> None:
    """`POST /v1/events` takes both, each as an event of its own."""
    for number in (1, 2):
        await post(gateway, b'{"a":%d}' % number, "/v1/events", idempotency_key="order-1")
    places = [await post(gateway, b'{"a":%d}' % n, idempotency_key="order-1", prefer="wait=0") for n in (1, 2, 3)]

    tickets = [gateway.parts.tickets.read(one.headers["location"].partition("ticket=")[2]) for one in places[:2]]
    assert [ticket.position.offset for ticket in tickets] == [0, 1]
    assert [one.status for one in places] == [202, 202, 422]


async def test_what_nobody_knows_to_be_the_same_is_an_event_of_its_own(gateway: Gateway) -> None:
    """Its record is gone: whether it is repeated is told by the worker."""
    await post(gateway, b'{"a":1}', idempotency_key="order-1", prefer="wait=0")
    gateway.results.noted = {name: one._replace(digest=b"") for name, one in gateway.results.noted.items()}
    gateway.parts.claims._drop(next(iter(gateway.parts.claims._acked.values())), "expired")

    answer = await post(gateway, b'{"a":2}', idempotency_key="order-1", prefer="wait=0")

    assert (answer.status, len(gateway.records)) == (202, 2)


@pytest.mark.parametrize("error", [Busy("not read up"), LogUnavailable("nobody lets us read that")])
async def test_what_this_gateway_has_accepted_itself_is_joined_without_its_record(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """An outcome may have named another place for it, as of an event that was parked."""
    await post(gateway, b'{"a":1}', idempotency_key="order-1", prefer="wait=0")
    gateway.results.outcomes["crm", "order-1"] = outcome(decode_event(None, b"", gateway.records[0].headers))
    noted = gateway.results.noted
    gateway.results.noted = {
        name: Accepted(one.source, Position("p.retries.v1", 0, 0, one.position.timestamp_ms + 1))
        for name, one in noted.items()
    }

    async def refuse(*_args: object, **_more: object) -> Any:
        raise error

    monkeypatch.setattr(gateway.results, "digest", None)
    joined = await post(gateway, b'{"a":1}', idempotency_key="order-1")
    monkeypatch.setattr(gateway.results, "accepted", refuse)
    joined_unseen = await post(gateway, b'{"a":1}', idempotency_key="order-1")

    assert (joined.status, joined_unseen.status, len(gateway.records)) == (200, 200, 1)


async def test_two_equal_requests_at_one_moment_make_one_event(gateway: Gateway) -> None:
    gateway.producer.hold_acks()
    calls = [begin(gateway, idempotency_key="order-1") for _ in range(3)]
    await eventually_async(lambda: len(gateway.producer._held) > 0)
    gateway.producer.release_acks()
    event = await waits(gateway, 3)
    await eventually_async(lambda: not gateway.parts.waiters._turns)
    gateway.parts.waiters.offer(outcome(event))

    assert {(await call).status for call in calls} == {200}
    assert len(gateway.records) == 1


async def test_when_the_first_of_two_equal_requests_fails_the_second_makes_the_event(gateway: Gateway) -> None:
    gateway.producer.fail_next(LogUnavailable("no ack"))
    calls = [begin(gateway, idempotency_key="order-1", prefer="wait=0") for _ in range(2)]

    assert sorted([(await call).status for call in calls]) == [202, 503]
    assert len(gateway.records) == 1


async def test_the_same_id_afterwards_gets_the_same_outcome(gateway: Gateway) -> None:
    await begin(gateway, idempotency_key="order-1", prefer="wait=0")
    event = decode_event(None, b"", gateway.records[0].headers)
    gateway.results.outcomes["crm", "order-1"] = outcome(event)

    assert (await begin(gateway, idempotency_key="order-1")).json()["status"] == "succeeded"
    assert len(gateway.records) == 1


async def test_an_outcome_of_another_owner_wakes_nobody(gateway: Gateway) -> None:
    answering = begin(gateway, ce_id="e1")
    event = await waits(gateway)
    gateway.parts.waiters.offer(outcome(event, owner="billing"))
    gateway.parts.waiters.offer(outcome(event, value=b'{"mine":1}'))

    assert (await answering).json()["result"] == {"mine": 1}


async def test_beyond_the_limit_nothing_is_accepted(gateway: Gateway) -> None:
    calls = [begin(gateway) for _ in range(3)]
    await waits(gateway, 3)
    answer = await begin(gateway)

    assert (answer.status, answer.json()["reason"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) >= 1
    assert len(gateway.records) == 3
    gateway.parts.waiters.end()
    assert {(await call).status for call in calls} == {202}


async def test_a_client_that_hangs_up_gives_back_its_place_and_cancels_nothing(gateway: Gateway) -> None:
    hangs_up = asyncio.Event()
    headers = as_caller(ce_type="t")
    answering = asyncio.create_task(gateway.call("POST", "/v1/invoke", headers, b"{}", hangs_up=hangs_up))
    await waits(gateway)
    hangs_up.set()
    await answering

    assert gateway.parts.waiters._places == 0
    assert len(gateway.records) == 1


async def test_what_is_not_confirmed_is_503_and_not_waited_for(gateway: Gateway) -> None:
    gateway.producer.fail_next(LogUnavailable("no ack"))
    answer = await begin(gateway, ce_id="e1")

    assert answer.status == 503
    assert result_id("crm", "e1") not in gateway.parts.waiters.forecast


async def test_at_the_end_of_the_process_who_waits_gets_202(gateway: Gateway) -> None:
    answering = begin(gateway)
    await waits(gateway)
    gateway.parts.waiters.end()

    assert (await answering).status == 202
    assert (await begin(gateway)).status == 202


async def test_a_budget_that_cannot_be_kept_is_answered_at_once(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Any, float]] = []

    def will_miss(kind: Any, left_s: float) -> bool:
        asked.append((kind, left_s))
        return True

    monkeypatch.setattr(gateway.parts.waiters.forecast, "will_miss", will_miss)
    answer = await begin(gateway, prefer="wait=10")

    assert answer.status == 202
    assert len(gateway.records) == 1
    assert [kind for kind, _ in asked] == [("interactive", "t")]
    assert 9 < asked[0][1] <= 10


async def test_the_long_poll_wakes_at_the_outcome(gateway: Gateway) -> None:
    url = (await begin(gateway, ce_id="e1", prefer="wait=0")).headers["location"]
    polling = asyncio.create_task(gateway.call("GET", url, {"prefer": "wait=10"}))
    event = await waits(gateway)
    gateway.parts.waiters.offer(outcome(event))
    answer = await polling

    assert (answer.status, answer.headers["preference-applied"]) == (200, "wait=10")


async def test_a_long_poll_ends_with_pending(gateway: Gateway) -> None:
    url = (await begin(gateway, ce_id="e1", prefer="wait=0")).headers["location"]

    assert (await gateway.call("GET", url, {"prefer": "wait=0"})).status == 202
    waiting = [begin(gateway) for _ in range(3)]
    await waits(gateway, 3)
    assert (await gateway.call("GET", url, {"prefer": "wait=10"})).status == 202, "no place left to wait in"
    gateway.parts.waiters.end()
    await asyncio.gather(*waiting)


async def test_a_long_poll_by_key_gets_only_its_own(gateway: Gateway) -> None:
    await begin(gateway, ce_id="e1", prefer="wait=0")
    polling = asyncio.create_task(gateway.call("GET", "/v1/results/e1", as_caller(prefer="wait=10")))
    event = await waits(gateway)
    gateway.parts.waiters.offer(outcome(event, owner="billing"))
    gateway.parts.waiters.offer(outcome(event, value=b'{"mine":1}'))

    assert (await polling).json()["result"] == {"mine": 1}


@pytest.mark.parametrize("path", ["/v1/invoke", "/v1/results"])
@pytest.mark.parametrize("is_repetition", [True, False])
async def test_who_is_woken_by_another_event_under_the_id_gets_what_the_view_says(
    gateway: Gateway, path: str, is_repetition: bool
) -> None:
    """It is its outcome only where its event repeats that one."""
    await begin(gateway, ce_id="first", prefer="wait=0")
    if path == "/v1/invoke":
        answering = begin(gateway, ce_id="e1")
    else:
        url = (await begin(gateway, ce_id="e1", prefer="wait=0")).headers["location"]
        answering = asyncio.create_task(gateway.call("GET", url, {"prefer": "wait=10"}))
    event = await waits(gateway)
    position = gateway.results.noted["crm", "e1"].position
    assert position.offset > 0
    others = outcome(event)._replace(answers=position._replace(offset=0))
    if is_repetition:
        gateway.results.outcomes["crm", "e1"] = others
    gateway.parts.waiters.offer(others)

    assert (await answering).status == (200 if is_repetition else 202)


def test_an_outcome_that_nobody_waits_for_costs_no_loop(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    waiters: Waiters = gateway.parts.waiters
    taken: list[Callable[..., Any]] = []
    monkeypatch.setattr(waiters, "_take", taken.append)
    waiters.offer(outcome(Event(id="other", source="crm", type="t", data=b"")))

    assert taken == []


async def test_a_repetition_that_only_the_claims_know_is_nothing_to_expect_an_outcome_of(gateway: Gateway) -> None:
    await begin(gateway, idempotency_key="order-1", prefer="wait=0")
    gateway.results.noted.clear()
    gateway.parts.waiters.forecast.end(result_id("crm", "order-1"))

    again = await begin(gateway, idempotency_key="order-1", prefer="wait=0")

    assert (again.status, len(gateway.records)) == (202, 1)
    assert result_id("crm", "order-1") not in gateway.parts.waiters.forecast


async def test_who_waits_does_so_without_the_body_in_hand(gateway: Gateway) -> None:
    body = b'{"to be": "found again"}'
    calling = asyncio.create_task(gateway.call("POST", "/v1/invoke", as_caller(ce_type="t"), body))
    await eventually_async(lambda: gateway.records and not gateway.parts.admission.held_bytes)
    gc.collect()
    held = [one for one in gc.get_objects() if isinstance(one, Event) and one.data == body]
    gateway.parts.waiters.end()

    assert (await calling).status == 202
    assert held == []
