"""Asks the model: bounds the call, takes thoughts out of its answer, counts what it cost, and shares that out.

Nothing is lost in rounding.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, TypeGuard

import msgspec

from contracts.codec import encodable
from contracts.errors import ProviderTimeout
from contracts.payloads import DeltaChunk, FinishReason, InferenceAnswer, InferenceRequest, Reasoning, Usage
from contracts.settings import ModelSettings
from contracts.settings.models import Price
from streams.providers.base import Provider, Several, several_inputs
from streams.steps.overdue import overdue

# A provider ends by itself at timeout_s; this much later it is cut off as one that does not keep its promise.
_GRACE_S = 5.0
_CHARS_PER_TOKEN = 4
# By the tag that opens a model's thoughts, the one that ends them: DeepSeek's and Qwen's.
_TAGS = {"<think>": "</think>"}
# Prompts that ask for <thinking> may want it in the answer; Seed-OSS; Magistral.
_ALL_TAGS = _TAGS | {"<thinking>": "</thinking>", "<seed:think>": "</seed:think>", "[THINK]": "[/THINK]"}
_UNOPENED = "</think>"
# Where the halves begin of characters that UTF-16 has as two.
_FIRST_HALF, _SECOND_HALF = "\ud800", "\udc00"
# What may stand in front of an answer with thoughts. Other answers begin so as well, and some go on so to their end.
_MAX_BLANK_CHARS = 256
_MAYBE_THOUGHTS = tuple({tag[0] for tag in _ALL_TAGS} | set(" \n\r\t"))


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
    return clean(answer, request)


def clean(answer: InferenceAnswer, request: InferenceRequest) -> InferenceAnswer:
    """Return an answer with a text that can be written, and without thoughts."""
    return without_thoughts(answer, request.reasoning)


def without_thoughts(answer: InferenceAnswer, reasoning: Reasoning) -> InferenceAnswer:
    """Return an answer with a text that can be written, and without the thoughts in front of it."""
    text = answer.text
    if reasoning == "strip_unopened" or (reasoning != "keep" and text.startswith(_MAYBE_THOUGHTS)):
        thoughts = Thoughts(reasoning)
        text = thoughts.feed(text) + thoughts.finish(answer.finish_reason)
    text = encodable(text)
    return answer if text == answer.text else msgspec.structs.replace(answer, text=text, only_thoughts=not text)


class Thoughts:
    """Takes thoughts out of an answer that comes in pieces; tags may be split between pieces.

    What may be thoughts is kept back until that is known: until their end, without which they are the answer.

    Args:
        reasoning: as a model's setting.
    """

    def __init__(self, reasoning: Reasoning) -> None:
        self._state: Literal["beginning", "thoughts", "behind", "answer"]
        self._state = "answer" if reasoning == "keep" else "beginning"
        self._is_unopened = reasoning == "strip_unopened"
        self._tags = _ALL_TAGS if reasoning == "strip_all" else _TAGS
        self._closing = ""
        # The beginning until it is known what it is, and the end of thoughts, which may be a part of their tag.
        self._seen = ""
        # All of the answer so far; when nothing ends its thoughts, they are none.
        self._doubted: list[str] = []

    def feed(self, piece: str) -> str:
        """Return what of the answer there is now."""
        match self._state:
            case "answer":
                return piece
            case "behind":
                return self._behind(piece)
            case "thoughts":
                return self._think(piece)
        return self._begin(self._seen + piece)

    def finish(self, reason: FinishReason | None) -> str:
        """Return what is left of the answer at its end, for which the model has given a reason."""
        if self._state == "beginning":
            return self._seen
        # At the limit it was still thinking, most likely.
        return "" if reason == "length" or self._state != "thoughts" else "".join(self._doubted)

    def _begin(self, seen: str) -> str:
        self._seen = seen
        text = seen.lstrip()
        opening = next((tag for tag in self._tags if text.startswith(tag)), None)
        if opening is not None:
            self._closing = self._tags[opening]
            thoughts = text.removeprefix(opening)
            self._doubted.append(seen.removesuffix(thoughts))
            return self._think_on(thoughts)
        if len(seen) <= _MAX_BLANK_CHARS and any(tag.startswith(text) for tag in self._tags):
            return ""
        if self._is_unopened:
            self._closing = _UNOPENED
            return self._think_on(seen)
        self._state = "answer"
        return seen

    def _think_on(self, text: str) -> str:
        self._state, self._seen = "thoughts", ""
        return self._think(text)

    def _think(self, piece: str) -> str:
        self._doubted.append(piece)
        seen = self._seen + piece
        _, closing, behind = seen.partition(self._closing)
        if not closing:
            self._seen = seen[1 - len(self._closing) :]
            return ""
        self._state = "behind"
        self._seen, self._doubted = "", []
        return self._behind(behind)

    def _behind(self, piece: str) -> str:
        """Drop the blank lines between thoughts and answer."""
        text = piece.lstrip()
        if text:
            self._state = "answer"
        return text


class _Said:
    """Takes up an answer that is streamed.

    Args:
        reasoning: what becomes of thoughts.
        on_text: gets each piece of the answer.

    Attributes:
        pieces: of the answer.
        chars: that have come, with those of thoughts.
    """

    def __init__(self, reasoning: Reasoning, on_text: Callable[[str], None]) -> None:
        self.pieces: list[str] = []
        self.chars = 0
        self._thoughts = Thoughts(reasoning)
        self._on_text = on_text
        # Servers that count as JavaScript does end a piece in the middle of a character: its first half.
        self._half = ""

    def take(self, text: str) -> None:
        """Take a piece as the server has sent it."""
        self.chars += len(text)
        if self._half:
            # Puts the halves together.
            text = (self._half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            self._half = ""
        if _FIRST_HALF <= text[-1:] < _SECOND_HALF:
            text, self._half = text[:-1], text[-1]
        self._add(self._thoughts.feed(text))

    def end(self, reason: FinishReason | None) -> None:
        """Take the end."""
        self._add(self._thoughts.feed(self._half) + self._thoughts.finish(reason))

    def _add(self, text: str) -> None:
        if text:
            self.pieces.append(text)
            self._on_text(text)


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
    said, last = _Said(request.reasoning, on_text), DeltaChunk()
    try:
        async with contextlib.AsyncExitStack() as stack:
            chunks = provider.stream(request)
            if isinstance(chunks, AsyncGenerator):
                # A call that is cut short frees its connection now, not when the generator is collected.
                stack.push_async_callback(chunks.aclose)
            async for chunk in chunks:
                said.take(chunk.text)
                last = chunk
            said.end(last.finish_reason)
    except asyncio.CancelledError:
        if not call.take_back():
            raise
        message = f"{provider.name} did not keep its time limit of {request.timeout_s:.1f} s"
        raise ProviderTimeout(message) from None
    finally:
        calls.leave(call)
    text = encodable("".join(said.pieces))
    return InferenceAnswer(
        text=text,
        model=last.model or request.model,
        finish_reason=last.finish_reason or "stop",
        usage=last.usage if _is_said(last.usage) else _estimated(request, said.chars),
        response_id=last.response_id,
        only_thoughts=said.chars > 0 and not text,
    )


def _is_said(usage: Usage | None) -> TypeGuard[Usage]:
    return usage is not None and usage != Usage()


def _estimated(request: InferenceRequest, answered: int) -> Usage:
    """Return about what a stream has cost whose server does not say: a token is some four characters of English."""
    asked = len(request.system) + sum(len(message.content) for message in request.messages)
    return Usage(asked // _CHARS_PER_TOKEN, answered // _CHARS_PER_TOKEN)


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
    cleaned = (
        clean(one, request) if isinstance(one, InferenceAnswer) else one
        for one, request in zip(several.answers, requests, strict=True)
    )
    return Several(tuple(cleaned), several.usage)


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
