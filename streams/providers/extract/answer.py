"""Answers an inference request by extraction: a summary with key facts, or JSON that fits the request's schema."""

import json
from collections.abc import Sequence
from typing import Any

from contracts.errors import InvalidRequest
from contracts.settings.models import EMBEDDED_MODELS
from streams.providers.extract import packed
from streams.providers.extract.fill import fill
from streams.providers.extract.reading import read
from streams.providers.extract.summary import Content

MODEL_ID = EMBEDDED_MODELS["chat"]
# A rule of thumb for Latin text; the extractor has no tokenizer, and says so by calling its counts estimates.
_BYTES_PER_TOKEN = 4


def answer(texts: Sequence[str], schema: dict[str, Any] | None) -> str:
    """Return the answer to a prompt's user texts: JSON when there is a schema.

    A packed call is answered event by event, each as it would be in a call of its own.

    Raises:
        InvalidRequest: the schema cannot be filled from the prompt; the text names the field. Or the prompt's data is
            nested too deeply.
    """
    try:
        return _answer(texts, schema)
    except RecursionError as error:
        # How deep is too deep depends on the Python that runs it; what it read may be deeper than what it can walk.
        message = "the prompt's data is nested too deeply for the extractive model"
        raise InvalidRequest(message) from error


def _answer(texts: Sequence[str], schema: dict[str, Any] | None) -> str:
    pack = packed.of(texts, schema)
    if pack is not None:
        outputs = [{"id": one.id, "output": json.loads(answer([one.text], pack.output_schema))} for one in pack.events]
        return json.dumps({"answers": outputs}, ensure_ascii=False)
    content = Content.of(read(texts))
    if schema is not None:
        return json.dumps(fill(schema, content), ensure_ascii=False)
    summary, facts = content.summary(sentences=3), content.facts()
    if not facts:
        return summary
    return "\n".join([summary, "", "Key facts:", *(f"- {fact}" for fact in facts)]).strip()


def estimate_tokens(text: str) -> int:
    """Return about how many tokens a model would count."""
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def cut(text: str, max_tokens: int) -> tuple[str, bool]:
    """Return the text within `max_tokens`, and whether something was cut off."""
    if estimate_tokens(text) <= max_tokens:
        return text, False
    return text.encode("utf-8", "replace")[: max_tokens * _BYTES_PER_TOKEN].decode("utf-8", "ignore"), True
