"""Routes that batch: several events in one call, each with its own outcome, order and cost; on a virtual clock."""

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from contracts.codec import Position, dead_letter, decode_json, encode_event, format_time
from contracts.envelope import Event
from contracts.errors import AccessDenied, InvalidRequest
from contracts.metrics import REGISTRY
from contracts.payloads import InferenceAnswer, InferenceRequest, InferenceResult, Usage
from contracts.settings.models import FakeProvider
from streams.engine.gate import Pass
from streams.engine.item import TP
from streams.engine.ledger import Ledger
from streams.engine.tenure import Tenure
from streams.providers.fake import Fake
from streams.providers.limited import Limited
from tests.streams.pipeline.support import (
    EVENTS,
    PARTITION,
    SCHEMA,
    Bench,
    event,
    headers_of,
    ids_of,
    make_settings,
)
from tests.streams.virtual_clock import now_at, settled

PACK = {"order": "none", "output_schema": SCHEMA, "batch": {"kind": "pack", "max_events": 8, "max_wait_s": 0.1}}
INPUTS = {"order": "none", "batch": {"kind": "inputs", "max_events": 8, "max_wait_s": 0.1}}
PRICE = {"input_usd": 1.0, "output_usd": 10.0}


class Packed:
    """Answers a packed call with each event's own number, and an ordinary one likewise; counts events per call."""

    name = "packed"

    def __init__(self, usage: Usage | None = None) -> None:
        self.usage = usage or Usage(1001, 103)
        self.sizes: list[int] = []
        self.texts: list[list[str]] = []
        self.requests: list[InferenceRequest] = []
        self.reported = Usage()
        self.wrong: list[str] = []

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    def stream(self, request: InferenceRequest) -> Any:
        raise NotImplementedError

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the numbers, unless an event says that it is poison."""
        self.requests.append(request)
        text = request.messages[0].content
        if "answers" not in (request.output_schema or {}).get("properties", {}):
            self.sizes.append(1)
            return self._said(text, text)
        events = json.loads(text)["events"]
        self.sizes.append(len(events))
        self.texts.append([one["text"] for one in events])
        answers = [{"id": one["id"], "output": json.loads(one["text"])} for one in events]
        return self._said(text, json.dumps({"answers": [self._spoiled(one) for one in answers]}))

    def _said(self, prompt: str, text: str) -> InferenceAnswer:
        if "poison" in prompt:
            message = "the model refuses this"
            raise InvalidRequest(message)
        self.reported = Usage(
            self.reported.input_tokens + self.usage.input_tokens,
            self.reported.output_tokens + self.usage.output_tokens,
        )
        return InferenceAnswer(text=text, model="m", usage=self.usage)

    def _spoiled(self, one: dict[str, Any]) -> dict[str, Any]:
        name = str(one["output"]["n"])
        return {**one, "id": "lost"} if name in self.wrong else one


def numbers(count: int, **changes: Any) -> list[Any]:
    return [event(n, b'{"n": %d}' % n, **changes) for n in range(count)]


def results(bench: Bench) -> dict[str, InferenceResult]:
    found = (decode_json(record.value or b"", InferenceResult) for record in bench.terminals)
    return {result.event_id: result for result in found}


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_eight_events_of_a_packing_route_are_one_call_and_each_gets_its_own_answer() -> None:
    model = Packed()
    bench = await Bench(settings=make_settings(PACK), provider=model).run(*numbers(8))

    assert model.sizes == [8]
    assert {name: result.output for name, result in results(bench).items()} == {f"e{n}": {"n": n} for n in range(8)}


async def test_without_batching_each_event_is_a_call() -> None:
    model = Packed()
    await Bench(settings=make_settings({**PACK, "batch": {"kind": "none"}}), provider=model).run(*numbers(8))

    assert model.sizes == [1] * 8


async def test_the_usage_of_all_events_is_the_providers_report() -> None:
    model = Packed()
    settings = make_settings(PACK, model={"price": PRICE})
    found = results(await Bench(settings=settings, provider=model).run(*numbers(7)))

    assert sum(result.usage.input_tokens for result in found.values()) == model.reported.input_tokens == 1001
    assert sum(result.usage.output_tokens for result in found.values()) == model.reported.output_tokens == 103
    assert sum(result.cost_usd or 0 for result in found.values()) == pytest.approx((1001 + 10 * 103) / 1e6)


async def test_a_poison_event_among_eight_fails_alone() -> None:
    model = Packed()
    events = numbers(8)
    events[5] = event(5, b'{"n": "poison"}')
    bench = await Bench(settings=make_settings(PACK), provider=model).run(*events)

    assert [headers_of(letter)["ce_id"] for letter in bench.letters] == [b"e5"]
    assert sorted(ids_of(bench.terminals)) == [f"e{n}" for n in range(8)]
    assert model.sizes == [8, 4, 4, 2, 2, 1, 1]


async def test_an_answer_that_names_a_stranger_is_asked_again_in_smaller_calls_all_of_which_are_paid() -> None:
    model = Packed()
    model.wrong = ["3"]
    before = sample("penstock_fm_batch_splits_total", route="r", reason="unmatched")
    found = results(await Bench(settings=make_settings(PACK), provider=model).run(*numbers(8)))

    assert {name: result.output["n"] for name, result in found.items()} == {f"e{n}": n for n in range(8)}
    assert model.sizes == [8, 4, 4, 2, 2, 1, 1]
    assert sum(result.usage.input_tokens for result in found.values()) == model.reported.input_tokens == 7007
    assert sample("penstock_fm_batch_splits_total", route="r", reason="unmatched") == before + 3


@pytest.mark.parametrize("kind", [InvalidRequest, KeyError])
async def test_what_was_spent_on_an_event_that_fails_in_the_end_is_booked_too(kind: type[Exception]) -> None:
    class Fickle(Packed):
        """Matches nothing in a packed call, and fails single ones."""

        def _said(self, prompt: str, text: str) -> InferenceAnswer:
            if len(self.sizes) > 1:
                message = "no"
                raise kind(message)
            return super()._said(prompt, '{"answers": []}' if text else "")

    model = Fickle(Usage(100, 10))
    before = sample("penstock_fm_cost_usd_total", provider="packed", model="fake-1", basis="reported")
    settings = make_settings(PACK, model={"price": PRICE})
    bench = await Bench(settings=settings, provider=model).run(*numbers(2))

    letters = [dead_letter(letter.headers) for letter in bench.letters]
    assert sum(letter.cost_usd or 0.0 for letter in letters) == pytest.approx((100 + 10 * 10) / 1e6)
    booked = sample("penstock_fm_cost_usd_total", provider="packed", model="fake-1", basis="reported") - before
    assert booked == pytest.approx((100 + 10 * 10) / 1e6)


async def test_a_throttled_batch_is_not_split_and_every_event_tries_again() -> None:
    script: list[dict[str, Any]] = [{"times": 1, "error": "throttled", "retry_after_s": 3.0}]
    before = sample("penstock_fm_batch_splits_total", route="r", reason="throttled")
    bench = await Bench(script, make_settings(PACK)).run(*numbers(8))

    assert [result.attempts for result in results(bench).values()] == [2] * 8
    assert bench.fake.calls["e0+7"] == 1
    assert sample("penstock_fm_batch_splits_total", route="r", reason="throttled") == before


async def test_a_failed_batch_is_one_failure_to_the_gate_not_eight(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench([{"times": 1, "error": "provider_unavailable"}], make_settings(PACK))
    gate = bench.pipeline._plans["r"].guard.gate
    heard: list[Any] = []
    monkeypatch.setattr(gate, "failed", lambda *args, **_kwargs: heard.append(args))
    await bench.run(*numbers(8))

    assert len(heard) == 1
    assert len(results(bench)) == 8


async def test_the_bound_of_a_doubtful_batch_counts_the_instructions_once() -> None:
    system = "Instructions. " * 400
    route = {**PACK, "prompt": {"system": system, "user": "{{ text }}"}}
    settings = make_settings(route, model={"price": {"input_usd": 1.0, "output_usd": 0.0}})
    labels = {"provider": "fake", "model": "fake-1", "basis": "possibly_billed"}
    before = sample("penstock_fm_cost_usd_total", **labels)
    await Bench([{"times": 1, "error": "provider_timeout"}], settings).run(*numbers(8))

    booked_tokens = (sample("penstock_fm_cost_usd_total", **labels) - before) * 1e6
    assert len(system) / 4 <= booked_tokens <= len(system) / 4 * 1.1


async def test_events_of_one_key_keep_their_order_and_never_share_a_call() -> None:
    model = Packed()
    settings = make_settings({**PACK, "order": "key"})
    events = [event(n, b'{"n": %d}' % n, extensions={"partitionkey": f"k{n % 4}"}) for n in range(20)]
    bench = await Bench(settings=settings, provider=model).run(*events)

    for texts in model.texts:
        keys = [json.loads(text)["n"] % 4 for text in texts]
        assert len(set(keys)) == len(keys)
    for key in range(4):
        assert [one for one in ids_of(bench.terminals) if int(one[1:]) % 4 == key] == [
            f"e{n}" for n in range(key, 20, 4)
        ]
    assert model.sizes == [4] * 5


async def test_no_more_calls_run_at_a_time_than_the_route_allows() -> None:
    settings = make_settings({**PACK, "batch": {"kind": "pack", "max_events": 2, "max_calls": 2}})
    bench = await Bench([{"latency_s": 1.0}], settings).run(*numbers(8))

    assert bench.fake.peak_in_flight == 2


async def test_an_output_that_breaks_the_schema_is_repaired_in_a_call_of_its_own() -> None:
    class Wrong(Packed):
        """Answers a packed call with a text for the numbers of two events."""

        async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
            answer = await super().invoke(request)
            text = answer.text.replace('"n": 1', '"n": "one"').replace('"n": 2', '"n": "two"')
            return answer if len(request.messages) > 1 else InferenceAnswer(text=text, model="m", usage=self.usage)

    model = Wrong()
    found = results(await Bench(settings=make_settings(PACK), provider=model).run(*numbers(4)))

    assert {name: result.output["n"] for name, result in found.items()} == {f"e{n}": n for n in range(4)}
    assert model.sizes == [4, 1, 1]
    assert [result.attempts for _, result in sorted(found.items())] == [1, 2, 2, 1]


async def test_an_event_without_time_left_leaves_its_batch_and_the_others_get_their_answers() -> None:
    settings = make_settings({**PACK, "attempt_timeout_s": 60.0})
    events = [*numbers(3), event(3, b'{"n": 3}', extensions={"expirytime": "2026-01-01T00:00:02Z"})]
    bench = await Bench([{"latency_s": 10.0}], settings).run(*events)

    assert sorted(results_or_status(bench).items()) == [("e0", 200), ("e1", 200), ("e2", 200), ("e3", "expired")]
    assert list(bench.fake.sizes) == [1]


async def test_what_a_call_has_cost_is_booked_whole_also_when_one_of_its_events_has_left() -> None:
    events = [*numbers(3), event(3, b'{"n": 3}', extensions={"expirytime": "2026-01-01T00:00:02Z"})]
    model = Slow(10.0)
    bench = await Bench(settings=make_settings(PACK), provider=model).run(*events)
    found = [decode_json(record.value or b"", InferenceResult) for record in bench.terminals[1:]]

    assert (results_or_status(bench)["e3"], model.sizes) == ("expired", [4])
    assert sum(result.usage.input_tokens for result in found) == model.reported.input_tokens == 1001
    assert sum(result.usage.output_tokens for result in found) == model.reported.output_tokens == 103


@pytest.mark.parametrize("others", [0, 3])
async def test_an_event_whose_time_ends_while_it_waits_for_others_is_not_sent(others: int) -> None:
    settings = make_settings({**PACK, "batch": {"kind": "pack", "max_events": 8, "max_wait_s": 0.5}})
    late = event(9, b'{"n": 9}', extensions={"expirytime": format_time(now_at() + timedelta(seconds=0.2))})
    model = Packed()
    bench = await Bench(settings=settings, provider=model).run(*numbers(others), late)

    assert results_or_status(bench) == {"e9": "expired", **{f"e{n}": 200 for n in range(others)}}
    assert model.sizes == ([others] if others else [])


class Slow(Packed):
    """Takes its time."""

    def __init__(self, latency_s: float) -> None:
        super().__init__()
        self.latency_s = latency_s

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the numbers, later."""
        await asyncio.sleep(self.latency_s)
        return await super().invoke(request)


