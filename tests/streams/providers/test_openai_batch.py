"""Several inputs per call, as OpenAI-compatible servers take them: the stub's, and answers no server should give."""

import json
import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
import pytest_asyncio

from contracts.errors import (
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PenstockError,
    ProviderUnavailable,
    Throttled,
)
from contracts.payloads import InferenceAnswer, InferenceRequest, Message, Task, Usage
from streams.fmstub.control import check_knobs
from streams.fmstub.server import Server
from streams.providers.base import carried_usage
from streams.providers.openai import OpenAI
from streams.providers.openai_batch import body_of, several, single
from tests.streams.providers.labs import openai as provider_for
from tests.streams.providers.labs import started_stub

TEXTS = ("Invoice INV-1 of Acme was not paid.", "Order 4411 arrived broken.", "A cat sleeps.")


def requests(task: Task, *texts: str, **changes: Any) -> list[InferenceRequest]:
    return [
        msgspec.structs.replace(
            InferenceRequest(event_id=f"e{n}", model="m", messages=(Message("user", text),), task=task), **changes
        )
        for n, text in enumerate(texts or TEXTS)
    ]


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[Server, int, OpenAI]]:
    server, port = await started_stub()
    provider = provider_for(port)
    await provider.start()
    yield server, port, provider
    await provider.aclose()
    await server.aclose()


Served = tuple[Server, int, OpenAI]


async def test_vectors_come_in_the_order_of_their_inputs_and_as_the_openai_package_gets_them(served: Served) -> None:
    server, port, provider = served
    found = await provider.invoke_many(requests("embedding"), 5.0)
    calls = server.backend.stats.calls
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="test", max_retries=0) as client:
        theirs = await client.embeddings.create(model="m", input=list(TEXTS), encoding_format="float")

    ours = [json.loads(one.text) for one in found.answers if isinstance(one, InferenceAnswer)]
    assert ours == [pytest.approx(item.embedding) for item in theirs.data]
    assert (calls, found.usage.input_tokens) == (1, theirs.usage.prompt_tokens)


async def test_completions_come_in_the_order_of_their_prompts_and_as_the_openai_package_gets_them(
    served: Served,
) -> None:
    _, port, provider = served
    found = await provider.invoke_many(requests("completion", max_tokens=100), 5.0)
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="test", max_retries=0) as client:
        theirs = await client.completions.create(model="m", prompt=list(TEXTS), max_tokens=100)

    assert [one.text for one in found.answers if isinstance(one, InferenceAnswer)] == [
        choice.text for choice in theirs.choices
    ]
    assert theirs.usage is not None
    assert found.usage == Usage(theirs.usage.prompt_tokens, theirs.usage.completion_tokens)


@pytest.mark.parametrize("task", ["completion", "embedding"])
async def test_one_input_without_a_list_gets_the_same_answer(served: Served, task: Task) -> None:
    asked = requests(task, max_tokens=100)
    listed = await served[2].invoke_many(asked, 5.0)
    alone = [await served[2].invoke(one) for one in asked]

    assert [one.text for one in listed.answers if isinstance(one, InferenceAnswer)] == [one.text for one in alone]
    assert listed.usage.input_tokens == sum(one.usage.input_tokens for one in alone)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("throttling", Throttled), ("validation", InvalidRequest), ("too_long", ContextTooLong),
     ("unavailable", ProviderUnavailable), ("malformed", ProviderUnavailable)],
)  # fmt: skip
async def test_a_refused_list_is_an_error_of_the_tree(served: Served, kind: str, error: type[Exception]) -> None:
    served[0].backend.knobs = check_knobs({"error_rates": {kind: 1.0}})

    with pytest.raises(error):
        await served[2].invoke_many(requests("embedding"), 5.0)


def test_a_completion_prompt_is_everything_a_model_without_roles_is_to_read() -> None:
    asked = requests("completion", "x", system="Be brief.", max_tokens=9, temperature=0.0, stop=("\n",))

    assert body_of(asked) == {
        "model": "m", "prompt": "Be brief.\n\nx", "max_tokens": 9, "temperature": 0.0, "stop": ["\n"],
    }  # fmt: skip


