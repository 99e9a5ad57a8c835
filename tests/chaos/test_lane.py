"""A short chaos run with a fixed seed, for CI: workers are killed, stopped, frozen and joined; the books must balance.

Blocking: about 50 s. The long runs with broker faults are `make chaos SEED=n`.
"""

from pathlib import Path

import pytest

from tests.chaos.lab import Lab
from tests.chaos.leg import Leg
from tests.chaos.plan import make_plan
from tests.chaos.report import offenders
from tests.kafkalab.fixtures import KafkaLab

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240), pytest.mark.usefixtures("forked")]

SEED = 4
SECONDS = 20.0
WEIGHTS = {"kill": 3, "term": 1, "freeze": 1, "join": 1, "faults_20": 1}


@pytest.mark.long
def test_no_event_is_lost_repeated_or_overtaken_whatever_happens_to_the_workers(
    kafka: KafkaLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(kafka.bootstrap, kafka.prefix, tmp_path)
    plan = make_plan(SEED, SECONDS, WEIGHTS)
    try:
        with Leg("lane", lab, plan, [], print, with_gateway=True) as leg:
            leg.storm()
            verdict = leg.close_books()
    finally:
        lab.remove_topics()

    told = "\n".join([*plan.lines(), capsys.readouterr().out, *map(str, offenders(verdict).items())])
    balance = verdict.balance
    assert verdict.accepted > SECONDS, told
    assert not any(balance.wrong()), told
    assert verdict.problems == [], told
    assert verdict.extra <= verdict.bound, told
