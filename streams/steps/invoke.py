"""Asks the model: bounds the call, counts what it cost, and shares that out; nothing is lost in rounding."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeGuard

import msgspec

from contracts.codec import encodable
from contracts.errors import ProviderTimeout
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from contracts.settings import ModelSettings
from contracts.settings.models import Price
from streams.providers.base import Provider, Several, several_inputs
from streams.steps.overdue import overdue

# A provider ends by itself at timeout_s; this much later it is cut off as one that does not keep its promise.
_GRACE_S = 5.0
_CHARS_PER_TOKEN = 4


async def invoke(provider: Provider, request: InferenceRequest) -> InferenceAnswer:
    """Return the model's answer.

    Raises:
        PenstockError: as `Provider.invoke`.
    """
    calls = overdue()
    call = calls.watch(request.timeout_s + _GRACE_S)
    try:
        answer = await provider.invoke(request)
    except asyncio.CancelledError:
        if not call.take_back():
            raise
        message = f"{provider.name} did not keep its time limit of {request.timeout_s:.1f} s"
        raise ProviderTimeout(message) from None
    finally:
        calls.leave(call)
    return clean(answer)


def clean(answer: InferenceAnswer) -> InferenceAnswer:
    """Return an answer with a text that can be written."""
    text = encodable(answer.text)
    return answer if text == answer.text else msgspec.structs.replace(answer, text=text)


async def invoke_streamed(
    provider: Provider, request: InferenceRequest, on_text: Callable[[str], None]
) -> InferenceAnswer:
    """Return the model's answer, and hand over each piece of its text as it comes.

    Args:
        provider: started.
        request: of a chat model.
        on_text: called in the loop; must neither block nor raise.

    Raises:
        PenstockError: as `Provider.stream`; text that was handed over by then is void.
    """
    calls = overdue()
    call = calls.watch(request.timeout_s + _GRACE_S)
    pieces: list[str] = []
    last = DeltaChunk()
    try:
        async with contextlib.AsyncExitStack() as stack:
            chunks = provider.stream(request)
            if isinstance(chunks, AsyncGenerator):
                # A call that is cut short frees its connection now, not when the generator is collected.
                stack.push_async_callback(chunks.aclose)
            async for chunk in chunks:
                if chunk.text:
                    pieces.append(chunk.text)
                    on_text(chunk.text)
                last = chunk
    except asyncio.CancelledError:
        if not call.take_back():
            raise
        message = f"{provider.name} did not keep its time limit of {request.timeout_s:.1f} s"
        raise ProviderTimeout(message) from None
    finally:
        calls.leave(call)
    text = encodable("".join(pieces))
    return InferenceAnswer(
        text=text,
        model=last.model or request.model,
        finish_reason=last.finish_reason or "stop",
        usage=last.usage if _is_said(last.usage) else _estimated(request, text),
        response_id=last.response_id,
    )


def _is_said(usage: Usage | None) -> TypeGuard[Usage]:
    return usage is not None and usage != Usage()


def _estimated(request: InferenceRequest, text: str) -> Usage:
    """Return about what a stream has cost whose server does not say: a token is some four characters of English."""
    asked = len(request.system) + sum(len(message.content) for message in request.messages)
    return Usage(asked // _CHARS_PER_TOKEN, len(text) // _CHARS_PER_TOKEN)


async def invoke_many(provider: Provider, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
    """Return the model's answers to several requests of one model, made as one call of at most `timeout_s` seconds.

    Raises:
        PenstockError: as `SeveralInputs.invoke_many`.
    """
    try:
        async with asyncio.timeout(timeout_s + _GRACE_S):
            several = await several_inputs(provider).invoke_many(requests, timeout_s)
    except TimeoutError as error:
        message = f"{provider.name} did not keep its time limit of {timeout_s:.1f} s"
        raise ProviderTimeout(message) from error
    if len(several.answers) != len(requests):
        return Several((None,) * len(requests), several.usage)
    clean = (
        msgspec.structs.replace(one, text=encodable(one.text)) if isinstance(one, InferenceAnswer) else one
        for one in several.answers
    )
    return Several(tuple(clean), several.usage)


def prices_usd(price: Price) -> tuple[float, float, float, float]:
    """Return US dollars per million tokens of input, output, input read from the cache, and input written to it.

    Providers keep prompts in a cache unasked: without a price of their own such tokens must not cost nothing.
    """
    read, written = price.cache_read_usd, price.cache_write_usd
    return (
        price.input_usd,
        price.output_usd,
        price.input_usd if read is None else read,
        price.input_usd if written is None else written,
    )


def cost_usd(usage: Usage, model: ModelSettings) -> float | None:
    """Return what a call cost by the configured price list, US dollars; None when the model has no price."""
    price = model.price
    if price is None:
        return None
    read, written = usage.cache_read_tokens, usage.cache_write_tokens
    if not (read or written):
        return (usage.input_tokens * price.input_usd + usage.output_tokens * price.output_usd) / 1e6
    return cost_at(prices_usd(price), usage)


def cost_at(prices: tuple[float, float, float, float], usage: Usage) -> float:
    """Return what tokens cost at prices as those of `prices_usd`, US dollars."""
    counts = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
    return sum(count * price for count, price in zip(counts, prices, strict=True)) / 1e6


def split_exactly(total: int, weights: Sequence[int]) -> list[int]:
    """Return shares in proportion to the weights (>= 0), each less than one off, whose sum is the total."""
    parts = weights if any(weights) else [1] * len(weights)
    whole = sum(parts)
    shares, seen, given = [], 0, 0
    for part in parts:
        seen += part
        share = total * seen // whole - given
        given += share
        shares.append(share)
    return shares


def share_out(usage: Usage, asked: Sequence[int], answered: Sequence[int]) -> list[Usage]:
    """Return each event's part of a call's tokens.

    Args:
        usage: as the provider reports it.
        asked: sizes of the events' prompts, for the input.
        answered: sizes of their answers, for the output; by the prompts when nothing was answered.
    """
    outputs = answered if any(answered) else asked
    columns = (
        split_exactly(usage.input_tokens, asked),
        split_exactly(usage.output_tokens, outputs),
        split_exactly(usage.cache_read_tokens, asked),
        split_exactly(usage.cache_write_tokens, asked),
    )
    return [Usage(*row) for row in zip(*columns, strict=True)]
