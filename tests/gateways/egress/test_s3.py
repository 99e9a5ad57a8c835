"""The S3 door against moto, with boto3 over HTTP: formats, names, and objects that are there already."""

import asyncio
import gzip
import io
import time
from collections.abc import AsyncIterator
from typing import Any, ClassVar, cast

import msgspec
import pytest
from pyarrow import parquet

from contracts.settings.egress import DoorSection, S3Door
from gateways.egress.base import Delivered, Door, Later
from gateways.egress.breaker import Breaker
from gateways.egress.delivering import Delivery
from gateways.egress.ledger import Entry, Ledger
from gateways.egress.s3 import S3
from gateways.egress.settling import Settler
from tests.awslab.front import Fault, Front
from tests.awslab.lab import AwsLab
from tests.awslab.moto import REGION, Moto, session
from tests.suites.egress import DoorSuite, Received, result_item

DAY_MS = 86_400_000
FOLDER = "out/topic=penstock.results.v1/dt=2026-01-01"


class S3Lab(AwsLab):
    cannot: ClassVar = {"poison": "an object takes any record"}
    codes: ClassVar = {
        "throttled": (503, "SlowDown"),
        "unavailable": (500, "InternalError"),
        "denied": (403, "AccessDenied"),
        "missing": (404, "NoSuchBucket"),
    }

    def make(self, **changes: Any) -> Door:
        self.buckets = self.moto.client("s3")
        if not changes:
            self.buckets.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": REGION})
        settings = self.settings(
            S3Door, kind="s3", bucket=self.name, prefix="out", path_style=True, max_object_records=100, **changes
        )
        return S3("archive", settings, session())

    def error(self, status: int, code: str) -> Fault:
        text = f"<Error><Code>{code}</Code><Message>no</Message></Error>"
        return Fault(status, text.encode(), {"Content-Type": "application/xml"})

    async def objects(self) -> dict[str, bytes]:
        def read() -> dict[str, bytes]:
            found = self.buckets.list_objects_v2(Bucket=self.name).get("Contents", [])
            names = [one["Key"] for one in found]
            return {name: self.buckets.get_object(Bucket=self.name, Key=name)["Body"].read() for name in names}

        return await asyncio.to_thread(read)

    async def received(self) -> list[Received]:
        lines = [line for body in (await self.objects()).values() for line in gzip.decompress(body).splitlines()]
        events = [msgspec.json.decode(line) for line in lines]
        return [Received(event["id"], event["data"]) for event in events]


@pytest.fixture
async def lab(moto: Moto, front: Front) -> AsyncIterator[S3Lab]:
    lab = S3Lab(moto, front)
    await lab.start()
    yield lab
    await lab.aclose()


class TestS3(DoorSuite):
    """The door passes the suite."""


async def test_the_name_says_topic_day_partition_and_first_offset(lab: S3Lab) -> None:
    await lab.door.deliver([result_item(number, partition=3) for number in (17, 19)])

    assert list(await lab.objects()) == [f"{FOLDER}/00003-00000000000000000017.jsonl.gz"]


async def test_the_same_records_again_write_nothing(lab: S3Lab) -> None:
    items = [lab.item(number) for number in range(3)]
    await lab.door.deliver(items)
    before = await lab.objects()

    assert list(await lab.door.deliver(items)) == [Delivered()] * 3
    assert await lab.objects() == before


async def test_what_a_crash_left_is_kept_and_the_rest_goes_behind_it(lab: S3Lab) -> None:
    items = [lab.item(number) for number in range(5)]
    await lab.door.deliver(items[:3])

    first = await lab.door.deliver(items)
    second = await lab.door.deliver(items[3:])

    assert [type(verdict) for verdict in first] == [Delivered] * 3 + [Later] * 2
    assert {verdict.scope for verdict in first if isinstance(verdict, Later)} == {"item"}
    assert list(second) == [Delivered()] * 2
    ids = [one.id for one in await lab.received()]
    assert sorted(ids) == sorted({item.outcome.result_id for item in items})


async def test_a_shorter_run_does_not_cut_what_is_there(lab: S3Lab) -> None:
    items = [lab.item(number) for number in range(5)]
    await lab.door.deliver(items)

    assert list(await lab.door.deliver(items[:2])) == [Delivered(through=4)] * 2
    assert len(await lab.received()) == 5


