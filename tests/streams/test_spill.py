"""Which events of a backlog go to the provider's batch API by themselves."""

from typing import Any

import pytest

from contracts.codec import Position
from contracts.settings import Settings
from streams.engine.item import Item
from streams.handover.choosing import Ways
from streams.job import Job
from streams.spill import Spill, hands_over
from tests.streams.handover.support import make_settings, record


def settings(**batch_api: Any) -> Settings:
    document = make_settings().model_dump(mode="json", exclude_defaults=True)
    document["providers"]["p"]["batch_api"] |= {"spill_behind": 100, **batch_api}
    return Settings.model_validate(document)


def job(**changes: Any) -> Job:
    made = Ways(settings()).job(record(0, **changes))
    assert made.fault is None
    return made


def wants(work: Job, *, behind: int = 100, lane: str = "bulk", chain: Any = None, made: Settings | None = None) -> bool:
    item = Item(Position("events", 0, 0, 0), chain, lane, 10, work)
    return Spill(made or settings(), lambda _: behind).wants(item, work)


def test_a_patient_event_in_front_of_a_backlog_spills() -> None:
    assert wants(job())


@pytest.mark.parametrize(
    "how", [{"behind": 99}, {"lane": "standard"}, {"lane": "retries"}, {"chain": ("events", 0, b"key")}]
)
def test_an_event_without_backlog_of_another_lane_or_in_an_order_stays(how: dict[str, Any]) -> None:
    assert not wants(job(), **how)


def test_an_event_that_was_tried_or_is_of_another_route_or_near_its_deadline_stays() -> None:
    tried = job()
    tried.attempts = 1

    assert not wants(tried)
    assert not wants(job(source="elsewhere"))
    assert not wants(job(), made=settings(min_time_left_s=2 * 86400))


def test_without_a_limit_nothing_spills_and_the_topic_is_still_a_part_of_the_journal() -> None:
    assert not wants(job(), made=settings(spill_behind=None))
    assert hands_over(settings(spill_behind=None))
