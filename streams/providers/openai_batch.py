"""The OpenAI operations that take several inputs per call, completions of prompts and embeddings, and what all share.

Pure functions.
Answers are matched to inputs by `index`, never by their order: servers may sort them by when they were done.
Source: OpenAI API reference, "Embeddings" and "Completions (legacy)" (checked 2026-11); vLLM and llama.cpp serve both.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from contracts.errors import PenstockError, ProviderUnavailable
from contracts.payloads import FinishReason, InferenceAnswer, InferenceRequest, Usage
from streams.providers.base import AnswerTooLong, Several, billed, counts
from streams.providers.openai_errors import error_of, finish_of, from_answer
from streams.providers.transport.base import TooLong, TransportError

# Types of a message's parts: Mistral's `thinking`, others' `reasoning` and `reasoning_text`.
_THOUGHT = re.compile(r"think|reason", re.IGNORECASE)
_MAX_REQUEST_ID_CHARS = 512
# Of a header's characters those that need no escape, and no more than its limit.
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.~:/@=+,-]{1,512}")
PATHS = {"chat": "/chat/completions", "completion": "/completions", "embedding": "/embeddings"}


def headers_of(request: InferenceRequest) -> dict[str, str]:
    """Return the headers of a request that are its own."""
    event_id = request.event_id
    if not _PLAIN_ID.fullmatch(event_id):
        event_id = quote(event_id, safe=":/@=+,")[:_MAX_REQUEST_ID_CHARS]
    return {"X-Client-Request-Id": event_id}


def unavailable(host: str, error: TransportError) -> ProviderUnavailable:
    """Return what a failure between us and the server is to the events of the call."""
    kind = AnswerTooLong if isinstance(error, TooLong) else ProviderUnavailable
    return kind(f"{host}: {error}", possibly_billed=error.possibly_billed)


def body_of(requests: Sequence[InferenceRequest]) -> dict[str, Any]:
    """Return the body for one or more requests of the same model and limits; a single input is not put into a list."""
    first = requests[0]
    inputs = [_text_of(request) for request in requests]
    asked = inputs if len(inputs) > 1 else inputs[0]
    if first.task == "embedding":
        return {"model": first.model, "input": asked, "encoding_format": "float"}
    body: dict[str, Any] = {"model": first.model, "prompt": asked, "max_tokens": first.max_tokens}
    if first.temperature is not None:
        body["temperature"] = first.temperature
    if first.stop:
        body["stop"] = list(first.stop)
    return body


def _text_of(request: InferenceRequest) -> str:
    """Return all that a model without roles is to read."""
    return "\n\n".join(text for text in (request.system, *(turn.content for turn in request.messages)) if text)


def several(body: Any, requests: Sequence[InferenceRequest]) -> Several:
    """Return the answers to several requests, each matched by its index.

    Raises:
        ProviderUnavailable: the body is not what the operation answers.
        PenstockError: it is an error in place of the answers, of its kind.
    """
    is_vector = requests[0].task == "embedding"
    found = body.get("data" if is_vector else "choices") if isinstance(body, dict) else None
    if not found and error_of(body):
        raise from_answer(body, requests[0].model, _usage(body, requests[0]))
    if not isinstance(found, list):
        message = f"the answer for {requests[0].model} is not of {PATHS[requests[0].task]}; is base_url right?"
        raise ProviderUnavailable(message, possibly_billed=True)
    usage = _usage(body, requests[0])
    by_index: dict[int, dict[str, Any]] = {}
    for one in found:
        index = one.get("index") if isinstance(one, dict) else None
        if type(index) is not int or not 0 <= index < len(requests) or index in by_index:
            # A stranger among them, or two for one input: then none of them is sure.
            return Several((None,) * len(requests), usage)
        by_index[index] = one
    read = _vector if is_vector else _choice
    answers = (
        read(by_index[index], body, request) if index in by_index else None for index, request in enumerate(requests)
    )
    return Several(tuple(answers), usage)


def single(body: Any, request: InferenceRequest) -> InferenceAnswer:
    """Return the answer to one request.

    Raises:
        ContentBlocked: the server withheld it; the error says what it has cost.
        ProviderUnavailable: it is not there, or not whole.
        PenstockError: there is an error in its place, of its kind.
    """
    answered = several(body, [request])
    answer = answered.answers[0]
    if answer is None:
        message = f"the answer for {request.model} has not exactly one entry of index 0"
        raise billed(ProviderUnavailable(message, possibly_billed=True), answered.usage)
    if not isinstance(answer, InferenceAnswer):
        raise billed(answer, answered.usage)
    return InferenceAnswer(
        text=answer.text,
        model=answer.model,
        finish_reason=answer.finish_reason,
        usage=answered.usage,
        response_id=answer.response_id,
    )


def _usage(body: Any, request: InferenceRequest) -> Usage:
    usage = usage_of(body.get("usage") if isinstance(body, dict) else None)
    if request.task == "embedding":
        # A vector has no tokens. Some servers tell the total alone, which is the prompt's.
        return Usage(usage.input_tokens + usage.output_tokens, 0, usage.cache_read_tokens)
    return usage


def usage_of(usage: Any) -> Usage:
    """Return the tokens of a usage block, in whichever of the ways that servers have for cached ones."""
    asked, answered, total, *others = counts(
        usage, "prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens", "cached_tokens"
    )
    (cached,) = counts(usage.get("prompt_tokens_details") if isinstance(usage, dict) else None, "cached_tokens")
    return disjoint(asked, answered, total, cached or max(others))


def disjoint(asked: int, answered: int, total: int, cached: int) -> Usage:
    """Return counts that have no token in common, as Bedrock's: OpenAI counts cached tokens as prompt tokens too.

    xAI and Google leave a reasoning model's thoughts out of the answer's tokens and bill them as such: they are in the
    total alone. So are cached tokens, where a server leaves them out of the prompt's: there were more of them.
    """
    apart = cached if cached > asked else 0
    return Usage(max(0, asked - cached), max(answered, total - asked - apart), cached)


def first_choice(body: Any) -> dict[str, Any] | None:
    """Return the first choice of an answer or of a piece of one; None when it has none."""
    choices = body.get("choices") if isinstance(body, dict) else None
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None


def part(choice: dict[str, Any], key: str) -> dict[str, Any]:
    """Return a choice's message or delta; empty when it has none."""
    found = choice.get(key)
    return found if isinstance(found, dict) else {}


