"""One event on its way through the pipeline: from the record to what the outcome needs to know."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Union

import msgspec

from contracts.codec import Position, RecordHeaders, decode_event, encodable, format_time, redrive_of
from contracts.envelope import Event
from contracts.errors import NoRoute, PenstockError, Undecodable
from contracts.payloads import FailureNote, Message, Usage
from contracts.settings import RouteSettings
from streams.steps.route import Router

if TYPE_CHECKING:
    from streams.deltas import Preview
    from streams.plans import Begun

SHARED = "shared"
# So many failures of calls that it shared, and it shares none any more.
FOR_GOOD = 2
# The first failure and the newest ones are worth keeping; a long outage makes many.
_MAX_FAILURES_NOTED = 10


class Job(msgspec.Struct, eq=False):
    """The record, the event in it, and what has been tried.

    Attributes:
        event: decoded; a stand-in named after the record's position when it cannot be decoded.
        route: None when the event cannot be decoded or no route matches.
        fault: what is wrong with the event already; None for an event worth a call.
        accepted_s, deadline_s: when it was accepted and when it expires, Unix seconds.
        replayed_s: when it was taken to be done again by an operator's wish, Unix seconds; 0 = it is no replay.
        cost_usd: spent so far; None once a call without a known price was made.
        failed: failures so far by class of the retry policy; and SHARED, of calls that other events were in.
        origin: where the event's own record lies, when this one is of the retry topic.
        not_before: when the next attempt may be made; None = now.
        has_retry: the attempt that it was parked before spends none of the retry budget.
        is_foreign: parked by another application, or put back for one: that one will take it up itself.
        prompt: rendered ahead of the first attempt; empty when it has not been, or has been used.
        preview: deltas of the newest attempt; None for an event that is not streamed.
        begun: the call that was made for it without a task; None once its outcome has been taken up.
    """

    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
    event: Event
    accepted_s: float
    deadline_s: float
    route: RouteSettings | None = None
    fault: PenstockError | None = None
    attempts: int = 0
    usage: Usage = Usage()
    cost_usd: float | None = 0.0
    failures: list[FailureNote] = []
    failed: dict[str, int] = {}
    origin: Position | None = None
    not_before: datetime | None = None
    has_retry: bool = False
    replayed_s: float = 0.0
    is_foreign: bool = False
    prompt: tuple[Message, ...] = ()
    preview: Union["Preview", None] = None
    begun: Union["Begun", None] = None

    @property
    def accepted_at(self) -> datetime:
        """Return when it was accepted, aware UTC."""
        return datetime.fromtimestamp(self.accepted_s, tz=UTC)

    @property
    def deadline_at(self) -> datetime:
        """Return when it expires, aware UTC."""
        return datetime.fromtimestamp(self.deadline_s, tz=UTC)

    @property
    def goes_alone(self) -> bool:
        """Tell whether its next call is to be for this event only."""
        return self.failed.get(SHARED, 0) >= FOR_GOOD

    @property
    def route_name(self) -> str:
        """Return the metric and log label of the route."""
        return self.route.name if self.route else "none"


def make_job(position: Position, key: bytes | None, value: bytes | None, headers: RecordHeaders, router: Router) -> Job:
    """Decode a record and find its route; what is wrong with it is kept in the job, for its dead letter."""
    accepted_s = _accepted_s(position.timestamp_ms)
    route: RouteSettings | None = None
    fault: PenstockError | None = None
    try:
        event = decode_event(key, value, headers)
    except Undecodable as error:
        event, fault = _stand_in(position, value, headers), error.with_traceback(None)
    else:
        try:
            route = router.route(event)
        except NoRoute as error:
            fault = error.with_traceback(None)
    deadline_s = accepted_s + (route.deadline_s if route else 0)
    if (expires_at := event.expires_at) is not None:
        deadline_s = min(deadline_s, expires_at.timestamp())
    return Job(key, value, headers, event, accepted_s, deadline_s, route, fault)


def note(job: Job, error: PenstockError) -> None:
    """Keep a failure for the dead letter."""
    if len(job.failures) >= _MAX_FAILURES_NOTED:
        del job.failures[1]
    job.failures.append(
        FailureNote(
            attempt=job.attempts,
            reason=error.reason,
            message=encodable(str(error))[:500],
            at=format_time(datetime.now(UTC)),
            possibly_billed=bool(getattr(error, "possibly_billed", False)),
        )
    )


def is_for_another(headers: RecordHeaders, app_id: str) -> bool:
    """Tell whether an event was put back for another application than this one; its last header says so."""
    redrive = redrive_of(headers[-1:])
    return redrive is not None and redrive.app_id not in {"", app_id}


def restart_deadline(job: Job) -> None:
    """Count deadline and age from now: an operator wants the event done again, however old it is.

    The sender's own `expirytime` still holds: after it nobody wants the outcome.
    """
    job.replayed_s = time.time()
    deadline_s = job.replayed_s + (job.route.deadline_s if job.route else 0)
    expires_at = job.event.expires_at
    job.deadline_s = deadline_s if expires_at is None else min(deadline_s, expires_at.timestamp())


def age_s(job: Job) -> float:
    """Return the seconds since an event was accepted, or since an operator's replay began with it; at least 0."""
    # Another machine may have noted the replay, by a clock that is ahead.
    return max(0.0, time.time() - max(job.accepted_s, job.replayed_s))


def left_s(job: Job) -> float:
    """Return the seconds to an event's deadline."""
    return job.deadline_s - time.time()


def nameless(job: Job, position: Position) -> Job:
    """Name an event after its position: where its names alone fill a record, it has to end all the same."""
    named = Event(id=_name(position), source="unknown", type="unknown", data=b"")
    return msgspec.structs.replace(job, event=named, key=None)


def _accepted_s(timestamp_ms: int) -> float:
    """Return when a record was accepted: its timestamp, or now where that is missing, senseless or to come."""
    # Compared first: a retry record may name a number that is too large to be divided into a float.
    return min(time.time() * 1000, timestamp_ms) / 1000 if timestamp_ms >= 0 else time.time()


def _stand_in(position: Position, value: bytes | None, headers: RecordHeaders) -> Event:
    """Name an undecodable record: by its id and source where these can be read, else by its position."""
    readable: dict[str, str] = {}
    for name, raw in headers:
        if name in {"ce_id", "ce_source", "ce_type"}:
            readable.setdefault(name, (raw or b"").decode("utf-8", errors="replace"))
    return Event(
        id=readable.get("ce_id") or _name(position),
        source=readable.get("ce_source") or "unknown",
        type=readable.get("ce_type") or "unknown",
        data=value or b"",
    )


def _name(position: Position) -> str:
    return f"{position.topic}/{position.partition}/{position.offset}"
