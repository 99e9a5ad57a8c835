"""Reads the request bodies of Bedrock's operations."""

import json
from typing import Any

from streams.fmstub.call import Ask
from streams.fmstub.faults import CallFailedError
from streams.fmstub.wire import positive, texts

# What Bedrock takes when maxTokens is not set is the model's maximum; this is a small model's.
DEFAULT_MAX_TOKENS = 4096


def converse_ask(model: str, body: dict[str, Any], operation: str) -> Ask:
    """Return the ask of a Converse body.

    Raises:
        CallFailedError: Bedrock would refuse it with a ValidationException.
    """
    users, others = _turns(body.get("messages"))
    inference = _object(body, "inferenceConfig")
    metadata = _object(body, "requestMetadata")
    return Ask(
        operation=operation,
        model=model,
        user_texts=users,
        other_text="\n".join([*_block_texts(body.get("system") or []), *others]),
        max_tokens=positive(inference.get("maxTokens"), "inferenceConfig.maxTokens", DEFAULT_MAX_TOKENS),
        schema=_schema(body),
        stop=tuple(str(stop) for stop in inference.get("stopSequences") or ()),
        event_id=str(metadata.get("event_id", "")),
    )


def invoke_ask(model: str, body: dict[str, Any], operation: str) -> Ask:
    """Return the ask of an InvokeModel body: Anthropic messages, Titan or Cohere embeddings.

    Raises:
        CallFailedError: the body is of another kind, or wrong.
    """
    if "inputText" in body or "texts" in body:
        return Ask(operation, model, texts(body.get("inputText", body.get("texts")), "inputText"), max_tokens=1)
    users, others = _turns(body.get("messages"))
    system = body.get("system") or ""
    system_texts = [system] if isinstance(system, str) else _block_texts(system)
    return Ask(
        operation=operation,
        model=model,
        user_texts=users,
        other_text="\n".join([*system_texts, *others]),
        max_tokens=positive(body.get("max_tokens"), "max_tokens", DEFAULT_MAX_TOKENS),
        stop=tuple(str(stop) for stop in body.get("stop_sequences") or ()),
        event_id=str(_object(body, "metadata").get("user_id", "")),
    )


def _turns(messages: Any) -> tuple[tuple[str, ...], list[str]]:
    """Return the users' texts and the others'."""
    if not isinstance(messages, list) or not messages:
        raise CallFailedError(message="messages must be a list with at least one message.")
    users: list[str] = []
    others: list[str] = []
    for turn in messages:
        role = turn.get("role") if isinstance(turn, dict) else None
        if role not in ("user", "assistant"):
            raise CallFailedError(message="The role of a message must be user or assistant.")
        content = turn.get("content")
        found = [content] if isinstance(content, str) else _block_texts(content)
        (users if role == "user" else others).extend(found)
    if messages[0]["role"] != "user":
        raise CallFailedError(message="A conversation must start with a user message. Try again.")
    return tuple(users), others


def _block_texts(blocks: Any) -> list[str]:
    """Return the texts of content blocks; `guardContent` wraps untrusted ones."""
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise CallFailedError(message="content must be a list of content blocks.")
    found = []
    for block in blocks:
        guarded = block.get("guardContent")
        text = guarded.get("text") if isinstance(guarded, dict) else block.get("text")
        text = text.get("text") if isinstance(text, dict) else text
        if isinstance(text, str):
            found.append(text)
    return found


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    structure = _object(_object(_object(body, "outputConfig"), "textFormat"), "structure")
    raw = _object(structure, "jsonSchema").get("schema")
    if raw is None:
        return None
    try:
        schema = json.loads(raw)
    except (TypeError, ValueError) as error:
        raise CallFailedError(message="outputConfig: the schema must be a text with a JSON Schema.") from error
    if not isinstance(schema, dict):
        raise CallFailedError(message="outputConfig: the schema must be a JSON object.")
    return schema


def _object(body: dict[str, Any], name: str) -> dict[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        raise CallFailedError(message=f"{name} must be an object.")
    return value or {}
