"""A door that must not repeat: what it does while nobody says which log its records lie on."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from contracts.codec import Record, delivery_note
from contracts.errors import LogUnavailable
from contracts.settings.egress import DoorSection, EgressProcess
from contracts.topics import Topics
from gateways.egress import queue
from gateways.egress import runner as module
from gateways.egress.base import DELIVERED, Door, Item, Shape, Verdict
from gateways.egress.intake import MAX_SPAN
from gateways.egress.ledger import Ledger
from gateways.egress.reading import LogIds
from gateways.egress.runner import DoorRunner, Surroundings
from gateways.egress.selecting import Raw
from producers.threads import NoThread
from tests.kafka.egress_lab import Told
from tests.suites.egress import result_item
from tests.support import eventually_async, no_threads

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


async def test_which_log_it_is_is_asked_again_when_no_thread_can_ask(
    runner: DoorRunner, cluster: Cluster, door: Told
) -> None:
    ledger, cluster.is_away = Ledger("penstock.results.v1", 0, FORMER), False
    with capture_logs() as lines, no_threads():
        read(runner, ledger, 3)
        await eventually_async(lambda: lines)
    assert (door.asked, runner._fault, ledger.unfinished) == ([], None, 3)
    assert [line["event"] for line in lines] == ["egress.log_unavailable"]

    await eventually_async(lambda: not ledger.unfinished)
    assert door.delivered == ["e0", "e1", "e2"]


async def test_what_no_thread_can_deliver_waits_and_has_not_been_tried(door: Told) -> None:
    refusals = 3

    def answer(item: Item) -> Verdict:
        if len(door.asked) <= refusals:
            message = "can't start new thread"
            raise NoThread(message)
        attempts.append(item.attempt)
        return DELIVERED

    attempts, door.answer, door.shape = list[int](), answer, Shape()
    around = Surroundings({}, "app", Topics("p"), (), (), _nothing, EgressProcess())
    settings = DoorSection.model_validate({"max_attempts": 1, "breaker": {"base_s": 0.01, "max_s": 0.02}})
    ledger = Ledger("penstock.results.v1", 0)

    with capture_logs() as lines:
        read(DoorRunner("door", cast("Door", door), settings, around), ledger, 2)
        await eventually_async(lambda: not ledger.unfinished)

    assert (sorted(door.delivered), attempts) == (["e0", "e1"], [1, 1])
    assert {line["reason"] for line in lines if line["event"] == "delivery.failed"} == {"no_thread"}
    assert "egress.door_raised" not in {line["event"] for line in lines}


class Callers:
    """A door to many places of which those of the caller `hangs` never answer, and where its items are put off to."""

    def __init__(self) -> None:
        self.put_off: list[tuple[str, str]] = []
        self.door = Told(
            Shape(many_destinations=True),
            where=lambda item: item.outcome.event_id,
            waits=lambda item: item.outcome.owner == "hangs",
        )
        self.door.gate.clear()
        around = Surroundings({}, "app", Topics("p"), (), (), self._produce, EgressProcess())
        settings = DoorSection.model_validate({"max_held_items": 10, "max_in_flight": 2})
        self.runner = DoorRunner("door", cast("Door", self.door), settings, around)
        self.ledger = Ledger("penstock.results.v1", 0)
        self.runner.intake = cast("Any", SimpleNamespace(ledgers=[self.ledger]))

    async def _produce(self, record: Record) -> None:
        self.put_off.append((record.topic, delivery_note(record.headers)[0].reason))

    def read(self, first: int, count: int, owner: str) -> None:
        """Let the door read records of a caller."""
        for number in range(first, first + count):
            item = result_item(number, owner=owner)
            self.runner._take(self.ledger, cast("Raw", SimpleNamespace(position=item.position)), item, 0.0)
        self.runner._pump()


async def test_a_caller_whose_receivers_hang_leaves_room_for_the_results_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "LATE_S", 0.0)
    callers = Callers()
    callers.read(0, 10, "hangs")
    runner = callers.runner
    assert (runner._is_full, runner._queue.in_flight) == (True, 2)

    runner._relieve()

    await eventually_async(lambda: not runner._is_full)
    # Two are under way, and with two that wait the next one would not fit below half of ten.
    assert callers.put_off == [("p.deliveries.5s.v1", "destination_busy")] * 6
    assert (callers.ledger.unfinished, callers.ledger.to_commit()) == (4, 0)
    callers.read(10, 1, "other")
    callers.door.gate.set()
    await eventually_async(lambda: "e10" in callers.door.delivered)


async def test_what_holds_up_a_partition_that_may_not_run_ahead_any_further_is_put_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "LATE_S", 0.0)
    callers = Callers()
    callers.read(0, 3, "hangs")
    callers.ledger.skip(MAX_SPAN - 1)
    callers.runner._relieve()
    assert callers.put_off == []

    callers.ledger.skip(MAX_SPAN)
    callers.runner._relieve()

    await eventually_async(lambda: callers.put_off == [("p.deliveries.5s.v1", "destination_busy")])
    assert callers.ledger.unfinished == 2
    callers.door.gate.set()
    await eventually_async(lambda: not callers.ledger.span)


async def test_a_stop_does_not_wait_until_kafka_lets_the_door_in(monkeypatch: pytest.MonkeyPatch, door: Told) -> None:
    is_asked, is_closed = asyncio.Event(), asyncio.Event()

    class Closed:
        ledgers = ()

        def __init__(self, *_args: Any, **_more: Any) -> None: ...

        async def open(self) -> None:
            is_asked.set()
            await asyncio.Event().wait()

        async def aclose(self) -> None:
            is_closed.set()

    monkeypatch.setattr(module, "Intake", Closed)
    around = Surroundings({}, "app", Topics("p"), (), (), _nothing, EgressProcess(), has_topic_ids=False)
    stop = asyncio.Event()
    running = asyncio.ensure_future(DoorRunner("door", cast("Door", door), DoorSection(), around).run(stop))
    await is_asked.wait()

    stop.set()

    async with asyncio.timeout(5):
        await running
    assert is_closed.is_set()


async def test_a_doors_group_reads_from_a_replica_nearby_and_who_asks_for_the_logs_does_not(
    door: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    class Refusing:
        """Takes note of what it is made with, and cannot start."""

        def __init__(self, _name: str, config: dict[str, Any], *_: object, watch: Any, **__: object) -> None:
            made.extend((config, watch._config))
            message = "enough"
            raise LogUnavailable(message)

    monkeypatch.setattr(module, "Intake", Refusing)
    around = Surroundings(
        {"bootstrap.servers": "a:1"}, "app", Topics("p"), (), (), _nothing, EgressProcess(), nearby={"client.rack": "z"}
    )
    runner = DoorRunner("door", cast("Door", door), DoorSection.model_validate({}), around)
    with pytest.raises(LogUnavailable, match="enough"):
        await runner._session(asyncio.Event())

    assert [config.get("client.rack") for config in made] == ["z", None]
