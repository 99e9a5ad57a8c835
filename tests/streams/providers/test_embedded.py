"""The embedded provider."""

from collections.abc import AsyncIterator

import pytest

from contracts.errors import InvalidRequest, ModelNotFound
from contracts.payloads import InferenceRequest, Message
from contracts.settings.models import EmbeddedProvider
from streams.providers.embedded import Embedded
from tests.streams.providers.labs import EmbeddedLab
from tests.suites.provider import SCHEMA, ProviderSuite, ask


@pytest.fixture
async def lab() -> AsyncIterator[EmbeddedLab]:
    lab = EmbeddedLab()
    await lab.provider.start()
    yield lab
    await lab.provider.aclose()


class TestEmbedded(ProviderSuite):
    """It keeps the protocol."""


async def test_it_never_pretends_to_be_another_model(lab: EmbeddedLab) -> None:
    with pytest.raises(ModelNotFound, match="embedded/extract-v1"):
        await lab.provider.invoke(ask(lab, model="gpt-5"))


async def test_the_same_prompt_gets_the_same_answer_and_id(lab: EmbeddedLab) -> None:
    answers = [await lab.provider.invoke(ask(lab, output_schema=SCHEMA)) for _ in range(2)]

    assert answers[0] == answers[1]


async def test_a_field_it_cannot_fill_is_named(lab: EmbeddedLab) -> None:
    schema = {"type": "object", "properties": {"tax_rate": {"type": "number"}}, "required": ["tax_rate"]}

    with pytest.raises(InvalidRequest, match="/tax_rate"):
        await lab.provider.invoke(ask(lab, output_schema=schema))


@pytest.mark.parametrize(
    "prompt",
    [
        "<a>" * 30_000, "[" * 100_000, '{"' * 50_000, "1," * 50_000, "a: " + " " * 100_000 + "x", "<!--" * 25_000,
        "```" * 30_000, "a.b." * 25_000, "[x](" * 25_000, "\u4f60" * 100_000, "\ud800 lone",
    ],
)  # fmt: skip
async def test_hostile_prompts_are_answered_within_a_bound(lab: EmbeddedLab, prompt: str) -> None:
    answer = await lab.provider.invoke(ask(lab, prompt, output_schema={**SCHEMA, "required": []}, timeout_s=3.0))

    assert answer.text


def _embedding(text: str, model: str = "embedded/hashed-words-v1") -> InferenceRequest:
    return InferenceRequest(event_id="e", model=model, messages=(Message("user", text),), task="embedding")


async def test_an_embedding_names_the_hashing_model_and_is_the_same_in_a_list() -> None:
    provider = Embedded(EmbeddedProvider(kind="embedded"))
    alone = await provider.invoke(_embedding("invoice was paid"))
    listed = await provider.invoke_many([_embedding("invoice was paid"), _embedding("a cat sleeps")], 5.0)
    await provider.aclose()

    assert alone.model == "embedded/hashed-words-v1"
    assert listed.answers[0] == alone
    assert listed.answers[1] != alone
    assert listed.usage.input_tokens > alone.usage.input_tokens > 0


async def test_the_extractor_is_no_embedding_model() -> None:
    provider = Embedded(EmbeddedProvider(kind="embedded"))
    with pytest.raises(ModelNotFound, match="hashed-words"):
        await provider.invoke(_embedding("x", "embedded/extract-v1"))
    await provider.aclose()
