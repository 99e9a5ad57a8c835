"""The SQS door on real Kafka: killed at each step between queue and log, it loses nothing and keeps groups in order."""

import pytest

from bench.patterns.doors import IN_FLIGHT, STEPS, kill_at_each_step
from tests.kafkalab.fixtures import KafkaLab

pytestmark = pytest.mark.timeout(240)


@pytest.mark.long
def test_a_kill_at_each_step_loses_nothing_and_repeats_no_more_than_was_in_flight(kafka: KafkaLab) -> None:
    # moto walks over every message for each one that comes or goes: twice as many take four times as long.
    ledger = kill_at_each_step(kafka.bootstrap, seed=20261128, messages=160, kills_per_step=1, is_fifo=True)

    assert ledger.lost == 0
    assert ledger.repeated <= len(STEPS) * IN_FLIGHT
    assert ledger.disorder == set()
