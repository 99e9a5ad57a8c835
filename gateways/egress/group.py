"""A door's place in its consumer group: what the client is told, and what is said when the brokers refuse it."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from contracts.kafka_config import SESSION_LIMITS_MS
from contracts.settings.egress import EgressProcess
from producers.kafka_client import QUEUE_LIMITS

_MAX_POLL_INTERVAL_S = 300
# After a drain: the last commit.
_COMMIT_LIMIT_S = 30


def group_config(config: dict[str, Any], group: str, process: EgressProcess, timeout_s: float = 0.0) -> dict[str, Any]:
    """Return the settings of a consumer of a door's group.

    Args:
        config: the connection.
        group: its name.
        process: the section `egress_process`.
        timeout_s: of a delivery of the door.
    """
    # Nothing is polled during a drain, which must end before the group gives up on us: who gets the partitions then
    # would deliver once more what is under way here.
    interval_s = max(_MAX_POLL_INTERVAL_S, math.ceil(process.drain_timeout_s + timeout_s) + _COMMIT_LIMIT_S)
    static = {"group.instance.id": process.instance_id} if process.instance_id else {}
    return (
        config
        | QUEUE_LIMITS
        | static
        | {
            "client.id": group,
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # Nothing is skipped that was never committed: `since` of the door says where it begins.
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            # Splits every topic evenly. The sticky one evens out the sum alone: one process had all results, the other
            # delay topics only (seen on Kafka 4.1).
            "partition.assignment.strategy": "range",
            "max.poll.interval.ms": interval_s * 1000,
            "session.timeout.ms": int(process.session_timeout_s * 1000),
            "fetch.wait.max.ms": 100,
            "log.connection.close": False,
            "log_level": 2,
            "logger": logging.getLogger("penstock.egress.consumer"),
        }
    )


def hint(code: int, config: Mapping[str, Any]) -> str:
    """Return what a client's error does not say: which setting is meant; empty for most."""
    if code != KafkaError.INVALID_SESSION_TIMEOUT:
        return ""
    session_s = config["session.timeout.ms"] / 1000
    least_s, most_s = (limit_ms / 1000 for limit_ms in SESSION_LIMITS_MS.values())
    return (
        f": egress_process.session_timeout_s is {session_s:g}, the brokers allow {least_s:g} to {most_s:g} unless "
        f"their settings were changed ({', '.join(SESSION_LIMITS_MS)})"
    )
