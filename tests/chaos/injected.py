"""Errors injected into a running worker's Kafka requests, on the mock cluster: real Kafka cannot be told to give them.

The events are all on the log before the first error, so that the worker alone meets them. One worker, because a second
member of a group does not work there.
"""

import contextlib
import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from producers.mock_cluster import HEARTBEAT, JOIN_GROUP, OFFSET_COMMIT, PRODUCE, MockCluster
from tests.chaos.lab import PARTITIONS, Lab
from tests.chaos.leg import Leg
from tests.chaos.plan import APART_S, Plan

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
# Each kind has its turn when faults are apart. In a longer plan the last events, which wait from the start, would
# expire on a slow machine; they are healthy, so that would fail the run.
MOST_S = len(INJECTED) * APART_S
_POINTERS = ctypes.POINTER(ctypes.c_void_p)


class TracedCluster(MockCluster):
    """A mock cluster that knows whether the errors that it was told to give have been given.

    Every request takes one of the codes for its kind, as long as there are some.
    """

    def __init__(self) -> None:
        super().__init__()
        self._library.rd_kafka_mock_start_request_tracking.argtypes = (ctypes.c_void_p,)
        self._library.rd_kafka_mock_clear_requests.argtypes = (ctypes.c_void_p,)
        self._library.rd_kafka_mock_get_requests.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t))
        self._library.rd_kafka_mock_get_requests.restype = _POINTERS
        self._library.rd_kafka_mock_request_api_key.argtypes = (ctypes.c_void_p,)
        self._library.rd_kafka_mock_request_api_key.restype = ctypes.c_int16
        self._library.rd_kafka_mock_request_destroy_array.argtypes = (_POINTERS, ctypes.c_size_t)
        self._library.rd_kafka_mock_start_request_tracking(self._cluster)
        # Each with its request, and how many of these have taken all of its codes and of those before.
        self._told: list[tuple[str, int, int]] = []

    def fail_requests(self, request: int, error_codes: Sequence[int]) -> None:
        """Answer the next requests of one kind with these Kafka error codes, one each."""
        if not self.unmet():
            # Nobody waits for a code, so a request that comes meanwhile and is forgotten uncounted has taken none.
            self._told.clear()
            self._library.rd_kafka_mock_clear_requests(self._cluster)
        super().fail_requests(request, error_codes)
        due = max([self._seen(request), *(due for _, other, due in self._told if other == request)])
        self._told.append((f"request {request}, codes {error_codes}", request, due + len(error_codes)))

    def unmet(self) -> list[str]:
        """Return which errors have not been given, or not all of them."""
        return [f"not given: {name}" for name, request, due in self._told if self._seen(request) < due]

    def _seen(self, request: int) -> int:
        count = ctypes.c_size_t()
        found = self._library.rd_kafka_mock_get_requests(self._cluster, ctypes.byref(count))
        try:
            keys = map(self._library.rd_kafka_mock_request_api_key, found[: count.value])
            return sum(key == request for key in keys)
        finally:
            self._library.rd_kafka_mock_request_destroy_array(found, count)


@contextlib.contextmanager
def injected_leg(plan: Plan, folder: Path, say: Callable[[str], None]) -> Iterator[Leg]:
    """Run a worker on a mock cluster of its own."""
    with TracedCluster() as cluster:
        lab = Lab(cluster.bootstrap, "chaos-injected", folder, embedded=True)
        for topic in lab.topics.table():
            cluster.create_topic(topic.name, PARTITIONS)

        def inject(kind: str) -> Callable[[], str]:
            def act() -> str:
                for request, codes in INJECTED[kind]:
                    cluster.fail_requests(request, codes)
                return f"{kind}: {INJECTED[kind]}"

            return act

        acts = {kind: inject(kind) for kind in INJECTED}
        with Leg("injected", lab, plan, [], say, workers=1, injected=acts, unmet=cluster.unmet) as leg:
            yield leg