PAIRS = {**PACK, "batch": {"kind": "pack", "max_events": 2, "max_calls": 2}}


async def two_and_two(bench: Bench, last: Event) -> Bench:
    """Send two events, whose call begins, and then two more."""
    await bench.start()
    await bench.send(*numbers(2))
    await settled()
    await bench.send(*numbers(3)[2:], last)
    await bench.idle()
    return bench


@pytest.mark.parametrize("waits_s", [2.5, 10.0])
async def test_an_event_whose_time_ends_while_its_call_waits_for_a_place_is_not_sent(waits_s: float) -> None:
    """At first it has not left its batch by then, in the second case it has."""
    settings = make_settings(PAIRS, model={"price": PRICE})
    labels = {"provider": "packed", "model": "fake-1", "basis": "possibly_billed"}
    before = sample("penstock_fm_cost_usd_total", **labels)
    late = event(3, b'{"n": 3}', extensions={"expirytime": format_time(now_at() + timedelta(seconds=2))})
    model = Slow(waits_s)
    began_at = now_at()
    bench = await two_and_two(Bench(settings=settings, provider=Limited(model, 1)), late)
    ends = {one["event_id"]: datetime.fromisoformat(one["completed_at"]) for one in documents(bench)}

    assert results_or_status(bench) == {"e0": 200, "e1": 200, "e2": 200, "e3": "expired"}
    # With the others' call, it would leave a second behind its time.
    assert (ends["e3"] - began_at).total_seconds() == pytest.approx(min(waits_s, 3.0), abs=0.01)
    assert model.sizes == [2, 1]
    assert sample("penstock_fm_cost_usd_total", **labels) == before


