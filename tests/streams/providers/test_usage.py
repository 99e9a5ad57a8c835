"""Usage blocks that are not what an API's reference says: the answer beside them is paid for, and stands."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from contracts.codec import encode_json
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings import ModelSettings
from streams.fmstub import eventstream
from streams.providers.base import MAX_TOKENS, Provider, counts
from streams.providers.bedrock_jobs import read_output
from streams.providers.measured import Measured
from streams.providers.openai_batch import single
from streams.steps.invoke import cost_usd, invoke_streamed
from tests.streams.providers import labs
from tests.streams.providers.canned import Canned

BLOCKS: list[Any] = [None, "5", "", [], [1], 7, True, {}]
COUNTS: list[tuple[Any, int]] = [
    (5, 5), ("5", 5), (5.0, 5), (2.5, 2), (0, 0), (None, 0), (True, 0), (-5, 0), ("-5", 0), ("many", 0), ("", 0),
    ({}, 0), ([5], 0), (MAX_TOKENS, MAX_TOKENS), (MAX_TOKENS + 1, 0), (2**63, 0), (10**30, 0), (1e300, 0),
    (float("nan"), 0), (float("inf"), 0), ("9" * 5000, 0),
]  # fmt: skip
REQUEST = InferenceRequest(event_id="e", model="m", messages=(), system="Say yes.", timeout_s=10.0)
PRICED = ModelSettings.model_validate(
    {"provider": "p", "model": "m", "price": {"input_usd": 1, "output_usd": 5, "cache_read_usd": 0.1}}
)

Asking = Callable[[Any], Awaitable[InferenceAnswer]]


async def ask(provider: Provider, request: InferenceRequest = REQUEST) -> InferenceAnswer:
    measured = Measured(provider)
    await measured.start()
    try:
        return await measured.invoke(request)
    finally:
        await measured.aclose()


async def ask_streamed(provider: Provider) -> InferenceAnswer:
    measured = Measured(provider)
    await measured.start()
    try:
        return await invoke_streamed(measured, REQUEST, lambda _: None)
    finally:
        await measured.aclose()


def converse(usage: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": [{"text": "yes"}]}
    return {"output": {"message": message}, "stopReason": "end_turn", "usage": usage, "metrics": {"latencyMs": 1}}


async def bedrock(usage: Any) -> InferenceAnswer:
    async with Canned(converse(usage)) as server:
        return await ask(labs.bedrock(server.port))


async def bedrock_streamed(usage: Any, behind: bytes = b"") -> InferenceAnswer:
    frames = (
        ("contentBlockDelta", {"delta": {"text": "yes"}, "contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    )
    body = b"".join(eventstream.event(kind, payload) for kind, payload in frames[: 2 if behind else 3]) + behind
    async with Canned(body, headers={"Content-Type": eventstream.CONTENT_TYPE}) as server:
        return await ask_streamed(labs.bedrock(server.port))


async def bedrock_job(usage: Any) -> InferenceAnswer:
    ended = read_output(json.dumps({"recordId": "1", "modelOutput": converse(usage)}).encode(), "m", "arn:job/1")
    assert ended.answer is not None, ended.error
    return ended.answer


def bedrock_block(count: Any) -> dict[str, Any]:
    return {"inputTokens": 3, "outputTokens": count, "totalTokens": count, "cacheReadInputTokens": count}


async def openai(usage: Any) -> InferenceAnswer:
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    async with Canned({"choices": [choice], "usage": usage}) as server:
        return await ask(labs.openai(server.port))


async def openai_streamed(usage: Any) -> InferenceAnswer:
    said = {"choices": [{"delta": {"content": "yes"}, "finish_reason": "stop"}]}
    last = {"choices": [], "usage": usage}
    body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in (said, last)) + b"data: [DONE]\n\n"
    async with Canned(body, headers={"Content-Type": "text/event-stream"}) as server:
        return await ask_streamed(labs.openai(server.port))


async def openai_completion(usage: Any) -> InferenceAnswer:
    return single({"choices": [{"index": 0, "text": "yes", "finish_reason": "stop"}], "usage": usage}, REQUEST)


def openai_block(count: Any) -> dict[str, Any]:
    return {"prompt_tokens": 3, "completion_tokens": count, "prompt_tokens_details": {"cached_tokens": count}}


WHOLE: dict[str, Asking] = {
    "bedrock": bedrock, "bedrock_job": bedrock_job, "openai": openai, "openai_completion": openai_completion,
}  # fmt: skip
STREAMED: dict[str, Asking] = {"bedrock": bedrock_streamed, "openai": openai_streamed}


def assert_is_sound(answer: InferenceAnswer) -> None:
    """The answer can be booked, written to the log and counted."""
    assert (answer.text, answer.finish_reason) == ("yes", "stop")
    assert encode_json(answer.usage)
    cost = cost_usd(answer.usage, PRICED)
    assert cost is not None
    assert cost >= 0


@pytest.mark.parametrize("usage", BLOCKS, ids=repr)
@pytest.mark.parametrize("way", WHOLE)
async def test_an_answer_stands_whatever_its_usage_block_is(way: str, usage: Any) -> None:
    answer = await WHOLE[way](usage)

    assert_is_sound(answer)
    assert answer.usage == Usage()


@pytest.mark.parametrize("usage", BLOCKS, ids=repr)
@pytest.mark.parametrize("way", STREAMED)
async def test_what_a_stream_has_cost_is_estimated_where_its_usage_block_does_not_say(way: str, usage: Any) -> None:
    answer = await STREAMED[way](usage)

    assert_is_sound(answer)
    assert answer.usage == Usage(len(REQUEST.system) // 4)


@pytest.mark.parametrize(("count", "tokens"), COUNTS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("way", [*WHOLE, *(f"{way}_streamed" for way in STREAMED)])
async def test_a_count_that_is_none_counts_as_zero_and_the_others_stand(way: str, count: Any, tokens: int) -> None:
    asking = STREAMED[way.removesuffix("_streamed")] if way.endswith("_streamed") else WHOLE[way]
    answer = await asking((bedrock_block if way.startswith("bedrock") else openai_block)(count))

    assert_is_sound(answer)
    # OpenAI counts those that were cached as input too.
    asked = 3 if way.startswith("bedrock") else max(0, 3 - tokens)
    assert answer.usage == Usage(asked, tokens, tokens)


async def test_a_stream_of_bedrock_that_breaks_off_behind_its_stop_reason_is_whole() -> None:
    broken = bytearray(eventstream.event("metadata", {"usage": {"inputTokens": 1}}))
    broken[-1] ^= 1

    assert_is_sound(await bedrock_streamed(None, bytes(broken)))


def test_a_block_gives_as_many_counts_as_it_is_asked_for() -> None:
    assert counts({"a": 1, "c": "2"}, "a", "b", "c") == (1, 0, 2)
    assert counts(None, "a", "b") == (0, 0)


def cached(usage: dict[str, Any], task: Any) -> Usage:
    """Return what is read of a usage block that stands beside a completion or a vector."""
    entry = {"index": 0, "text": "yes", "finish_reason": "stop", "embedding": [0.5]}
    return single(
        {"choices": [entry], "data": [entry], "usage": usage}, msgspec.structs.replace(REQUEST, task=task)
    ).usage


CACHED = {"prompt_tokens": 100, "completion_tokens": 8, "total_tokens": 108}
DETAILS = {"prompt_tokens_details": {"cached_tokens": 60}}


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (CACHED | DETAILS, Usage(40, 8, 60)),
        (CACHED | {"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 40}, Usage(40, 8, 60)),  # DeepSeek
        (CACHED | {"cached_tokens": 60}, Usage(40, 8, 60)),  # Moonshot
        (CACHED | DETAILS | {"prompt_cache_hit_tokens": 60}, Usage(40, 8, 60)),
        # xAI leaves thoughts out of the answer's tokens.
        (CACHED | {"total_tokens": 158, "completion_tokens_details": {"reasoning_tokens": 50}}, Usage(100, 58)),
        (CACHED | {"completion_tokens_details": {"reasoning_tokens": 5}}, Usage(100, 8)),
    ],
)
async def test_cached_tokens_and_thoughts_are_read_alike_of_all_operations(
    usage: dict[str, Any], expected: Usage
) -> None:
    message = {"message": {"content": "yes"}, "finish_reason": "stop"}
    delta = {"delta": {"content": "yes"}, "finish_reason": "stop"}
    streamed = f"data: {json.dumps({'choices': [delta]})}\n\ndata: {json.dumps({'choices': [], 'usage': usage})}\n\n"

    assert cached(usage, "completion") == expected
    async with Canned({"choices": [message], "usage": usage}) as server:
        assert (await ask(labs.openai(server.port))).usage == expected
    async with Canned(streamed.encode(), headers={"Content-Type": "text/event-stream"}) as server:
        assert (await ask_streamed(labs.openai(server.port))).usage == expected


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 9, "total_tokens": 9}, Usage(9)),
        ({"total_tokens": 9}, Usage(9)),  # Voyage
        ({"prompt_tokens": 9, "total_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(5, 0, 4)),
        (None, Usage()),
    ],
)
def test_all_tokens_of_an_embedding_are_the_prompts(usage: Any, expected: Usage) -> None:
    assert cached(usage, "embedding") == expected
