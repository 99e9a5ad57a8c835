"""The call to a provider: bounded, counted, and encodable."""

import asyncio
from typing import Any

import pytest

from contracts.errors import ProviderTimeout
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings import ModelSettings, Price
from streams.providers.base import add_usage
from streams.steps import invoke as step
from streams.steps.invoke import cost_usd, invoke

REQUEST = InferenceRequest(event_id="e", model="m", messages=(), timeout_s=0.01)
MODEL = ModelSettings(provider="p", model="m", price=Price(input_usd=2, output_usd=10, cache_read_usd=0.5))


class Scripted:
    """Answers with a text, after a time."""

    name = "scripted"

    def __init__(self, text: str = "", delay_s: float = 0.0) -> None:
        self._text = text
        self._delay_s = delay_s

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def invoke(self, _request: InferenceRequest) -> InferenceAnswer:
        await asyncio.sleep(self._delay_s)
        return InferenceAnswer(text=self._text, model="m")

    def stream(self, request: InferenceRequest) -> Any:
        raise NotImplementedError


async def test_a_provider_that_does_not_keep_its_limit_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "_GRACE_S", 0.01)

    with pytest.raises(ProviderTimeout, match="scripted did not keep its time limit") as caught:
        await invoke(Scripted(delay_s=30), REQUEST)
    assert caught.value.possibly_billed


@pytest.mark.parametrize(
    ("text", "kept"),
    [("plain", "plain"), ("\u00e9\U0001f600", "\u00e9\U0001f600"), ("cut \ud83d", "cut ?"), ("\udc00x", "?x")],
)
async def test_an_answer_can_be_written_to_a_record(text: str, kept: str) -> None:
    assert (await invoke(Scripted(text), REQUEST)).text == kept


def test_a_cost_is_by_the_price_list_per_million_tokens() -> None:
    assert cost_usd(Usage(1_000_000, 100_000, 2_000_000), MODEL) == 2 + 1 + 1


def test_tokens_of_a_cache_without_a_price_of_their_own_cost_as_others() -> None:
    model = ModelSettings(provider="p", model="m", price=Price(input_usd=2, output_usd=10))
    priced = ModelSettings(provider="p", model="m", price=Price(input_usd=2, output_usd=10, cache_write_usd=2.5))

    assert cost_usd(Usage(0, 0, 1_000_000, 1_000_000), model) == 2 + 2
    assert cost_usd(Usage(0, 0, 0, 1_000_000), priced) == 2.5


def test_without_a_price_the_cost_is_unknown() -> None:
    assert cost_usd(Usage(1, 1), ModelSettings(provider="p", model="m")) is None


def test_usage_adds_up() -> None:
    assert add_usage(Usage(1, 2, 3, 4), Usage(10, 20, 30, 40)) == Usage(11, 22, 33, 44)
