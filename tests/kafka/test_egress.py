"""The runner of a door on real Kafka: at least once, order, retries over the delay topics, restarts, rebalances."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType

from contracts.codec import Record
from contracts.settings.egress import EgressProcess
from contracts.topics import DELIVERY_TIERS
from gateways.cli.main import run
from gateways.egress import queue
from gateways.egress.base import DELIVERED, Item, Later, Refused, Shape, Verdict
from tests.kafka.egress_lab import EgressLab, Told
from tests.kafkalab.fixtures import KafkaLab
from tests.support import ROOT, eventually_async

pytestmark = pytest.mark.timeout(120)
LIMIT_S = 30.0


@pytest.fixture
async def lab(kafka: KafkaLab) -> AsyncIterator[EgressLab]:
    async with EgressLab(kafka) as lab:
        yield lab


async def test_every_outcome_is_delivered_and_committed_and_not_again_after_a_restart(lab: EgressLab) -> None:
    door = Told(Shape(max_batch=10))
    ids = await lab.outcomes(40)
    lab.run(door)
    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)
    await lab.stop()

    assert sorted(door.delivered) == sorted(ids), "none twice"
    assert lab.committed() == {0: 20, 1: 20}
    again = Told()
    lab.run(again)
    more = await lab.outcomes(2, first=40)
    await eventually_async(lambda: set(again.delivered) >= set(more), LIMIT_S)
    assert sorted(again.delivered) == sorted(more)


async def test_a_failed_delivery_waits_on_a_delay_topic_and_holds_up_nothing(lab: EgressLab) -> None:
    door = Told(answer=lambda item: Later("locked", "row", scope="item") if item.attempt == 1 else DELIVERED)
    ids = await lab.outcomes(6)
    lab.run(door)
    await eventually_async(lambda: len(lab.read(lab.topics.deliveries("5s"))) == 6, LIMIT_S)
    assert door.delivered == []

    lab.clock.advance(DELIVERY_TIERS["5s"])

    await eventually_async(lambda: sorted(door.delivered) == sorted(ids), LIMIT_S)
    assert {item.attempt for item in door.asked[6:]} == {2}
    note, headers, value = lab.read(lab.topics.deliveries("5s"))[0]
    assert (note.state, note.door, note.attempts, note.reason) == ("waiting", "door", 1, "locked")
    original = next(item for item in door.asked if item.position.offset == note.offset)
    assert headers == original.headers
    assert value == original.outcome.value


async def test_what_waits_is_not_delivered_before_its_time_and_survives_a_restart(lab: EgressLab) -> None:
    def answer(item: Item) -> Verdict:
        is_first = item.outcome.event_id == "e0" and item.attempt == 1
        return Later("slow_down", retry_after_s=100.0, scope="item") if is_first else DELIVERED

    await lab.outcomes(1)
    lab.run(Told(answer=answer))
    await eventually_async(lambda: lab.read(lab.topics.deliveries("5m")), LIMIT_S)
    await lab.stop()
    lab.clock.advance(DELIVERY_TIERS["5m"] - 60)
    door = Told(answer=answer)
    lab.run(door)
    await lab.outcomes(1, first=1)
    await eventually_async(lambda: door.delivered == ["e1"], LIMIT_S)

    lab.clock.advance(60)

    await eventually_async(lambda: door.delivered == ["e1", "e0"], LIMIT_S)
    assert door.asked[-1].attempt == 2


async def test_what_is_refused_or_exhausted_is_on_the_undelivered_topic_with_its_reason(lab: EgressLab) -> None:
    def answer(item: Item) -> Verdict:
        if item.outcome.event_id == "e0":
            return Refused("too_large", "300000 bytes")
        return Later("unavailable", "503", scope="item") if item.outcome.event_id == "e1" else DELIVERED

    door = Told(answer=answer, where=lambda _item: "queue-7")
    await lab.outcomes(3)
    lab.run(door, max_attempts=1)
    await eventually_async(lambda: len(lab.read(lab.topics.undelivered)) == 2, LIMIT_S)
    await eventually_async(lambda: door.delivered == ["e2"], LIMIT_S)
    await lab.stop()

    notes = {note.reason: note for note, _, _ in lab.read(lab.topics.undelivered)}
    assert (notes["too_large"].state, notes["unavailable"].state) == ("refused", "exhausted")
    assert (notes["too_large"].destination, notes["too_large"].message) == ("queue-7", "300000 bytes")
    assert lab.committed() == {0: 2, 1: 1}


async def test_order_per_key_holds_through_failures_and_holds_back_no_other_key(lab: EgressLab) -> None:
    failures = {"e3": 2}

    def answer(item: Item) -> Verdict:
        left = failures.get(item.outcome.event_id, 0)
        failures[item.outcome.event_id] = left - 1
        return Later("locked", scope="item") if left > 0 else DELIVERED

    door = Told(Shape(max_batch=4, order="key"), answer)
    ids = await lab.outcomes(24, keys=3)
    lab.run(door)
    await eventually_async(lambda: len(door.delivered) == 24, LIMIT_S)

    for key in range(3):
        assert [one for one in door.delivered if int(one[1:]) % 3 == key] == ids[key::3]
    # The keys 1 and 2 were done before the row of key 0 was free again.
    assert door.delivered.index("e23") < door.delivered.index("e6")
    assert lab.read(lab.topics.deliveries("5s")) == []


async def test_a_caller_whose_receivers_hang_holds_up_no_result_of_others(
    lab: EgressLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "LATE_S", 0.5)
    door = Told(
        Shape(many_destinations=True),
        where=lambda item: item.outcome.event_id,
        waits=lambda item: item.outcome.owner == "hangs",
    )
    door.gate.clear()
    await lab.outcomes(400, owner="hangs")
    others = await lab.outcomes(4, first=400, owner="other")

    lab.run(door, max_held_items=20, max_in_flight=4, timeout_s=2.0)

    # Two a second come to an end: those in front would take minutes.
    await eventually_async(lambda: set(door.delivered) >= set(others), LIMIT_S)
    door.gate.set()


async def test_a_destination_that_is_down_pauses_its_door_alone_and_loses_nothing(lab: EgressLab) -> None:
    is_down = True
    down = Told(answer=lambda _item: Later("unavailable") if is_down else DELIVERED)
    up = Told()
    ids = await lab.outcomes(30)
    breaker = {"failures": 3, "base_s": 0.2, "max_s": 0.2}
    lab.run(down, "down", max_in_flight=1, max_held_items=10, breaker=breaker)
    lab.run(up, "up")

    await eventually_async(lambda: set(up.delivered) == set(ids), LIMIT_S)
    await eventually_async(lambda: len(down.asked) >= 6, LIMIT_S)
    parked = lab.read(lab.topics.deliveries("5s"))
    assert len(parked) == 2, "those before the breaker opened, and no more"
    is_down = False
    await eventually_async(lambda: len(set(down.delivered)) == 28, LIMIT_S)
    lab.clock.advance(5)
    await eventually_async(lambda: set(down.delivered) == set(ids), LIMIT_S)
    assert lab.read(lab.topics.undelivered) == []


def _by_parity(item: Item) -> str:
    return f"d{int(item.outcome.event_id[1:]) % 2}"


async def test_of_many_destinations_one_that_is_down_is_put_aside(lab: EgressLab) -> None:
    door = Told(
        Shape(many_destinations=True),
        answer=lambda item: Later("unavailable") if _by_parity(item) == "d1" else DELIVERED,
        where=_by_parity,
    )
    ids = await lab.outcomes(40)
    lab.run(door, breaker={"failures": 2, "base_s": 0.2})

    await eventually_async(lambda: set(door.delivered) == set(ids[::2]), LIMIT_S)
    await eventually_async(lambda: len(lab.read(lab.topics.deliveries("1m"))) > 10, LIMIT_S)
    notes = [note for note, _, _ in lab.read(lab.topics.deliveries("1m"))]
    assert {(note.reason, note.destination, note.attempts) for note in notes} == {("destination_down", "d1", 0)}


async def test_of_many_destinations_one_that_hangs_holds_up_no_other(lab: EgressLab) -> None:
    door = Told(Shape(many_destinations=True), where=_by_parity, waits=lambda item: _by_parity(item) == "d1")
    door.gate.clear()
    ids = await lab.outcomes(40)
    lab.run(door, max_held_items=16)

    def others_are_delivered() -> bool:
        # What is put aside for a while is due at once.
        lab.clock.advance(1)
        return set(door.delivered) >= set(ids[::2])

    await eventually_async(others_are_delivered, LIMIT_S)
    assert set(door.delivered) == set(ids[::2])
    door.gate.set()


async def test_what_is_in_hand_and_in_flight_is_bounded(lab: EgressLab) -> None:
    door = Told(Shape(max_batch=2))
    door.gate.clear()
    ids = await lab.outcomes(200)
    lab.run(door, max_in_flight=3, max_held_items=20)
    await eventually_async(lambda: door.in_flight == 3, LIMIT_S)
    await asyncio.sleep(1)
    assert len(door.asked) == 6

    door.gate.set()

    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)
    assert door.peak == 3


async def test_a_second_process_takes_over_a_share_without_loss_and_in_order(lab: EgressLab) -> None:
    delivered: list[str] = []
    one, two = Told(Shape(order="key"), delivered=delivered), Told(Shape(order="key"), delivered=delivered)
    lab.run(one)
    ids = await lab.outcomes(60, keys=4)
    await eventually_async(lambda: len(delivered) >= 10, LIMIT_S)
    second = lab.run(two)

    async def both_deliver() -> bool:
        ids.extend(await lab.outcomes(8, first=len(ids), keys=4))
        return bool(two.asked)

    await eventually_async(both_deliver, LIMIT_S)
    await lab.stop(second)
    ids += await lab.outcomes(8, first=len(ids), keys=4)
    await eventually_async(lambda: set(delivered) == set(ids), LIMIT_S)

    assert len(delivered) == len(ids), "none twice: what was under way was finished and committed before it went over"
    for key in range(4):
        mine = [int(name[1:]) for name in delivered if int(name[1:]) % 4 == key]
        assert mine == sorted(mine)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_it_goes_on_when_the_broker_comes_back(lab: EgressLab, kafka: KafkaLab) -> None:
    if not kafka.broker.is_ours:
        pytest.skip("the broker is not ours to restart")
    door = Told(answer=lambda item: Later("locked", scope="item") if item.attempt == 1 else DELIVERED)
    ids = await lab.outcomes(4)
    door.gate.clear()
    lab.run(door)
    await eventually_async(lambda: door.in_flight, LIMIT_S)

    await asyncio.to_thread(kafka.broker.stop)
    # What failed cannot be put aside now: it is not given up, and not committed.
    door.gate.set()
    await eventually_async(lambda: not door.in_flight, 2 * LIMIT_S)
    await asyncio.to_thread(kafka.broker.start)
    ids += await lab.outcomes(2, first=4)
    await eventually_async(lambda: len(lab.read(lab.topics.deliveries("5s"))) >= 6, 2 * LIMIT_S)
    lab.clock.advance(DELIVERY_TIERS["5s"])

    await eventually_async(lambda: set(door.delivered) == set(ids), 2 * LIMIT_S)


async def test_a_twin_of_the_same_instance_id_does_not_silence_a_door_for_good(lab: EgressLab) -> None:
    door = Told()
    ids = await lab.outcomes(2)
    lab.run(door, process=EgressProcess(instance_id="one", session_timeout_s=6))
    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)

    await asyncio.to_thread(lab.join_and_vanish, "one")
    ids += await lab.outcomes(2, first=2)

    await eventually_async(lambda: set(door.delivered) == set(ids), 2 * LIMIT_S)


async def test_a_topic_that_is_made_anew_under_a_running_door_is_read_from_its_beginning(lab: EgressLab) -> None:
    door = Told()
    ids = await lab.outcomes(20)
    lab.run(door)
    await eventually_async(lambda: set(door.delivered) == set(ids), LIMIT_S)

    await lab.make_anew(lab.topics.results)
    fewer = await lab.outcomes(6, first=100)

    await eventually_async(lambda: set(door.delivered) >= set(fewer), 2 * LIMIT_S)
    assert sorted(door.delivered) == sorted(ids + fewer), "none twice"
    await lab.stop()
    assert lab.committed() == {0: 3, 1: 3}


async def test_a_commit_of_the_former_log_of_a_topic_is_not_believed(lab: EgressLab) -> None:
    ids = await lab.outcomes(10)
    former = Told()
    lab.run(former)
    await eventually_async(lambda: set(former.delivered) == set(ids), LIMIT_S)
    await lab.stop()
    commits = await asyncio.to_thread(lab.commits)
    await lab.make_anew(lab.topics.results)
    # The new log is longer than the former one when the door comes to it.
    more = await lab.outcomes(30, first=100)
    await asyncio.to_thread(lab.commit_again, commits)

    door = Told()
    lab.run(door)

    await eventually_async(lambda: len(door.delivered) >= 30, 2 * LIMIT_S)
    assert sorted(door.delivered) == sorted(more)


async def test_a_quiet_door_is_ready_again_when_it_may_read_again(guarded: KafkaLab) -> None:
    lab = EgressLab(guarded)

    def allow(*operations: AclOperation) -> None:
        everybody = ("User:ANONYMOUS", "*")
        rules = [
            AclBinding(
                ResourceType.TOPIC, lab.topics.results, ResourcePatternType.LITERAL, *everybody, operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]  # fmt: skip
        for made in guarded.admin().create_acls(rules).values():
            made.result(15)

    await asyncio.to_thread(allow, AclOperation.DESCRIBE, AclOperation.WRITE)
    async with lab:
        lab.run(Told())
        await eventually_async(lambda: lab.runner.intake and lab.runner.intake._noted, LIMIT_S)
        assert not lab.runner.is_reachable

        await asyncio.to_thread(allow, AclOperation.READ)

        await eventually_async(lambda: lab.runner.is_reachable, LIMIT_S)


async def test_what_a_fault_of_ours_left_unfinished_comes_again_by_itself(
    lab: EgressLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [TypeError("a fault of the code")]
    produce = lab.produce

    async def faulty(record: Record) -> object:
        if faults:
            raise faults.pop()
        return await produce(record)

    monkeypatch.setattr(lab, "produce", faulty)
    door = Told(answer=lambda _: Refused("no"))
    await lab.outcomes(2)
    lab.run(door)

    await eventually_async(lambda: len(lab.read(lab.topics.undelivered)) >= 2, LIMIT_S)


async def test_a_door_of_one_name_of_another_application_delivers_only_what_its_own_let_wait(lab: EgressLab) -> None:
    ours = Told(answer=lambda item: Later("locked", "row", scope="item") if item.attempt == 1 else DELIVERED)
    late = {f"e{number}" for number in range(8, 16)}
    others = Told(
        answer=lambda item: (
            Later("locked", "row", scope="item") if item.attempt == 1 and item.outcome.event_id in late else DELIVERED
        )
    )
    first = await lab.outcomes(8)
    lab.run(ours)
    await eventually_async(lambda: len(lab.read(lab.topics.deliveries("5s"))) == 8, LIMIT_S)
    lab.run(others, app_id=f"{lab.lab.prefix}-other")
    await eventually_async(lambda: sorted(others.delivered) == sorted(first), LIMIT_S)
    # Behind ours, on either partition.
    await lab.outcomes(8, first=8)
    await eventually_async(lambda: len(lab.read(lab.topics.deliveries("5s"))) == 24, LIMIT_S)

    lab.clock.advance(DELIVERY_TIERS["5s"])

    every = sorted([*first, *late])
    await eventually_async(lambda: len(others.delivered) >= 16 and len(ours.delivered) >= 16, LIMIT_S)
    assert (sorted(ours.delivered), sorted(others.delivered)) == (every, every)


async def test_what_is_redriven_is_tried_again_under_the_same_id(
    lab: EgressLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "penstock.yaml"
    config.write_text(
        f"version: 1\nkafka: {{bootstrap_servers: '{lab.lab.bootstrap}', topic_prefix: {lab.lab.prefix}}}\n"
        f"worker: {{app_id: {lab.lab.prefix}}}\n"
        "egress: {door: {kind: sqs, region: eu-west-1, queue_url: 'http://127.0.0.1:1/q'}}\n",
        encoding="utf-8",
    )
    is_mended = False
    door = Told(answer=lambda _item: DELIVERED if is_mended else Refused("too_large", "300000 bytes"))
    await lab.outcomes(2)
    lab.run(door)
    await eventually_async(lambda: len(lab.read(lab.topics.undelivered)) == 2, LIMIT_S)
    is_mended = True

    listed = await asyncio.to_thread(run, ["undelivered", "list", "--config", str(config), "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    first = f"{lines[0]['partition']}/{lines[0]['offset']}"
    assert (listed, {line["reason"] for line in lines}, len(lines)) == (0, {"too_large"}, 2)
    # A program of its own: it listens to signals, which only a main thread can.
    args = (sys.executable, "-m", "gateways.cli", "undelivered", "redrive", "--config", str(config), "--place", first)
    done = await asyncio.to_thread(
        subprocess.run, (*args, "--yes"), cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "1 of 1 redriven\n"), done.stderr
    lab.clock.advance(DELIVERY_TIERS["5s"])

    await eventually_async(lambda: len(door.delivered) == 1, LIMIT_S)
    assert door.asked[-1].outcome.result_id == lines[0]["result_id"]
    assert door.asked[-1].attempt == 1
