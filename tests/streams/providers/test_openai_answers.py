"""What OpenAI-compatible servers say with status 200 that is not an answer, or not all of one, and what it has cost."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from contracts.errors import (
    AccessDenied,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    Retryable,
    Throttled,
)
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import OpenAIProvider
from streams.providers.base import carried_usage
from streams.providers.openai import OpenAI
from streams.steps.invoke import invoke_streamed
from tests.streams.providers.canned import Canned
from tests.streams.providers.labs import openai
from tests.suites.transport import Wire, serving

REQUEST = InferenceRequest(event_id="e", model="m", messages=(), system="Say yes.", timeout_s=10.0)
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
# In the words of the server named beside them.
ERRORS: list[tuple[Any, type[PenstockError], bool]] = [
    ({"code": 429, "message": "upstream is busy"}, Throttled, True),  # OpenRouter
    ({"code": 502, "message": "Provider returned error"}, ProviderUnavailable, True),
    ({"code": 402, "message": "Insufficient credits"}, QuotaExhausted, False),
    ({"code": 400, "message": "bad", "type": "BadRequestError"}, InvalidRequest, False),  # vLLM
    ({"code": 500, "message": "oops", "type": "InternalServerError"}, ProviderUnavailable, True),
    ({"code": "500", "message": "None", "type": "None", "param": "None"}, ProviderUnavailable, True),  # LiteLLM
    ({"code": "429", "message": "over", "type": "budget_exceeded", "param": None}, QuotaExhausted, False),
    (
        {"code": 400, "message": "the request exceeds the available context size, try increasing it",
         "type": "exceed_context_size_error", "n_ctx": 8192},  # llama.cpp
        ContextTooLong, False,
    ),
    ({"message": "slow down", "code": "rate_limit_exceeded"}, Throttled, True),
    ({"message": "Limit reached on tokens per day (TPD)", "code": "rate_limit_exceeded"}, QuotaExhausted, False),
    ({"message": "This model's maximum context length is 4096", "type": "x"}, ContextTooLong, False),
    ("overloaded", ProviderUnavailable, True),
]  # fmt: skip


async def ask(body: Any) -> InferenceAnswer:
    async with Canned(body) as server:
        provider = openai(server.port)
        await provider.start()
        try:
            return await provider.invoke(REQUEST)
        finally:
            await provider.aclose()


async def streamed(raw: bytes) -> InferenceAnswer:
    async with Canned(raw, headers={"Content-Type": "text/event-stream"}) as server:
        provider = openai(server.port)
        await provider.start()
        try:
            return await invoke_streamed(provider, REQUEST, lambda _: None)
        finally:
            await provider.aclose()


def completion(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": finish, **more}], "usage": USAGE}


def events(*chunks: Any, end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + end


def said(text: str, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text, **delta}, "finish_reason": finish}]}


@pytest.mark.parametrize(("error", "kind", "is_billed"), ERRORS, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("where", ["answer", "list", "choice", "stream"])
async def test_an_error_in_an_answer_of_status_200_is_of_its_own_kind(
    error: Any, kind: type[PenstockError], *, is_billed: bool, where: str
) -> None:
    asking = {
        "answer": lambda: ask({"error": error}),
        "list": lambda: ask([{"error": error}]),
        "choice": lambda: ask(completion({"content": "so f"}, "error", error=error)),
        "stream": lambda: streamed(events(said("so f"), {"error": error})),
    }
    with pytest.raises(PenstockError) as caught:
        await asking[where]()

    assert type(caught.value) is kind
    assert isinstance(caught.value, Retryable) is is_billed
    assert getattr(caught.value, "possibly_billed", False) is is_billed


@pytest.mark.parametrize("finish", ["abort", "error"])
async def test_an_answer_that_the_server_has_broken_off_is_no_result(finish: str) -> None:
    for asking in (
        ask(completion({"content": "so f"}, finish)),
        streamed(events(said("so f"), said("", finish), {"choices": [], "usage": USAGE})),
    ):
        with pytest.raises(ProviderUnavailable) as caught:
            await asking
        assert caught.value.possibly_billed
        assert carried_usage(caught.value) == Usage(9, 4)


@pytest.mark.parametrize("finish", ["content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT"])
async def test_an_answer_that_a_filter_has_stopped_is_blocked_and_says_what_it_has_cost(finish: str) -> None:
    for asking in (
        ask(completion({"content": "so f"}, finish)),
        streamed(events(said("so f"), said("", finish), {"choices": [], "usage": USAGE})),
    ):
        with pytest.raises(ContentBlocked) as caught:
            await asking
        assert carried_usage(caught.value) == Usage(9, 4)


async def test_a_refusal_that_comes_in_pieces_is_told_whole_with_what_it_has_cost() -> None:
    pieces = [said("", refusal="I "), said("", refusal="will not."), said("", "stop"), {"choices": [], "usage": USAGE}]

    with pytest.raises(ContentBlocked, match=r"I will not\.") as caught:
        await streamed(events(*pieces))

    assert carried_usage(caught.value) == Usage(9, 4)


async def test_without_a_task_a_refusal_says_what_it_has_cost() -> None:
    async with Canned(completion({"content": None, "refusal": "no"})) as server:
        provider = openai(server.port)
        await provider.start()
        with pytest.raises(ContentBlocked):
            await provider.invoke(REQUEST)
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert provider.begin(REQUEST, waiter)
        outcome = await waiter
        with pytest.raises(ContentBlocked) as caught:
            provider.read(outcome, REQUEST, 0.1)
        await provider.aclose()

    assert carried_usage(caught.value) == Usage(9, 4)


@pytest.mark.parametrize(("finish", "ours"), [("MAX_TOKENS", "length"), ("STOP", "stop"), (None, "other")])
async def test_finish_reasons_may_be_in_the_words_of_google(finish: str | None, ours: str) -> None:
    assert (await ask(completion({"content": "yes"}, finish))).finish_reason == ours


@pytest.mark.parametrize("message", [{"content": "yes"}, {"content": "yes", "refusal": ""}], ids=["plain", "careful"])
async def test_thoughts_that_are_in_the_total_alone_are_output(message: dict[str, Any]) -> None:
    """Google and xAI bill them as output and count them apart."""
    usage = {"prompt_tokens": 20, "completion_tokens": 151, "total_tokens": 553}

    answer = await ask({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})

    assert answer.usage == Usage(20, 533)


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_a_stream_that_breaks_off_behind_its_finish_reason_is_whole(transport: str) -> None:
    async def handle(wire: Wire) -> None:
        await wire.request()
        data = events(said("yes"), said("", "stop"), end=b"")
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data))
        await asyncio.sleep(0.01)
        wire.writer.transport.abort()

    async with serving(handle) as server:
        settings: dict[str, Any] = {"base_url": f"http://127.0.0.1:{server.port}/v1", "transport": transport}
        provider = OpenAI(OpenAIProvider(kind="openai", **settings))
        await provider.start()
        answer = await invoke_streamed(provider, REQUEST, lambda _: None)
        await provider.aclose()

    assert (answer.text, answer.finish_reason, server.connections) == ("yes", "stop", 1)


def cut(*chunks: Any, hold_s: float) -> Callable[[Wire], Awaitable[None]]:
    """Send chunks of a stream, and after a while reset the connection."""

    async def handle(wire: Wire) -> None:
        await wire.request()
        data = events(*chunks, end=b"")
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(data), data))
        await asyncio.sleep(hold_s)
        wire.writer.transport.abort()

    return handle


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
@pytest.mark.parametrize(
    "chunks",
    [
        [said("so f", "stop"), said("ar", "stop")],
        [said("so f"), said("", "stop"), said("ar", "stop")],
        [said("", "stop", role="assistant")],
        [said("so f"), said("", "stop", reasoning_content="hm")],
    ],
    ids=["pieces", "between", "none", "thought"],
)
@pytest.mark.parametrize(("hold_s", "kind"), [(0.01, ProviderUnavailable), (5.0, ProviderTimeout)])
async def test_a_stream_that_breaks_off_behind_a_piece_with_a_finish_reason_is_half_an_answer(
    transport: str, chunks: list[Any], hold_s: float, kind: type[PenstockError]
) -> None:
    """Converters for Gemini give `stop` with every piece."""
    async with serving(cut(*chunks, hold_s=hold_s)) as server:
        settings: dict[str, Any] = {"base_url": f"http://127.0.0.1:{server.port}/v1", "transport": transport}
        provider = OpenAI(OpenAIProvider(kind="openai", **settings))
        await provider.start()
        with pytest.raises(PenstockError) as caught:
            await invoke_streamed(provider, msgspec.structs.replace(REQUEST, timeout_s=0.3), lambda _: None)
        await provider.aclose()

    assert type(caught.value) is kind
    assert getattr(caught.value, "possibly_billed", False)


async def test_a_stream_with_a_finish_reason_at_every_piece_is_a_result_once_it_has_ended() -> None:
    assert (await streamed(events(said("so f", "stop"), said("ar", "stop")))).text == "so far"


@pytest.mark.parametrize("code", [401, 403, 404])
async def test_an_error_in_an_answer_that_has_begun_or_is_billed_does_not_pause_the_route(code: int) -> None:
    """A router's upstream, or its moderation, has refused this one call: the router has let us in."""
    error = {"error": {"code": code, "message": "no"}}
    for asking in (
        ask({**error, "usage": USAGE}),
        ask(completion({"content": ""}, "error", **error)),
        ask({**completion({"content": "so f"}, "error", **error), "usage": None}),
        streamed(events(said("so f"), error)),
        streamed(events({"choices": [{"delta": {"content": "so f"}, **error}]})),
        streamed(events({**error, "usage": USAGE})),
    ):
        with pytest.raises(ProviderUnavailable) as caught:
            await asking
        assert caught.value.possibly_billed


