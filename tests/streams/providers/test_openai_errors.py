"""How long to wait, in the words of different servers."""

import pytest
from multidict import CIMultiDict

from streams.providers.openai_errors import duration, retry_after


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after-ms": "250", "retry-after": "2"}, 0.25),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "x-ratelimit-remaining-requests": "5",
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "20ms",
            },
            0.02,
        ),
        ({"x-ratelimit-remaining-tokens": "-1", "x-ratelimit-reset-tokens": "0"}, 0.0),
        ({"x-ratelimit-reset-requests": "23h", "x-ratelimit-reset-tokens": "2s"}, 2.0),
        ({"x-ratelimit-remaining-requests": "9", "x-ratelimit-reset-requests": "23h"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "23h"}, 82800.0),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_what_the_server_says(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(CIMultiDict(headers)) == (pytest.approx(expected) if expected is not None else None)


@pytest.mark.parametrize(("text", "expected"), [("1h2m3s", 3723.0), ("1.5", 1.5), ("7ms", 0.007), ("soon", None)])
def test_durations_are_read(text: str, expected: float | None) -> None:
    assert duration(text) == (pytest.approx(expected) if expected is not None else None)
