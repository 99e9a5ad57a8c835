"""The header Prefer, as callers write it."""

import pytest

from gateways.endpoints.preferences import Preferences, preferences


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), Preferences()),
        (("wait=10",), Preferences(10)),
        (("respond-async, wait=10",), Preferences(10, is_async=True)),
        (("return=minimal; x=1, Wait = 5",), Preferences(5)),
        (("return=minimal", 'wait="7"'), Preferences(7)),
        (("wait=3, wait=9",), Preferences(3)),
        (("wait=soon",), Preferences()),
        (("wait=-1",), Preferences()),
        (("wait",), Preferences()),
        (("wait=99999999999",), Preferences(86_400)),
        ((",;=\x00\xff",), Preferences()),
    ],
)
def test_preferences_are_read_as_the_rfc_says(lines: tuple[str, ...], expected: Preferences) -> None:
    assert preferences([(b"prefer", line.encode("latin-1")) for line in lines]) == expected
