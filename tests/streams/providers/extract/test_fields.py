"""Flattened documents."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.providers.extract.answer import answer
from streams.providers.extract.fields import MAX_FIELDS, flatten, readable, words


@pytest.mark.parametrize("key", ["CloseDate", "close_date", "closeDate", "Close-Date__c"])
def test_keys_of_all_fashions_become_the_same_words(key: str) -> None:
    assert words(key) == "close date"


@pytest.mark.parametrize(
    ("label", "value", "expected"),
    [
        ("close date", "2026-12-18T00:00:00Z", "2026-12-18"),
        ("created at", "2026-12-18T14:05:09.123+00:00", "2026-12-18 14:05 UTC"),
        ("created", 1766016000, "2025-12-18"),
        ("count", 1766016000, "1766016000"),
        ("is open", True, "yes"),
    ],
)
def test_values_are_written_for_reading(label: str, value: Any, expected: str) -> None:
    assert readable(label, value) == expected


def test_the_number_of_fields_is_bounded() -> None:
    assert len(flatten({f"k{number}": number for number in range(10_000)})) == MAX_FIELDS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)
NAMES = st.sampled_from(
    ["amount", "currency", "type", "object", "title", "data", "created", "due_date", "labels", "body"]
)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(NAMES, JSON, max_size=8))
def test_no_document_breaks_the_extractor(document: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"summary": {"type": "string"}, "amount": {"type": ["number", "null"]}}}

    assert isinstance(answer([json.dumps(document)], None), str)
    assert isinstance(json.loads(answer([json.dumps(document)], schema)), dict)
