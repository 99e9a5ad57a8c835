"""Speaks OpenAI: chat completions, completions, embeddings and the list of models.

Source: OpenAI API reference (checked 2026-11); works with the openai package unchanged.
"""

import asyncio
import json
import time
import uuid
from typing import Any

from aiohttp import web

from streams.fmstub.call import Ask, Reply
from streams.fmstub.faults import CallFailedError
from streams.fmstub.openai_bodies import chat_ask, completion_asks
from streams.fmstub.wire import BACKEND, bearer, close, event_id_header, read_object, retry_headers, send, texts
from streams.providers.extract.answer import MODEL_ID, estimate_tokens
from streams.providers.extract.embedding import embed

_FINISH = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "blocked": "content_filter"}


async def chat(request: web.Request) -> web.StreamResponse:
    """Serve /v1/chat/completions."""
    try:
        body = await read_object(request)
        ask = chat_ask(body, event_id_header(request))
        if body.get("stream"):
            options = body.get("stream_options")
            with_usage = isinstance(options, dict) and bool(options.get("include_usage"))
            return await _chat_stream(request, ask, with_usage=with_usage)
        async with request.app[BACKEND].serve(ask, bearer(request), is_stream=False) as reply:
            message = {"role": "assistant", "content": reply.text, "refusal": None}
            choice = {"index": 0, "message": message, "finish_reason": _finish(request, reply), "logprobs": None}
            answer = _head("chat.completion", ask) | {"choices": [choice], "usage": _usage(reply)}
            return await send(request, answer, _headers(request, ask), reply.fault)
    except CallFailedError as error:
        return _refusal(error)


async def _chat_stream(request: web.Request, ask: Ask, *, with_usage: bool) -> web.StreamResponse:
    backend = request.app[BACKEND]
    async with backend.serve(ask, bearer(request), is_stream=True) as reply:
        response = web.StreamResponse(headers={**_headers(request, ask), "Content-Type": "text/event-stream"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        head = _head("chat.completion.chunk", ask) | ({"usage": None} if with_usage else {})

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            return _data(head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]})

        await response.write(chunk({"role": "assistant", "content": ""}))
        for number, piece in enumerate(reply.pieces):
            if reply.fault and number >= len(reply.pieces) // 2:
                return await _break(request, response, reply)
            await backend.pause()
            await response.write(chunk({"content": piece}))
        await response.write(chunk({}, _finish(request, reply)))
        if with_usage:
            await response.write(_data(head | {"choices": [], "usage": _usage(reply)}))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response


async def _break(request: web.Request, response: web.StreamResponse, reply: Reply) -> web.StreamResponse:
    """Break a stream off: with an error object, with rubbish, or by closing the connection."""
    if reply.fault == "cut":
        close(request)
        return response
    error = {"error": {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}}
    await response.write(_data(error) if reply.fault == "stream_error" else b"data: {half a docum\n\n")
    await response.write_eof()
    return response


async def completions(request: web.Request) -> web.StreamResponse:
    """Serve /v1/completions for one prompt or a list; streams are not offered."""
    try:
        body = await read_object(request)
        asks = completion_asks(body, event_id_header(request))
        replies = await _all_replies(request, asks)
        choices = [
            {"index": index, "text": reply.text, "finish_reason": _finish(request, reply), "logprobs": None}
            for index, reply in enumerate(replies)
        ]
        answer = _head("text_completion", asks[0]) | {"choices": choices, "usage": _usage(*replies)}
        return await send(request, answer, _headers(request, asks[0]), replies[-1].fault)
    except CallFailedError as error:
        return _refusal(error)


async def _all_replies(request: web.Request, asks: list[Ask]) -> list[Reply]:
    """Return the reply to each prompt of a list; they run at the same time, as servers let them."""

    async def one(ask: Ask) -> Reply:
        async with request.app[BACKEND].serve(ask, bearer(request), is_stream=False) as reply:
            return reply

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ask)) for ask in asks]
    except* CallFailedError as failures:
        failed: BaseException = failures
        while isinstance(failed, BaseExceptionGroup):
            failed = failed.exceptions[0]
    else:
        return [task.result() for task in tasks]
    raise failed


async def embeddings(request: web.Request) -> web.StreamResponse:
    """Serve /v1/embeddings with hashed words: near in wording, not in meaning."""
    try:
        body = await read_object(request)
        inputs = texts(body.get("input"), "input")
        ask = Ask("embeddings", str(body.get("model", "")), inputs, max_tokens=1, event_id=event_id_header(request))
        async with request.app[BACKEND].serve(ask, bearer(request), is_stream=False) as reply:
            data = [
                {"object": "embedding", "index": index, "embedding": embed(text)} for index, text in enumerate(inputs)
            ]
            tokens = sum(map(estimate_tokens, inputs))
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            answer = {"object": "list", "data": data, "model": ask.model, "usage": usage}
            return await send(request, answer, _headers(request, ask), reply.fault)
    except CallFailedError as error:
        return _refusal(error)


async def models(request: web.Request) -> web.Response:
    """Serve /v1/models: the one there is, though every other name is answered too."""
    del request
    model = {"id": MODEL_ID, "object": "model", "created": 0, "owned_by": "penstock"}
    return web.json_response({"object": "list", "data": [model]})


def _head(kind: str, ask: Ask) -> dict[str, Any]:
    return {"id": f"stub-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": ask.model}


def _finish(request: web.Request, reply: Reply) -> str:
    return request.app[BACKEND].knobs.stop_reason or _FINISH[reply.ending]


def _usage(*replies: Reply) -> dict[str, int]:
    prompt = sum(reply.input_tokens for reply in replies)
    completion = sum(reply.output_tokens for reply in replies)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _headers(request: web.Request, ask: Ask) -> dict[str, str]:
    backend = request.app[BACKEND]
    knobs = backend.knobs
    headers = {"x-request-id": uuid.uuid4().hex}
    for kind, left in backend.quotas.remaining(ask.model, knobs.rpm, knobs.tpm).items():
        limit = (knobs.rpm if kind == "requests" else knobs.tpm) or 1
        headers[f"x-ratelimit-limit-{kind}"] = str(limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(left)
        headers[f"x-ratelimit-reset-{kind}"] = f"{(limit - left) / limit * 60:.3f}s"
    return headers


def _data(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode("utf-8", "replace") + b"\n\n"


def _refusal(error: CallFailedError) -> web.Response:
    fault = error.fault
    details = {"message": error.message, "type": fault.openai_type, "param": None, "code": fault.openai_code}
    headers = {"x-request-id": uuid.uuid4().hex, **retry_headers(error.retry_after_s)}
    return web.json_response({"error": details}, status=fault.openai_status, headers=headers)