def entry(index: Any, value: Any = None) -> dict[str, Any]:
    return {"index": index, "embedding": [0.5] if value is None else value}


def vectors(*entries: Any, usage: Any = None) -> dict[str, Any]:
    return {"data": list(entries), "usage": usage or {"prompt_tokens": 7}}


def texts(body: dict[str, Any]) -> list[str | None]:
    found = several(body, requests("embedding")).answers
    return [one.text if isinstance(one, InferenceAnswer) else None for one in found]


def test_answers_are_matched_by_index_not_by_place() -> None:
    assert texts(vectors(entry(2, [2]), entry(0, [0]), entry(1, [1]))) == ["[0]", "[1]", "[2]"]


def test_an_input_without_an_answer_has_none() -> None:
    assert texts(vectors(entry(0), entry(2))) == ["[0.5]", None, "[0.5]"]


@pytest.mark.parametrize("index", [0, 3, -1, "1", True, 1.0, None])
def test_with_a_doubtful_index_none_of_the_answers_is_believed(index: Any) -> None:
    assert texts(vectors(entry(0), entry(index), entry(2))) == [None, None, None]


@pytest.mark.parametrize("value", [[], "AAAA", [1, "x"], [math.nan], {"a": 1}])
def test_what_is_not_a_vector_is_no_answer(value: Any) -> None:
    assert texts(vectors(entry(0), entry(1, value), entry(2))) == ["[0.5]", None, "[0.5]"]


def test_the_cost_of_an_answer_that_does_not_match_is_kept() -> None:
    assert several(vectors(entry(9)), requests("embedding")).usage == Usage(7)


@pytest.mark.parametrize("body", [None, [], {}, {"data": {}}, "x"])
def test_what_is_not_the_operations_answer_is_unavailable_and_may_be_billed(body: Any) -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        several(body, requests("embedding"))

    assert caught.value.possibly_billed


def test_a_single_answer_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(ProviderUnavailable):
        single({"data": []}, requests("embedding")[0])


def test_a_withheld_completion_fails_alone() -> None:
    choices = [
        {"index": 0, "text": "a", "finish_reason": "length"},
        {"index": 1, "text": "", "finish_reason": "content_filter"},
        {"index": 2, "finish_reason": "stop"},
    ]
    first, second, third = several({"choices": choices}, requests("completion")).answers

    assert isinstance(first, InferenceAnswer)
    assert first.finish_reason == "length"
    assert isinstance(second, ContentBlocked)
    assert third is None
    with pytest.raises(ContentBlocked):
        single({"choices": [{**choices[1], "index": 0}]}, requests("completion")[0])


@pytest.mark.parametrize(("finish", "kind"), [("abort", ProviderUnavailable), ("SAFETY", ContentBlocked)])
def test_a_completion_that_is_broken_off_or_withheld_is_no_result_and_says_what_it_has_cost(
    finish: str, kind: type[PenstockError]
) -> None:
    body = {"choices": [{"index": 0, "text": "so f", "finish_reason": finish}], "usage": {"prompt_tokens": 7}}
    (first, second) = several(body, requests("completion", "x", "y")).answers

    assert isinstance(first, kind)
    assert second is None
    with pytest.raises(kind) as caught:
        single(body, requests("completion", "x")[0])
    assert carried_usage(caught.value) == Usage(7)


@pytest.mark.parametrize("task", ["completion", "embedding"])
def test_an_error_in_place_of_the_answers_is_of_its_own_kind(task: Task) -> None:
    with pytest.raises(ContextTooLong):
        several({"error": {"code": 400, "message": "maximum context length is 4096"}}, requests(task))
    with pytest.raises(ModelNotFound):
        several({"error": {"code": 404, "message": "no"}, "data": [], "choices": []}, requests(task))


def test_an_error_in_place_of_one_completion_is_that_ones() -> None:
    choices = [{"index": 0, "text": "a", "finish_reason": "stop"}, {"index": 1, "error": {"code": 502}}]
    first, second = several({"choices": choices}, requests("completion", "x", "y")).answers

    assert isinstance(first, InferenceAnswer)
    assert isinstance(second, ProviderUnavailable)