async def test_an_input_whose_time_ends_while_its_call_waits_for_a_place_is_not_sent() -> None:
    settings = make_settings({**INPUTS, "batch": {"kind": "inputs", "max_events": 2}}, model={"task": "completion"})
    late = event(3, b'{"n": 3}', extensions={"expirytime": format_time(now_at() + timedelta(seconds=2))})
    fake = Fake(FakeProvider(kind="fake", script=({"latency_s": 2.5, "answer": "done"},)))
    bench = await two_and_two(Bench(settings=settings, provider=Limited(fake, 1)), late)

    assert results_or_status(bench) == {"e0": 200, "e1": 200, "e2": 200, "e3": "expired"}
    assert list(fake.sizes) == [2, 1]


async def test_an_event_that_is_cancelled_while_its_call_waits_for_a_place_is_not_sent() -> None:
    model = Slow(5.0)
    labels = {"provider": "packed", "model": "fake-1", "basis": "possibly_billed"}
    before = sample("penstock_fm_cost_usd_total", **labels)
    settings = make_settings(PAIRS, model={"price": PRICE})
    bench = await Bench(settings=settings, provider=Limited(model, 1)).start()
    await bench.send(*numbers(2))
    await settled()
    await bench.send(*numbers(3)[2:])
    unwanted = event(3, b'{"n": 3}', extensions={"delivery": "stream"})
    position = await bench.put(unwanted.key, unwanted.data, encode_event(unwanted))
    asyncio.get_running_loop().call_later(1.0, bench.cancels.add, position)
    await bench.idle()

    assert results_or_status(bench) == {"e0": 200, "e1": 200, "e2": 200, "e3": "dead_letter"}
    assert model.sizes == [2, 1]
    assert sample("penstock_fm_cost_usd_total", **labels) == before


