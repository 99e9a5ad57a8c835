"""Claims against a model of them, on a clock of the test's own."""

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from contracts.codec import Position
from contracts.repetition import By, Identity, identify
from gateways.ingress.claims import ENTRY_BYTES, Claim, Claims

WINDOW_S = 100
LIMIT = 4
IDS = st.sampled_from(["a", "b", "c", "d", "e", "f"])
BODIES = st.sampled_from([b"1", b"2"])


def identity(event_id: str, body: bytes = b"1", by: By = "id") -> Identity:
    return identify("", "s", event_id, body, by, WINDOW_S)


def place(offset: int) -> Position:
    return Position("t", 0, offset, offset)


class ClaimsAgainstModel(RuleBasedStateMachine):
    """Deliveries, acks, failures and time; the model keeps everything that is durable, without a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.claims = Claims(LIMIT, 10**6, lambda: self.now_s)
        self.pending: dict[bytes, Claim] = {}
        self.durable: dict[bytes, tuple[Position, float]] = {}
        # Since the table had to drop something: what it may have forgotten.
        self.forgotten: set[bytes] = set()
        self.offsets: Iterator[int] = iter(range(10**6))

    @rule(event_id=IDS, body=BODIES, by=st.sampled_from(["id", "digest"]))
    def deliver(self, event_id: str, body: bytes, by: By) -> None:
        one = identity(event_id, body, by)
        found = self.claims.find(one)
        if found is not None:
            self._repeats(one, found)
            return
        at, since_s = self.durable.get(one.key, (None, 0.0))
        assert one.key not in self.pending
        assert at is None or self.now_s >= since_s + WINDOW_S or one.key in self.forgotten
        claim = self.claims.begin(one, event_id)
        if claim is None:
            assert len(self.pending) == LIMIT
            return
        self.durable.pop(one.key, None)
        self.pending[one.key] = claim
        if len(self.pending) + len(self.durable) > LIMIT:
            self.forgotten |= self.durable.keys()
        self.forgotten.discard(one.key)

    def _repeats(self, one: Identity, found: Claim) -> None:
        """No event is taken for a repetition that is not one of a pending or durable event."""
        if found.position is None:
            assert self.pending[one.key] is found
            return
        position, since_s = self.durable[one.key]
        assert found.position == position
        assert self.now_s < since_s + WINDOW_S

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        if self.pending:
            key = data.draw(st.sampled_from(sorted(self.pending)))
            position = place(next(self.offsets))
            self.claims.acknowledge(self.pending.pop(key), position)
            self.durable[key] = position, self.now_s

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        if self.pending:
            key = data.draw(st.sampled_from(sorted(self.pending)))
            self.claims.release(self.pending.pop(key), RuntimeError())

    @rule(seconds=st.sampled_from([1.0, 50.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def within_bounds(self) -> None:
        assert len(self.pending) <= len(self.claims) <= LIMIT
        assert len(self.claims) * ENTRY_BYTES <= self.claims.held_bytes <= len(self.claims) * (ENTRY_BYTES + 1)
        assert len(self.claims._names) <= len(self.claims)


ClaimsAgainstModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestClaims = ClaimsAgainstModel.TestCase


def acknowledged(claims: Claims, one: Identity, event_id: str = "a") -> Claim:
    claim = claims.begin(one, event_id)
    assert claim is not None
    claims.acknowledge(claim, place(1))
    return claim


def test_the_same_id_with_another_body_is_a_conflict_and_both_are_kept() -> None:
    claims = Claims(10, 10**6)
    acknowledged(claims, identity("a", b"1"))

    other = claims.begin(identity("a", b"2"), "a")

    assert other is not None
    assert other.is_conflict
    assert claims.find(identity("a", b"1")) is not None
    assert claims.find(identity("a", b"2")) is other


def test_an_id_is_reused_while_it_is_known_with_another_body() -> None:
    now_s = 0.0
    claims = Claims(10, 10**6, lambda: now_s)
    claim = claims.begin(identity("a", b"1"), "a")
    assert claim is not None

    known = [claims.is_reused(identity(*one)) for one in (("a", b"1"), ("a", b"2"), ("b", b"2"))]
    claims.acknowledge(claim, place(0))
    durable = claims.is_reused(identity("a", b"2"))
    now_s = WINDOW_S

    assert (known, durable, claims.is_reused(identity("a", b"2"))) == ([False, True, False], True, False)


def test_memory_is_bounded_in_bytes_too() -> None:
    claims = Claims(10**6, 3 * (ENTRY_BYTES + 200))

    for number in range(50):
        acknowledged(claims, identity(str(number)), "x" * 200)

    assert len(claims) == 3
    assert claims.find(identity("49")) is not None
    assert claims.find(identity("0")) is None


def test_what_is_pending_is_never_dropped_for_something_new() -> None:
    claims = Claims(1, 10**6)
    first = claims.begin(identity("a"), "a")

    assert claims.begin(identity("b"), "b") is None
    assert claims.find(identity("a")) is first


async def test_a_copy_that_gives_up_waiting_leaves_the_others_their_answer() -> None:
    claims = Claims(1, 10**6)
    claim = claims.begin(identity("a"), "a")
    assert claim is not None
    waiting = [asyncio.ensure_future(claim.outcome()) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    claims.acknowledge(claim, place(1))

    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert [await one for one in waiting[1:]] == [None, None]
