"""Chooses how tests get their broker: a given address, else a container, else the jars."""

import os
from collections.abc import Callable

from tests.kafkalab.broker import Broker, KafkaUnavailableError, wait_until_ready

# An address `host:port`, or one of the names below to insist on one way.
CHOICE_VARIABLE = "PENSTOCK_TEST_KAFKA"
GIVEN_LIMIT_S = 10.0


class GivenBroker:
    """A Broker (see tests/kafkalab/broker.py) that somebody else runs: it is used and left alone."""

    is_ours = False

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.description = f"given address {bootstrap}"

    def start(self) -> None:
        """Wait until it answers."""
        wait_until_ready(self.bootstrap, GIVEN_LIMIT_S)

    def _refuse(self) -> None:
        msg = f"the broker at {self.bootstrap} is not ours to disturb"
        raise KafkaUnavailableError(msg)

    stop = kill = pause = resume = _refuse

    def close(self) -> None:
        """Leave it running."""


def start_broker() -> Broker:
    """Return a started broker, got in the first way that works here.

    Raises:
        KafkaUnavailableError: when none works; with the reason of each.
    """
    choice = os.environ.get(CHOICE_VARIABLE, "")
    ways = _ways()
    if choice and choice not in ways:
        return _started(lambda: GivenBroker(choice))
    reasons = []
    for name in [choice] if choice else ways:
        try:
            return _started(ways[name])
        except KafkaUnavailableError as error:
            reasons.append(f"{name}: {error}")
    raise KafkaUnavailableError("; ".join(reasons))


def _ways() -> dict[str, Callable[[], Broker]]:
    return {"container": _container, "jars": _jars}


def _container() -> Broker:
    # testcontainers reaches for the engine when it is imported.
    from tests.kafkalab.container import ContainerBroker

    return ContainerBroker()


def _jars() -> Broker:
    from tests.kafkalab.jvm import SHORT_LIVED, JvmBroker

    return JvmBroker(flags=SHORT_LIVED)


def _started(make: Callable[[], Broker]) -> Broker:
    broker = make()
    try:
        broker.start()
    except BaseException:
        broker.close()
        raise
    return broker
