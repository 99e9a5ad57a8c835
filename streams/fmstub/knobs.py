"""What the stub does to its callers: latency, faults, quotas; set by flags and at run time."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.settings.section import Section
from streams.fmstub.faults import KINDS, Kind

Rate = Annotated[float, Field(ge=0, le=1)]


class FailFirst(Section):
    """The first calls whose prompt contains a marker fail."""

    times: int = Field(ge=1)
    """So many."""
    kind: Kind = "unavailable"
    """In this way."""


class Knobs(Section):
    """All knobs; the defaults are a server that answers at once and always."""

    latency_s: float = Field(default=0.0, ge=0, le=3600)
    """Median time to the first token, seconds."""
    latency_sigma: float = Field(default=0.0, ge=0, le=5)
    """Spread: the time is log-normal with this sigma; 0 = always the median."""
    per_token_s: float = Field(default=0.0, ge=0, le=10)
    """Time per output token, seconds."""
    stream_pause_s: float = Field(default=0.0, ge=0, le=600)
    """Slow loris: an extra pause before each piece of a stream, seconds."""
    error_rates: dict[Kind, Rate] = Field(default_factory=dict)
    """Share of calls that fail, by kind; their sum must not exceed 1."""
    fail_first: dict[str, int | FailFirst] = Field(default_factory=dict)
    """Marker in the prompt -> how many calls with it fail first (a number: with 503)."""
    retry_after_s: float | None = Field(default=None, ge=0)
    """Wait that throttles and 503s ask for; computed for quotas, otherwise not said, when absent."""
    rpm: int | None = Field(default=None, ge=1)
    """Requests per minute and model."""
    tpm: int | None = Field(default=None, ge=1)
    """Tokens per minute and model; input + max_tokens are reserved, then settled on the usage."""
    output_burndown: float = Field(default=1.0, ge=0)
    """How many quota tokens an output token counts when settled (Bedrock: 5 for Claude 3.7 and later)."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Longest input; longer ones are refused."""
    answer: str | None = None
    """Answers every call with this text; an extract of the prompt when absent."""
    stop_reason: str | None = None
    """Ends every answer with this Bedrock stop reason, or OpenAI finish reason."""
    batch_state_s: float = Field(default=0.0, ge=0, le=600)
    """Batch jobs: time in each state before the work begins, seconds."""
    batch_min_records: int = Field(default=100, ge=1)
    """Batch jobs: smaller inputs end as Failed."""
    batch_share: float | None = Field(default=None, ge=0, le=1)
    """Batch jobs: share of the records that is worked on, the rest has no output; PartiallyCompleted."""
    batch_end: Literal["Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"] | None = None
    """Batch jobs: the state in which they end, whatever they have done."""
    require_key: str | None = None
    """Bearer token every call must bring; any or none when absent."""


def kinds() -> str:
    """Return the error kinds for help texts."""
    return ", ".join(KINDS)