@pytest.mark.parametrize(("max_wait_s", "is_sent"), [(5.0, False), (0.2, True)])
async def test_an_event_that_is_cancelled_may_have_cost_something_only_once_its_batch_was_sent(
    max_wait_s: float, is_sent: bool
) -> None:
    """At first it is cancelled while it gathers, in the second case in its call."""
    model = Slow(5.0)
    labels = {"provider": "packed", "model": "fake-1", "basis": "possibly_billed"}
    before = sample("penstock_fm_cost_usd_total", **labels)
    batch = {"kind": "pack", "max_events": 8, "max_wait_s": max_wait_s}
    settings = make_settings({**PACK, "batch": batch}, model={"price": PRICE})
    bench = await Bench(settings=settings, provider=model).start()
    await bench.send(*numbers(2))
    unwanted = event(3, b'{"n": 3}', extensions={"delivery": "stream"})
    position = await bench.put(unwanted.key, unwanted.data, encode_event(unwanted))
    asyncio.get_running_loop().call_later(1.0, bench.cancels.add, position)
    await bench.idle()

    assert results_or_status(bench) == {"e0": 200, "e1": 200, "e3": "dead_letter"}
    assert model.sizes == [3 if is_sent else 2]
    assert (sample("penstock_fm_cost_usd_total", **labels) > before) is is_sent


