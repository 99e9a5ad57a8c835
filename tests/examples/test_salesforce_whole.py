"""The whole Salesforce example on real Kafka: from the opportunity to the summary on it, while things break."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.salesforce_stack import Stack, topics_of
from tests.kafkalab.fixtures import KafkaLab
from tests.support import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]
OPPORTUNITIES = 40
MODEL_DOWN_S = 5.0
# Two cores, shared with everything else that is tested: far above what it takes, far below the example's five minutes.
LIMIT_S = 150.0


@pytest.fixture
def stack(kafka: KafkaLab, tmp_path: Path) -> Iterator[Stack]:
    """Run the example."""
    with topics_of(kafka.bootstrap, kafka.prefix), Stack(kafka.bootstrap, kafka.prefix, tmp_path).running() as running:
        yield running


@pytest.mark.long
def test_every_opportunity_gets_its_summary_once_though_model_and_door_break(stack: Stack) -> None:
    stack.org.turn(fault="lost_answer", fault_calls=2, lock_rate=0.1)
    ids = stack.org.create(OPPORTUNITIES // 2)
    eventually(lambda: any(one.writes for one in stack.shown().values()), LIMIT_S)
    stack.model_down()
    ids += stack.org.create(OPPORTUNITIES // 2, first=OPPORTUNITIES // 2)
    stack.kill_egress()
    stack.pause(MODEL_DOWN_S)
    stack.model_up()

    shown = stack.wait_until_all_show(LIMIT_S)

    assert set(shown) == set(ids)
    assert {one.writes for one in shown.values()} == {1}
    # It was put to the test: answers were lost, so that results were delivered again.
    assert sum(one.repeats for one in shown.values()) > 0
    assert all(f"Customer {number} " in shown[record_id].values["Name"] for number, record_id in enumerate(ids))
    assert all(one.values["Name"].split(" - ")[0] in one.values["Penstock_Summary__c"] for one in shown.values())
