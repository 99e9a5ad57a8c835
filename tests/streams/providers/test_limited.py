"""The limit around a provider."""

import asyncio

import pytest

from contracts.errors import ConfigError, ProviderTimeout, Throttled
from contracts.payloads import InferenceAnswer, InferenceRequest
from contracts.settings.models import BedrockProvider, FakeProvider
from streams.providers.base import Arrivals, place_of
from streams.providers.bedrock import Bedrock
from streams.providers.fake import Fake
from streams.providers.limited import Limited
from tests.streams.pipeline.support import WithoutTask
from tests.streams.providers.labs import FakeLab
from tests.suites.provider import ask

LAB = FakeLab()


def limited(limit: int, **step: object) -> tuple[Limited, Fake]:
    fake = Fake(FakeProvider(kind="fake", script=(step,)))
    return Limited(fake, limit), fake


async def test_no_more_calls_at_a_time_than_the_limit() -> None:
    provider, fake = limited(3, latency_s=0.01)

    await asyncio.gather(*(provider.invoke(ask(LAB)) for _ in range(10)))

    assert fake.peak_in_flight == 3
    assert sum(fake.calls.values()) == 10


async def test_waiting_for_a_place_uses_up_the_timeout_and_is_not_billed() -> None:
    provider, fake = limited(1, hang=True)
    first = asyncio.create_task(provider.invoke(ask(LAB, timeout_s=5.0)))
    await asyncio.sleep(0)

    with pytest.raises(ProviderTimeout) as caught:
        await provider.invoke(ask(LAB, timeout_s=0.05))

    assert not caught.value.possibly_billed
    assert sum(fake.calls.values()) == 1
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_the_time_waited_is_taken_off_the_callers_timeout() -> None:
    provider, _ = limited(1, latency_s=0.15)

    outcomes = await asyncio.gather(
        *(provider.invoke(ask(LAB, timeout_s=0.25)) for _ in range(2)), return_exceptions=True
    )

    assert isinstance(outcomes[1], ProviderTimeout)


async def test_a_failed_call_and_a_stream_broken_off_give_their_places_back() -> None:
    provider, _ = limited(1, error="throttled", times=1)
    await asyncio.gather(provider.invoke(ask(LAB)), return_exceptions=True)
    pieces = provider.stream(ask(LAB))
    await anext(pieces)
    await pieces.aclose()  # type: ignore[attr-defined]

    assert (await provider.invoke(ask(LAB, timeout_s=1.0))).text


async def test_a_list_of_requests_takes_one_place() -> None:
    provider, fake = limited(1, latency_s=0.01)

    await asyncio.gather(*(provider.invoke_many([ask(LAB)] * 3, 5.0) for _ in range(2)))

    assert (list(fake.sizes), fake.peak_in_flight) == ([3, 3], 1)


async def test_a_list_that_finds_no_place_in_its_time_is_not_billed() -> None:
    provider, fake = limited(1, hang=True)
    first = asyncio.create_task(provider.invoke(ask(LAB, timeout_s=5.0)))
    await asyncio.sleep(0)

    with pytest.raises(ProviderTimeout) as caught:
        await provider.invoke_many([ask(LAB)] * 2, 0.05)

    assert (caught.value.possibly_billed, list(fake.sizes)) == (False, [1])
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_provider_of_single_inputs_says_so() -> None:
    bedrock = Bedrock(BedrockProvider(kind="bedrock", region="eu-central-1"))

    with pytest.raises(ConfigError, match=r"aws\.bedrock takes one input per call"):
        await Limited(bedrock, 1).invoke_many([ask(LAB)] * 2, 5.0)


class _Model(Fake):
    """A model whose answers come, and are given to their calls, when the test says so."""

    def __init__(self) -> None:
        super().__init__(FakeProvider(kind="fake"))
        self.arrivals = Arrivals()
        self.asked: list[asyncio.Future[None]] = []

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the answer once it is given."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append(given)
        await given
        return await super().invoke(request)

    def answer(self) -> None:
        """Have an answer come."""
        self.arrivals.count += 1

    def give(self, number: int) -> None:
        """Let a call go on whose answer has come."""
        self.arrivals.count -= 1
        self.asked[number].set_result(None)


async def _begin(provider: Limited, number: int) -> list[asyncio.Task[InferenceAnswer]]:
    calls = [asyncio.create_task(provider.invoke(ask(LAB, timeout_s=5.0))) for _ in range(number)]
    await asyncio.sleep(0)
    return calls


