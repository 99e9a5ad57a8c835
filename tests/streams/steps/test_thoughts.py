"""What a reasoning model has thought, and its server has left in the text of the answer."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Reasoning, Usage
from contracts.settings.models import OpenAIProvider
from streams.providers.openai import OpenAI
from streams.steps.invoke import Thoughts, invoke, invoke_many, invoke_streamed
from tests.streams.providers.canned import Canned

REQUEST = InferenceRequest(event_id="e", model="m", messages=(), system="Say yes.", timeout_s=10.0)
# Text of the server, finish reason, setting, and what consumers get.
CASES: list[tuple[str, str, Reasoning, str]] = [
    ('<think>\nSo, {a}?\n</think>\n\n{"n": 1}', "stop", "strip", '{"n": 1}'),
    ("\n<think></think>yes", "stop", "strip", "yes"),
    ("<think>first</think>yes, </think> ends it", "stop", "strip", "yes, </think> ends it"),
    ("<seed:think>hm</seed:think>yes", "stop", "strip_all", "yes"),
    ("<thinking>hm</thinking> yes", "stop", "strip_all", "yes"),
    ("[THINK]hm[/THINK]yes", "stop", "strip_all", "yes"),
    ("<think>hm</think>yes", "stop", "strip_all", "yes"),
    ("[1, 2]", "stop", "strip_all", "[1, 2]"),
    ("<thinking>as asked for</thinking> yes", "stop", "strip", "<thinking>as asked for</thinking> yes"),
    ("<thinking>as asked for</thinking> yes", "stop", "strip_unopened", "<thinking>as asked for</thinking> yes"),
    ("[THINK]hm[/THINK]yes", "stop", "strip", "[THINK]hm[/THINK]yes"),
    ("<think>cut off at the lim", "length", "strip", ""),
    ("<think>", "length", "strip", ""),
    ("\n <think>\nnever ended ", "stop", "strip", "\n <think>\nnever ended "),
    ("<think>never ended", "other", "strip", "<think>never ended"),
    ("<think>never ended", "stop", "strip_unopened", "<think>never ended"),
    ("<think>", "stop", "strip", "<think>"),
    ("<think>hm</think>\n", "stop", "strip", ""),
    ("yes, <think>no</think>", "stop", "strip", "yes, <think>no</think>"),
    ("<thinks>yes", "stop", "strip", "<thinks>yes"),
    ("<think", "stop", "strip", "<think"),
    ("[1, 2]", "stop", "strip", "[1, 2]"),
    ("  yes ", "stop", "strip", "  yes "),
    ("\n" * 1000, "length", "strip", "\n" * 1000),
    ("So, hm.\n</think>\n\nyes", "stop", "strip", "So, hm.\n</think>\n\nyes"),
    ("So, hm.\n</think>\n\nyes", "stop", "strip_unopened", "yes"),
    ("<think>hm</think>yes", "stop", "strip_unopened", "yes"),
    ("yes, without thoughts", "stop", "strip_unopened", "yes, without thoughts"),
    ("So, cut off at the lim", "length", "strip_unopened", ""),
    ("<think>hm</think>yes", "stop", "keep", "<think>hm</think>yes"),
    ("", "stop", "strip", ""),
]  # fmt: skip
EACH = pytest.mark.parametrize(("text", "finish", "reasoning", "answer"), CASES, ids=lambda value: repr(value)[:24])


class Pieces:
    """A provider that streams what it is given."""

    name = "fake"

    def __init__(self, pieces: list[str], finish: Any, usage: Usage | None = None) -> None:
        self._pieces = pieces
        self._finish = finish
        self._usage = usage

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...

    async def invoke(self, _: InferenceRequest) -> InferenceAnswer:
        """Return all pieces at once."""
        return InferenceAnswer(text="".join(self._pieces), model="m", finish_reason=self._finish)

    async def stream(self, _: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield them."""
        for piece in self._pieces:
            yield DeltaChunk(text=piece)
        yield DeltaChunk(finish_reason=self._finish, usage=self._usage)


@EACH
async def test_they_are_no_part_of_a_whole_answer(text: str, finish: str, reasoning: Reasoning, answer: str) -> None:
    request = msgspec.structs.replace(REQUEST, reasoning=reasoning)

    got = await invoke(Pieces([text], finish), request)

    assert (got.text, got.only_thoughts) == (answer, bool(text) and not answer)


@EACH
@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_they_are_no_part_of_a_streamed_answer_wherever_their_tags_are_split(
    text: str, finish: str, reasoning: Reasoning, answer: str, size: int
) -> None:
    pieces, seen = [text[at : at + size] for at in range(0, len(text), size)], list[str]()
    request = msgspec.structs.replace(REQUEST, reasoning=reasoning)

    got = await invoke_streamed(Pieces(pieces, finish), request, seen.append)

    assert (got.text, "".join(seen)) == (answer, answer)
    assert got.only_thoughts == (bool(text) and not answer)
    assert all(seen)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", " ", "\n", "yes", "[THINK]", "{}"])))
def test_split_in_any_way_an_answer_is_the_same(parts: list[str]) -> None:
    reasonings: list[Reasoning] = ["strip", "strip_unopened", "strip_all", "keep"]
    for reasoning in reasonings:
        whole, split = Thoughts(reasoning), Thoughts(reasoning)
        expected = whole.feed("".join(parts)) + whole.finish("stop")
        assert "".join([*map(split.feed, parts), split.finish("stop")]) == expected


async def test_the_tokens_of_thoughts_are_in_the_estimate_of_a_stream_without_counts() -> None:
    answer = await invoke_streamed(Pieces(["<think>" + "a" * 4000, "</think>yes"], "stop"), REQUEST, lambda _: None)

    assert answer.text == "yes"
    assert answer.usage.output_tokens == 4018 // 4


def completion(message: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "text": message.get("content"), "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>hm</think>\n\nyes"},
        {"content": "yes", "reasoning_content": "hm"},
        {"content": "yes", "reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                     {"type": "text", "text": "yes"}]},
        {"content": [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "yes"}]},
        {"content": [{"type": "text", "text": None}, {"type": "text", "text": "yes"}]},
    ],
)  # fmt: skip
async def test_whatever_a_server_does_with_thoughts_they_are_not_in_the_answer(message: dict[str, Any]) -> None:
    async with Canned(completion(message)) as server:
        provider = OpenAI(OpenAIProvider(kind="openai", base_url=f"http://127.0.0.1:{server.port}/v1"))
        await provider.start()
        try:
            answer = await invoke(provider, REQUEST)
        finally:
            await provider.aclose()

    assert answer.text == "yes"


async def test_they_are_no_part_of_the_answers_to_several_inputs() -> None:
    async with Canned(completion({"content": "<think>hm</think>yes"})) as server:
        provider = OpenAI(OpenAIProvider(kind="openai", base_url=f"http://127.0.0.1:{server.port}/v1"))
        await provider.start()
        try:
            several = await invoke_many(provider, [msgspec.structs.replace(REQUEST, task="completion")], 5.0)
        finally:
            await provider.aclose()

    (answer,) = several.answers
    assert isinstance(answer, InferenceAnswer)
    assert answer.text == "yes"
