"""Batch jobs on the log: who asked for one, how far it is, and how its events and outcomes are named.

The jobs topic is compacted. A request and a job have keys of their own, so that a notification that comes again never
takes the place of "finished". See: docs/adr/0014.
"""

import hashlib
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal

import msgspec

from contracts.codec import Record, encode_json
from contracts.envelope import format_time, parse_time
from contracts.settings.batch_jobs import BatchInput
from contracts.topics import Topics

State = Literal["submitting", "submitted", "finished", "failed"]

JOB_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
# CloudEvents attribute that names an event's job.
BATCH_JOB = "batchjob"
_DIGEST_CHARS = 20
# No input has so many lines; a longer number is somebody else's.
_LINE_DIGITS = 12
_REQUEST, _JOB, _HAND_OVER, _GIVEN_UP = "request", "job", "hand-over", "given-up"
# Status of a job that its provider does not know any more; that it does not show to us, by our credentials or rights,
# and so may run; and of one that was given up for it.
UNSEEN, DENIED, GIVEN_UP = "Unseen", "Denied", "GivenUp"


class BatchObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object of JSON lines.

    Attributes:
        uri: `s3://bucket/key`, or a path.
        etag, version_id: as S3 tells them; empty for files and where there is none.
        size_bytes: -1 where the notification did not say.
    """

    uri: str
    etag: str = ""
    version_id: str = ""
    size_bytes: int = -1


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the record that asks for a job, version 1; its key is `<job>/request`.

    Attributes:
        input: name of the section under `batch_jobs.inputs` that the object matched.
    """

    id: str
    input: str
    object: BatchObject
    requested_at: str = ""
    version: Literal[1] = 1


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the record that says how far a job is, version 1; its key is `<job>/job`.

    Attributes:
        sha256: of the input's bytes.
        source, type: of its events.
        lines: of the input, blank ones not counted; 0 until all are submitted.
        rejected: lines that are no events: not JSON, or too large.
        record_id, partition_key: JSON pointers into a line; empty = none.
        expires_at: expirytime of its events, RFC 3339; empty = the route's deadline alone.
        event_topic, event_starts: where its events lie from: end of each partition before the first of them.
        result_starts: by topic, the ends of all partitions before the first event.
        result_logs: by topic, Kafka's id of it, hexadecimal: the starts are of this log, and of none that is made anew
            under its name; without topics whose id is not known.
        event_log: Kafka's id of the event topic, hexadecimal, likewise; empty = not known.
        outputs: URIs of what was written.
        message: why it failed.
    """

    id: str
    object: BatchObject
    sha256: str
    source: str
    type: str
    event_topic: str
    event_starts: tuple[int, ...]
    result_starts: dict[str, tuple[int, ...]]
    started_at: str
    state: State = "submitting"
    lines: int = 0
    rejected: int = 0
    record_id: str = ""
    partition_key: str = ""
    expires_at: str = ""
    submitted_at: str = ""
    ended_at: str = ""
    outputs: dict[str, str] = {}
    message: str = ""
    result_logs: dict[str, str] = {}
    event_log: str = ""
    version: Literal[1] = 1

    @property
    def is_over(self) -> bool:
        """Tell whether nothing is left to do."""
        return self.state in {"finished", "failed"}


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a job of the batch API asks, and for how much: so it was handed over, whatever the configuration says since.

    Attributes:
        provider: name of the provider's section.
        model: in the provider's words.
        prices_usd: per million tokens of input, output, input read from the cache, and input written to it; None = the
            model has no price.
        price_share: what is paid of them there.
        prompts: digest of the prompt by route.
    """

    provider: str
    model: str
    prices_usd: tuple[float, float, float, float] | None = None
    price_share: float = 1.0
    prompts: dict[str, str] = {}


class HandOverPart(msgspec.Struct, frozen=True, kw_only=True):
    """One job of the provider's batch API.

    Attributes:
        token: clientRequestToken: the same one never begins a second job.
        input_uri: the records handed over; what is not in there was sent to the workers.
        arn: of the job; empty until it was created, or when the provider refused it.
        status: the provider's word; `Refused` for a job that it would not create, `Unseen` while it does not know it
            any more, `Denied` while our credentials or rights keep it from us, `GivenUp` once an operator has given it
            up for that.
        asked: None = not noted, by an earlier version.
    """

    token: str
    input_uri: str
    output_uri: str
    arn: str = ""
    status: str = ""
    message: str = ""
    asked: Asked | None = None


