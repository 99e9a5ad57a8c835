"""Requests and tokens per minute."""

import pytest

from streams.fmstub.quota import Quotas
from tests.support import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_full_bucket_holds_a_minutes_worth(clock: FakeClock) -> None:
    quotas = Quotas(clock)

    waits = [quotas.reserve("m", 0, rpm=3, tpm=None) for _ in range(4)]

    assert waits == [0.0, 0.0, 0.0, pytest.approx(20.0)]


def test_it_refills_evenly(clock: FakeClock) -> None:
    quotas = Quotas(clock)
    quotas.reserve("m", 600, rpm=None, tpm=600)

    clock.advance(30)

    assert quotas.remaining("m", None, 600) == {"tokens": 300}


def test_what_was_reserved_and_not_used_comes_back(clock: FakeClock) -> None:
    quotas = Quotas(clock)
    quotas.reserve("m", 500, rpm=None, tpm=600)

    quotas.settle("m", 450, 600)

    assert quotas.reserve("m", 550, rpm=None, tpm=600) == 0.0


def test_output_beyond_the_reservation_is_taken_too(clock: FakeClock) -> None:
    quotas = Quotas(clock)
    quotas.reserve("m", 100, rpm=None, tpm=600)

    quotas.settle("m", -200, 600)

    assert quotas.remaining("m", None, 600) == {"tokens": 300}


def test_a_call_refused_for_its_tokens_keeps_its_request(clock: FakeClock) -> None:
    quotas = Quotas(clock)

    assert quotas.reserve("m", 700, rpm=5, tpm=600) > 0

    assert quotas.remaining("m", 5, 600) == {"requests": 5, "tokens": 600}


def test_models_have_quotas_of_their_own(clock: FakeClock) -> None:
    quotas = Quotas(clock)
    quotas.reserve("one", 0, rpm=1, tpm=None)

    assert quotas.reserve("two", 0, rpm=1, tpm=None) == 0.0
