"""Instants and ids of events."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.envelope import Event, digest_id, format_time, format_unix_ms, parse_time, result_id


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05.678+02:00", datetime(2026, 1, 2, 1, 4, 5, 678_000, tzinfo=UTC)),
        ("2026-01-02T03:04:05", None),
        ("2026-02-30T00:00:00Z", None),
        ("soon", None),
        ("", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("9999-12-31T23:59:59-14:00", None),
    ],
)
def test_an_instant_is_read_or_there_is_none(text: str, instant: datetime | None) -> None:
    assert parse_time(text) == instant


@given(st.text(max_size=40))
def test_no_text_makes_reading_an_instant_fail(text: str) -> None:
    parse_time(text)


@given(st.datetimes(timezones=st.just(timezone(timedelta(hours=3))), min_value=datetime(2, 1, 1)))  # noqa: DTZ001
def test_an_instant_survives_to_the_millisecond(instant: datetime) -> None:
    read = parse_time(format_time(instant))

    assert read is not None
    assert timedelta(0) <= instant - read < timedelta(milliseconds=1)


def test_an_event_says_its_deadline_key_and_owner() -> None:
    extensions = {"expirytime": "2026-01-02T03:04:05Z", "partitionkey": "k\u00e9", "owner": "o"}
    event = Event(id="1", source="s", type="t", data=b"", extensions=extensions)

    assert (event.expires_at, event.key, event.owner) == (
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b"k\xc3\xa9", "o",
    )  # fmt: skip


def test_an_event_without_extensions_has_none_of_them() -> None:
    event = Event(id="1", source="s", type="t", data=b"")

    assert (event.expires_at, event.key, event.owner) == (None, None, "")


def test_an_empty_key_is_a_key() -> None:
    assert Event(id="1", source="s", type="t", data=b"", extensions={"partitionkey": ""}).key == b""


def test_ids_are_derived_and_stable() -> None:
    """Consumers recognise duplicates by them: they may never change."""
    assert result_id("salesforce", "e-1") == "52a435e4-9f7d-59af-9d7e-834c1084e80f"
    assert digest_id("s", b"body") == "sha256-57fea51173fb7ad2933f77457e9e19bd94787c7b"


def test_two_sources_with_one_event_id_have_two_results() -> None:
    assert result_id("a", "1") != result_id("b", "1")


@pytest.mark.parametrize(("micros", "text"), [(0, "000"), (999, "000"), (1_000, "001"), (999_999, "999")])
def test_an_instant_is_written_with_three_digits_of_a_second(micros: int, text: str) -> None:
    assert format_time(datetime(2026, 1, 2, 3, 4, 5, micros, tzinfo=UTC)) == f"2026-01-02T03:04:05.{text}Z"


@given(st.integers(0, 4_000_000_000_000))
def test_unix_milliseconds_are_written_as_an_instant_is(unix_ms: int) -> None:
    instant = datetime.fromtimestamp(0, tz=UTC) + timedelta(milliseconds=unix_ms)

    assert format_unix_ms(unix_ms) == format_time(instant)