async def test_a_call_whose_answer_has_come_leaves_its_place_to_the_next_one() -> None:
    model = _Model()
    provider = Limited(model, 2)
    calls = await _begin(provider, 2)
    model.answer()
    calls += await _begin(provider, 2)

    assert len(model.asked) == 3, "one place is free, and no more than that"

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_place_that_was_left_early_is_not_given_away_twice() -> None:
    model = _Model()
    provider = Limited(model, 2)
    calls = await _begin(provider, 2)
    for _ in calls:
        model.answer()
    calls += await _begin(provider, 3)
    model.give(0)
    model.give(1)
    await asyncio.wait(calls[:2])

    assert len(model.asked) == 4, "two are at the model, and one waits"

    model.answer()
    model.give(2)
    await asyncio.wait(calls[2:3])
    await asyncio.sleep(0)

    assert len(model.asked) == 5

    for number in (3, 4):
        model.answer()
        model.give(number)
    await asyncio.wait(calls)

    assert provider._taken == 0


async def test_nobody_overtakes_who_waits_when_an_answer_has_come() -> None:
    model = _Model()
    provider = Limited(model, 2)
    calls = await _begin(provider, 2)
    waiting = await _begin(provider, 1)
    model.answer()
    late = await _begin(provider, 1)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    model.give(0)
    await asyncio.wait(calls[:1])
    asked = len(model.asked)
    model.asked[2].set_result(None)
    await asyncio.wait([*waiting, *late], return_when=asyncio.FIRST_COMPLETED)

    assert (asked, waiting[0].done(), late[0].done()) == (3, True, False)

    for call in (*calls, *late):
        call.cancel()
    await asyncio.gather(*calls, *late, return_exceptions=True)


async def test_who_waits_is_let_in_when_it_is_told_that_an_answer_has_come() -> None:
    model = _Model()
    provider = Limited(model, 2)
    calls = await _begin(provider, 4)
    model.answer()
    for listener in model.arrivals.listeners:
        listener()
    await asyncio.sleep(0)

    assert len(model.asked) == 3, "one place is free, and no more than that"

    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


class _Prompt(_Model):
    """A model whose calls end in the turn of the loop in which their answer is given."""

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the answer once it is given."""
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append(given)
        await given
        return InferenceAnswer(text="ok", model=request.model)


async def test_a_place_that_is_handed_over_in_the_moment_of_a_cancellation_goes_to_the_next() -> None:
    model = _Prompt()
    provider = Limited(model, 1)
    calls = await _begin(provider, 3)
    model.asked[0].set_result(None)
    # Behind the end of the first call, and before the second one goes on.
    asyncio.get_running_loop().call_soon(calls[1].cancel)
    await asyncio.wait(calls[:2])
    await asyncio.sleep(0)

    assert (calls[1].cancelled(), len(model.asked)) == (True, 2)

    model.asked[1].set_result(None)
    await asyncio.wait(calls)
    assert provider._taken == 0


async def test_who_leaves_while_it_waits_takes_no_place() -> None:
    model = _Model()
    provider = Limited(model, 1)
    calls = await _begin(provider, 3)
    calls[1].cancel()
    await asyncio.sleep(0)
    model.asked[0].set_result(None)
    await asyncio.wait(calls[:2])
    await asyncio.sleep(0)

    assert len(model.asked) == 2

    model.asked[1].set_result(None)
    await asyncio.wait(calls)
    assert provider._taken == 0


async def test_a_place_is_taken_before_it_is_known_what_for() -> None:
    provider, fake = limited(1, latency_s=0.01)

    async with place_of(provider, "e0", 1.0) as placed:
        with pytest.raises(ProviderTimeout, match="no free slot of 1") as caught:
            await provider.invoke(ask(LAB, timeout_s=0.02))
        await placed.invoke(ask(LAB))
    await provider.invoke(ask(LAB, timeout_s=1.0))

    assert (caught.value.possibly_billed, fake.peak_in_flight) == (False, 1)


async def test_a_provider_without_a_limit_has_a_place_at_once() -> None:
    _, fake = limited(1)

    async with place_of(fake, "e0", 0.0) as placed:
        assert placed is fake


async def test_calls_without_a_task_take_places_and_give_them_back_whatever_came() -> None:
    fake = Fake(FakeProvider(kind="fake", script=({"error": "throttled", "times": 1}, {"answer": "ok"})))
    provider = Limited(WithoutTask(fake), 1)
    await provider.start()
    assert provider.direct is provider
    waiters = [asyncio.get_running_loop().create_future() for _ in range(3)]

    assert provider.begin(ask(LAB), waiters[0])
    assert not provider.begin(ask(LAB), waiters[1])
    with pytest.raises(Throttled) as caught:
        await waiters[0]
    with pytest.raises(Throttled):
        provider.read(caught.value, ask(LAB), 0.1)
    assert provider.begin(ask(LAB), waiters[2])
    # With a task it waits for the one without.
    second = asyncio.create_task(provider.invoke(ask(LAB)))
    answer = await waiters[2]
    assert not second.done()
    assert provider.read(answer, ask(LAB), 0.1).text == "ok"

    await second
    assert fake.peak_in_flight == 1


async def test_a_provider_that_needs_tasks_needs_them_behind_the_limit() -> None:
    provider, _ = limited(1)
    await provider.start()

    assert provider.direct is None