async def test_events_that_leave_a_call_which_hangs_are_one_failure_to_the_gate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They came one after the other, so that most leave before the call itself ends."""
    batch = {"kind": "pack", "max_events": 4, "max_wait_s": 4.5}
    settings = make_settings({**PACK, "attempt_timeout_s": 5.0, "batch": batch})
    bench = Bench([{"times": 1, "hang": True}], settings)
    gate = bench.pipeline._plans["r"].guard.gate
    heard: list[Any] = []
    monkeypatch.setattr(gate, "failed", lambda *args, **_kwargs: heard.append(args))
    await bench.start()
    for one in numbers(4):
        await bench.send(one)
        await asyncio.sleep(1.2)
    await bench.idle()

    assert len(heard) == 1
    assert {name: result.attempts for name, result in results(bench).items()} == {f"e{n}": 2 for n in range(4)}


async def test_a_call_that_the_provider_cancels_is_one_failure_to_the_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelling(Packed):
        """Cancels its first call, as a client that is closed does."""

        async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
            if not self.requests:
                self.requests.append(request)
                raise asyncio.CancelledError
            return await super().invoke(request)

    bench = Bench(settings=make_settings(PACK), provider=Cancelling())
    gate = bench.pipeline._plans["r"].guard.gate
    heard: list[Any] = []
    monkeypatch.setattr(gate, "failed", lambda *args, **_kwargs: heard.append(args))
    await bench.run(*numbers(4))

    assert [reason for reason, _ in heard] == ["provider_unavailable"]
    assert {result.attempts for result in results(bench).values()} == {2}


def documents(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"{}") for record in bench.terminals]


def results_or_status(bench: Bench) -> dict[str, Any]:
    return {one["event_id"]: one.get("status", 200) for one in documents(bench)}


async def test_packing_eight_small_events_with_long_instructions_spares_seventy_percent_of_the_input() -> None:
    route = {**PACK, "prompt": {"system": "Classify the ticket by its urgency. " * 120, "user": "{{ text }}"}}
    before = sample("penstock_fm_tokens_saved_total", route="r")
    packed = results(await Bench(settings=make_settings(route)).run(*numbers(8)))
    apart = results(await Bench(settings=make_settings({**route, "batch": {"kind": "none"}})).run(*numbers(8)))

    input_packed, input_apart = (sum(one.usage.input_tokens for one in some.values()) for some in (packed, apart))
    assert {name: one.output for name, one in packed.items()} == {name: one.output for name, one in apart.items()}
    assert input_packed / input_apart <= 0.3
    saved = sample("penstock_fm_tokens_saved_total", route="r") - before
    assert saved == pytest.approx(input_apart - input_packed, rel=0.02)


async def test_an_embedding_routes_output_is_the_vector_and_eight_events_are_one_call() -> None:
    settings = make_settings({**INPUTS, "prompt": {"user": "{{ text }}"}}, model={"task": "embedding"})
    bench = await Bench(settings=settings).run(*numbers(8))
    found = results(bench)

    assert list(bench.fake.sizes) == [8]
    assert all(isinstance(one.output, list) and len(one.output) == 256 for one in found.values())
    assert len({tuple(one.output) for one in found.values()}) == 8


async def test_a_completion_route_works_in_lists_and_one_by_one() -> None:
    for kind, sizes in (("inputs", [4]), ("none", [1] * 4)):
        settings = make_settings({**INPUTS, "batch": {"kind": kind}}, model={"task": "completion"})
        bench = await Bench([{"answer": "done"}], settings).run(*numbers(4))

        assert (list(bench.fake.sizes), {one.output for one in results(bench).values()}) == (sizes, {"done"})


async def test_a_refused_input_of_a_list_fails_alone() -> None:
    settings = make_settings(INPUTS, model={"task": "completion"})
    script: list[dict[str, Any]] = [{"match": "e6", "error": "content_blocked"}, {"answer": "done"}]
    bench = await Bench(script, settings).run(*numbers(8))

    assert list(bench.fake.sizes) == [8, 4, 4, 2, 2, 1, 1]
    assert [headers_of(letter)["ce_id"] for letter in bench.letters] == [b"e6"]


async def test_an_embedding_that_is_no_vector_is_not_talked_about() -> None:
    settings = make_settings({"prompt": {"user": "{{ text }}"}}, model={"task": "embedding"})
    bench = await Bench([{"answer": "[]"}], settings).run(event())

    assert (bench.marker().reason, bench.fake.calls["e0"]) == ("output_invalid", 1)


async def deliver_again(bench: Bench, stamp_ms: int) -> None:
    """Have four events come back with their partition, and wait for their ends."""
    bench.tenure = Tenure(2)
    bench.engine.prepare(bench.tenure)
    bench.engine.begin(bench.tenure, {TP(EVENTS, PARTITION): Ledger(0)})
    for number, one in enumerate(numbers(4)):
        position = Position(EVENTS, PARTITION, number, stamp_ms)
        item = bench.pipeline.item(position, one.key, one.data, encode_event(one), "standard")
        assert await bench.engine.submit(item, 2)
    await bench.idle()


async def test_a_batch_outlives_its_partition_and_its_answers_wait_for_the_redelivered_events() -> None:
    bench = await Bench([{"latency_s": 5.0}], make_settings(PACK)).start()
    stamp_ms = int(now_at().timestamp() * 1000)
    await bench.send(*numbers(4), timestamp_ms=stamp_ms)
    # The call is under way.
    await asyncio.sleep(1.0)
    await bench.engine.drain(0.1)
    await bench.engine.close()
    await asyncio.sleep(10.0)
    await deliver_again(bench, stamp_ms)

    assert {name: one.output for name, one in results(bench).items()} == {f"e{n}": {"n": n} for n in range(4)}
    assert list(bench.fake.sizes) == [1]


async def given_up(bench: Bench, *, waits_s: float, then_s: float) -> None:
    """Have partitions given up while one call is at the model and another one waits for its place."""
    await asyncio.sleep(waits_s)
    await bench.engine.drain(0.1)
    await bench.engine.close()
    await asyncio.sleep(then_s)


async def test_a_call_that_still_waits_for_a_place_when_partitions_are_given_up_is_not_made() -> None:
    """Who gets them next makes it: both would be paid for."""
    model = Slow(5.0)
    bench = await Bench(settings=make_settings(PAIRS), provider=Limited(model, 1)).start()
    gate = bench.pipeline._plans["r"].guard.gate
    await bench.send(*numbers(4))
    await given_up(bench, waits_s=1.0, then_s=20.0)

    assert model.sizes == [2]
    assert bench.pipeline.calls.kept == 2, "the answers of the call that was made"
    assert (bench.engine.in_flight, gate._failures) == (0, 0)


@pytest.mark.parametrize("delivery", ["notify", "stream"])
async def test_a_call_of_one_event_that_waits_for_a_place_then_is_not_made_either(delivery: str) -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"latency_s": 5.0, "answer": "done"},)))
    bench = await Bench(settings=make_settings({"order": "none"}), provider=Limited(fake, 1)).start()
    gate = bench.pipeline._plans["r"].guard.gate
    events = numbers(3, extensions={"delivery": delivery})
    await bench.send(events[0])
    await settled()
    await bench.send(*events[1:])
    await given_up(bench, waits_s=1.0, then_s=20.0)

    assert fake.calls == {"e0": 1}
    assert (bench.pipeline.calls.kept, bench.engine.in_flight, gate._failures) == (1, 0, 0)


async def test_a_call_of_one_event_that_waits_for_a_place_is_made_where_it_was_delivered_again_meanwhile() -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"latency_s": 5.0, "answer": "done"},)))
    bench = await Bench(settings=make_settings({"order": "none"}), provider=Limited(fake, 1)).start()
    stamp_ms = int(now_at().timestamp() * 1000)
    await bench.send(*numbers(4), timestamp_ms=stamp_ms)
    await given_up(bench, waits_s=1.0, then_s=0.0)
    await deliver_again(bench, stamp_ms)

    assert fake.calls == {f"e{n}": 1 for n in range(4)}
    assert {result.attempts for result in results(bench).values()} == {1}


async def test_a_probe_shares_no_call_with_events_that_came_before_the_gate_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would tell how the call went, and what they say is not heard."""

    class Denying(Packed):
        """Refuses its first two calls."""

        async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
            answer = await super().invoke(request)
            if len(self.requests) <= 2:
                message = "not allowed"
                raise AccessDenied(message)
            return answer

    model = Denying()
    batch = {"kind": "pack", "max_events": 8, "max_wait_s": 5.0}
    bench = await Bench(settings=make_settings({**PACK, "batch": batch}), provider=model).start()
    gate = bench.pipeline._plans["r"].guard.gate
    await bench.send(*numbers(1))
    await settled()
    before = gate.ticket()
    assert before is not None
    gate.failed("access_denied", before, is_fault=True)
    failed: list[bool] = []

    def fail(_reason: str, ticket: Pass, **_how: Any) -> None:
        failed.append(ticket.is_probe)
        gate.left(ticket)

    monkeypatch.setattr(gate, "failed", fail)
    await bench.send(*numbers(3)[1:])
    await bench.idle()

    assert failed == [True, True]
    assert model.sizes[:2] == [1, 1]
    assert results_or_status(bench) == {f"e{n}": 200 for n in range(3)}


async def test_a_call_that_waits_for_a_place_is_made_for_events_that_were_delivered_again_meanwhile() -> None:
    model = Slow(5.0)
    bench = await Bench(settings=make_settings(PAIRS), provider=Limited(model, 1)).start()
    stamp_ms = int(now_at().timestamp() * 1000)
    await bench.send(*numbers(4), timestamp_ms=stamp_ms)
    await given_up(bench, waits_s=1.0, then_s=0.0)
    await deliver_again(bench, stamp_ms)

    assert {name: one.output for name, one in results(bench).items()} == {f"e{n}": {"n": n} for n in range(4)}
    assert model.sizes == [2, 2]
    assert {result.attempts for result in results(bench).values()} == {1}
