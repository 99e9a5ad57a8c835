"""Asks the model: builds the request, bounds the call, and counts what it cost."""

import asyncio

import msgspec

from contracts.codec import encodable
from contracts.errors import ProviderTimeout
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings import ModelSettings
from streams.providers.base import Provider

# A provider ends by itself at timeout_s; this much later it is cut off as one that does not keep its promise.
_GRACE_S = 5.0


async def invoke(provider: Provider, request: InferenceRequest) -> InferenceAnswer:
    """Return the model's answer.

    Raises:
        PenstockError: as `Provider.invoke`.
    """
    try:
        async with asyncio.timeout(request.timeout_s + _GRACE_S):
            answer = await provider.invoke(request)
    except TimeoutError as error:
        message = f"{provider.name} did not keep its time limit of {request.timeout_s:.1f} s"
        raise ProviderTimeout(message) from error
    text = encodable(answer.text)
    return answer if text == answer.text else msgspec.structs.replace(answer, text=text)


def cost_usd(usage: Usage, model: ModelSettings) -> float | None:
    """Return what a call cost by the configured price list, US dollars; None when the model has no price."""
    price = model.price
    if price is None:
        return None
    return (
        usage.input_tokens * price.input_usd
        + usage.output_tokens * price.output_usd
        + usage.cache_read_tokens * price.cache_read_usd
    ) / 1e6


def add_usage(left: Usage, right: Usage) -> Usage:
    """Return the sum of two calls' tokens."""
    return Usage(
        left.input_tokens + right.input_tokens,
        left.output_tokens + right.output_tokens,
        left.cache_read_tokens + right.cache_read_tokens,
        left.cache_write_tokens + right.cache_write_tokens,
    )
