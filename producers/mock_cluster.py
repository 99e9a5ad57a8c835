"""librdkafka's mock cluster: a Kafka-protocol listener in this process, memory only, with faults on demand.

Blocking: the constructor, a few milliseconds. The cluster has its own thread; no method waits for clients.
Source: librdkafka 2.16 `src/rdkafka_mock.h`, an experimental API (checked 2026-11); a test pins every call made here.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, Self

from confluent_kafka import cimpl

from contracts.errors import LogUnavailable

PARTITIONS_PER_TOPIC = 4
LIMITS = (
    "memory only: everything is gone when this process ends",
    f"topics appear on first use with {PARTITIONS_PER_TOPIC} partitions and cannot be configured",
    "each partition keeps about the last 5 MB; older records are dropped without notice",
    "one worker (aiokafka member) per consumer group; no transactions, no access control",
)
# Kafka protocol numbers of the requests that faults are injected into.
PRODUCE, METADATA, OFFSET_COMMIT, JOIN_GROUP, HEARTBEAT, INIT_PRODUCER_ID = 0, 3, 8, 11, 12, 22

_ERROR_TEXT_BYTES = 512
_RD_KAFKA_PRODUCER = 0
_ALL_BROKERS = -1
_POINTER, _TEXT, _INT, _SHORT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int16, ctypes.c_size_t
# name -> (result, arguments); without them ctypes would cut pointers to 32 bits.
_CALLS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "rd_kafka_conf_new": (_POINTER, ()),
    "rd_kafka_conf_set": (_INT, (_POINTER, _TEXT, _TEXT, _TEXT, _SIZE)),
    "rd_kafka_new": (_POINTER, (_INT, _POINTER, _TEXT, _SIZE)),
    "rd_kafka_destroy": (None, (_POINTER,)),
    "rd_kafka_mock_cluster_new": (_POINTER, (_POINTER, _INT)),
    "rd_kafka_mock_cluster_destroy": (None, (_POINTER,)),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, (_POINTER,)),
    "rd_kafka_mock_topic_create": (_INT, (_POINTER, _TEXT, _INT, _INT)),
    "rd_kafka_mock_topic_set_error": (None, (_POINTER, _TEXT, _INT)),
    "rd_kafka_mock_broker_set_down": (_INT, (_POINTER, _INT)),
    "rd_kafka_mock_broker_set_up": (_INT, (_POINTER, _INT)),
    "rd_kafka_mock_push_request_errors_array": (None, (_POINTER, _SHORT, _SIZE, ctypes.POINTER(_INT))),
}


class MockCluster:
    """One broker on a free port of 127.0.0.1; a context manager.

    Raises:
        LogUnavailable: this build of confluent-kafka has no mock cluster.
    """

    def __init__(self) -> None:
        self._library = _load()
        text = ctypes.create_string_buffer(_ERROR_TEXT_BYTES)
        config = self._library.rd_kafka_conf_new()
        # The client that owns the cluster connects to nothing and has nothing to say.
        self._library.rd_kafka_conf_set(config, b"log_level", b"0", text, _ERROR_TEXT_BYTES)
        self._owner = self._library.rd_kafka_new(_RD_KAFKA_PRODUCER, config, text, _ERROR_TEXT_BYTES)
        cluster = self._library.rd_kafka_mock_cluster_new(self._owner, 1) if self._owner else None
        if not cluster:
            message = f"the embedded broker cannot start: {text.value.decode(errors='replace') or 'no reason given'}"
            raise LogUnavailable(message)
        self._cluster: int | None = cluster
        self.bootstrap: str = self._library.rd_kafka_mock_cluster_bootstraps(cluster).decode()

    def create_topic(self, name: str, partitions: int = PARTITIONS_PER_TOPIC) -> None:
        """Create a topic; raise LogUnavailable when it exists already, or its name is not allowed."""
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code:
            message = f"the embedded broker cannot create {name}: error {code}"
            raise LogUnavailable(message)

    def fail_topic(self, name: str, error_code: int) -> None:
        """Answer metadata requests for a topic with a Kafka error code; 0 ends it."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, name.encode(), error_code)

    def fail_requests(self, request: int, error_codes: Sequence[int]) -> None:
        """Answer the next requests of one kind with these Kafka error codes, one each."""
        codes = (_INT * len(error_codes))(*error_codes)
        self._library.rd_kafka_mock_push_request_errors_array(self._cluster, request, len(error_codes), codes)

    def set_down(self) -> None:
        """Close every connection and accept none."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, _ALL_BROKERS)

    def set_up(self) -> None:
        """Accept connections again."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, _ALL_BROKERS)

    def close(self) -> None:
        """End the cluster; safe to call twice."""
        if self._cluster is not None:
            self._library.rd_kafka_mock_cluster_destroy(self._cluster)
            self._library.rd_kafka_destroy(self._owner)
            self._cluster = None

    def __enter__(self) -> Self:
        """Return the running cluster."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End it."""
        self.close()


def _load() -> ctypes.CDLL:
    # The extension module is linked against librdkafka, so its handle finds those symbols under any wheel's file name.
    library = ctypes.CDLL(cimpl.__file__)
    try:
        for name, (result, arguments) in _CALLS.items():
            call = getattr(library, name)
            call.restype, call.argtypes = result, arguments
    except AttributeError as error:
        message = f"this build of confluent-kafka has no embedded broker ({error}); use a real one"
        raise LogUnavailable(message) from error
    return library
