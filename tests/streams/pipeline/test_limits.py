"""Failures that many events share: retry budget, breaker, gates; and that they cost the others nothing."""

import asyncio
import random
from typing import Any

import pytest

from contracts.codec import Position, dead_letter, encode_event
from contracts.envelope import Event
from contracts.errors import Throttled
from contracts.metrics import REGISTRY
from contracts.payloads import RESULT_TYPE, InferenceAnswer, InferenceRequest
from streams.engine.item import TP, State
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from tests.streams.pipeline.support import EVENTS, PARTITION, SCHEMA, Bench, event, headers_of, ids_of, make_settings
from tests.streams.virtual_clock import now_at, settled

LONG = {"deadline_s": 3600}
PRICE = {"price": {"input_usd": 1000.0, "output_usd": 1000.0}}


def keyed(count: int, first: int = 0) -> list[Event]:
    return [event(n, extensions={"partitionkey": f"k{n}"}) for n in range(first, first + count)]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"penstock_{name}", labels) or 0.0


async def ended(bench: Bench) -> None:
    await bench.engine.drain(1)
    await bench.engine.close()


async def test_a_route_whose_every_event_is_refused_pauses_and_does_not_fill_the_dead_letters() -> None:
    bench = await Bench([{"error": "invalid_request"}], make_settings(LONG)).start()
    await bench.send(*keyed(200))
    await asyncio.sleep(0.5)

    assert len(bench.letters) == 19
    assert sample("route_paused", route="r", reason="dead_letter_ratio") == 1

    await asyncio.sleep(600)

    # One probe every 30 s: a backlog of poison does run off.
    assert 20 <= len(bench.letters) - 19 <= 30
    await ended(bench)


async def test_a_paused_route_goes_on_by_itself_when_the_model_takes_its_events_again() -> None:
    bench = await Bench([{"times": 60, "error": "invalid_request"}], make_settings(LONG), in_flight=8).start()
    await bench.send(*keyed(100))
    await bench.idle()

    assert len(bench.terminals) == 100
    assert len(bench.letters) < 60
    assert sample("route_paused", route="r", reason="dead_letter_ratio") == 0


async def test_a_broken_template_pauses_its_route_as_well() -> None:
    bench = await Bench(settings=make_settings({**LONG, "prompt": {"user": "{{ data.missing }}"}})).start()
    await bench.send(*keyed(100))
    await asyncio.sleep(0.5)

    assert (len(bench.letters), bench.fake.calls) == (19, {})
    await ended(bench)


async def test_records_that_are_no_events_pause_nothing() -> None:
    bench = await Bench(settings=make_settings({**LONG, "prompt": {"user": "{{ data.n }}"}})).start()
    await bench.send(*(event(n, data=b"no json", extensions={}) for n in range(50)))
    await bench.idle()

    assert len(bench.letters) == 50


async def test_events_of_no_route_pause_nothing() -> None:
    """There is no route to hold; docs/adr/0006."""
    bench = await Bench(settings=make_settings({**LONG, "match": {"type": "other"}})).start()
    await bench.send(*keyed(50))
    await bench.send(event(99, type="other"))
    await bench.idle()

    assert {dead_letter(letter.headers).reason for letter in bench.letters} == {"no_route"}
    assert (len(bench.letters), bench.fake.calls) == (50, {"e99": 1})
    assert bench.pipeline._plans["r"].guard.breaker.gate.reason is None


async def test_a_route_without_a_limit_buries_everything() -> None:
    settings = make_settings({**LONG, "dead_letter_limit": {"ratio": 1}})
    bench = await Bench([{"error": "invalid_request"}], settings).start()
    await bench.send(*keyed(200))
    await bench.idle()

    assert len(bench.letters) == 200


async def test_one_route_that_is_paused_for_its_dead_letters_leaves_others_of_its_model_alone() -> None:
    settings = make_settings({**LONG, "match": {"type": "bad"}}, {"name": "good"})
    bench = await Bench([{"match": "poison", "error": "invalid_request"}], settings).start()
    await bench.send(*(event(n, b"poison", type="bad", extensions={}) for n in range(50)))
    await settled()
    await bench.send(*keyed(20, first=50))
    await asyncio.sleep(0.5)

    assert len(bench.terminals) == 19 + 20
    await ended(bench)


@pytest.mark.parametrize("fault", [{"error": "invalid_request"}, {"error": "provider_timeout", "times_per_event": 1}])
async def test_one_bad_event_in_five_costs_the_others_nothing(fault: dict[str, Any]) -> None:
    """Poison ends at once, and what fails rests outside the budget of calls."""

    async def took_s(script: list[dict[str, Any]], events: list[Event]) -> float:
        bench = await Bench([*script, {"latency_s": 1.0}], make_settings(LONG), in_flight=16).start()
        start_at = now_at()
        await bench.send(*events)
        good = {one.id for one in events if one.data == b"good"}
        await bench.idle()
        assert good <= set(ids_of(bench.terminals))
        return (now_at() - start_at).total_seconds()

    def mixed(bad: bytes) -> list[Event]:
        return [event(n, bad if n % 5 == 0 else b"good", extensions={"partitionkey": f"k{n}"}) for n in range(500)]

    without = await took_s([], [one for one in mixed(b"bad") if one.data == b"good"])
    seconds = await took_s([{"match": "bad", **fault}], mixed(b"bad"))
    # What failed once is a hundred more calls.
    calls = 400 if fault["error"] == "invalid_request" else 500

    assert without / 400 * calls / seconds >= 0.95


