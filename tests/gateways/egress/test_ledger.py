"""What of a partition may be committed."""

from gateways.egress.ledger import Ledger


def test_the_lowest_unfinished_offset_is_committed_and_only_when_it_moved() -> None:
    ledger = Ledger("results", 0)
    assert ledger.to_commit() is None
    for offset in (5, 6, 8):
        ledger.take(offset, 1000 + offset)
    ledger.skip(9)
    assert (ledger.to_commit(), ledger.span, ledger.oldest_ms, ledger.unfinished) == (5, 5, 1005, 3)
    ledger.committed(5)

    ledger.finish(6)
    assert ledger.to_commit() is None
    ledger.finish(5)
    assert ledger.to_commit() == 8
    ledger.finish(8)
    assert (ledger.to_commit(), ledger.span, ledger.oldest_ms) == (10, 0, None)


def test_what_is_confirmed_up_to_an_offset_is_committed_before_it_is_read() -> None:
    ledger = Ledger("results", 0)
    ledger.take(5, 1005)
    ledger.through = 9
    ledger.finish(5)

    assert ledger.to_commit() == 10
    ledger.take(12, 1012)
    assert ledger.to_commit() == 12
