"""Calls for several events that fail for a while: no event ends for its neighbours, or for their number."""

import asyncio
import json
from typing import Any

import pytest

from contracts.codec import parked_event
from contracts.errors import PenstockError, ProviderTimeout, ProviderUnavailable, Throttled
from contracts.payloads import InferenceAnswer, InferenceRequest
from streams.providers.limited import Limited
from tests.streams.pipeline.support import Bench, event, make_settings
from tests.streams.pipeline.test_batching import PACK, Packed, documents, numbers, results

BATCH: dict[str, Any] = {"kind": "pack", "max_events": 8, "max_wait_s": 0.1}
EIGHT_CALLS = {**PACK, "batch": {**BATCH, "max_calls": 8}}
# A route of which one event in five is dead stays open, so that every event meets its neighbours.
OPEN = {
    **EIGHT_CALLS,
    "attempt_timeout_s": 10.0,
    "deadline_s": 3600,
    "dead_letter_limit": {"ratio": 1},
    "retry": {"long_waits": "hold"},
}


class Hostile(Packed):
    """Fails whenever an event is in a call that says so, and with what it says; else it takes its time for each."""

    def __init__(self, each_s: float = 0.02) -> None:
        super().__init__()
        self.each_s = each_s

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the numbers, or fail."""
        answer = await super().invoke(request)
        text = request.messages[0].content
        need_s = self.each_s * self.sizes[-1]
        if "hang" in text or need_s > request.timeout_s:
            await asyncio.sleep(request.timeout_s)
            message = "no answer"
            raise ProviderTimeout(message)
        await asyncio.sleep(need_s)
        if "broken" in text:
            message = "500"
            raise ProviderUnavailable(message)
        return answer


def mixed(count: int, every: int, bad: str) -> list[Any]:
    """Return events of which one in `every` is bad."""
    texts = (json.dumps({"n": n, "is": bad if n % every == every - 1 else "good"}) for n in range(count))
    return [event(n, text.encode()) for n, text in enumerate(texts)]


def unanswered(bench: Bench) -> set[int]:
    return {int(one["event_id"][1:]) for one in documents(bench) if "output" not in one}


@pytest.mark.parametrize("every", [20, 5])
@pytest.mark.parametrize("bad", ["broken", "hang"])
async def test_an_event_that_takes_every_call_down_takes_no_other_event_with_it(bad: str, every: int) -> None:
    model = Hostile()
    bench = await Bench(settings=make_settings(OPEN), provider=model, in_flight=64).run(*mixed(200, every, bad))

    assert unanswered(bench) == set(range(every - 1, 200, every))
    assert len(bench.terminals) == 200


async def test_events_that_are_too_many_for_one_calls_time_are_answered_one_by_one() -> None:
    model = Hostile(each_s=10.0)
    route = {**EIGHT_CALLS, "attempt_timeout_s": 60.0, "deadline_s": 300, "retry": {"long_waits": "hold"}}
    bench = await Bench(settings=make_settings(route), provider=model, in_flight=64).run(*numbers(64))

    assert len(results(bench)) == 64
    # Of the last ones some fail for the gate, which the first ones have closed, and may come together once more.
    assert model.sizes[:8] == [8] * 8
    assert model.sizes.count(1) >= 56


class Failing(Packed):
    """Fails its first calls."""

    def __init__(self, *errors: PenstockError) -> None:
        super().__init__()
        self.errors = list(errors)

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Fail, or return the numbers."""
        answer = await super().invoke(request)
        if self.errors:
            raise self.errors.pop(0)
        return answer


async def test_a_throttled_call_is_made_again_for_its_events_together() -> None:
    model = Failing(Throttled("slow down"))
    settings = make_settings({**PACK, "batch": {**BATCH, "max_wait_s": 5.0}})
    await Bench(settings=settings, provider=model).run(*numbers(8))

    assert model.sizes == [8, 8]


async def test_events_whose_call_found_no_place_are_tried_again_together() -> None:
    """Each in a call of its own, they would need eight places where there was not one."""
    model = Hostile(each_s=0.5)
    settings = make_settings({**PACK, "attempt_timeout_s": 7.0, "batch": {**BATCH, "max_wait_s": 5.0}})
    bench = Bench(settings=settings, provider=Limited(model, 1))
    limited = bench.pipeline._plans["r"].provider
    async with limited.place("other", 1.0):  # type: ignore[attr-defined]
        await bench.start()
        await bench.send(*numbers(8))
        await asyncio.sleep(9.0)
    await bench.idle()

    assert model.sizes == [8]
    assert {result.attempts for result in results(bench).values()} == {2}


