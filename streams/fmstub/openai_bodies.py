"""Reads the request bodies of OpenAI's operations."""

from typing import Any

from streams.fmstub.call import Ask
from streams.fmstub.faults import CallFailedError
from streams.fmstub.wire import positive, texts

_DEFAULT_MAX_TOKENS = 4096
_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def chat_ask(body: dict[str, Any], event_id: str) -> Ask:
    """Return the ask of a chat completion body; an event id in `metadata` or `user` wins over the header's.

    Raises:
        CallFailedError: OpenAI would refuse it with 400.
    """
    users: list[str] = []
    others: list[str] = []
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise CallFailedError(message="messages must be a list with at least one message.")
    for turn in messages:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            raise CallFailedError(message=f"The role of a message must be one of {sorted(_ROLES)}.")
        (users if turn["role"] == "user" else others).append(_text(turn.get("content")))
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    return Ask(
        operation="chat",
        model=_model(body),
        user_texts=tuple(users),
        other_text="\n".join(others),
        max_tokens=positive(limit, "max_tokens", _DEFAULT_MAX_TOKENS),
        schema=_schema(body.get("response_format")),
        stop=_stop(body.get("stop")),
        event_id=_event_id(body) or event_id,
    )


def completion_asks(body: dict[str, Any], event_id: str) -> list[Ask]:
    """Return one ask per prompt of a completion body.

    Raises:
        CallFailedError: OpenAI would refuse it with 400, or it wants a stream.
    """
    if body.get("stream"):
        raise CallFailedError(message="This server does not stream completions; use chat completions.")
    limit = positive(body.get("max_tokens"), "max_tokens", 16)
    return [
        Ask(
            operation="completions",
            model=_model(body),
            user_texts=(prompt,),
            max_tokens=limit,
            stop=_stop(body.get("stop")),
            event_id=_event_id(body) or event_id,
        )
        for prompt in texts(body.get("prompt"), "prompt")
    ]


def _model(body: dict[str, Any]) -> str:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise CallFailedError(message="you must provide a model parameter")
    return model


def _event_id(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    stated = metadata.get("event_id") if isinstance(metadata, dict) else None
    return str(stated or body.get("user") or "")


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        raise CallFailedError(message="content must be a text or a list of parts.")
    return content or ""


def _stop(value: Any) -> tuple[str, ...]:
    return texts(value, "stop") if value else ()


def _schema(response_format: Any) -> dict[str, Any] | None:
    """Return the schema of a response_format; `json_object` asks for any object."""
    if response_format is None:
        return None
    kind = response_format.get("type") if isinstance(response_format, dict) else None
    if kind == "json_schema":
        schema = (response_format.get("json_schema") or {}).get("schema")
        if isinstance(schema, dict):
            return schema
        raise CallFailedError(message="response_format.json_schema.schema must be an object.")
    if kind == "json_object":
        return {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
    if kind == "text":
        return None
    raise CallFailedError(message="response_format.type must be text, json_object or json_schema.")
