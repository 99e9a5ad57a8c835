"""The header Prefer, as callers write it."""

import time

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
        (("wait=" + "9" * 5000,), Preferences(86_400)),
        (("wait=" + "0" * 5000 + "7",), Preferences(7)),
        (("wait=100000", "wait=0"), Preferences(86_400)),
        (("wait=0",), Preferences(0)),
        ((",;=\x00\xff",), Preferences()),
    ],
)
def test_preferences_are_read_as_the_rfc_says(lines: tuple[str, ...], expected: Preferences) -> None:
    assert preferences([(b"prefer", line.encode("latin-1")) for line in lines]) == expected


@pytest.mark.parametrize("line", [b"," + b" " * 30_000 + b",", b"a" + b" " * 30_000 + b",", b'a="' * 10_000])
def test_a_header_of_blanks_takes_no_time(line: bytes) -> None:
    began_s = time.process_time()
    preferences([(b"prefer", line)])

    assert time.process_time() - began_s < 1
