"""Limits: who is counted when, and that a stranger cannot use up what a sender has."""

from contextlib import suppress

import pytest

from contracts.errors import BadSignature, BodyTimeout, Busy, LogUnavailable, PenstockError, RateLimited
from contracts.settings.overload import BadSignatures, OverloadSettings, RateLimit
from gateways.ingress.admission import Admission
from gateways.ingress.limits import Limits
from tests.support import FakeClock

GOOD, EVIL = "203.0.113.5", "198.51.100.9"
WRONG = BadSignature("wrong_signature")


class Lab:
    """Limits with a clock by hand."""

    def __init__(self, source: RateLimit | None = None, **settings: object) -> None:
        self.clock = FakeClock()
        self.admission = Admission(8000)
        self.source = source
        self.limits = Limits(OverloadSettings.model_validate(settings), self.admission, self.clock)

    def good(self, peer: str = GOOD, size_bytes: int = 100) -> PenstockError | None:
        """Let a signed event pass; return its refusal."""
        try:
            visit = self.limits.enter("github", peer, self.source)
            visit.read(size_bytes)
            visit.verified(size_bytes)
        except RateLimited as error:
            return error
        return None

    def bad(self, peer: str = EVIL, error: PenstockError = WRONG, size_bytes: int = 100) -> PenstockError:
        """Let a forged event try; return its refusal."""
        try:
            visit = self.limits.enter("github", peer, self.source)
        except RateLimited as refusal:
            return refusal
        visit.read(size_bytes)
        try:
            visit.refused(error)
        except RateLimited as refusal:
            return refusal
        return error

    def is_suspect(self, peer: str) -> bool:
        return self.limits.enter("github", peer, self.source).is_suspect


def test_a_source_may_send_its_burst_and_then_its_rate() -> None:
    lab = Lab(RateLimit(events_per_s=2.0, burst=3))
    assert [lab.good() for _ in range(3)] == [None] * 3

    refusal = lab.good()
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after_s == 0.5
    lab.clock.advance(0.5)
    assert lab.good() is None


def test_another_limit_counts_from_its_next_event_on() -> None:
    lab = Lab(RateLimit(events_per_s=0.001, burst=1))
    assert [lab.good() is None for _ in range(2)] == [True, False]

    lab.source = RateLimit(events_per_s=0.001, burst=2)
    assert [lab.good() is None for _ in range(3)] == [True, True, False]
    lab.source = None
    assert lab.good() is None


def test_a_source_without_a_limit_is_not_limited() -> None:
    lab = Lab()

    assert [lab.good() for _ in range(5000)] == [None] * 5000


def test_bytes_are_limited_beside_events() -> None:
    lab = Lab(RateLimit(events_per_s=1000.0, burst=1000, bytes_per_s=1024))
    for _ in range(10):
        assert lab.good(size_bytes=1024) is None

    refusal = lab.good(size_bytes=1)
    assert refusal is not None
    assert "source_bytes" in str(refusal)


def test_addresses_are_limited_one_by_one() -> None:
    lab = Lab(per_peer=RateLimit(events_per_s=1.0, burst=2))
    assert [lab.good(EVIL) is None for _ in range(3)] == [True, True, False]

    assert lab.good(GOOD) is None


def test_an_event_over_one_limit_does_not_count_against_the_other() -> None:
    lab = Lab(RateLimit(events_per_s=1.0, burst=3), per_peer=RateLimit(events_per_s=1.0, burst=1))
    refused = [lab.good(EVIL) is not None for _ in range(20)]

    assert refused == [False, *[True] * 19]
    assert lab.good(GOOD) is None


def test_forged_events_never_count_against_a_source_or_address() -> None:
    limit = RateLimit(events_per_s=0.001, burst=1)
    lab = Lab(limit, per_peer=limit)
    for _ in range(1000):
        lab.bad(EVIL)
        lab.bad(GOOD)

    assert lab.good(GOOD) is None


def test_an_address_gets_401_for_a_while_and_then_429() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_per_s=0.5, per_peer_burst=3))
    answers = [lab.bad() for _ in range(5)]

    assert [type(answer) for answer in answers] == [BadSignature] * 3 + [RateLimited] * 2
    assert isinstance(answers[4], RateLimited)
    assert answers[4].retry_after_s == 2.0
    lab.clock.advance(2.0)
    assert lab.bad() is WRONG


