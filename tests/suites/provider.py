"""Conformance suite of providers: what the protocol in streams/providers/base.py promises, whoever serves the model.

An adapter's test file provides the fixture `lab` and inherits ProviderSuite.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, Protocol

import jsonschema_rs
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
    Throttled,
)
from contracts.payloads import DeltaChunk, InferenceRequest, Message
from streams.providers.base import Provider
from tests.support import eventually_async

LIMIT = 4
PROMPT = (
    "Summarise the event.\n"
    '{"ticket": {"id": 8812, "subject": "Charged twice", "description": "Order 4411 was charged twice."}}'
)
UNICODE = "Gr\u00fc\u00dfe aus K\u00f6ln \u2603 \u4f60\u597d \U0001f600, invoice INV-22 was paid late."
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "summary": {"type": "string", "maxLength": 300},
        "category": {"enum": ["billing", "technical", "other"]},
        "key_facts": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["summary", "category", "key_facts"],
    "additionalProperties": False,
}
KINDS: dict[str, type[PenstockError]] = {
    "throttling": Throttled,
    "daily_quota": QuotaExhausted,
    "quota": QuotaExhausted,
    "unavailable": ProviderUnavailable,
    "internal": ProviderUnavailable,
    "not_ready": ProviderUnavailable,
    "model_error": ProviderUnavailable,
    "timeout": ProviderTimeout,
    "validation": InvalidRequest,
    "model_refused": InvalidRequest,
    "too_long": ContextTooLong,
    "blocked": ContentBlocked,
    "access_denied": AccessDenied,
    "not_found": ModelNotFound,
}


class Lab(Protocol):
    """A started provider with a limit of LIMIT calls, and power over whom it asks."""

    @property
    def provider(self) -> Provider:
        """Return the provider; a lab may put another one in its place."""

    @property
    def model(self) -> str:
        """Return a model that the provider knows."""

    @property
    def cannot(self) -> Mapping[str, str]:
        """Return capability -> why not; capabilities are faults, breaks, slow, hang, counts."""

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        """Let every further call fail with a kind of KINDS, or `cut`, `malformed`, `stream_error`."""

    async def hang(self) -> None:
        """Let every further call hang."""

    async def slow(self, latency_s: float, stream_pause_s: float = 0.0) -> None:
        """Let every further call take that long."""

    async def recover(self) -> None:
        """Let every further call be answered at once."""

    def calls(self) -> int:
        """Return how many calls have arrived."""

    def peak(self) -> int:
        """Return how many calls there were at a time, at most."""


def ask(lab: Lab, prompt: str = PROMPT, **changes: Any) -> InferenceRequest:
    """Return a request for the lab's model."""
    request = InferenceRequest(event_id="evt-1", model=lab.model, messages=(Message("user", prompt),), timeout_s=10.0)
    return msgspec.structs.replace(request, **changes)


async def collect(lab: Lab, request: InferenceRequest, into: list[DeltaChunk] | None = None) -> list[DeltaChunk]:
    """Return all pieces of a stream; `into` keeps those that came before an error."""
    pieces = [] if into is None else into
    async for piece in lab.provider.stream(request):
        pieces.append(piece)
    return pieces


def need(lab: Lab, capability: str) -> None:
    """Skip the test when the provider does not have a capability, with its reason."""
    if capability in lab.cannot:
        pytest.skip(f"{lab.provider.name}: {lab.cannot[capability]}")


