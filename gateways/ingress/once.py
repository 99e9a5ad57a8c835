"""Puts an event on its topic unless the same one is there, or on its way, already. Writes: events.*.

Two-phase: a claim is pending until the broker's ack, and released when there is none, so that a sender that comes again
after a failure of ours is served. An event is never refused, and never dropped, because it cannot be told whether it
is new.
"""

import asyncio
from typing import Literal

from msgspec import Struct

from contracts.codec import Position, Record
from contracts.errors import IdReused, LogUnavailable, PenstockError
from contracts.logs import logger
from contracts.metrics import DEDUP_DECISIONS
from contracts.repetition import Identity, State, dedup_header
from contracts.tallies import Tally
from gateways.ingress.claims import Claim, Claims
from gateways.ingress.producing import produce
from producers.base import Producer

_RETRY_AFTER_S = 1.0

Dedup = Literal["off", "new", "conflict", "unknown", "redelivery", "duplicate"]

_log = logger("gateway")
_decisions = Tally(DEDUP_DECISIONS)


class Candidate(Struct, frozen=True):
    """What was verified, ready to be produced.

    Attributes:
        event_id: of the event.
        identity: by what a repetition is recognised; None for an event that none is recognised of.
        source: for metrics and logs, a configured name.
        is_redelivery: wanted, whether or not it is known.
    """

    event_id: str
    record: Record
    identity: Identity | None
    source: str
    is_redelivery: bool = False


class Placed(Struct, frozen=True):
    """Where an event lies: the one that was produced, or the one that it repeats."""

    position: Position
    event_id: str
    dedup: Dedup

    @property
    def is_duplicate(self) -> bool:
        """Tell whether no record was written."""
        return self.dedup == "duplicate"


def is_new(claims: Claims, candidate: Candidate) -> bool:
    """Tell whether a record will be written, as far as is known now."""
    identity = candidate.identity
    return identity is None or candidate.is_redelivery or claims.find(identity) is None


def check_id(claims: Claims, candidate: Candidate) -> None:
    """Refuse an id that is known with another body: who is answered by id in the same request would get that one's.

    Raises:
        IdReused: as far as is known now.
    """
    identity = None if candidate.is_redelivery else candidate.identity
    if identity is not None and claims.find(identity) is None and claims.is_reused(identity):
        raise id_reused()


def id_reused() -> IdReused:
    """Return the refusal of an id that its caller used before with another body."""
    return IdReused("this id, or Idempotency-Key, was used before with another body")


async def produce_once(claims: Claims, producer: Producer, candidate: Candidate, timeout_s: float) -> Placed:
    """Return where the event lies, once it is durable; a copy of one that is on its way waits for that one's ack.

    Raises:
        PenstockError: as `produce`; a copy fails with the delivery that it repeats.
    """
    identity = candidate.identity
    if identity is None:
        return Placed(await produce(producer, candidate.record, timeout_s), candidate.event_id, "off")
    if candidate.is_redelivery:
        return await _produced(producer, candidate, identity, "redelivery", timeout_s)
    try:
        found = claims.find(identity)
        claim = claims.begin(identity, candidate.event_id) if found is None else None
    except Exception:  # noqa: BLE001 - what only spares a record must never cost an event
        _log.exception("dedup.failed", source=candidate.source, event_id=candidate.event_id)
        found = claim = None
    if found is not None:
        position = await _first(found, timeout_s)
        _decisions[candidate.source, "duplicate"].append(1.0)
        return Placed(position, found.event_id, "duplicate")
    if claim is None:
        return await _produced(producer, candidate, identity, "unknown", timeout_s)
    state: State = _conflicting(candidate) if claim.is_conflict else "new"
    try:
        # Not by `_produced`: this is the usual way, and every coroutine on it costs.
        position = await produce(producer, _marked(candidate.record, identity, state), timeout_s)
    except BaseException as error:
        claims.release(claim, error)
        raise
    claims.acknowledge(claim, position)
    _decisions[candidate.source, state].append(1.0)
    return Placed(position, candidate.event_id, state)


def _conflicting(candidate: Candidate) -> State:
    _log.warning("dedup.conflict", source=candidate.source, event_id=candidate.event_id)
    return "conflict"


async def _produced(
    producer: Producer, candidate: Candidate, identity: Identity, state: State, timeout_s: float
) -> Placed:
    position = await produce(producer, _marked(candidate.record, identity, state), timeout_s)
    _decisions[candidate.source, state].append(1.0)
    return Placed(position, candidate.event_id, state)


def _marked(record: Record, identity: Identity, state: State) -> Record:
    headers = [*record.headers, dedup_header(identity, state)]
    return Record(record.topic, record.key, record.value, headers, record.partition, record.timestamp_ms)


async def _first(claim: Claim, timeout_s: float) -> Position:
    """Return where the event lies that is repeated.

    Raises:
        PenstockError: it did not become durable.
    """
    if claim.position is None:
        try:
            async with asyncio.timeout(timeout_s):
                error = await claim.outcome()
        except TimeoutError as late:
            error = late
        if isinstance(error, PenstockError):
            raise error
    if claim.position is None:
        message = "the same event is on its way, and was not confirmed"
        raise LogUnavailable(message, retry_after_s=_RETRY_AFTER_S)
    return claim.position
