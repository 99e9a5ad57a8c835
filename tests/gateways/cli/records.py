"""Records as they would lie on the topics, for tests of what people are shown."""

from contracts.codec import Position, dead_letter_headers, encode_event, encode_json, outcome_headers
from contracts.envelope import Event
from contracts.payloads import (
    DEAD_LETTER_MARKER_TYPE,
    DUPLICATE_TYPE,
    RESULT_TYPE,
    DeadLetter,
    DuplicateMarker,
    InferenceResult,
    OutcomeMarker,
    Provenance,
    Usage,
)
from gateways.cli.reading import Read

AT = "2026-11-02T08:00:00.000Z"
AT_MS = 1_793_606_400_000
POSITION = Position("penstock.events.standard.v1", 1, 5, AT_MS)


def event(event_id: str = "e-1", source: str = "github") -> Event:
    """Return an event."""
    return Event(id=event_id, source=source, type="com.github.issues", data=b'{"a": 1}', time=AT)


def result(output: object, event_id: str = "e-1", attempts: int = 1, source: str = "github") -> Read:
    """Return the terminal record of an event that has a result."""
    about = event(event_id, source)
    provenance = Provenance(provider="embedded", model="embedded/extract-v1", route="triage", prompt_digest="x")
    value = InferenceResult(
        event_id=event_id,
        source=source,
        type=about.type,
        output=output,
        provenance=provenance,
        usage=Usage(),
        attempts=attempts,
        completed_at=AT,
        duration_s=0.25,
    )
    headers = outcome_headers(about, RESULT_TYPE, AT, "penstock", POSITION)
    return Read("penstock.results.v1", 1, 0, AT_MS, None, encode_json(value), [*headers])


def marker(event_id: str = "e-1", reason: str = "undecodable", source: str = "github") -> Read:
    """Return the terminal record of an event that is a dead letter."""
    about = event(event_id, source)
    value = OutcomeMarker(
        event_id=event_id,
        source=source,
        type=about.type,
        status="dead_letter",
        reason=reason,
        attempts=0,
        completed_at=AT,
        message="not JSON",
    )
    headers = outcome_headers(about, DEAD_LETTER_MARKER_TYPE, AT, "penstock", POSITION)
    return Read("penstock.results.v1", 1, 1, AT_MS, None, encode_json(value), [*headers])


def duplicate(event_id: str = "e-2", first_id: str = "e-1", source: str = "github") -> Read:
    """Return the terminal record of an event that repeats another one."""
    about = event(event_id, source)
    value = DuplicateMarker(
        event_id=event_id,
        source=source,
        type=about.type,
        first_event_id=first_id,
        completed_at=AT,
        **POSITION._asdict(),
    )
    headers = outcome_headers(about, DUPLICATE_TYPE, AT, "penstock", POSITION)
    return Read("penstock.results.v1", 1, 1, AT_MS, None, encode_json(value), [*headers])


def letter(event_id: str = "e-1", reason: str = "undecodable", source: str = "github") -> Read:
    """Return a dead letter."""
    why = DeadLetter(
        reason=reason,
        disposition="poison",
        message="not JSON",
        attempts=0,
        route="triage",
        topic=POSITION.topic,
        partition=1,
        offset=5,
        failed_at=AT,
    )
    headers = dead_letter_headers([*encode_event(event(event_id, source))], why)
    return Read("penstock.dead-letters.v1", 0, 0, AT_MS, b"k", b"{", [*headers])
