"""Errors injected into a running worker's Kafka requests, on the mock cluster: real Kafka cannot be told to give them.

The events are all on the log before the first error, so that the worker alone meets them. One worker, because a second
member of a group does not work there.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from producers.mock_cluster import HEARTBEAT, JOIN_GROUP, OFFSET_COMMIT, PRODUCE, MockCluster
from tests.chaos.lab import PARTITIONS, Lab
from tests.chaos.leg import Leg
from tests.chaos.plan import Plan

# kind -> (request, the codes of its next answers), as in Kafka's protocol: 7 REQUEST_TIMED_OUT, 10 MESSAGE_TOO_LARGE,
# 16 NOT_COORDINATOR, 22 ILLEGAL_GENERATION, 25 UNKNOWN_MEMBER_ID, 27 REBALANCE_IN_PROGRESS,
# 29 TOPIC_AUTHORIZATION_FAILED. A JoinGroup is only sent when something else has made the worker join again.
INJECTED: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "produce_timed_out": ((PRODUCE, (7, 7, 7)),),
    "produce_too_large": ((PRODUCE, (10,)),),
    "commit_elsewhere": ((OFFSET_COMMIT, (16, 16)),),
    "commit_old_generation": ((OFFSET_COMMIT, (22,)),),
    "commit_in_rebalance": ((OFFSET_COMMIT, (27, 27)),),
    "heartbeat_unknown": ((HEARTBEAT, (25,)), (JOIN_GROUP, (25,))),
    "heartbeat_in_rebalance": ((HEARTBEAT, (27,)), (JOIN_GROUP, (27,))),
    "produce_refused": ((PRODUCE, (29,)),),
}
WEIGHTS = dict.fromkeys(INJECTED, 1)
BACKLOG = 800


@contextlib.contextmanager
def injected_leg(plan: Plan, folder: Path, say: Callable[[str], None]) -> Iterator[Leg]:
    """Run a worker on a mock cluster of its own."""
    with MockCluster() as cluster:
        lab = Lab(cluster.bootstrap, "chaos-injected", folder, embedded=True)
        for topic in lab.topics.table():
            cluster.create_topic(topic.name, PARTITIONS)

        def inject(kind: str) -> Callable[[], str]:
            def act() -> str:
                for request, codes in INJECTED[kind]:
                    cluster.fail_requests(request, codes)
                return f"{kind}: {INJECTED[kind]}"

            return act

        with Leg("injected", lab, plan, [], say, workers=1, injected={kind: inject(kind) for kind in INJECTED}) as leg:
            yield leg
