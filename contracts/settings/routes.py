"""Routes: which events get which prompt, model, schema, deadline and order."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from contracts.settings.batches import Batch
from contracts.settings.retry import DeadLetterLimit, Retry
from contracts.settings.secrets import Name
from contracts.settings.section import ExistingFile, Form, Pointer, Seconds, Section


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Patterns = Annotated[
    tuple[str, ...],
    # An empty list would match everything.
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | tuple[str, ...]),
]


TopicName = Annotated[
    str, Form(r"^[A-Za-z0-9._-]{1,249}$", "a topic's name: letters, digits, dots, dashes and underscores, at most 249")
]


class Match(Section):
    """Glob patterns over CloudEvents attributes; all given ones must match, case-sensitive."""

    source: Patterns = ("*",)
    """Patterns for the source, one or a list."""
    type: Patterns = ("*",)
    """Patterns for the type, one or a list."""


class Prompt(Section):
    """Instructions and a Jinja2 template for the user message; sandboxed, undefined fields are an error.

    No other template can be taken in. Variables of the template: `event` (id, source, type, subject, time), `data` (the
    parsed JSON body), `text` (the body as text).
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
    """From acceptance; an event that is not answered by then ends as expired, and nothing more is called for it."""
    attempt_timeout_s: Seconds = 60.0
    """Limit of one model call."""
    order: Literal["key", "partition", "none"] | Pointer = "key"
    """What is kept in order: events of one key, of one partition, nothing (none), or events whose body has the same
    value at a JSON pointer such as `/account/id` (the key, where it is not there). Never across partitions."""
    output_topic: TopicName | None = None
    """Result topic; the common one when absent. Needs at least as many partitions as the event topics."""
    retry: Retry = Retry()
    """Retry policy."""
    dead_letter_limit: DeadLetterLimit = DeadLetterLimit()
    """When the route pauses instead of filling the dead letters."""
    batch: Batch = Batch()
    """Several events in one model call."""

    @model_validator(mode="after")
    def _one_schema(self) -> "RouteSettings":
        if self.output_schema is not None and self.output_schema_file is not None:
            message = "output_schema and output_schema_file exclude each other"
            raise ValueError(message)
        return self

    @property
    def parks(self) -> bool:
        """Tell whether long waits are spent on the retry topic."""
        waits = self.retry.long_waits
        return waits == "topic" or (waits == "auto" and self.order == "none")