async def test_retries_beyond_the_budget_wait_and_are_not_dead_lettered() -> None:
    settings = make_settings(
        {**LONG, "retry": {"base_s": 0.01, "max_s": 0.02}},
        model={"retry_budget": {"share": 0.0, "min_per_s": 1.0}},
    )
    before = sample("fm_retries_deferred_total", route="r")
    bench = await Bench([{"times_per_event": 1, "error": "throttled"}], settings, in_flight=100).start()
    await bench.send(*keyed(100))
    await asyncio.sleep(5)

    assert len(bench.terminals) == 10
    assert {(item.state, item.reason) for item in bench.engine.held} == {(State.RESTING, "retry_budget")}
    assert sample("fm_retries_deferred_total", route="r") - before == 90

    await asyncio.sleep(60)

    assert 60 <= len(bench.terminals) <= 80

    await bench.idle()

    assert (len(bench.terminals), bench.letters) == (100, [])


async def test_an_event_that_waits_for_the_budget_still_expires() -> None:
    settings = make_settings({"deadline_s": 30}, model={"retry_budget": {"share": 0.0, "min_per_s": 0.0}})
    bench = await Bench([{"error": "throttled"}], settings).start()
    await bench.send(*keyed(3))
    await bench.idle(within_s=40)

    assert len(bench.terminals) == 3


async def test_an_event_that_waits_for_the_budget_beyond_its_age_is_dead_lettered() -> None:
    retry = {"max_attempts": 100, "max_age_s": 20, "base_s": 0.1, "max_s": 0.2}
    budget = {"retry_budget": {"share": 0.0, "min_per_s": 0.0}}
    bench = await Bench([{"error": "throttled"}], make_settings({**LONG, "retry": retry}, model=budget)).start()
    await bench.send(*keyed(5))
    await asyncio.sleep(22)
    whys = [dead_letter(letter.headers) for letter in bench.letters]

    assert {(why.reason, why.disposition) for why in whys} == {("attempts_exhausted", "exhausted")}
    assert len(whys) == 5
    assert sum(bench.fake.calls.values()) <= 5 + 2
    assert all("max_age_s" in why.message and why.failures[-1].reason == "throttled" for why in whys)


async def test_what_waits_for_the_budget_is_not_too_old_while_the_provider_is_out() -> None:
    retry, budget = {"max_age_s": 60, "long_waits": "hold"}, {"retry_budget": {"share": 0.2, "min_per_s": 1.0}}
    settings = make_settings({**LONG, "deadline_s": 7200, "retry": retry}, model=budget)
    bench = await Bench([{"error": "provider_unavailable", "latency_s": 0.05}], settings, in_flight=900).start()
    sending = asyncio.ensure_future(bench.send(*keyed(900)))
    await asyncio.sleep(120)

    assert bench.letters == []
    sending.cancel()
    await bench.engine.drain(1)
    await bench.engine.close()


async def test_a_route_most_of_whose_events_wait_for_the_budget_beyond_their_age_pauses() -> None:
    retry = {"max_attempts": 100, "max_age_s": 20}
    budget = {"retry_budget": {"share": 0.0, "min_per_s": 0.0}}
    bench = await Bench([{"error": "throttled"}], make_settings({**LONG, "retry": retry}, model=budget)).start()
    await bench.send(*keyed(200))
    await asyncio.sleep(60)

    assert sample("route_paused", route="r", reason="dead_letter_ratio") == 1
    assert len(bench.letters) < 30
    await ended(bench)


@pytest.mark.parametrize("refused", [0.5, 0.7])
async def test_steady_throttling_slows_down_and_dead_letters_nothing(refused: float) -> None:
    """Refusals cost nothing: there is no reason to give an event up for them before its deadline."""
    settings = make_settings({"deadline_s": 600})
    dice = random.Random(1)  # noqa: S311 - seeded
    bench = Bench([{"latency_s": 0.2}], settings, in_flight=64)
    answer = bench.fake.invoke

    async def throttle(request: InferenceRequest) -> InferenceAnswer:
        if dice.random() < refused:
            raise Throttled("429")  # noqa: EM101 - what a server says
        return await answer(request)

    bench.fake.invoke = throttle  # type: ignore[method-assign]
    await bench.start()
    for one in keyed(600):
        await bench.send(one)
        await asyncio.sleep(0.05)
    await bench.idle()

    assert (len(bench.terminals), bench.letters, bench.crashes) == (600, [], [])
    assert {headers_of(one)["ce_type"].decode() for one in bench.terminals} == {RESULT_TYPE}