@pytest.mark.parametrize(
    ("code", "kind"), [(401, AccessDenied), (403, ProviderUnavailable), (404, ModelNotFound)]
)  # fmt: skip
async def test_of_the_errors_in_place_of_an_answer_a_wrong_key_and_an_unknown_model_pause_the_route(
    code: int, kind: type[PenstockError]
) -> None:
    error = {"error": {"code": code, "message": "no"}}
    for asking in (ask(error), streamed(events(said(""), error))):
        with pytest.raises(PenstockError) as caught:
            await asking
        assert type(caught.value) is kind


async def test_an_error_in_a_stream_says_what_the_call_has_cost() -> None:
    with pytest.raises(ProviderUnavailable) as caught:
        await streamed(events(said("so f"), {"error": {"code": 502, "message": "no"}, "usage": USAGE}))

    assert carried_usage(caught.value) == Usage(9, 4)


async def test_cached_tokens_that_are_not_of_the_prompts_are_no_thoughts() -> None:
    usage = {
        "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 107, "prompt_tokens_details": {"cached_tokens": 100}
    }  # fmt: skip

    assert (await ask({**completion({"content": "yes"}), "usage": usage})).usage == Usage(0, 4, 100)


async def test_events_without_data_keep_a_stream_alive_and_say_nothing() -> None:
    assert (await streamed(b"data:\n\n" + events(said("yes", "stop"), end=b"data: \n\ndata: [DONE]\n\n"))).text == "yes"


