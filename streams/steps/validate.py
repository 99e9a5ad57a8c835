"""Checks an answer against the route's output schema and returns what consumers will read."""

from pathlib import Path
from typing import Any

import jsonschema_rs

from contracts.codec import decode_any_json
from contracts.errors import ConfigError, OutputInvalid, OutputTruncated, Undecodable
from contracts.payloads import InferenceAnswer, Message, Task
from contracts.settings import RouteSettings

_VECTOR = {"type": "array", "items": {"type": "number"}, "minItems": 1}
_FENCE = "```"
_OPENINGS = frozenset({_FENCE, f"{_FENCE}json"})


class _NoAnswer(OutputInvalid):
    """Raise when there is nothing that a route without a schema could hand on."""


class OutputContract:
    """What a route promises its consumers.

    Args:
        route: its settings.
        task: of its model; an embedding's output is a vector, also without a schema.

    Raises:
        ConfigError: the schema is not valid JSON or not a valid schema.
    """

    def __init__(self, route: RouteSettings, task: Task = "chat") -> None:
        self._limit = f"models.{route.model}.max_tokens"
        # An empty schema is one too: any JSON.
        is_inline = route.output_schema is not None
        self.schema = route.output_schema if is_inline else _load(route.output_schema_file, route.name)
        if self.schema is None and task == "embedding":
            self.schema = _VECTOR
        self._validator = None if self.schema is None else _compile(self.schema, route.name)

    def read(self, answer: InferenceAnswer) -> Any:
        """Return the output of an answer.

        Raises:
            OutputTruncated: it has ended at `max_tokens`, before it had begun or as what is not of the schema.
            OutputInvalid: as `check`, or it is nothing but thoughts.
        """
        try:
            return self._output(answer)
        except OutputInvalid as error:
            if answer.finish_reason != "length":
                raise
            said = f"the answer ended at max_tokens before it was whole; raise {self._limit}"
            unquoted = f"{said}: {error.unquoted}" if error.unquoted else said
            message = f"{said}: {error}"
            raise OutputTruncated(message, error.answer, unquoted) from error

    def _output(self, answer: InferenceAnswer) -> Any:
        if self._validator is None and not answer.text and (answer.only_thoughts or answer.finish_reason == "length"):
            message = "there is no answer, at most a model's thoughts"
            raise _NoAnswer(message)
        return self.check(answer.text)

    def check(self, answer: str) -> Any:
        """Return the output: parsed JSON with a schema, the text without.

        Raises:
            OutputInvalid: not JSON, or not of the schema; names the first violation and keeps the answer.
        """
        if self._validator is None:
            return answer
        try:
            output = decode_any_json(_unfenced(answer).encode())
        except Undecodable as error:
            raise OutputInvalid(str(error), answer) from error
        try:
            violation = next(self._validator.iter_errors(output), None)
        except ValueError as error:
            # Nested deeper than the validator goes.
            raise OutputInvalid(str(error), answer, "the answer cannot be held against the schema") from error
        if violation is not None:
            pointer = "/".join(str(part) for part in violation.instance_path)
            message = f"/{pointer}: {violation.message}"
            rule = "/".join(str(part) for part in violation.schema_path)
            raise OutputInvalid(message, answer, f"the answer breaks /{rule} of the schema")
        return output


def _unfenced(answer: str) -> str:
    """Take an answer out of its Markdown fence: models like to wrap JSON in one, whatever they were told.

    No regular expression: a fence that is never closed, with nothing but line breaks behind it, is what a model may
    give until its limit ends it, and trying every end of every space with every other stops the loop for minutes.
    """
    text = answer.strip()
    opening, line_end, rest = text.partition("\n")
    is_fenced = line_end and opening.rstrip() in _OPENINGS and rest.endswith(_FENCE)
    return rest.removesuffix(_FENCE).strip() if is_fenced else answer


def repair_turns(error: OutputInvalid) -> tuple[Message, Message]:
    """Return the turns that ask for another answer: the one there was, and what is wrong with it."""
    asked = f"Your answer does not satisfy the required JSON Schema: {error}. Answer again, with the JSON only."
    if isinstance(error, _NoAnswer):
        asked = "Your answer has no text. Answer again."
    # Bedrock refuses a turn that is blank, and the event would be dead-lettered for that.
    said = error.answer if error.answer.strip() else "(no text)"
    return Message("assistant", said), Message("user", asked)


def _load(path: Path | None, route: str) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        schema = decode_any_json(path.read_bytes())
    except Undecodable as error:
        message = f"route {route}: {path}: {error}"
        raise ConfigError(message) from error
    if not isinstance(schema, dict):
        message = f"route {route}: {path}: a schema is an object, found {type(schema).__name__}"
        raise ConfigError(message)
    return schema


def _compile(schema: dict[str, Any], route: str) -> jsonschema_rs.Draft202012Validator:
    try:
        # What a schema means must not depend on what another host, or a file of this one, says today.
        return jsonschema_rs.Draft202012Validator(schema, offline=True)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        message = f"route {route}: output schema: {str(error).splitlines()[0]}"
        raise ConfigError(message) from error