def test_a_good_sender_behind_the_address_of_a_flood_still_gets_through() -> None:
    lab = Lab()
    for _ in range(5000):
        lab.bad(GOOD)
        lab.clock.advance(0.001)
        assert lab.good(GOOD) is None


def test_a_flood_of_large_bodies_is_refused_unread_and_only_from_its_address() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_burst=2, suspect_bytes_per_s=2**20))
    answers = [lab.bad(size_bytes=500_000) for _ in range(10)]

    assert "suspect_bytes" in str(answers[-1])
    assert lab.good(GOOD, size_bytes=500_000) is None
    # The same address, as soon as there is time for its body.
    lab.clock.advance(1.5)
    assert lab.good(EVIL) is None


def test_a_flood_from_many_addresses_spends_the_sources_budget() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_source_per_s=0.001, per_source_burst=100))
    answers = [lab.bad(f"198.51.{number // 250}.{number % 250}") for number in range(300)]

    assert sum(isinstance(answer, BadSignature) for answer in answers) == 100


def test_in_such_a_flood_an_address_with_a_good_signature_before_is_no_suspect() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_source_per_s=0.001, per_source_burst=100), max_peers=64)
    lab.good(GOOD)
    for number in range(3000):
        lab.bad(f"10.{number // 250}.0.{number % 250}")

    assert not lab.is_suspect(GOOD)
    assert lab.is_suspect("192.0.2.1")
    assert lab.good("192.0.2.1") is None


def test_bodies_that_do_not_come_make_a_suspect_too() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_burst=4))
    slow = BodyTimeout("late")

    assert [lab.bad(error=slow) for _ in range(3)] == [slow] * 3
    assert lab.is_suspect(EVIL)


def test_our_own_faults_make_no_suspects() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_burst=1))
    for error in (Busy("full"), LogUnavailable("away")):
        assert lab.bad(error=error) is error

    assert not lab.is_suspect(EVIL)


def test_what_is_wrong_behind_a_good_signature_makes_no_suspect() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_burst=1))
    visit = lab.limits.enter("github", GOOD)
    visit.verified(10)
    visit.refused(BodyTimeout("stands for any refusal"))

    assert not lab.is_suspect(GOOD)


def test_suspects_hold_a_part_of_the_bytes_in_flight_only() -> None:
    lab = Lab(bad_signatures=BadSignatures(per_peer_burst=1))
    lab.bad()
    suspect, other = lab.limits.enter("github", EVIL), lab.limits.enter("github", GOOD)
    suspect.admission.reserve(1000)

    with pytest.raises(RateLimited):
        suspect.admission.reserve(1)
    other.admission.reserve(7000)
    assert lab.admission.held_bytes == 8000
    suspect.admission.release(1000)
    assert lab.admission.held_bytes == 7000


def test_without_a_budget_for_bad_signatures_each_is_401() -> None:
    lab = Lab(bad_signatures=None)

    assert {type(lab.bad()) for _ in range(500)} == {BadSignature}


def test_the_tables_do_not_grow_beyond_their_limit() -> None:
    lab = Lab(per_peer=RateLimit(events_per_s=1.0, burst=1), max_peers=16)
    for number in range(1000):
        peer = f"10.0.{number // 250}.{number % 250}"
        with suppress(RateLimited):
            lab.good(peer)
        lab.bad(peer)
        lab.limits.left_out("github", peer)

    assert len(lab.limits._peers) == 16
    assert len(lab.limits._quiet) == 16
    assert len(lab.limits.bad._places) == 16
    assert len(lab.limits.bad._good) == 16


def test_log_lines_about_one_address_are_spaced_and_counted() -> None:
    lab = Lab()

    assert [lab.limits.left_out("github", EVIL) for _ in range(4)] == [0, None, None, None]
    assert lab.limits.left_out("github", GOOD) == 0
    lab.clock.advance(10.0)
    assert lab.limits.left_out("github", EVIL) == 3
