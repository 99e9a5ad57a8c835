"""The unit of order of an event."""

import json
from typing import Any

import pytest

from contracts.codec import Position
from streams.steps.order import Unit, order_of
from tests.streams.pipeline.support import make_settings

AT = Position("t", 3, 7, 0)


def unit(order: str, body: Any, key: bytes | None = b"k") -> Unit | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return order_of(make_settings({"order": order}).routes[0])(AT, key, raw)


@pytest.mark.parametrize(
    ("order", "expected"), [("key", ("t", 3, b"k")), ("partition", ("t", 3)), ("none", None)], ids=str
)
def test_the_named_units(order: str, expected: Unit | None) -> None:
    assert unit(order, {}) == expected


def test_an_event_without_a_key_is_free_of_order_by_key() -> None:
    assert unit("key", {}, None) is None


def test_a_field_of_the_body_is_the_unit_whatever_the_key_is() -> None:
    body = {"account": {"id": "a1"}}

    assert unit("/account/id", body, b"x") == unit("/account/id", body, b"y") != unit("/account/id", {"account": {}})


@pytest.mark.parametrize("order", ["/a~1b/m~0n", "/list/1"])
def test_pointers_follow_rfc_6901(order: str) -> None:
    assert unit(order, {"a/b": {"m~n": 5}, "list": [0, 5]}) == ("t", 3, ("int", "5"))


def test_a_number_and_its_text_are_different_units() -> None:
    assert unit("/n", {"n": 1}) != unit("/n", {"n": "1"})


def test_a_body_may_hold_an_object_where_the_pointer_leads() -> None:
    assert unit("/n", {"n": {"a": 1}}) == unit("/n", {"n": {"a": 1}}) != unit("/n", {"n": {"a": 2}})


@pytest.mark.parametrize("body", [b"not json", {"other": 1}, {"account": None}, []], ids=str)
def test_the_key_stands_in_for_a_field_that_is_not_there(body: Any) -> None:
    assert unit("/account", body) == ("t", 3, b"k")
