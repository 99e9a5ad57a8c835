"""A door that must not repeat: what it does while nobody says which log its records lie on."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.errors import LogUnavailable
from contracts.settings.egress import DoorSection, EgressProcess
from contracts.topics import Topics
from gateways.egress import runner as module
from gateways.egress.base import Door, Shape
from gateways.egress.ledger import Ledger
from gateways.egress.reading import LogIds
from gateways.egress.runner import DoorRunner, Surroundings
from gateways.egress.selecting import Raw
from tests.kafka.egress_lab import Told
from tests.suites.egress import result_item
from tests.support import eventually_async

FORMER, NOW = "former", "now"


class Cluster:
    """Brokers that say which log it is, or nothing while `is_away`."""

    def __init__(self) -> None:
        self.is_away = True
        self.asked = 0
        self.log_id = FORMER

    def now(self, topics: tuple[str, ...]) -> dict[str, str]:
        """Answer."""
        self.asked += 1
        if self.is_away:
            message = "no answer in time"
            raise LogUnavailable(message)
        return dict.fromkeys(topics, self.log_id)


async def _nothing(_record: object) -> Any:
    return None


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def door() -> Told:
    return Told(Shape(order="partition", is_exact=True))


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, door: Told) -> DoorRunner:
    monkeypatch.setattr(module, "_ASK_AGAIN_S", 0.01)
    around = Surroundings({}, "app", Topics("p"), (), (), _nothing, EgressProcess())
    made = DoorRunner("door", cast("Door", door), DoorSection.model_validate({}), around)
    made._log_ids = cast("LogIds", cluster)
    return made


def read(runner: DoorRunner, ledger: Ledger, count: int) -> None:
    """Let the door read some records of a partition."""
    for number in range(count):
        item = result_item(number)
        raw = cast("Raw", SimpleNamespace(position=item.position))
        runner._take(ledger, raw, item, 0.0)
    runner._pump()


async def test_brokers_that_do_not_answer_are_asked_again_and_the_session_goes_on(
    runner: DoorRunner, cluster: Cluster, door: Told
) -> None:
    """A new session would read everything anew, of all processes of the door, as often as brokers are slow."""
    ledger = Ledger("penstock.results.v1", 0, FORMER)
    with capture_logs() as lines:
        read(runner, ledger, 3)
        await eventually_async(lambda: cluster.asked > 3)
    assert (door.asked, runner._fault, ledger.unfinished) == ([], None, 3)
    assert [line["event"] for line in lines] == ["egress.log_unavailable"]

    cluster.is_away = False

    await eventually_async(lambda: not ledger.unfinished)
    assert door.delivered == ["e0", "e1", "e2"]
    assert ledger.to_commit() == 3


async def test_what_lies_on_a_former_log_is_not_delivered_and_ends_the_session(
    runner: DoorRunner, cluster: Cluster, door: Told
) -> None:
    cluster.is_away, cluster.log_id = False, NOW

    read(runner, Ledger("penstock.results.v1", 0, FORMER), 3)

    await eventually_async(lambda: isinstance(runner._fault, LogUnavailable))
    assert door.asked == []
