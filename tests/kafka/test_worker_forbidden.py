"""A worker that may not write to its result topic: it waits with what it has paid for, and ends nothing."""

from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from tests.kafka.gated_model import GatedModel
from tests.kafka.worker_lab import Outcomes, WorkerLab
from tests.kafkalab.fixtures import KafkaLab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(150), pytest.mark.long]


def _allow(lab: WorkerLab, *operations: AclOperation) -> None:
    rules = [
        AclBinding(
            ResourceType.TOPIC, lab.topics.results, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation,
            AclPermissionType.ALLOW,
        )
        for operation in operations
    ]  # fmt: skip
    for made in lab.kafka.admin().create_acls(rules).values():
        made.result(15)


def test_a_worker_waits_for_the_right_to_write_and_pays_once(guarded: KafkaLab, tmp_path: Path) -> None:
    with GatedModel(gate_from=10_000) as model:
        lab = WorkerLab(guarded, tmp_path, provider={"kind": "openai", "base_url": model.url})
        lab.create_topics()
        _allow(lab, AclOperation.DESCRIBE, AclOperation.READ)
        lab.send(0, 200)
        with Outcomes(guarded, lab.topics.results) as results, lab.running() as worker:
            worker.wait_for("topic.forbidden")
            _allow(lab, AclOperation.WRITE)
            tally = results.wait_for(200)

            assert worker.process.poll() is None
        assert (tally.lost(200), tally.duplicates, model.extra) == ([], [], 0)
