"""Versioned, frozen payloads of the topics and of the seam to the providers.

Source: names follow the OpenTelemetry GenAI conventions (status Development, checked 2026-11) where they have one.
"""

from typing import Any, Literal

import msgspec

Role = Literal["user", "assistant"]
Task = Literal["chat", "completion", "embedding"]
# What becomes of the thoughts that a server leaves in a reasoning model's answer, between <think> and </think>.
Reasoning = Literal["strip", "strip_unopened", "strip_all", "keep"]
FinishReason = Literal["stop", "length", "content_filter", "tool_use", "other"]
OutcomeStatus = Literal["succeeded", "dead_letter", "expired"]
EndpointStatus = Literal["active", "failing", "disabled"]
Disposition = Literal["poison", "exhausted", "refused", "unroutable", "operator"]
DeltaEnding = Literal["succeeded", "dead_letter", "expired", "retried"]

RESULT_TYPE = "penstock.result.v1"
DEAD_LETTER_MARKER_TYPE = "penstock.outcome.dead-letter.v1"
EXPIRED_TYPE = "penstock.outcome.expired.v1"
DELTA_TYPE = "penstock.delta.v1"
CANCEL_TYPE = "penstock.cancel.v1"
DUPLICATE_TYPE = "penstock.outcome.duplicate.v1"
# The outcomes of events. A duplicate has none of its own: its marker is terminal too, and names the event that has.
TERMINAL_TYPES = frozenset({RESULT_TYPE, DEAD_LETTER_MARKER_TYPE, EXPIRED_TYPE})


class Message(msgspec.Struct, frozen=True):
    """One chat turn."""

    role: Role
    content: str


class InferenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider is asked.

    Attributes:
        event_id: for logs and idempotency at the provider; never part of the prompt.
        model: model id in the provider's own words.
        system: system prompt, may be empty.
        output_schema: JSON Schema the answer must satisfy; a provider that can enforce it does, we validate anyway.
        max_tokens: always set: unset reserves the model's maximum against the quota (reference: Bedrock quotas).
        timeout_s: seconds left for this call; the provider raises ProviderTimeout when it runs out.
        metadata: small strings for the provider's own bookkeeping (Bedrock requestMetadata).
        task: what is asked for; the text of an answer to `embedding` is the vector as a JSON array.
        reasoning: what becomes of thoughts in the text of the answer; not the provider's business.
    """

    event_id: str
    model: str
    messages: tuple[Message, ...]
    system: str = ""
    max_tokens: int = 512
    temperature: float | None = None
    stop: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    timeout_s: float = 60.0
    metadata: dict[str, str] = {}
    task: Task = "chat"
    reasoning: Reasoning = "strip"


class Usage(msgspec.Struct, frozen=True):
    """Tokens as the provider counts them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0


class InferenceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider answers, before validation.

    Attributes:
        text: all text content, in order; reasoning content is left out.
        model: the model that really answered, in the provider's words.
        response_id: the provider's id of the call, for support tickets.
        only_thoughts: there is no text, as all that there was were a model's thoughts.
    """

    text: str
    model: str
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    response_id: str = ""
    only_thoughts: bool = False


class DeltaChunk(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of a streamed answer; the last one carries the finish reason and the usage."""

    text: str = ""
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    model: str = ""
    response_id: str = ""


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Where a result comes from: the only part of it that a change of model or provider may change."""

    provider: str
    model: str
    route: str
    prompt_digest: str
    response_id: str = ""


class InferenceResult(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a `penstock.result.v1` record on a result topic, version 1.

    Attributes:
        event_id, source, type: of the event that asked.
        output: what the consumer reads: the parsed JSON when the route has an output schema, else the text.
        attempts: model calls made for this event, 1-based.
        duration_s: from the event's acceptance to this result.
        cost_usd: None when the model has no price in the configuration.
    """

    event_id: str
    source: str
    type: str
    output: Any
    provenance: Provenance
    usage: Usage
    attempts: int
    completed_at: str
    duration_s: float
    finish_reason: FinishReason = "stop"
    cost_usd: float | None = None
    version: Literal[1] = 1


class FailureNote(msgspec.Struct, frozen=True, kw_only=True):
    """One failed attempt, as dead letters and retries carry it."""

    attempt: int
    reason: str
    message: str
    at: str
    possibly_billed: bool = False


class RetryNote(msgspec.Struct, frozen=True, kw_only=True):
    """What the last header of a record on the retry topic says, version 1; what lies before ours is the original's.

    Attributes:
        topic, partition, offset, timestamp_ms: where the original record lies.
        deadline_ms: the event's, milliseconds since 1970.
        not_before_ms: when the next attempt may be made, milliseconds since 1970.
        reason: why it waits, a bounded slug.
        attempts: model calls made so far.
        failed: failures so far by class, as the retry policy counts them; `shared` = its calls are for it alone.
        cost_usd, usage: spent so far; a cost of None is unknown.
        failures: the first failed attempt, and the newest ones.
        has_retry: the next attempt spends no retry of the budget: it was spent, or the last one did not count.
        replayed_ms: when an operator's replay began with it, milliseconds since 1970; 0 = it is no replay.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    not_before_ms: int
    deadline_ms: int
    reason: str
    attempts: int
    failed: dict[str, int] = {}
    cost_usd: float | None = None
    usage: Usage = Usage()
    failures: tuple[FailureNote, ...] = ()
    has_retry: bool = False
    replayed_ms: int = 0
    version: Literal[1] = 1


class OutcomeMarker(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the terminal record of an event that has no result: dead letter or expired, version 1."""

    event_id: str
    source: str
    type: str
    status: Literal["dead_letter", "expired"]
    reason: str
    attempts: int
    completed_at: str
    message: str = ""
    version: Literal[1] = 1


