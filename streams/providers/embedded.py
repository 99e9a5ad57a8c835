"""Serves the offline, deterministic, extractive model: no language model, and it never pretends to be one.

Blocking: nothing; short prompts run in the loop (about 2 ms), longer ones in one thread of its own.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from contracts.errors import ModelNotFound, ProviderTimeout
from contracts.payloads import DeltaChunk, InferenceAnswer, InferenceRequest, Usage
from contracts.settings.models import EmbeddedProvider
from streams.providers.base import Several
from streams.providers.extract import embedding
from streams.providers.extract.answer import MODEL_ID, answer, cut, estimate_tokens

# Measured: 2 ms for 2 kB; the worst case of 100 kB takes about 100 ms, too long for the loop.
_IN_THE_LOOP_CHARS = 8 * 1024
_PIECE = re.compile(r"\s*\S+|\s+")


class Embedded:
    """Answers by extraction from the prompt; the same prompt always gets the same answer."""

    name = "embedded"

    def __init__(self, settings: EmbeddedProvider) -> None:
        self._latency_s = settings.latency_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="embedded")

    async def start(self) -> None:
        """Open nothing."""

    async def aclose(self) -> None:
        """End the thread for long prompts."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def invoke(self, request: InferenceRequest) -> InferenceAnswer:
        """Return the extract."""
        try:
            async with asyncio.timeout(request.timeout_s):
                await asyncio.sleep(self._latency_s)
                return await self._answer(request)
        except TimeoutError as error:
            message = f"event {request.event_id}: the extract took longer than {request.timeout_s:g} s"
            raise ProviderTimeout(message, possibly_billed=False) from error

    async def invoke_many(self, requests: Sequence[InferenceRequest], timeout_s: float) -> Several:
        """Return the vectors, or extracts, of several prompts; one after the other, there is nothing to be gained."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.sleep(self._latency_s)
                answers = [await self._answer(request) for request in requests]
        except TimeoutError as error:
            message = f"event {requests[0].event_id}: {len(requests)} extracts took longer than {timeout_s:g} s"
            raise ProviderTimeout(message, possibly_billed=False) from error
        usage = Usage(sum(one.usage.input_tokens for one in answers), sum(one.usage.output_tokens for one in answers))
        return Several(tuple(answers), usage)

    async def stream(self, request: InferenceRequest) -> AsyncIterator[DeltaChunk]:
        """Yield the extract word by word."""
        whole = await self.invoke(request)
        for piece in _PIECE.findall(whole.text):
            yield DeltaChunk(text=piece, model=whole.model, response_id=whole.response_id)
        yield DeltaChunk(
            finish_reason=whole.finish_reason, usage=whole.usage, model=whole.model, response_id=whole.response_id
        )

    async def _answer(self, request: InferenceRequest) -> InferenceAnswer:
        known = embedding.MODEL_ID if request.task == "embedding" else MODEL_ID
        if request.model != known:
            message = f"the embedded provider has one model for {request.task}, {known}, not {request.model!r}"
            raise ModelNotFound(message)
        texts = [message.content for message in request.messages if message.role == "user"]
        if request.task == "embedding":
            return _vector("\n".join(texts))
        if sum(map(len, texts)) <= _IN_THE_LOOP_CHARS:
            full = answer(texts, request.output_schema)
        else:
            loop = asyncio.get_running_loop()
            full = await loop.run_in_executor(self._thread, answer, texts, request.output_schema)
        text, is_cut = cut(full, request.max_tokens)
        prompt = "\n".join([request.system, *(message.content for message in request.messages)])
        return InferenceAnswer(
            text=text,
            model=MODEL_ID,
            finish_reason="length" if is_cut else "stop",
            usage=Usage(estimate_tokens(prompt), estimate_tokens(text)),
            response_id="extract-" + hashlib.blake2s(prompt.encode("utf-8", "replace"), digest_size=8).hexdigest(),
        )


def _vector(text: str) -> InferenceAnswer:
    """Return the hashed words of a text: near in wording, not in meaning, and named so."""
    return InferenceAnswer(
        text=embedding.as_json(text),
        model=embedding.MODEL_ID,
        usage=Usage(estimate_tokens(text)),
        response_id="vector-" + hashlib.blake2s(text.encode("utf-8", "replace"), digest_size=8).hexdigest(),
    )
