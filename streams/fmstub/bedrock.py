"""Speaks Bedrock: Converse, ConverseStream, InvokeModel and InvokeModelWithResponseStream.

Source: botocore service model bedrock-runtime 2023-09-30 (checked 2026-11); works with boto3 unchanged.
"""

import base64
import json
import time
import uuid
from typing import Any

from aiohttp import web

from streams.fmstub import eventstream
from streams.fmstub.bedrock_bodies import converse_ask, invoke_ask
from streams.fmstub.call import Ask, Reply
from streams.fmstub.faults import CallFailedError
from streams.fmstub.wire import BACKEND, bearer, close, read_object, retry_headers, send
from streams.providers.extract.answer import estimate_tokens
from streams.providers.extract.embedding import embed


async def converse(request: web.Request) -> web.StreamResponse:
    """Serve Converse."""
    began_at_s = time.monotonic()
    backend = request.app[BACKEND]
    try:
        ask = converse_ask(request.match_info["model_id"], await read_object(request), "converse")
        async with backend.serve(ask, bearer(request), is_stream=False) as reply:
            blocks = [{"text": reply.text}] if reply.text else []
            body = {
                "output": {"message": {"role": "assistant", "content": blocks}},
                "stopReason": _stop_reason(request, reply),
                "usage": _usage(reply),
                "metrics": {"latencyMs": int((time.monotonic() - began_at_s) * 1000)},
            }
            return await send(request, body, _ids(), reply.fault)
    except CallFailedError as error:
        return _refusal(error)


async def converse_stream(request: web.Request) -> web.StreamResponse:
    """Serve ConverseStream."""
    began_at_s = time.monotonic()
    backend = request.app[BACKEND]
    try:
        ask = converse_ask(request.match_info["model_id"], await read_object(request), "converse-stream")
        async with backend.serve(ask, bearer(request), is_stream=True) as reply:
            response = await _open_stream(request)
            await response.write(eventstream.event("messageStart", {"role": "assistant"}))
            for number, piece in enumerate(reply.pieces):
                if await _broke(request, response, reply, number):
                    return response
                await backend.pause()
                delta = {"delta": {"text": piece}, "contentBlockIndex": 0}
                await response.write(eventstream.event("contentBlockDelta", delta, number))
            metrics = {"latencyMs": int((time.monotonic() - began_at_s) * 1000)}
            await response.write(
                eventstream.event("contentBlockStop", {"contentBlockIndex": 0})
                + eventstream.event("messageStop", {"stopReason": _stop_reason(request, reply)})
                + eventstream.event("metadata", {"usage": _usage(reply), "metrics": metrics})
            )
            await response.write_eof()
            return response
    except CallFailedError as error:
        return _refusal(error)


async def invoke(request: web.Request) -> web.StreamResponse:
    """Serve InvokeModel for Anthropic's messages, and for Titan's and Cohere's embeddings."""
    backend = request.app[BACKEND]
    try:
        body = await read_object(request)
        model = request.match_info["model_id"]
        ask = invoke_ask(model, body, "invoke")
        async with backend.serve(ask, bearer(request), is_stream=False) as reply:
            counts = {
                "X-Amzn-Bedrock-Input-Token-Count": str(reply.input_tokens),
                "X-Amzn-Bedrock-Output-Token-Count": str(reply.output_tokens),
                "X-Amzn-Bedrock-Invocation-Latency": str(int(reply.latency_s * 1000)),
            }
            return await send(request, _invoke_body(body, ask, reply), _ids() | counts, reply.fault)
    except CallFailedError as error:
        return _refusal(error)


async def invoke_stream(request: web.Request) -> web.StreamResponse:
    """Serve InvokeModelWithResponseStream for Anthropic's messages."""
    backend = request.app[BACKEND]
    try:
        ask = invoke_ask(request.match_info["model_id"], await read_object(request), "invoke-stream")
        async with backend.serve(ask, bearer(request), is_stream=True) as reply:
            response = await _open_stream(request)
            start = {
                "id": f"msg_{uuid.uuid4().hex}",
                "role": "assistant",
                "usage": {"input_tokens": reply.input_tokens},
            }
            await response.write(_chunk({"type": "message_start", "message": start}))
            for number, piece in enumerate(reply.pieces):
                if await _broke(request, response, reply, number):
                    return response
                await backend.pause()
                delta = {"type": "text_delta", "text": piece}
                await response.write(_chunk({"type": "content_block_delta", "index": 0, "delta": delta}, number))
            usage = {"output_tokens": reply.output_tokens}
            end = {"type": "message_delta", "delta": {"stop_reason": reply.ending}, "usage": usage}
            await response.write(_chunk(end) + _chunk({"type": "message_stop"}))
            await response.write_eof()
            return response
    except CallFailedError as error:
        return _refusal(error)


def _invoke_body(body: dict[str, Any], ask: Ask, reply: Reply) -> dict[str, Any]:
    if "inputText" in body:
        vector = embed(ask.user_texts[0])
        return {"embedding": vector, "inputTextTokenCount": estimate_tokens(ask.user_texts[0])}
    if "texts" in body:
        return {"embeddings": [embed(text) for text in ask.user_texts], "response_type": "embeddings_floats"}
    return {
        "id": f"msg_{uuid.uuid4().hex}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": "refusal" if reply.ending == "blocked" else reply.ending,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens},
    }


def _chunk(payload: dict[str, Any], number: int = 0) -> bytes:
    raw = base64.b64encode(json.dumps(payload, ensure_ascii=False).encode("utf-8", "replace"))
    return eventstream.event("chunk", {"bytes": raw.decode()}, number)


async def _open_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={**_ids(), "Content-Type": eventstream.CONTENT_TYPE})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def _broke(request: web.Request, response: web.StreamResponse, reply: Reply, number: int) -> bool:
    """Break the stream off half-way when that is its fate; return whether it was."""
    if not reply.fault or number < len(reply.pieces) // 2:
        return False
    if reply.fault == "stream_error":
        text = "The model ended with an unexpected error."
        await response.write(eventstream.exception("modelStreamErrorException", text))
        await response.write_eof()
        return True
    if reply.fault == "malformed":
        await response.write(b"\x00\x00\x00\x20garbage in place of a frame")
        await response.write_eof()
        return True
    close(request)
    return True


def _stop_reason(request: web.Request, reply: Reply) -> str:
    forced = request.app[BACKEND].knobs.stop_reason
    return forced or ("guardrail_intervened" if reply.ending == "blocked" else reply.ending)


def _usage(reply: Reply) -> dict[str, int]:
    return {
        "inputTokens": reply.input_tokens,
        "outputTokens": reply.output_tokens,
        "totalTokens": reply.input_tokens + reply.output_tokens,
    }


def _ids() -> dict[str, str]:
    return {"x-amzn-RequestId": str(uuid.uuid4())}


def _refusal(error: CallFailedError) -> web.Response:
    body: dict[str, Any] = {"message": error.message}
    if error.fault.bedrock_type == "ModelErrorException":
        body |= {"originalStatusCode": 400 if error.kind == "model_refused" else 500, "resourceName": "model"}
    # The text after the colon is what the real service adds; clients drop it.
    kind = f"{error.fault.bedrock_type}:http://internal.amazon.com/coral/com.amazon.bedrock/"
    headers = {**_ids(), "x-amzn-ErrorType": kind, **retry_headers(error.retry_after_s)}
    return web.json_response(body, status=error.fault.bedrock_status, headers=headers)