async def test_who_took_a_part_of_an_object_does_not_write_the_rest_of_it_again(lab: S3Lab) -> None:
    items = [lab.item(number) for number in range(8)]
    await lab.door.deliver(items[:5])
    other = S3("archive", lab.door._settings, session())  # type: ignore[attr-defined]
    ledger = Ledger(items[0].position.topic, 0)
    entries = [Entry(item, ledger, item.position.offset, 0.0) for item in items]
    for item in items:
        ledger.take(item.position.offset, item.position.timestamp_ms)
    section = DoorSection()
    delivery = Delivery("archive", other, section, cast("Settler", None))
    commits = []
    await other.start()
    try:
        for run in (entries[:2], entries[2:4], entries[4:]):
            again, settled = await delivery.deliver(Breaker(section.breaker, time.monotonic), run)
            for entry in settled:
                ledger.finish(entry.offset)
            commits.append(ledger.to_commit())
            assert not again
    finally:
        await other.aclose()

    # Whoever comes after a crash begins behind the object, not inside of it.
    assert commits == [5, 5, 8]
    ids = [one.id for one in await lab.received()]
    assert sorted(ids) == sorted(item.outcome.result_id for item in items)


async def test_records_of_a_topic_that_was_made_anew_are_written_beside_those_of_the_former_one(lab: S3Lab) -> None:
    former = [lab.item(number) for number in range(3)]
    await lab.door.deliver(former)
    stamp_ms = former[0].position.timestamp_ms + 1000
    fresh = [result_item(number, timestamp_ms=stamp_ms + number) for number in range(2)]

    verdicts = [list(await lab.door.deliver(fresh)) for _ in range(2)]

    assert verdicts == [[Delivered()] * 2] * 2, "the second time they are there"
    assert sorted(await lab.objects()) == [
        f"{FOLDER}/00000-00000000000000000000-{stamp_ms}.jsonl.gz",
        f"{FOLDER}/00000-00000000000000000000.jsonl.gz",
    ]
    assert len(await lab.received()) == 5


async def test_a_foreign_object_of_that_name_is_never_touched(lab: S3Lab) -> None:
    name = f"{FOLDER}/00000-00000000000000000001.jsonl.gz"
    lab.buckets.put_object(Bucket=lab.name, Key=name, Body=b"mine")

    (verdict,) = await lab.door.deliver([lab.item(1)])

    assert isinstance(verdict, Later)
    assert (verdict.reason, verdict.scope) == ("foreign_object", "operator")
    assert await lab.objects() == {name: b"mine"}


async def test_what_s3_refuses_holds_the_door_and_loses_nothing(lab: S3Lab) -> None:
    lab.front.fault = lab.error(400, "EntityTooLarge")

    (verdict,) = await lab.door.deliver([lab.item(1)])

    assert isinstance(verdict, Later)
    assert verdict.scope == "operator"


def test_a_new_day_begins_a_new_object_and_a_straggler_does_not(lab: S3Lab) -> None:
    today, tomorrow = lab.item(1), result_item(2, timestamp_ms=1_767_225_600_000 + DAY_MS)

    assert lab.door.splits(today, tomorrow)
    assert not lab.door.splits(tomorrow, today)


@pytest.mark.parametrize(("stamp_ms", "day"), [(2**62, "9999-12-31"), (-(2**62), "0001-01-01")])
async def test_a_record_with_a_senseless_time_is_written(lab: S3Lab, stamp_ms: int, day: str) -> None:
    item = lab.item(1)
    odd = item._replace(position=item.position._replace(timestamp_ms=stamp_ms))

    assert lab.door.splits(item, odd) == (stamp_ms > 0)
    assert await lab.door.deliver([odd]) == [Delivered()]
    assert f"/dt={day}/" in next(iter(await lab.objects()))


async def test_lines_can_be_plain(lab: S3Lab) -> None:
    door = lab.make(compression="none")
    await door.start()
    try:
        await door.deliver([lab.item(1), lab.item(2)])

        ((name, body),) = (await lab.objects()).items()
        assert name.endswith(".jsonl")
        assert [msgspec.json.decode(line)["eventid"] for line in body.splitlines()] == ["e1", "e2"]
    finally:
        await door.aclose()


async def test_parquet_is_read_by_arrow_itself(lab: S3Lab) -> None:
    door = lab.make(format="parquet")
    await door.start()
    try:
        await door.deliver([lab.item(1), lab.item(2)])

        ((name, body),) = (await lab.objects()).items()
        assert name.endswith(".parquet")
        rows = parquet.read_table(io.BytesIO(body)).to_pylist()
        assert [(row["id"], row["status"], row["offset"]) for row in rows] == [
            (lab.item(number).outcome.result_id, "succeeded", number) for number in (1, 2)
        ]
        assert msgspec.json.decode(rows[0]["value"])["output"] == {"summary": "result 1"}
    finally:
        await door.aclose()