@pytest.mark.parametrize(
    ("status", "body", "kind", "is_billed"),
    [
        (400, {"error": {"message": "Budget has been exceeded! Cost: 2", "code": "400"}}, QuotaExhausted, False),
        (429, {"error": {"message": "over", "type": "budget_exceeded", "code": "429"}}, QuotaExhausted, False),
        (400, {"error": {"message": "Your credit balance is too low to access"}}, QuotaExhausted, False),
        (400, {"error": {"message": "x" * 200 + " budget has been exceeded"}}, InvalidRequest, False),
        (400, [{"error": {"code": 400, "message": "API key not valid. Please."}}], AccessDenied, False),
        (400, {"code": "x", "error": "Incorrect API key provided: ab***yz."}, AccessDenied, False),
        (400, {"error": {"code": "unsupported_value", "param": "temperature", "message": "no"}}, ModelNotFound, False),
        (400, {"error": {"code": "unsupported_parameter", "param": "stop", "message": "no"}}, ModelNotFound, False),
        (400, {"error": {"code": "unsupported_value", "param": "response_format.json_schema"}}, ModelNotFound, False),
        (400, {"error": {"code": "unsupported_value", "param": "messages[0].role"}}, InvalidRequest, False),
        (400, {"error": {"code": "unsupported_value", "param": "prompt", "message": "no"}}, InvalidRequest, False),
        (400, {"error": {"code": "unsupported_parameter", "param": None, "message": "no"}}, InvalidRequest, False),
        (202, {"status": "queued", "message": "credit balance is too low"}, ProviderUnavailable, False),
        (204, b"", ProviderUnavailable, False),
        (403, {"code": "The caller does not have permission to execute the specified operation",
               "error": "Content violates usage guidelines. Team: t, Failed check: x"}, ContentBlocked, False),
        (403, {"code": "permission-denied", "error": "Access to the chat endpoint is denied"}, AccessDenied, False),
        (403, {"error": {"code": 403, "message": "Request blocked: prompt injection patterns detected"}},
         ContentBlocked, False),
        (400, {"error": {"message": "litellm.ContentPolicyViolationError: no", "code": "400"}}, ContentBlocked, False),
        (400, {"error": {"message": "litellm.ContextWindowExceededError: no", "code": "400"}}, ContextTooLong, False),
        (403, {"error": {"code": 403, "message": "no", "metadata": {"flagged_input": "..."}}}, ContentBlocked, False),
        (403, {"error": {"code": 403, "message": "no", "metadata": {"limit": 1}}}, AccessDenied, False),
        (424, {"error": "Request failed during generation", "error_type": "generation"}, ProviderUnavailable, True),
        (498, {"error": {"type": "capacity_exceeded", "message": "flex"}}, ProviderUnavailable, False),
        (504, b"<html>504 Gateway Time-out</html>", ProviderTimeout, True),
        (524, b"error code: 524", ProviderTimeout, True),
        (500, {"error": {"code": 500, "message": "Context size has been exceeded."}}, ProviderUnavailable, False),
    ],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
async def test_refusals_are_of_their_kind_in_the_words_of_each_server(
    status: int, body: Any, kind: type[PenstockError], *, is_billed: bool
) -> None:
    async with Canned(body, status) as server:
        provider = openai(server.port)
        await provider.start()
        with pytest.raises(PenstockError) as caught:
            await provider.invoke(REQUEST)
        await provider.aclose()

    assert type(caught.value) is kind
    assert getattr(caught.value, "possibly_billed", False) is is_billed


def test_azure_gets_the_newer_name_of_the_limit() -> None:
    provider = OpenAI(OpenAIProvider(kind="openai", base_url="https://ours.openai.azure.com/openai/v1"))

    assert provider._body(REQUEST)["max_completion_tokens"] == 512


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"object": "error", "message": "This model's maximum context length is 4096", "code": 400}, ContextTooLong),
        ({"object": "error", "message": "no", "type": "BadRequestError", "code": 400}, InvalidRequest),
        ({"object": "error", "message": "oops", "code": 500}, ProviderUnavailable),
    ],
)
@pytest.mark.parametrize("where", ["answer", "stream"])
async def test_an_error_without_an_envelope_is_of_its_own_kind_too(
    where: str, error: dict[str, Any], kind: type[PenstockError]
) -> None:
    """As older versions of vLLM send it."""
    with pytest.raises(PenstockError) as caught:
        await (ask(error) if where == "answer" else streamed(events(error)))

    assert type(caught.value) is kind