class ProviderSuite:
    """What every provider does."""

    def test_it_is_a_provider_with_a_bounded_name(self, lab: Lab) -> None:
        assert isinstance(lab.provider, Provider)
        assert lab.provider.name in {"embedded", "fake", "openai", "aws.bedrock"}

    async def test_an_answer_has_text_model_usage_and_finish_reason(self, lab: Lab) -> None:
        answer = await lab.provider.invoke(ask(lab, system="You are brief."))

        assert "Charged twice" in answer.text
        assert answer.model == lab.model
        assert answer.finish_reason == "stop"
        assert answer.usage.input_tokens > 0
        assert answer.usage.output_tokens > 0
        assert answer.response_id

    async def test_unicode_survives(self, lab: Lab) -> None:
        answer = await lab.provider.invoke(ask(lab, UNICODE))

        assert UNICODE.partition(",")[0] in answer.text

    async def test_the_answer_satisfies_the_output_schema(self, lab: Lab) -> None:
        answer = await lab.provider.invoke(ask(lab, output_schema=SCHEMA))

        assert jsonschema_rs.is_valid(SCHEMA, json.loads(answer.text))
        assert json.loads(answer.text)["category"] == "billing"

    async def test_an_answer_cut_at_max_tokens_says_length(self, lab: Lab) -> None:
        answer = await lab.provider.invoke(ask(lab, max_tokens=3))

        assert answer.finish_reason == "length"
        assert len(answer.text) <= 3 * 4

    async def test_stream_pieces_add_up_to_the_answer(self, lab: Lab) -> None:
        whole = await lab.provider.invoke(ask(lab, UNICODE))

        pieces = await collect(lab, ask(lab, UNICODE))

        assert "".join(piece.text for piece in pieces) == whole.text
        assert len(pieces) > 3

    async def test_only_the_last_piece_has_finish_reason_and_usage(self, lab: Lab) -> None:
        pieces = await collect(lab, ask(lab))

        assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert pieces[-1].finish_reason == "stop"
        assert pieces[-1].usage is not None
        assert pieces[-1].usage.output_tokens > 0

    async def test_a_slow_answer_is_a_timeout_within_the_bound(self, lab: Lab) -> None:
        need(lab, "slow")
        await lab.slow(5.0)
        began_at_s = time.monotonic()

        with pytest.raises(ProviderTimeout):
            await lab.provider.invoke(ask(lab, timeout_s=0.2))

        assert 0.15 < time.monotonic() - began_at_s < 1.5

    async def test_a_slow_stream_is_a_timeout_within_the_bound(self, lab: Lab) -> None:
        need(lab, "slow")
        await lab.slow(0.05, stream_pause_s=0.1)
        began_at_s = time.monotonic()

        with pytest.raises(ProviderTimeout):
            await collect(lab, ask(lab, timeout_s=0.25))

        assert 0.2 < time.monotonic() - began_at_s < 1.6

    async def test_a_hanging_call_is_a_timeout_that_may_be_billed(self, lab: Lab) -> None:
        need(lab, "hang")
        await lab.hang()

        with pytest.raises(ProviderTimeout) as caught:
            await lab.provider.invoke(ask(lab, timeout_s=0.2))

        assert caught.value.possibly_billed

    async def test_a_throttle_says_when_to_come_back(self, lab: Lab) -> None:
        need(lab, "faults")
        await lab.fail("throttling", retry_after_s=7.5)

        with pytest.raises(Throttled) as caught:
            await lab.provider.invoke(ask(lab))

        assert caught.value.retry_after_s == pytest.approx(7.5, abs=0.01)
        assert not caught.value.possibly_billed

    @pytest.mark.parametrize("kind", sorted(KINDS))
    async def test_each_fault_becomes_its_kind_of_error(self, lab: Lab, kind: str) -> None:
        need(lab, "faults")
        await lab.fail(kind)

        with pytest.raises(PenstockError) as caught:
            await lab.provider.invoke(ask(lab))

        assert type(caught.value) is KINDS[kind]

    @pytest.mark.parametrize("kind", sorted(KINDS))
    async def test_each_fault_of_a_stream_becomes_its_kind_of_error(self, lab: Lab, kind: str) -> None:
        need(lab, "faults")
        await lab.fail(kind)

        with pytest.raises(PenstockError) as caught:
            await collect(lab, ask(lab))

        assert type(caught.value) is KINDS[kind]

    @pytest.mark.parametrize("kind", ["cut", "malformed"])
    async def test_a_broken_answer_may_be_billed(self, lab: Lab, kind: str) -> None:
        need(lab, "breaks")
        await lab.fail(kind)

        with pytest.raises(ProviderUnavailable) as caught:
            await lab.provider.invoke(ask(lab))

        assert caught.value.possibly_billed

    @pytest.mark.parametrize("kind", ["cut", "malformed", "stream_error"])
    async def test_a_broken_stream_gives_its_pieces_and_then_an_error(self, lab: Lab, kind: str) -> None:
        need(lab, "breaks")
        await lab.fail(kind)
        pieces: list[DeltaChunk] = []

        with pytest.raises(ProviderUnavailable) as caught:
            await collect(lab, ask(lab), into=pieces)

        assert caught.value.possibly_billed
        assert pieces

    async def test_a_failed_call_is_one_request(self, lab: Lab) -> None:
        need(lab, "faults")
        await lab.fail("unavailable")

        with pytest.raises(ProviderUnavailable):
            await lab.provider.invoke(ask(lab))

        assert lab.calls() == 1

    async def test_a_timed_out_call_is_one_request(self, lab: Lab) -> None:
        need(lab, "hang")
        need(lab, "counts")
        await lab.hang()

        with pytest.raises(ProviderTimeout):
            await lab.provider.invoke(ask(lab, timeout_s=0.2))

        await lab.recover()
        await lab.provider.invoke(ask(lab))
        assert lab.calls() == 2

    async def test_calls_up_to_the_limit_run_at_the_same_time(self, lab: Lab) -> None:
        need(lab, "slow")
        need(lab, "counts")
        await lab.slow(0.2)

        await asyncio.gather(*(lab.provider.invoke(ask(lab)) for _ in range(LIMIT)))

        assert lab.peak() == LIMIT

    async def test_cancelled_calls_give_their_places_back(self, lab: Lab) -> None:
        need(lab, "hang")
        await lab.hang()
        hanging = [asyncio.create_task(lab.provider.invoke(ask(lab, timeout_s=1.0))) for _ in range(LIMIT)]
        await eventually_async(lambda: lab.calls() == LIMIT)

        for call in hanging:
            call.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)

        await lab.recover()
        assert (await lab.provider.invoke(ask(lab, timeout_s=5.0))).text

    async def test_a_stream_broken_off_gives_its_place_back(self, lab: Lab) -> None:
        for _ in range(LIMIT + 1):
            pieces = lab.provider.stream(ask(lab))
            assert (await anext(pieces)).text
            await pieces.aclose()  # type: ignore[attr-defined]

        assert (await lab.provider.invoke(ask(lab))).text

    async def test_closing_cancels_calls_in_flight(self, lab: Lab) -> None:
        need(lab, "hang")
        await lab.hang()
        call = asyncio.create_task(lab.provider.invoke(ask(lab, timeout_s=1.0)))
        await eventually_async(lambda: lab.calls() == 1)

        await lab.provider.aclose()

        outcome = (await asyncio.gather(call, return_exceptions=True))[0]
        assert isinstance(outcome, asyncio.CancelledError | ProviderUnavailable)

    async def test_closing_twice_is_fine(self, lab: Lab) -> None:
        await lab.provider.invoke(ask(lab))

        await lab.provider.aclose()
        await lab.provider.aclose()
