"""`penstock egress` under SIGKILL at every step, on real Kafka, to a real SQS door: nothing is lost."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.awslab.moto import KEYS, REGION, Moto
from tests.kafka.egress_lab import EgressLab
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ChildProcess, eventually_async

pytestmark = pytest.mark.timeout(150)
COUNT = 90
AWS = {**KEYS, "AWS_EC2_METADATA_DISABLED": "true"}
KILLED = -signal.SIGKILL


@pytest.fixture
async def lab(kafka: KafkaLab) -> AsyncIterator[EgressLab]:
    async with EgressLab(kafka) as lab:
        yield lab


class Destination:
    """A queue or bucket of moto, and the configuration of a door to it."""

    def __init__(self, lab: EgressLab, moto: Moto, folder: Path) -> None:
        self._lab = lab
        self._moto = moto
        self._folder = folder
        self.name = lab.lab.prefix
        self.got: Counter[str] = Counter()

    def config(self, **door: Any) -> Path:
        """Write penstock.yaml with one door."""
        common = {"region": REGION, "endpoint_url": self._moto.url, "timeout_s": 10, "max_in_flight": 2}
        document = {
            "version": 1,
            "kafka": {"bootstrap_servers": self._lab.lab.bootstrap, "topic_prefix": self.name},
            "worker": {"app_id": self.name},
            "egress": {"out": common | door},
            # Static membership: who comes after a kill need not wait for the session of the dead to end.
            "egress_process": {"health_port": 0, "drain_timeout_s": 5, "instance_id": "one", "session_timeout_s": 6},
        }
        path = self._folder / "penstock.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return path

    def queue(self) -> str:
        """Make a queue and return its URL."""
        self._queues = self._moto.client("sqs")
        self.url = str(self._queues.create_queue(QueueName=self.name)["QueueUrl"])
        return self.url

    async def take(self) -> None:
        """Count what has arrived."""
        while True:
            answer = await asyncio.to_thread(
                self._queues.receive_message, QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=600
            )
            if not answer.get("Messages"):
                return
            self.got.update(json.loads(message["Body"])["event_id"] for message in answer["Messages"])

    async def has(self, ids: set[str]) -> bool:
        """Tell whether all of these have arrived, once or more."""
        await self.take()
        return self.got.keys() >= ids


@pytest.mark.parametrize("step", ["before-deliver", "after-deliver", "before-park", "after-park"])
async def test_a_kill_at_any_step_loses_nothing(lab: EgressLab, moto: Moto, tmp_path: Path, step: str) -> None:
    queue = Destination(lab, moto, tmp_path)
    config = queue.config(kind="sqs", queue_url=queue.queue())
    ids = set(await lab.outcomes(COUNT))
    with ChildProcess("tests.kafka.egress_child", step, str(config), env=AWS) as child:
        assert await asyncio.to_thread(child.wait, 60) == KILLED, child.output
    await queue.take()
    assert len(queue.got) < COUNT, "it was killed in the middle"

    with ChildProcess("gateways.cli", "egress", "--config", str(config), env=AWS) as program:
        await eventually_async(lambda: queue.has(ids), 60)
        program.signal(signal.SIGTERM)
        assert await asyncio.to_thread(program.wait, 30) == 0, program.output

    assert set(queue.got) == ids
    # Two calls of ten were in flight, and at most a second of finished ones was not committed.
    assert sum(queue.got.values()) < 2 * COUNT


async def test_objects_on_s3_hold_every_record_once_after_a_kill_between_put_and_commit(
    lab: EgressLab, moto: Moto, tmp_path: Path
) -> None:
    bucket = Destination(lab, moto, tmp_path)
    buckets = moto.client("s3")
    buckets.create_bucket(Bucket=bucket.name, CreateBucketConfiguration={"LocationConstraint": REGION})
    door = {"kind": "s3", "bucket": bucket.name, "prefix": "out", "path_style": True, "compression": "none"}
    config = bucket.config(**door, max_object_records=8, max_object_age_s=0.5)
    ids = await lab.outcomes(COUNT)

    def lines() -> list[str]:
        found = buckets.list_objects_v2(Bucket=bucket.name).get("Contents", [])
        bodies = [buckets.get_object(Bucket=bucket.name, Key=one["Key"])["Body"].read() for one in found]
        return [json.loads(line)["eventid"] for body in bodies for line in body.splitlines()]

    with ChildProcess("tests.kafka.egress_child", "after-put", str(config), env=AWS) as child:
        assert await asyncio.to_thread(child.wait, 60) == KILLED, child.output
    assert 0 < len(await asyncio.to_thread(lines)) < COUNT
    # Smaller runs than before: it takes a part of an object for written, and commits that, when it is killed.
    config = bucket.config(**door, max_object_records=3, max_object_age_s=0.5)
    with ChildProcess("tests.kafka.egress_child", "after-adopt", str(config), env=AWS) as child:
        assert await asyncio.to_thread(child.wait, 60) == KILLED, child.output
    # Other limits than before: the objects that are there keep their ends.
    config = bucket.config(**door, max_object_records=100, max_object_age_s=0.5)
    with ChildProcess("gateways.cli", "egress", "--config", str(config), env=AWS):
        await eventually_async(lambda: len(lines()) >= COUNT, 60)

    assert sorted(lines()) == sorted(ids)
