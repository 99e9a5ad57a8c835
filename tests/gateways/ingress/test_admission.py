"""Bytes in flight."""

import pytest

from contracts.errors import Busy
from gateways.ingress.admission import Admission


def test_what_does_not_fit_is_refused_and_not_counted() -> None:
    admission = Admission(100)
    admission.reserve(60)

    with pytest.raises(Busy):
        admission.reserve(41)
    assert admission.held_bytes == 60
    admission.reserve(40)


def test_released_bytes_are_free_again() -> None:
    admission = Admission(100)
    admission.reserve(100)
    admission.release(100)

    admission.reserve(100)


def test_it_is_full_before_it_refuses() -> None:
    admission = Admission(100)
    admission.reserve(80)
    assert not admission.is_full

    admission.reserve(1)
    assert admission.is_full