async def test_an_event_that_is_to_go_alone_does_so_also_behind_the_retry_topic() -> None:
    model = Failing(ProviderTimeout("no answer", retry_after_s=100.0))
    settings = make_settings({**PACK, "deadline_s": 3600})
    bench = await Bench(settings=settings, provider=model).run(*numbers(8))
    assert [parked_event(record.headers)[1].attempts for record in bench.parked] == [1] * 8
    await bench.take_up(*bench.parked)
    await bench.idle()

    assert model.sizes == [8] + [1] * 8


class Down(Packed):
    """Fails every call until a moment of the loop's clock; takes a while for each."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.ends_at = asyncio.get_running_loop().time() + until_s
        self.failed: list[int] = []

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Fail, or return the numbers."""
        await asyncio.sleep(5.0)
        answer = await super().invoke(request)
        if asyncio.get_running_loop().time() < self.ends_at:
            self.failed.append(self.sizes[-1])
            message = "503"
            raise ProviderUnavailable(message)
        return answer


async def outage(kind: str) -> tuple[Down, Bench]:
    """Have events come to a provider that is down for all of them for five minutes."""
    batch = BATCH if kind == "pack" else {"kind": kind}
    route = {**PACK, "deadline_s": 3600, "attempt_timeout_s": 7.5, "retry": {"long_waits": "hold"}, "batch": batch}
    model = Down(300.0)
    bench = await Bench(settings=make_settings(route), provider=model, in_flight=128).start()
    for one in numbers(800):
        await bench.send(one)
        await asyncio.sleep(0.05)
    await bench.idle()
    return model, bench


async def test_a_provider_that_is_down_for_all_gets_no_more_calls_than_without_batches_and_no_event_is_lost() -> None:
    packed, bench = await outage("pack")
    apart, _ = await outage("none")

    assert unanswered(bench) == set()
    assert len(packed.failed) <= len(apart.failed)
    # Those that go alone have their half of the calls: the others go on in full ones, and none waits until it is late.
    assert len(packed.sizes) - len(packed.failed) <= 400


async def test_who_waits_long_for_a_call_of_its_own_makes_room() -> None:
    """On a lane of its own kind it would hold up the retries of all other routes."""
    route = {**EIGHT_CALLS, "attempt_timeout_s": 60.0, "deadline_s": 3600, "retry": {"park_after_s": 30}}
    bench = await Bench(settings=make_settings(route), provider=Hostile(each_s=10.0), in_flight=64).start()
    await bench.send(*numbers(64))
    await asyncio.sleep(600)

    assert bench.parked
    assert len(results(bench)) + len(bench.parked) == 64
    await bench.engine.drain(1)
    await bench.engine.close()


class Timed(Hostile):
    """Notes when calls begin."""

    def __init__(self) -> None:
        super().__init__(each_s=10.0)
        self.began_s: list[float] = []

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Note the time."""
        self.began_s.append(asyncio.get_running_loop().time())
        return await super().invoke(request)


async def test_no_call_of_its_own_begins_behind_max_age() -> None:
    batch, retry = {**BATCH, "max_calls": 2}, {"long_waits": "hold", "max_age_s": 60}
    route = {**OPEN, "batch": batch, "attempt_timeout_s": 20.0, "retry": retry}
    model = Timed()
    bench = await Bench(settings=make_settings(route), provider=model, in_flight=32).run(*numbers(32))

    assert len(bench.terminals) == 32
    # Looked after about once a second; and who has begun to wait for a free call may wait for as long as one takes.
    assert model.began_s[-1] - model.began_s[0] < 60 + 3 + 20


class Away(Packed):
    """Answers nobody for so long, and then at once."""

    def __init__(self, until_s: float) -> None:
        super().__init__()
        self.until_s = asyncio.get_running_loop().time() + until_s

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Hang, or return the numbers."""
        if asyncio.get_running_loop().time() < self.until_s:
            await asyncio.sleep(request.timeout_s)
            message = "no answer"
            raise ProviderTimeout(message)
        await asyncio.sleep(1)
        return await super().invoke(request)


async def test_no_event_is_too_old_behind_an_outage_because_it_has_to_go_alone() -> None:
    retry = {"long_waits": "hold", "max_age_s": 600}
    route = {**EIGHT_CALLS, "attempt_timeout_s": 10.0, "deadline_s": 7200, "retry": retry}
    bench = await Bench(settings=make_settings(route), provider=Away(1200), in_flight=64).run(*numbers(64))

    assert (len(results(bench)), bench.letters) == (64, [])