@pytest.mark.parametrize("end", [b"data: [DONE] \n\n", b"data:[DONE]\r\n\r\n", b"data: [DONE]\t", b"data:  [DONE]\n\n"])
async def test_the_end_of_a_stream_may_have_blanks_around_it(end: bytes) -> None:
    assert (await streamed(events(said("yes", "stop"), end=end))).text == "yes"


async def test_a_character_that_a_server_has_cut_in_two_is_whole_again() -> None:
    """Servers that count as JavaScript does end a piece in the middle of an emoji."""
    raw = b"".join(
        b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":%b}]}\n\n' % piece
        for piece in [(b"a\\ud83d", b"null"), (b"\\ude00b", b'"stop"')]
    )

    assert (await streamed(raw + b"data: [DONE]\n\n")).text == "a\U0001f600b"


async def test_the_end_of_the_context_window_is_a_limit() -> None:
    """In the words of Mistral."""
    assert (await ask(completion({"content": "so f"}, "model_length"))).finish_reason == "length"


@pytest.mark.parametrize("content", [["so ", "far"], [{"type": "text", "text": "so "}, "far"]])
async def test_parts_of_an_answer_may_be_texts(content: Any) -> None:
    assert (await ask(completion({"content": content}))).text == "so far"
    assert (await streamed(events({"choices": [{"delta": {"content": content}, "finish_reason": "stop"}]}))).text == (
        "so far"
    )


async def test_the_counts_of_a_stream_may_come_with_every_piece_and_be_texts() -> None:
    first, last = ({**said(text, end), "usage": {"prompt_tokens": "9", "completion_tokens": count}}
                   for text, end, count in [("so ", None, "1"), ("far", "stop", "2")])  # fmt: skip

    assert (await streamed(events(first, last, {"choices": [], "usage": None}))).usage == Usage(9, 2)