def content_text(content: Any) -> str:
    """Return the text of a message: a string, or parts of which some are text, and others a model's thoughts."""
    if isinstance(content, list):
        return "".join(one if isinstance(one, str) else _said(one) for one in content)
    return content if isinstance(content, str) else ""


def _said(part: Any) -> str:
    is_said = isinstance(part, dict) and not _THOUGHT.search(str(part.get("type")))
    return content_text(part.get("text")) if is_said else ""


def _choice(
    choice: dict[str, Any], body: dict[str, Any], request: InferenceRequest
) -> InferenceAnswer | PenstockError | None:
    text = choice.get("text")
    if error_of(choice):
        return from_answer(choice, request.model, Usage(), has_begun=bool(text))
    try:
        # What it has cost is the whole call's, and told with it.
        finish = finish_of(choice.get("finish_reason"), None, request, Usage())
    except PenstockError as error:
        return error
    return _answer(text, body, request, finish) if isinstance(text, str) else None


def _vector(entry: dict[str, Any], body: dict[str, Any], request: InferenceRequest) -> InferenceAnswer | None:
    vector = entry.get("embedding")
    if not isinstance(vector, list) or not vector:
        return None
    if not all(isinstance(value, float | int) and math.isfinite(value) for value in vector):
        return None
    return _answer(json.dumps(vector, separators=(",", ":")), body, request, "stop")


def _answer(text: str, body: dict[str, Any], request: InferenceRequest, finish: FinishReason) -> InferenceAnswer:
    return InferenceAnswer(
        text=text,
        model=str(body.get("model") or request.model),
        finish_reason=finish,
        response_id=str(body.get("id") or ""),
    )