async def test_an_event_at_a_closed_gate_holds_no_slot() -> None:
    """Its call has not begun, so nothing but the rest itself gives the slot back."""
    settings = make_settings({**LONG, "match": {"type": "bad"}}, {"name": "good", "model": "m2"})
    bench = await Bench([{"match": "bad", "error": "access_denied"}], settings, in_flight=1).start()
    await bench.send(*(event(n, b"bad", type="bad", extensions={}) for n in range(5)))
    await settled()
    await bench.send(event(9, b"good"))
    await asyncio.sleep(0.5)

    assert ids_of(bench.terminals) == ["e9"]
    await ended(bench)


async def test_no_retry_and_no_probe_is_made_under_a_stale_lease() -> None:
    is_valid = True
    bench = Bench([{"error": "throttled"}], make_settings({**LONG, "retry": {"max_attempts": 100}}))
    bench.tenure = Tenure(1, lambda: is_valid)
    await bench.start()
    await bench.send(event(0))
    await settled()
    is_valid = False
    await asyncio.sleep(120)

    assert sum(bench.fake.calls.values()) == 1

    is_valid = True
    await asyncio.sleep(120)

    assert sum(bench.fake.calls.values()) > 1
    await ended(bench)


async def given_up(bench: Bench, one: Event, after_s: float) -> None:
    """Let a worker give its partition up while a call runs, and take it again after some time."""
    stamp_ms = int(now_at().timestamp() * 1000)
    await bench.start()
    await bench.put(one.key, one.data, encode_event(one), timestamp_ms=stamp_ms)
    await settled()
    await bench.engine.drain(0.1)
    await bench.engine.close()
    await asyncio.sleep(after_s)
    bench.tenure = Tenure(2)
    bench.engine.prepare(bench.tenure)
    bench.engine.begin(bench.tenure, {TP(EVENTS, PARTITION): Ledger(0)})
    position = Position(EVENTS, PARTITION, 0, stamp_ms)
    assert await bench.engine.submit(bench.pipeline.item(position, one.key, one.data, encode_event(one), "standard"), 2)
    # The call of the first tenure goes on, and the chain waits for it.
    await asyncio.sleep(10)
    await bench.idle()


async def test_a_paid_answer_that_was_kept_is_taken_also_behind_the_deadline() -> None:
    bench = Bench([{"latency_s": 5, "answer": "paid"}], make_settings({"deadline_s": 60}))
    await given_up(bench, event(0), after_s=120)

    assert (bench.result().output, bench.result().attempts, bench.fake.calls) == ("paid", 1, {"e0": 1})


async def test_an_answer_that_another_item_of_the_event_takes_over_is_booked_once() -> None:
    before = sample("fm_cost_usd_total", provider="fake", model="fake-1", basis="reported")
    bench = Bench([{"latency_s": 5}], make_settings(LONG, model=PRICE))
    await given_up(bench, event(0), after_s=1)
    cost = bench.result().cost_usd

    assert cost is not None
    assert cost > 0
    assert sample("fm_cost_usd_total", provider="fake", model="fake-1", basis="reported") - before == pytest.approx(
        cost
    )


async def test_a_doubtful_call_that_another_item_of_the_event_waits_for_is_booked_once() -> None:
    model = {"price": {"input_usd": 0.0, "output_usd": 1000.0}, "max_tokens": 100}
    settings = make_settings({**LONG, "order": "none"}, model=model)
    before = sample("fm_cost_usd_total", provider="fake", model="fake-1", basis="possibly_billed")
    bench = Bench([{"times": 1, "latency_s": 5, "error": "provider_timeout"}, {"answer": "ok"}], settings)
    await given_up(bench, event(0), after_s=1)

    # One call in doubt and one that answered; the longest answer costs 0.1 USD.
    assert (bench.result().output, bench.fake.calls) == ("ok", {"e0": 2})
    booked_usd = sample("fm_cost_usd_total", provider="fake", model="fake-1", basis="possibly_billed") - before
    assert booked_usd == pytest.approx(0.1)


async def test_a_kept_back_answer_that_breaks_its_schema_is_asked_for_again_from_the_start() -> None:
    settings = make_settings({**LONG, "output_schema": SCHEMA})
    bench = await Bench([{"times": 60, "answer": "no"}, {"answer": '{"n": 1}'}], settings, in_flight=30).start()
    await bench.send(*keyed(30))
    await bench.idle()

    assert len(bench.terminals) == 30
    assert all(dead_letter(letter.headers).reason == "output_invalid" for letter in bench.letters)
    assert len(bench.letters) < 22


async def test_a_null_value_is_null_in_its_dead_letter() -> None:
    bench = await Bench().start()
    await bench.put(b"k", None, [])
    await bench.idle()

    assert bench.letters[0].value is None
