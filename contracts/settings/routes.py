"""Routes: which events get which prompt, model, schema, deadline and order."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from contracts.settings.secrets import Name
from contracts.settings.section import ExistingFile, Seconds, Section


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    tuple[str, ...],
    # An empty list would match everything.
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...]),
]


class Match(Section):
    """Glob patterns over CloudEvents attributes; all given ones must match, case-sensitive."""

    source: Patterns = ("*",)
    """Patterns for the source, one or a list."""
    type: Patterns = ("*",)
    """Patterns for the type, one or a list."""


class Prompt(Section):
    """Instructions and a Jinja2 template for the user message; sandboxed, undefined fields are an error.

    Variables of the template: `event` (id, source, type, subject, time), `data` (the parsed JSON body), `text` (the
    body as text).
    """

    system: str = ""
    """System prompt, taken as it is: instructions, never event data."""
    system_file: ExistingFile | None = None
    """The same, from a file."""
    user: str | None = None
    """Template of the user message."""
    user_file: ExistingFile | None = None
    """The same, from a file."""
    max_chars: int = Field(default=100_000, ge=1)
    """Longest rendered prompt; longer ones are dead-lettered as context_too_long."""

    @model_validator(mode="after")
    def _exactly_one_user(self) -> "Prompt":
        if (self.user is None) == (self.user_file is None):
            message = "exactly one of user and user_file is needed"
            raise ValueError(message)
        if self.system and self.system_file:
            message = "system and system_file exclude each other"
            raise ValueError(message)
        return self


class Retry(Section):
    """How often and how patiently one event's call is tried; always inside the deadline."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """Calls for one event, the first included."""
    base_s: Seconds = 0.5
    """Upper bound of the first wait; waits are drawn between zero and min(max_s, base_s * 2^n) (full jitter)."""
    max_s: Seconds = 30.0
    """Upper bound of any wait; a provider's Retry-After is honoured beyond it."""


class RouteSettings(Section):
    """One route; the first that matches takes the event."""

    name: Name
    """Name in logs, metrics and results."""
    match: Match = Match()
    """Which events."""
    prompt: Prompt
    """What the model is asked."""
    model: Name
    """Alias, a name of a section under `models`."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema (2020-12) of the answer; plain text when absent."""
    output_schema_file: ExistingFile | None = None
    """The same, from a JSON file."""
    deadline_s: Seconds = 300.0
    """From acceptance; an event that is not answered by then ends as expired and is not paid for."""
    attempt_timeout_s: Seconds = 60.0
    """Limit of one model call."""
    order: Literal["key", "partition", "none"] = "key"
    """What is kept in order: events of one key, of one partition, or nothing."""
    output_topic: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,249}$")
    """Result topic; the common one when absent. Needs at least as many partitions as the event topics."""
    retry: Retry = Retry()
    """Retry policy."""

    @model_validator(mode="after")
    def _one_schema(self) -> "RouteSettings":
        if self.output_schema is not None and self.output_schema_file is not None:
            message = "output_schema and output_schema_file exclude each other"
            raise ValueError(message)
        return self
