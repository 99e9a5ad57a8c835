"""pytest fixtures for real Kafka, loaded by tests/conftest.py: `kafka_broker` (one a session) and `kafka` (one a test).

`forked` has a test's programs forked from one that has imported what they need (tests/nursery.py).

The broker starts before the first test, outside of the per-test timeout, and only when a collected test asks for it.
"""

import contextlib
import os
import uuid
from collections.abc import Generator, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.kafkalab.broker import Broker, KafkaUnavailableError
from tests.kafkalab.choice import start_broker
from tests.kafkalab.jvm import SHORT_LIVED, JvmBroker
from tests.nursery import Nursery
from tests.support import ROOT, ChildProcess

ADMIN_LIMIT_S = 15.0
_KEY = pytest.StashKey[Broker | str]()


class KafkaLab:
    """One test's corner of the session's broker: unique names, topics, and the faults of `broker`."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.bootstrap = broker.bootstrap
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        self._created: list[str] = []
        # One for the test's whole life: the futures of a request fail when its client is collected.
        self._admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def name(self, suffix: str) -> str:
        """Return a topic or group name that no other test has."""
        return f"{self.prefix}.{suffix}"

    def create(self, *suffixes: str, partitions: int = 4, config: dict[str, str] | None = None) -> list[str]:
        """Create one topic per suffix and return their full names, once each has its leaders."""
        names = [self.name(suffix) for suffix in suffixes]
        self.create_named(*names, partitions=partitions, config=config)
        return names

    def create_named(self, *names: str, partitions: int = 4, config: dict[str, str] | None = None) -> None:
        """Create topics under their full names, for names that the product fixes; they go when the test ends."""
        topics = [NewTopic(name, partitions, 1, config=config or {}) for name in names]
        for name, created in self._admin.create_topics(topics, operation_timeout=ADMIN_LIMIT_S).items():
            created.result(ADMIN_LIMIT_S)
            self._created.append(name)

    def admin(self) -> AdminClient:
        """Return the test's admin client."""
        return self._admin

    def restart(self) -> None:
        """Stop the broker and start it again, on the same address with the same data."""
        self.broker.stop()
        self.broker.start()

    def clean_up(self) -> None:
        """Undo a fault that the test left, and delete its topics."""
        if self.broker.is_ours:
            with contextlib.suppress(KafkaUnavailableError):
                self.broker.resume()
            self.broker.start()
        if self._created:
            for deleted in self._admin.delete_topics(self._created, operation_timeout=ADMIN_LIMIT_S).values():
                deleted.result(ADMIN_LIMIT_S)


@pytest.fixture(scope="session")
def kafka_broker(request: pytest.FixtureRequest) -> Broker:
    """Give the session's broker; without one the test is skipped, and fails where CI is set."""
    broker = request.config.stash[_KEY]
    if not isinstance(broker, str):
        return broker
    reason = f"no real Kafka: {broker}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def kafka(kafka_broker: Broker) -> Iterator[KafkaLab]:
    """Give one test its names and topics on the session's broker."""
    lab = KafkaLab(kafka_broker)
    yield lab
    lab.clean_up()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """Give the session's, which begins with the first program."""
    made = Nursery(ROOT)
    yield made
    made.close()


@pytest.fixture
def forked(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the programs of a test be forked."""
    monkeypatch.setattr(ChildProcess, "nursery", nursery)


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Hold a broker for the whole run when a test needs one."""
    is_needed = any("kafka_broker" in getattr(item, "fixturenames", ()) for item in session.items)
    # After a collection error pytest runs no test.
    if not is_needed or session.testsfailed or session.config.option.collectonly:
        return (yield)
    broker: Broker | None = None
    try:
        broker = start_broker()
        session.config.stash[_KEY] = broker
    except KafkaUnavailableError as error:
        session.config.stash[_KEY] = str(error)
    try:
        return (yield)
    finally:
        if broker is not None:
            broker.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which broker this run used, or why it had none."""
    broker = config.stash.get(_KEY, None)
    if broker is not None:
        terminalreporter.write_line(f"real Kafka: {broker if isinstance(broker, str) else broker.description}")


@pytest.fixture
def guarded() -> Iterator[KafkaLab]:
    """Give a broker that asks for permissions where a topic has any, for whoever comes."""
    authorizer = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "true",
    }
    try:
        broker = JvmBroker(properties=authorizer, flags=SHORT_LIVED)
    except KafkaUnavailableError as error:
        pytest.skip(f"no broker with permissions: {error}")
    try:
        broker.start()
        yield KafkaLab(broker)
    finally:
        broker.close()
