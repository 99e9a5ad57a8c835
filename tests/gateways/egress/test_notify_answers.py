"""What answers of endpoints mean."""

from datetime import UTC, datetime

import pytest

from gateways.egress.notify_answers import meaning_of, wait_asked_for

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (200, "delivered"), (201, "delivered"), (202, "delivered"), (204, "delivered"), (299, "delivered"),
        (100, "later"), (101, "later"), (199, "later"), (300, "later"), (301, "later"), (304, "later"), (308, "later"),
        (401, "later"), (403, "later"), (404, "later"), (408, "later"), (409, "later"), (425, "later"), (429, "later"),
        (500, "later"), (502, "later"), (503, "later"), (504, "later"), (599, "later"), (999, "later"), (0, "later"),
        (400, "refused"), (405, "refused"), (413, "refused"), (415, "refused"), (422, "refused"), (431, "refused"),
        (501, "refused"), (505, "refused"), (410, "gone"),
    ],
)  # fmt: skip
def test_each_status_has_one_meaning(status: int, meaning: str) -> None:
    assert meaning_of(status) == meaning


def test_the_permanent_statuses_are_a_setting_and_410_is_not() -> None:
    assert meaning_of(400, ()) == "later"
    assert meaning_of(404, (404,)) == "refused"
    assert meaning_of(410, ()) == "gone"
    assert meaning_of(410, (410,)) == "gone"


@pytest.mark.parametrize(
    ("values", "wait_s"),
    [
        ([], None),
        (["7"], 7.0),
        (["0"], 0.0),
        (["3601"], 3600.0),
        (["999999999"], 3600.0),
        (["-1"], 0.0),
        (["nan"], None),
        (["inf"], 3600.0),
        (["9" * 5000], None),
        (["soon"], None),
        ([""], None),
        (["Thu, 01 Jan 2026 12:00:30 GMT"], 30.0),
        (["Thu, 01 Jan 2026 11:00:00 GMT"], 0.0),
        (["Fri, 31 Dec 9999 23:59:59 GMT"], 3600.0),
        (["Mon, 01 Jan 0001 00:00:00 +1400"], 0.0),
        (["Thu, 99 Jan 2026 12:00:30 GMT"], None),
        (["5", "9"], 9.0),
        (["garbage", "9"], 9.0),
    ],
)
def test_retry_after_is_followed_up_to_the_ceiling_and_garbage_is_not(values: list[str], wait_s: float | None) -> None:
    assert wait_asked_for(values, NOW, 3600.0) == wait_s
