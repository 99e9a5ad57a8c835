"""Result topics that are made anew under a running door: what is delivered of the new log, and how often."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from contracts.settings.egress import S3Door
from gateways.egress.base import Shape
from gateways.egress.reading import LogIds
from gateways.egress.s3 import S3
from tests.awslab.moto import REGION, Moto, session
from tests.kafka.egress_lab import PARTITIONS, EgressLab, Told
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually_async

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]
LIMIT_S = 40.0


@pytest.fixture
async def lab(kafka: KafkaLab) -> AsyncIterator[EgressLab]:
    async with EgressLab(kafka) as lab:
        yield lab


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the watch of the topics tell nothing: what is noticed is noticed otherwise."""
    monkeypatch.setattr(LogIds, "made_anew", lambda _self: frozenset())


@pytest.mark.usefixtures("silent")
async def test_a_shorter_log_is_noticed_with_its_first_record_before_anything_is_delivered(lab: EgressLab) -> None:
    door = Told()
    ids = await lab.outcomes(20)
    lab.run(door)
    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)

    await lab.make_anew(lab.topics.results)
    first = await lab.outcomes(6, first=100)
    await eventually_async(lambda: set(door.delivered) >= set(first), LIMIT_S)
    # Beyond the end of the former log as well.
    more = await lab.outcomes(30, first=200)

    await eventually_async(lambda: set(door.delivered) >= set(more), LIMIT_S)
    assert sorted(door.delivered) == sorted(ids + first + more), "none twice"


@pytest.mark.usefixtures("silent")
async def test_an_exact_door_delivers_nothing_in_a_session_that_began_with_the_former_log(lab: EgressLab) -> None:
    door = Told(Shape(max_batch=5, order="partition", is_exact=True))
    lab.run(door)
    # It has read nothing yet, so that no offset could show it.
    await eventually_async(lambda: lab.runner.intake and len(list(lab.runner.intake.ledgers)) >= PARTITIONS, LIMIT_S)
    await lab.make_anew(lab.topics.results)

    ids = await lab.outcomes(20)

    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)
    await lab.stop()
    assert sorted(door.delivered) == sorted(ids)
    now = await asyncio.to_thread(LogIds({"bootstrap.servers": lab.lab.bootstrap}, ()).now, [lab.topics.results])
    commits = await asyncio.to_thread(lab.commits)
    assert {(one.metadata or "")[:22] for one in commits} == set(now.values())


async def test_objects_on_s3_hold_every_record_of_both_logs_once(lab: EgressLab, moto: Moto) -> None:
    name = lab.lab.prefix
    buckets = moto.client("s3")
    buckets.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})
    settings: dict[str, Any] = {"kind": "s3", "bucket": name, "path_style": True, "compression": "none"}
    settings |= {"region": REGION, "endpoint_url": moto.url, "max_object_records": 4, "max_object_age_s": 0.3}
    door = S3("door", S3Door.model_validate(settings), session())

    def lines() -> list[str]:
        found = buckets.list_objects_v2(Bucket=name).get("Contents", [])
        bodies = [buckets.get_object(Bucket=name, Key=one["Key"])["Body"].read() for one in found]
        return [json.loads(line)["eventid"] for body in bodies for line in body.splitlines()]

    async def holds(ids: list[str]) -> bool:
        return set(await asyncio.to_thread(lines)) >= set(ids)

    await door.start()
    try:
        ids = await lab.outcomes(10)
        lab.run(cast("Told", door))
        await eventually_async(lambda: holds(ids), LIMIT_S)

        await lab.make_anew(lab.topics.results)
        # The new log is longer than the former one by the time that the door reads on in it.
        for first in range(100, 180, 20):
            ids += await lab.outcomes(20, first=first)
        await eventually_async(lambda: holds(ids), LIMIT_S)
        await lab.stop()

        assert sorted(await asyncio.to_thread(lines)) == sorted(ids)
        assert lab.committed() == {0: 40, 1: 40}
    finally:
        await lab.stop()
        await door.aclose()
