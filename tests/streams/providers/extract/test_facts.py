"""Exact things in prose."""

import pytest

from streams.providers.extract.facts import Fact, find


@pytest.mark.parametrize(
    ("text", "kind", "found"),
    [
        ("Paid EUR 1,200.50 today", "amount", "EUR 1,200.50"),
        ("about $5k more", "amount", "$5k"),
        ("for 300 EUR.", "amount", "300 EUR"),
        ("in case, EUR 30.00 each", "amount", "EUR 30.00"),
        ("by 3 December 2026", "date", "3 December 2026"),
        ("at 2026-12-18T10:00Z", "date", "2026-12-18T10:00Z"),
        ("see INV-2291, please", "id", "INV-2291"),
        ("refund order 4411", "id", "order 4411"),
        ("closes #42", "id", "#42"),
        ("mail a.b@example.co.uk.", "e-mail", "a.b@example.co.uk"),
        ("20% off", "percentage", "20%"),
        ("for 200 seats", "quantity", "200 seats"),
        ("a ValueError again", "error", "ValueError"),
        ("(https://example.com/a?b=1).", "link", "https://example.com/a?b=1"),
    ],
)
def test_each_kind_is_found_in_its_words(text: str, kind: str, found: str) -> None:
    assert find(text) == [Fact(kind, found)]


def test_facts_are_named_once_and_in_order() -> None:
    assert [fact.text for fact in find("#7 then EUR 5, then #7 again")] == ["#7", "EUR 5"]


def test_a_number_before_a_currency_of_another_amount_is_no_amount() -> None:
    assert find("twice for order 4411, EUR 30.00") == [Fact("id", "order 4411"), Fact("amount", "EUR 30.00")]
    assert Fact("amount", "EUR 30") in find("charged on 4411 EUR 30")


def test_words_alone_are_no_ids() -> None:
    assert find("the order number is missing") == []
