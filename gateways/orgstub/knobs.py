"""What a person or a test can turn while the stub runs."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fault = Literal[
    "",
    "limit",
    "unavailable",
    "session",
    "no_permission",
    "no_field",
    "hang",
    "cut",
    "bad_gateway",
    "lost_answer",
    "login_refused",
    "login_busy",
]


class Knobs(BaseModel):
    """How the org behaves; all of it can be changed with `PATCH /_stub/knobs`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    latency_s: float = Field(default=0.0, ge=0, le=600)
    """Before every answer."""
    fault: Fault = ""
    """How calls fail. `bad_gateway`: 502 with a page of HTML, as something in between answers. `lost_answer`: the
    update is done, and the connection is cut before its answer."""
    fault_calls: int | None = Field(default=None, ge=1)
    """How many calls do so; all when absent."""
    retry_after_s: int | None = Field(default=None, ge=0)
    """What `limit` and `unavailable` say in Retry-After; Salesforce itself says nothing."""
    unavailable_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of calls that are answered 503."""
    lock_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of updated records whose row is locked at that moment."""
    lost_answer_rate: float = Field(default=0.0, ge=0, le=1)
    """Share of updates that are done and whose answer is lost."""
    locked: tuple[str, ...] = ()
    """Ids of records whose row is locked."""
    vanishing: tuple[str, ...] = ()
    """Ids of records that are read, and are deleted when they are written."""
    daily_calls: int = Field(default=100_000, ge=0)
    """Calls of a day; more are refused with REQUEST_LIMIT_EXCEEDED."""
    session_calls: int | None = Field(default=None, ge=1)
    """Calls after which a session ends."""
