"""Retry-After, as it comes."""

from datetime import UTC, datetime

import pytest

from gateways.egress.schedule import retry_after_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("Thu, 01 Jan 2026 00:01:00 GMT", 60.0),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0.0),
        ("-3", 0.0),
        ("999999999999", 86_400.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400.0),
        ("inf", 86_400.0),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
        ("Thu, 99 Foo 2026 00:00:00 GMT", None),
        ("9" * 65, None),
    ],
)
def test_seconds_and_dates_are_read_and_garbage_is_not(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds
