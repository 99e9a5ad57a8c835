"""Errors that the group and the log give to a worker: nothing is lost, repeated or overtaken.

Blocking: about 30 s; most of it is joining again, which takes most of a session on the mock cluster.
"""

import contextlib
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from producers.mock_cluster import METADATA, OFFSET_COMMIT
from tests.chaos.injected import BACKLOG, INJECTED, TracedCluster, injected_leg
from tests.chaos.plan import Action, Plan
from tests.chaos.report import offenders

pytestmark = [pytest.mark.embedded, pytest.mark.timeout(180)]

PAUSE_S = 0.5


@pytest.mark.long
def test_no_injected_error_makes_a_worker_lose_repeat_or_reorder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = tuple(Action(number * PAUSE_S, kind, 0.0, 0.0) for number, kind in enumerate(INJECTED))
    plan = Plan(4, actions[-1].at_s + PAUSE_S, is_static=False, actions=actions)
    with injected_leg(plan, tmp_path, print) as leg:
        leg.storm(BACKLOG)
        verdict = leg.close_books()

    told = "\n".join([capsys.readouterr().out, *map(str, offenders(verdict).items())])
    balance = verdict.balance
    assert verdict.accepted == BACKLOG, told
    assert not any(balance.wrong()), told
    assert verdict.problems == [], told
    assert verdict.extra <= verdict.bound, told
    # Also not by a topic that may not be written to: its outcomes wait, with the calls that were paid for.
    assert verdict.crashes == [], told


def test_requests_are_forgotten_once_every_error_has_been_given_and_not_before() -> None:
    not_available = 5
    with TracedCluster() as cluster:
        client = AdminClient({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        for _ in range(10):
            client.list_topics(timeout=5)
        cluster.fail_requests(METADATA, (not_available,))
        assert len(cluster.unmet()) == 1
        with contextlib.suppress(KafkaException):
            client.list_topics(timeout=5)
        assert cluster.unmet() == []

        cluster.fail_requests(OFFSET_COMMIT, (not_available,))
        # The client may have asked once more by itself.
        assert cluster._seen(METADATA) < 3

        client.list_topics(timeout=5)
        cluster.fail_requests(METADATA, (not_available,))
        assert cluster._seen(METADATA) > 0
        assert len(cluster.unmet()) == 2
