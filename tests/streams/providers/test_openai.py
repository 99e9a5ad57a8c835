"""The OpenAI provider against the stub, and against canned answers of all kinds of servers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import (
    AccessDenied,
    ConfigError,
    ContentBlocked,
    ModelNotFound,
    PenstockError,
    ProviderUnavailable,
    QuotaExhausted,
    Throttled,
)
from contracts.payloads import InferenceRequest, Usage
from contracts.settings.models import OpenAIProvider
from streams.providers.base import NotAsked
from streams.providers.openai import OpenAI, _answer, _plain
from streams.providers.transport.base import BrokenOff
from tests.streams.providers.canned import Canned
from tests.streams.providers.labs import StubLab, openai, started_stub
from tests.suites.provider import SCHEMA, ProviderSuite, ask, collect
from tests.suites.transport import Wire, serving
from tests.support import eventually_async, free_port


@pytest.fixture
async def lab() -> AsyncIterator[StubLab]:
    server, port = await started_stub()
    provider = openai(port)
    await provider.start()
    yield StubLab(server.backend, provider)
    await provider.aclose()
    await server.aclose()


class TestOpenAI(ProviderSuite):
    """OpenAI keeps the protocol."""


@contextlib.asynccontextmanager
async def provider_for(port: int, **settings: Any) -> AsyncIterator[OpenAI]:
    section = OpenAIProvider(kind="openai", base_url=f"http://127.0.0.1:{port}/v1/", **settings)
    provider = OpenAI(section, api_key=b"s3cret")
    await provider.start()
    try:
        yield provider
    finally:
        await provider.aclose()


def completion(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "served", "choices": [{"message": message, "finish_reason": finish}], **more}


async def invoke(lab: StubLab, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Any:
    async with Canned(body, status, headers) as server, provider_for(server.port) as provider:
        return await provider.invoke(ask(lab))


async def test_the_request_carries_key_event_id_schema_and_limits(lab: StubLab) -> None:
    async with Canned(completion({"content": "ok"})) as server, provider_for(server.port) as provider:
        await provider.invoke(
            ask(lab, event_id="evt \u00e9/1", system="Be brief.", output_schema=SCHEMA, temperature=0.0, stop=("END",))
        )

    headers, body = server.requests[0]
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["X-Client-Request-Id"] == "evt%20%C3%A9/1"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (body["max_tokens"], body["temperature"], body["stop"]) == (512, 0.0, ["END"])


async def test_the_schema_can_be_switched_off(lab: StubLab) -> None:
    async with (
        Canned(completion({"content": "ok"})) as server,
        provider_for(server.port, structured_output=False) as provider,
    ):
        await provider.invoke(ask(lab, output_schema=SCHEMA))

    assert "response_format" not in server.requests[0][1]


async def test_the_answer_says_which_model_served_it_and_what_was_cached(lab: StubLab) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 6}}

    answer = await invoke(lab, completion({"content": "ok"}, usage=usage))

    assert answer.model == "served"
    assert answer.usage == Usage(input_tokens=4, output_tokens=4, cache_read_tokens=6)


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, ""), ("plain", "plain"), ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab")],
)
async def test_content_may_be_missing_text_or_parts(lab: StubLab, content: Any, text: str) -> None:
    assert (await invoke(lab, completion({"content": content, "reasoning_content": "hm"}))).text == text


@pytest.mark.parametrize(
    "body", [completion({"content": "no"}, "content_filter"), completion({"content": None, "refusal": "I will not."})]
)
async def test_a_refusal_is_blocked_content(lab: StubLab, body: Any) -> None:
    with pytest.raises(ContentBlocked):
        await invoke(lab, body)


@pytest.mark.parametrize("body", [b"<html>", {"choices": []}, {"choices": [1]}, [], {"object": "list"}])
async def test_what_is_no_completion_is_unavailable(lab: StubLab, body: Any) -> None:
    with pytest.raises(ProviderUnavailable):
        await invoke(lab, body)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (302, b"", ModelNotFound),
        (402, {"error": {"message": "no credit"}}, QuotaExhausted),
        (403, b"<html>", AccessDenied),
        (404, {"detail": "Not Found"}, ModelNotFound),
        (429, {"error": {"code": "insufficient_quota"}}, QuotaExhausted),
        (429, {"error": {"message": "Rate limit reached for m on requests per day (RPD): Limit 200"}}, QuotaExhausted),
        (429, {"error": {"message": "Rate limit exceeded: free-models-per-day"}}, QuotaExhausted),
        (429, {"error": {"message": "You have used up your daily free allocation"}}, QuotaExhausted),
        (429, {"error": {"message": "Rate limit reached for daily-digest on tokens per min (TPM)"}}, Throttled),
        (429, {"error": {"message": "Rate limit reached for m on requests per min (RPM): Limit 20"}}, Throttled),
        (429, b"", Throttled),
        (503, {"error": {"message": "Loading model"}}, ProviderUnavailable),
        (529, {"error": "overloaded"}, ProviderUnavailable),
    ],
)
async def test_refusals_are_judged_by_code_then_status(
    lab: StubLab, status: int, body: Any, kind: type[PenstockError]
) -> None:
    with pytest.raises(PenstockError) as caught:
        await invoke(lab, body, status, {"Location": "http://elsewhere"})

    assert type(caught.value) is kind


@pytest.mark.parametrize(("wait", "kind"), [("86400", QuotaExhausted), ("600", QuotaExhausted), ("60", Throttled)])
async def test_a_throttle_that_asks_for_a_long_wait_is_a_quota(
    lab: StubLab, wait: str, kind: type[PenstockError]
) -> None:
    with pytest.raises(PenstockError) as caught:
        await invoke(lab, b"", 429, {"Retry-After": wait})

    assert type(caught.value) is kind


async def test_an_answer_beyond_the_cap_is_refused(lab: StubLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.providers.openai._MAX_ANSWER_BYTES", 1000)

    with pytest.raises(ProviderUnavailable, match="longer than 1000 bytes"):
        await invoke(lab, completion({"content": "x" * 2000}))


async def stream(lab: StubLab, raw: bytes) -> list[str]:
    headers = {"Content-Type": "text/event-stream"}
    async with Canned(raw, 200, headers) as server, provider_for(server.port) as provider:
        lab.provider, before = provider, lab.provider
        try:
            return [piece.text for piece in await collect(lab, ask(lab))]
        finally:
            lab.provider = before


async def test_a_stream_may_have_comments_crlf_and_no_done(lab: StubLab) -> None:
    raw = (
        b': keep-alive\r\n\r\ndata: {"choices": [{"delta": {"content": "one "}}]}\r\n\r\n'
        b'data:{"choices": [{"delta": {"content": "two"}, "finish_reason": "stop"}]}'
    )

    assert await stream(lab, raw) == ["one ", "two", ""]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b'data: {"choices": [{"delta": {"content": "one"}}]}\n\ndata: [DONE]\n\n', ProviderUnavailable),
        (b'data: {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}\n\n', Throttled),
        (b'data: {"error": {"message": "This model\'s maximum context length is 4096", "type": "x"}}\n\n', None),
        (b"data: nonsense\n\n", ProviderUnavailable),
        (b"", ProviderUnavailable),
        (b'data: {"choices": [{"delta": {"refusal": "no"}}]}\n\n', ContentBlocked),
    ],
)
async def test_a_stream_that_goes_wrong_says_so(lab: StubLab, raw: bytes, kind: type[PenstockError] | None) -> None:
    with pytest.raises(PenstockError) as caught:
        await stream(lab, raw)

    assert kind is None or type(caught.value) is kind
    assert kind is not None or caught.value.reason == "context_too_long"


async def test_nobody_listening_is_unavailable_and_not_billed(lab: StubLab) -> None:
    async with provider_for(free_port()) as provider:
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.invoke(ask(lab))

    assert not caught.value.possibly_billed


async def test_a_key_that_no_header_can_carry_is_a_config_error() -> None:
    provider = OpenAI(OpenAIProvider(kind="openai", base_url="http://127.0.0.1:1/v1"), api_key=b"a\nb")

    with pytest.raises(ConfigError, match="API key"):
        await provider.start()


async def test_proxies_of_the_environment_are_not_used(lab: StubLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")

    assert (await invoke(lab, completion({"content": "ok"}))).text == "ok"


def test_openai_itself_gets_the_newer_name_of_the_limit(lab: StubLab) -> None:
    provider = OpenAI(OpenAIProvider(kind="openai", base_url="https://api.openai.com/v1"))

    assert provider._body(ask(lab))["max_completion_tokens"] == 512


_COUNTS = st.sampled_from([0, 7, 100, -1, True, None, "7", 2.5])
_BODIES = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {
                    "message": st.fixed_dictionaries(
                        {"content": st.sampled_from(["", "yes", None, [{"text": "yes"}]])},
                        optional={"refusal": st.sampled_from([None, "", "no"]), "role": st.just("assistant")},
                    )
                },
                optional={"finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter", None])},
            ),
            max_size=2,
        )
    },
    optional={
        "model": st.sampled_from(["served", "", None, 3]),
        "id": st.sampled_from(["a1", None]),
        "usage": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "prompt_tokens": _COUNTS,
                "completion_tokens": _COUNTS,
                "total_tokens": _COUNTS,
                "prompt_cache_hit_tokens": _COUNTS,
                "cached_tokens": _COUNTS,
                "prompt_tokens_details": st.none() | st.fixed_dictionaries({}, optional={"cached_tokens": _COUNTS}),
            },
        ),
    },
)


@given(_BODIES)
def test_an_answer_read_in_one_step_is_the_one_that_is_read_with_care(body: dict[str, Any]) -> None:
    request = InferenceRequest(event_id="e", model="asked", messages=())
    plain = _plain(msgspec.json.encode(body), request)

    if plain is not None:
        assert plain == _answer(body, request)


def test_the_usual_answer_is_read_in_one_step() -> None:
    body = completion({"role": "assistant", "content": "yes"})
    request = InferenceRequest(event_id="e", model="asked", messages=())

    assert _plain(msgspec.json.encode(body), request) == _answer(body, request)


async def texts(provider: OpenAI, request: InferenceRequest) -> list[str]:
    return [piece.text async for piece in provider.stream(request)]


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAMED = chunked(b'data: {"choices":[{"delta":{"content":"ok"},"finish_reason":"stop"}]}\n\n')
DONE = chunked(b"data: [DONE]\n\n")


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_a_stream_whose_end_comes_behind_its_last_event_leaves_the_connection_to_the_next_call(
    lab: StubLab, transport: str
) -> None:
    async def handle(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(STREAM_HEAD + STREAMED + DONE)
            # What servers do: the last event is one write, the end of the body another one.
            await asyncio.sleep(0.01)
            await wire.send(b"0\r\n\r\n")

    async with serving(handle) as server, provider_for(server.port, transport=transport) as provider:
        for _ in range(3):
            assert await texts(provider, ask(lab)) == ["ok", ""]

    assert server.connections == 1


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_a_stream_that_is_left_open_behind_its_last_event_is_whole_and_not_waited_for(
    lab: StubLab, transport: str
) -> None:
    async def handle(wire: Wire) -> None:
        await wire.request()
        await wire.send(STREAM_HEAD + STREAMED + DONE)
        await wire.reader.read()

    async with serving(handle) as server, provider_for(server.port, transport=transport) as provider:
        async with asyncio.timeout(10):
            assert await texts(provider, ask(lab, timeout_s=60)) == ["ok", ""]
        await eventually_async(lambda: server.gone == 1)


@pytest.mark.parametrize("transport", ["lean", "aiohttp"])
async def test_a_stream_that_breaks_off_behind_its_last_event_is_whole(lab: StubLab, transport: str) -> None:
    async def handle(wire: Wire) -> None:
        await wire.request()
        await wire.send(STREAM_HEAD + STREAMED + DONE)
        await asyncio.sleep(0.01)
        wire.writer.transport.abort()

    async with serving(handle) as server, provider_for(server.port, transport=transport) as provider:
        assert await texts(provider, ask(lab)) == ["ok", ""]


async def told(call: "asyncio.Future[Any] | asyncio.Task[Any]") -> Any:
    await asyncio.wait([call])
    return call.exception() or call.result()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (completion({"content": "ok"}, usage={"prompt_tokens": 3, "completion_tokens": 2}), 200),
        (completion({"content": None, "refusal": "no"}), 200),
        (b"<html>", 200),
        ({"error": {"message": "slow down", "type": "requests"}}, 429),
        ({"error": {"message": "who are you?"}}, 401),
        (b"oops", 503),
    ],
    ids=["answer", "refusal", "no JSON", "429", "401", "503"],
)
async def test_without_a_task_a_call_has_the_same_outcome(lab: StubLab, body: Any, status: int) -> None:
    async with Canned(body, status) as server, provider_for(server.port) as provider:
        assert provider.direct is provider
        with_task = await told(asyncio.ensure_future(provider.invoke(ask(lab))))
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert provider.begin(ask(lab), waiter)
        outcome = await told(waiter)
        try:
            without: Any = provider.read(outcome, ask(lab), 0.1)
        except PenstockError as error:
            without = error

    assert (type(without), str(without)) == (type(with_task), str(with_task))
    assert server.requests[0][1] == server.requests[1][1]


async def test_without_a_task_there_is_no_call_before_there_is_a_connection(lab: StubLab) -> None:
    async with Canned(completion({"content": "ok"})) as server, provider_for(server.port) as provider:
        assert not provider.begin(ask(lab), asyncio.get_running_loop().create_future())
        await asyncio.sleep(0)

    assert server.requests == []


async def test_without_a_task_a_call_over_a_connection_that_has_gone_was_not_made(lab: StubLab) -> None:
    async with provider_for(free_port()) as provider:
        with pytest.raises(NotAsked):
            provider.read(BrokenOff("gone", possibly_billed=False), ask(lab), 0.1)
        with pytest.raises(ProviderUnavailable) as caught:
            provider.read(BrokenOff("gone", possibly_billed=True), ask(lab), 0.1)
        assert caught.value.possibly_billed
        with pytest.raises(ProviderUnavailable):
            provider.read(None, ask(lab), 0.1)


async def test_over_the_general_transport_calls_need_tasks(lab: StubLab) -> None:
    async with provider_for(free_port(), transport="aiohttp") as provider:
        assert provider.direct is None
        assert not provider.begin(ask(lab), asyncio.get_running_loop().create_future())
