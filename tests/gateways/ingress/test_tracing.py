"""Traces."""

import pytest

from gateways.ingress.tracing import is_trace_parent, is_trace_state, new_trace_parent

GOOD = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_a_new_trace_is_valid_and_new() -> None:
    assert is_trace_parent(new_trace_parent())
    assert new_trace_parent() != new_trace_parent()


def test_a_newer_version_is_valid() -> None:
    assert is_trace_parent("cc" + GOOD[2:])


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD.upper(),
        "ff" + GOOD[2:],
        GOOD[:-1],
        GOOD + "\n",
        GOOD.replace("a", "0"),
        GOOD.replace("b", "0"),
        "0" + GOOD,
    ],
)
def test_anything_else_is_not(text: str) -> None:
    assert not is_trace_parent(text)


def test_a_trace_state_is_printable_and_short() -> None:
    assert is_trace_state("vendor=value,other=1")
    assert not any(is_trace_state(text) for text in ("", "a\nb", "\u00fc", "x" * 513))