class HandOver(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the record that says what was handed over to a provider's batch API, version 1; `<id>/hand-over`.

    Attributes:
        ranges: by partition of the hand-over topic: first offset, and the one behind the last.
        answer_starts: by topic, the ends of all partitions before any answer to these records.
        answer_logs: which logs these are of, as `result_logs` of a job.
        parts: by model alias; none when there were too few for a job.
        state: `gathered`, `running` once every job is created and the rest was sent to the workers, `finished`.
        counts: what became of the records, once it is finished.
        log: Kafka's id of the hand-over topic, hexadecimal: ranges are of this log, and of none that is made anew
            under its name; empty = not known.
    """

    id: str
    ranges: dict[str, tuple[int, int]]
    answer_starts: dict[str, tuple[int, ...]]
    parts: dict[str, HandOverPart]
    gathered_at: str
    state: Literal["gathered", "running", "finished"] = "gathered"
    ended_at: str = ""
    counts: dict[str, int] = {}
    cost_usd: float = 0.0
    log: str = ""
    answer_logs: dict[str, str] = {}
    version: Literal[1] = 1


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """Value of the record by which an operator gives up a job of a hand-over, version 1; `<its id>/<job>/given-up`.

    It holds for as long as its provider does not know it: what it shows is waited for.

    Attributes:
        job: its ARN.
        even_if_denied: also while it is our credentials or rights that keep it from us.
        by, at: who has asked for it, and when, RFC 3339.
    """

    id: str
    job: str
    even_if_denied: bool = False
    by: str = ""
    at: str = ""
    version: Literal[1] = 1


BatchRecord = BatchRequest | BatchJob | HandOver | GivenUp


def event_id(job_id: str, line: int) -> str:
    """Return the id of a line's event; lines count from 1."""
    return f"{job_id}/{line}"


def line_of(job_id: str, name: str) -> int | None:
    """Return the line that an event id stands for; None when it is not of this job."""
    head, sign, tail = name.rpartition("/")
    is_number = tail.isascii() and tail.isdecimal() and len(tail) <= _LINE_DIGITS
    return int(tail) if sign and head == job_id and is_number else None


def request_of(
    inputs: Iterable[BatchInput], bucket: str, key: str, *, version_id: str, etag: str, size_bytes: int, at: str
) -> BatchRequest | None:
    """Return the request that a notification about an S3 object means; None when no section wants the object.

    The id is derived from the object, so that a repeated notification asks for the same job.
    """
    for section in inputs:
        if section.bucket == bucket and fnmatchcase(key, section.key):
            found = BatchObject(uri=f"s3://{bucket}/{key}", etag=etag, version_id=version_id, size_bytes=size_bytes)
            identity = f"{section.name}\n{found.uri}\n{version_id}\n{etag}"
            digest = hashlib.sha256(identity.encode()).hexdigest()[:_DIGEST_CHARS]
            when = parse_time(at)
            return BatchRequest(
                id=f"{section.name[:40]}-{digest}",
                input=section.name,
                object=found,
                requested_at=format_time(when) if when else "",
            )
    return None


def job_record(topics: Topics, payload: BatchRecord) -> Record:
    """Return the record of a request, of a job's state, or of a hand-over's."""
    kind = next(name for name, struct in _KINDS.items() if isinstance(payload, struct))
    # One for each job: of two operators at a time, each with a job of one hand-over, neither is overwritten.
    name = f"{payload.id}/{payload.job}" if isinstance(payload, GivenUp) else payload.id
    headers = [("content-type", b"application/json")]
    return Record(topics.batch_jobs, f"{name}/{kind}".encode(), encode_json(payload), headers)


def kind_of(key: bytes | None) -> type[BatchRecord] | None:
    """Return what a record of the jobs topic holds; None when it is none of ours."""
    return _KINDS.get((key or b"").decode(errors="replace").rpartition("/")[2])


_KINDS: dict[str, type[BatchRecord]] = {
    _REQUEST: BatchRequest,
    _JOB: BatchJob,
    _HAND_OVER: HandOver,
    _GIVEN_UP: GivenUp,
}
