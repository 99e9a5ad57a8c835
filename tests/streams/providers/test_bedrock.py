"""The Bedrock provider against the stub, and against canned answers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.errors import (
    AccessDenied,
    ConfigError,
    ContentBlocked,
    ContextTooLong,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    Retryable,
)
from contracts.payloads import FinishReason, Usage
from contracts.settings.models import BedrockProvider
from streams.fmstub import eventstream
from streams.fmstub.control import check_knobs
from streams.providers.base import carried_usage
from streams.providers.bedrock import Bedrock, converse_arguments
from tests.streams.providers.canned import Canned
from tests.streams.providers.labs import SESSION, StubLab, bedrock, started_stub
from tests.suites.provider import LIMIT, SCHEMA, ProviderSuite, ask, collect
from tests.support import eventually_async, free_port


@pytest.fixture
async def lab() -> AsyncIterator[StubLab]:
    server, port = await started_stub()
    provider = bedrock(port)
    await provider.start()
    yield StubLab(server.backend, provider)
    await provider.aclose()
    await server.aclose()


class TestBedrock(ProviderSuite):
    """Bedrock keeps the protocol."""


@pytest.mark.parametrize(
    ("stop_reason", "error"),
    [
        ("guardrail_intervened", ContentBlocked),
        ("content_filtered", ContentBlocked),
        ("model_context_window_exceeded", ContextTooLong),
        ("malformed_model_output", ProviderUnavailable),
        ("malformed_tool_use", ProviderUnavailable),
    ],
)
async def test_a_200_with_a_bad_stop_reason_is_an_error(
    lab: StubLab, stop_reason: str, error: type[PenstockError]
) -> None:
    lab.backend.knobs = check_knobs({"stop_reason": stop_reason})

    for streamed in (False, True):
        with pytest.raises(error) as caught:
            await (collect(lab, ask(lab)) if streamed else lab.provider.invoke(ask(lab)))
        # It is billed all the same.
        usage = carried_usage(caught.value)
        assert usage is not None
        assert usage.input_tokens > 0
        assert usage.output_tokens > 0


@pytest.mark.parametrize(
    ("stop_reason", "finish"), [("stop_sequence", "stop"), ("tool_use", "tool_use"), ("brand_new", "other")]
)
async def test_stop_reasons_become_finish_reasons(lab: StubLab, stop_reason: str, finish: FinishReason) -> None:
    lab.backend.knobs = check_knobs({"stop_reason": stop_reason})

    assert (await lab.provider.invoke(ask(lab))).finish_reason == finish


async def test_a_call_that_no_thread_has_begun_is_not_billed(lab: StubLab) -> None:
    await lab.hang()
    hanging = [asyncio.create_task(lab.provider.invoke(ask(lab, timeout_s=0.9))) for _ in range(LIMIT)]
    await eventually_async(lambda: lab.calls() == LIMIT)

    with pytest.raises(ProviderTimeout) as caught:
        await lab.provider.invoke(ask(lab, timeout_s=0.1))

    assert not caught.value.possibly_billed
    assert lab.calls() == LIMIT
    for call in hanging:
        call.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


@contextlib.asynccontextmanager
async def provider_for(port: int, **settings: Any) -> AsyncIterator[Bedrock]:
    section = BedrockProvider(
        kind="bedrock", region="us-east-1", endpoint_url=f"http://127.0.0.1:{port}", max_in_flight=2
    )
    provider = Bedrock(section.model_copy(update=settings), session=SESSION)
    await provider.start()
    try:
        yield provider
    finally:
        await provider.aclose()


async def test_reasoning_blocks_are_left_out_and_text_blocks_joined(lab: StubLab) -> None:
    blocks = [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}, {"text": "One, "}, {"text": "two."}]
    usage = {"inputTokens": 5, "outputTokens": 7, "totalTokens": 12, "cacheReadInputTokens": 3}
    body = {"output": {"message": {"role": "assistant", "content": blocks}}, "stopReason": "end_turn", "usage": usage}

    async with Canned(body) as server, provider_for(server.port) as provider:
        answer = await provider.invoke(ask(lab))

    assert answer.text == "One, two."
    assert answer.usage == Usage(5, 7, 3, 0)


@pytest.mark.parametrize("body", [{"hello": 1}, [1], {"output": "text", "stopReason": "end_turn"}], ids=str)
async def test_what_is_not_converses_answer_is_unavailable(lab: StubLab, body: object) -> None:
    async with Canned(body) as server, provider_for(server.port) as provider:
        with pytest.raises(ProviderUnavailable):
            await provider.invoke(ask(lab))


async def test_what_is_no_piece_of_a_stream_of_converses_is_unavailable(lab: StubLab) -> None:
    body = eventstream.event("contentBlockDelta", {"delta": "text", "contentBlockIndex": 0})
    page = {"Content-Type": eventstream.CONTENT_TYPE}
    async with Canned(body, headers=page) as server, provider_for(server.port) as provider:
        with pytest.raises(ProviderUnavailable):
            await anext(aiter(provider.stream(ask(lab))))


@pytest.mark.parametrize("fault", ["throttlingException", "internalServerException", "serviceUnavailableException"])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_stream_that_fails_once_it_has_begun_may_be_billed(lab: StubLab, fault: str, *, begun: bool) -> None:
    start = eventstream.event("messageStart", {"role": "assistant"}) if begun else b""
    page = {"Content-Type": eventstream.CONTENT_TYPE}
    body = start + eventstream.exception(fault, "no")
    async with Canned(body, headers=page) as server, provider_for(server.port) as provider:
        with pytest.raises(Retryable) as caught:
            await anext(aiter(provider.stream(ask(lab))))

    assert caught.value.possibly_billed is begun


async def test_credentials_that_are_renewed_and_expired_deny_access(
    lab: StubLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `aws configure export-credentials` puts them into the environment, hours ago."""
    for name in ("AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "old")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    provider = Bedrock(BedrockProvider(kind="bedrock", region="us-east-1", endpoint_url="http://127.0.0.1:1"))
    await provider.start()

    with pytest.raises(AccessDenied, match="expired"):
        await provider.invoke(ask(lab))
    with pytest.raises(AccessDenied, match="expired"):
        await anext(aiter(provider.stream(ask(lab))))

    await provider.aclose()


async def test_a_proxys_error_page_is_judged_by_its_status(lab: StubLab) -> None:
    page = {"Content-Type": "text/html"}
    async with Canned(b"<html>forbidden", 403, page) as server, provider_for(server.port) as provider:
        with pytest.raises(AccessDenied):
            await provider.invoke(ask(lab))


async def test_a_bearer_token_is_sent_and_nothing_is_signed(lab: StubLab) -> None:
    section = BedrockProvider(kind="bedrock", region="us-east-1", endpoint_url="http://127.0.0.1:1")
    async with Canned({"stopReason": "end_turn"}) as server:
        url = f"http://127.0.0.1:{server.port}"
        provider = Bedrock(section.model_copy(update={"endpoint_url": url}), bearer_token=b"s3cret")
        await provider.start()
        await provider.invoke(ask(lab))
        await provider.aclose()

        assert server.requests[0][0]["Authorization"] == "Bearer s3cret"


async def test_missing_credentials_deny_access(lab: StubLab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_BEARER_TOKEN_BEDROCK", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    section = BedrockProvider(kind="bedrock", region="us-east-1", endpoint_url="http://127.0.0.1:1")
    provider = Bedrock(section)
    await provider.start()

    with pytest.raises(AccessDenied, match="credentials"):
        await provider.invoke(ask(lab))

    await provider.aclose()


async def test_no_thread_for_a_call_is_unavailable_and_not_billed(
    lab: StubLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_call: object) -> None:
        message = "can't start new thread"
        raise RuntimeError(message)

    async with provider_for(free_port()) as provider:
        monkeypatch.setattr(provider._pool, "submit", refuse)
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.invoke(ask(lab))

    assert not caught.value.possibly_billed


async def test_nobody_listening_is_unavailable_and_not_billed(lab: StubLab) -> None:
    async with provider_for(free_port()) as provider:
        with pytest.raises(ProviderUnavailable) as caught:
            await provider.invoke(ask(lab))

    assert not caught.value.possibly_billed


async def test_a_region_that_is_none_is_a_config_error() -> None:
    provider = Bedrock(BedrockProvider(kind="bedrock", region="not a region!"), session=SESSION)

    with pytest.raises(ConfigError, match="bedrock"):
        await provider.start()

    await provider.aclose()


async def test_the_schema_is_sent_unless_it_is_switched_off(lab: StubLab) -> None:
    async with Canned({"stopReason": "end_turn"}) as server:
        async with provider_for(server.port) as provider:
            await provider.invoke(ask(lab, output_schema=SCHEMA))
        async with provider_for(server.port, structured_output=False) as provider:
            await provider.invoke(ask(lab, output_schema=SCHEMA))

    assert ["outputConfig" in body for _, body in server.requests] == [True, False]


def test_metadata_keeps_to_the_characters_and_number_that_bedrock_takes(lab: StubLab) -> None:
    many = {f"key{number}": "v" for number in range(40)}
    arguments = converse_arguments(ask(lab, event_id="\u00e9vt 1!", metadata={"who": "a|b", **many}))

    assert arguments["requestMetadata"]["event_id"] == "_vt 1_"
    assert arguments["requestMetadata"]["who"] == "a_b"
    assert len(arguments["requestMetadata"]) == 16


def test_sampling_settings_are_sent_only_when_set(lab: StubLab) -> None:
    plain = converse_arguments(ask(lab))
    chosen = converse_arguments(ask(lab, temperature=0.0, stop=("END",), system="Be brief."))

    assert plain["inferenceConfig"] == {"maxTokens": 512}
    assert "system" not in plain
    assert chosen["inferenceConfig"] == {"maxTokens": 512, "temperature": 0.0, "stopSequences": ["END"]}
    assert chosen["system"] == [{"text": "Be brief."}]


@pytest.mark.parametrize("token", [b"a\nb", b"\xff", b"with space"])
async def test_a_token_that_no_header_can_carry_is_a_config_error(token: bytes) -> None:
    provider = Bedrock(BedrockProvider(kind="bedrock", region="us-east-1"), bearer_token=token)

    with pytest.raises(ConfigError, match="bearer token"):
        await provider.start()

    await provider.aclose()