class DuplicateMarker(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the terminal record of an event that repeats another one: neither called nor paid for, version 1.

    It has a `ce_id` of its own, so that whoever keeps the ids it has seen does not take the outcome for it.

    Attributes:
        event_id, source, type: of the repetition.
        first_event_id, topic, partition, offset, timestamp_ms: of the event whose outcome is its outcome too.
    """

    event_id: str
    source: str
    type: str
    first_event_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    completed_at: str
    status: Literal["duplicate"] = "duplicate"
    version: Literal[1] = 1


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """What the last header of a dead-letter record says; its value and other headers are the original's, untouched.

    Attributes:
        reason: slug of the error tree.
        disposition: what kind of end it was; tells poison from exhausted retries and refusals.
        message: the last error; `failures` has the first one too.
        cost_usd: spent so far; None when unknown.
        topic, partition, offset, timestamp_ms: where the original record lies, and its timestamp.
        failures: failed attempts: the first, and the newest ones.
        redrives: how often it has been put back already.
        traceparent: W3C trace context of the event; empty when it has none.
        app_id: whose worker gave it up.
    """

    reason: str
    disposition: Disposition
    message: str
    attempts: int
    route: str
    topic: str
    partition: int
    offset: int
    failed_at: str
    failures: tuple[FailureNote, ...] = ()
    answer: str = ""
    cost_usd: float | None = None
    redrives: int = 0
    timestamp_ms: int = 0
    traceparent: str = ""
    app_id: str = ""
    version: Literal[1] = 1


class Resolution(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a dead letter: the header of a small record behind it on its own partition, version 1.

    Attributes:
        state: put back on its event topic, or given up for good.
        partition, offset, timestamp_ms: of the letter on the dead-letter topic.
        by, why: the operator's name and words.
        topic: where it was put back; empty when discarded.
    """

    state: Literal["redriven", "discarded"]
    partition: int
    offset: int
    timestamp_ms: int
    event_id: str
    at: str
    by: str = ""
    why: str = ""
    topic: str = ""
    version: Literal[1] = 1


class Redrive(msgspec.Struct, frozen=True, kw_only=True):
    """Header of an event record that was made from a dead letter, and of the outcome of such an event, version 1.

    Attributes:
        partition, offset, timestamp_ms: of the letter on the dead-letter topic.
        count: how often this event has been put back, this time included.
        app_id: for whom: other applications that read its topic pass it over; empty = for all.
    """

    partition: int
    offset: int
    timestamp_ms: int
    count: int
    at: str
    by: str = ""
    app_id: str = ""
    version: Literal[1] = 1


class DeliveryNote(msgspec.Struct, frozen=True, kw_only=True):
    """Last header of a record on a delay topic or the undelivered topic, version 1; the rest is the original's.

    Attributes:
        state: waits for its next attempt, or why there is none: refused for good, attempts used up.
        door: name of its section in the configuration.
        destination: where it was to go.
        attempts: deliveries tried so far.
        reason: of the last failure, a bounded slug; `message` is its text.
        topic, partition, offset, timestamp_ms: of the original record on its result topic.
        first_at_ms: when the first attempt was made, milliseconds since 1970.
        at: when this record was written, RFC 3339.
        is_value_left_out: the record with this note would be too large; its value stands only where the original lies.
        app_id: whose door; others that share the topic may have one of its name. Empty = written by an older version.
    """

    state: Literal["waiting", "refused", "exhausted"]
    door: str
    destination: str
    attempts: int
    reason: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    first_at_ms: int
    at: str
    message: str = ""
    is_value_left_out: bool = False
    app_id: str = ""
    version: Literal[1] = 1


class Delta(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a `penstock.delta.v1` record: one numbered piece of an answer while it is being made, version 1.

    Deltas are a preview: the terminal record on the result topic is the answer. A reader takes the pieces of one epoch
    in the order of their numbers, drops what it had when a new epoch begins, and stops at a number that is missing.

    Attributes:
        epoch: names one attempt of one worker, later ones are larger on the same clock; numbering starts anew in each.
        sequence: 1, 2, 3 ... within the epoch.
        text: what the answer goes on with; empty in the last delta of an epoch that has nothing to add.
        is_final: no more deltas of this epoch follow.
        ending: how the attempt ended, in the final delta: with a result, without one, or to be tried again.
    """

    event_id: str
    epoch: int
    sequence: int
    text: str
    is_final: bool = False
    ending: DeltaEnding | None = None
    version: Literal[1] = 1


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a `penstock.cancel.v1` record: a sender does not want its event answered any more, version 1.

    Attributes:
        topic, partition, offset, timestamp_ms: where the event lies.
        by: id of the API key.
    """

    event_id: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    by: str
    at: str
    version: Literal[1] = 1


class EndpointState(msgspec.Struct, frozen=True, kw_only=True):
    """Value of a record on the endpoints topic, key `<app_id>/<name>`: how an endpoint's callbacks fare, version 1.

    Attributes:
        name: of the door.
        app_id: whose door; empty = written by an older version, whose keys are the names alone.
        status: `failing` since its last success; `disabled` until an operator enables it.
        reason: bounded slug: what failed first, or why it is disabled.
        since: RFC 3339.
        by: who wrote it: `egress`, or an operator's name.
    """

    name: str
    status: EndpointStatus
    since: str
    reason: str = ""
    by: str = ""
    app_id: str = ""
    version: Literal[1] = 1
