"""What every door out must do, in front of its destination; a door's test file gives a fixture `lab` and inherits it.

What the runner does with the verdicts (order, retries, commits, crashes) is tested once, in tests/gateways/egress.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
import pytest

from contracts.codec import Position, encode_json, outcome_headers
from contracts.envelope import CONNECTION_ID, DELIVERY, OWNER, Event
from contracts.payloads import RESULT_TYPE, InferenceResult, Provenance, Usage
from gateways.egress.base import Delivered, Door, Item, Later, Refused
from gateways.egress.outcomes import read_outcome

TIMEOUT_S = 2.0
_AT = "2026-01-01T00:00:00.000Z"
_STAMP_MS = 1_767_225_600_000


def result_item(number: int = 0, **changes: Any) -> Item:
    """Return the result of event `e<number>` of source `crm`, of key `key-<number>`.

    Args:
        number: also its offset.
        changes: output, key, delivery, owner, connection, partition, timestamp_ms, attempt.
    """
    output = changes.get("output", {"summary": f"result {number}"})
    extensions = {DELIVERY: changes.get("delivery", "notify"), OWNER: changes.get("owner", "crm-key")}
    if "connection" in changes:
        extensions[CONNECTION_ID] = changes["connection"]
    event = Event(
        id=f"e{number}", source="crm", type="crm.created", data=b"", subject=f"s{number}", extensions=extensions
    )
    stamp_ms = changes.get("timestamp_ms", _STAMP_MS + number)
    value = encode_json(
        InferenceResult(
            event_id=event.id,
            source=event.source,
            type=event.type,
            output=output,
            provenance=Provenance(provider="embedded", model="m", route="summary", prompt_digest="d"),
            usage=Usage(3, 5),
            attempts=1,
            completed_at=_AT,
            duration_s=0.5,
        )
    )
    position = Position("penstock.events.standard.v1", changes.get("partition", 0), number, stamp_ms)
    headers = outcome_headers(event, RESULT_TYPE, _AT, "penstock", position)
    outcome = read_outcome(headers, value, stamp_ms)
    assert outcome is not None
    return Item(
        outcome=outcome,
        event_type=event.type,
        delivery=extensions[DELIVERY],
        route="summary",
        key=changes.get("key", b"key-%d" % number),
        headers=headers,
        position=Position("penstock.results.v1", position.partition, number, stamp_ms),
        attempt=changes.get("attempt", 1),
    )


class Received(NamedTuple):
    """What the destination has got: the result's id, and the record's value as parsed JSON."""

    id: str
    value: Any


class DoorLab(Protocol):
    """A started door whose deliveries end within TIMEOUT_S, and power over its destination."""

    @property
    def door(self) -> Door:
        """Return the door."""

    @property
    def cannot(self) -> Mapping[str, str]:
        """Return capability -> why not; capabilities are those of `fail`, `poison`, `batches`."""

    def item(self, number: int) -> Item:
        """Return an item that this destination takes; items of different numbers may share a batch."""

    def poison(self) -> Item:
        """Return an item that this destination will never take."""

    async def received(self) -> list[Received]:
        """Return everything that has arrived, in the order of arrival where the destination has one."""

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        """Let every further call fail: `throttled`, `unavailable`, `denied`, `missing`, `cut`, `hang`, `away`."""

    async def recover(self) -> None:
        """Let every further call be answered as it should."""


def need(lab: DoorLab, capability: str) -> None:
    """Skip the test when the door does not have a capability, with its reason."""
    if capability in lab.cannot:
        pytest.skip(lab.cannot[capability])


class DoorSuite:
    """What every door does."""

    def test_it_is_a_door(self, lab: DoorLab) -> None:
        assert isinstance(lab.door, Door)
        assert lab.door.shape.max_batch >= 1

    async def test_an_item_arrives_with_its_id_and_its_value(self, lab: DoorLab) -> None:
        item = lab.item(1)

        verdicts = await lab.door.deliver([item])

        assert list(verdicts) == [Delivered()]
        assert await lab.received() == [Received(item.outcome.result_id, msgspec.json.decode(item.outcome.value))]

    async def test_a_full_batch_gets_one_verdict_per_item(self, lab: DoorLab) -> None:
        need(lab, "batches")
        items = [lab.item(number) for number in range(min(10, lab.door.shape.max_batch))]

        verdicts = await lab.door.deliver(items)

        assert list(verdicts) == [Delivered()] * len(items)
        assert {one.id for one in await lab.received()} == {item.outcome.result_id for item in items}

    async def test_a_repeated_delivery_can_be_recognised(self, lab: DoorLab) -> None:
        for _ in range(2):
            assert list(await lab.door.deliver([lab.item(1)])) == [Delivered()]

        assert {one.id for one in await lab.received()} == {lab.item(1).outcome.result_id}

    async def test_poison_is_refused_for_good_and_harms_no_other(self, lab: DoorLab) -> None:
        need(lab, "poison")
        items = [lab.item(1), lab.poison(), lab.item(2)] if "batches" not in lab.cannot else [lab.poison()]

        verdicts = await lab.door.deliver(items)

        refused = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
        assert len(refused) == 1
        assert refused[0].message
        assert [isinstance(verdict, Delivered) for verdict in verdicts].count(True) == len(items) - 1

    @pytest.mark.parametrize("kind", ["throttled", "unavailable", "cut", "away"])
    async def test_a_fault_of_the_destination_is_for_later(self, lab: DoorLab, kind: str) -> None:
        need(lab, kind)
        await lab.fail(kind)

        (verdict,) = await lab.door.deliver([lab.item(1)])

        assert isinstance(verdict, Later)
        assert verdict.scope == "destination"
        assert verdict.reason
        await lab.recover()
        assert list(await lab.door.deliver([lab.item(1)])) == [Delivered()]

    async def test_a_throttle_that_says_when_to_come_back_is_heard(self, lab: DoorLab) -> None:
        need(lab, "throttled")
        await lab.fail("throttled", retry_after_s=7.0)

        (verdict,) = await lab.door.deliver([lab.item(1)])

        assert isinstance(verdict, Later)
        assert verdict.retry_after_s == pytest.approx(7.0)

    @pytest.mark.parametrize("kind", ["denied", "missing"])
    async def test_what_only_an_operator_can_mend_says_so(self, lab: DoorLab, kind: str) -> None:
        need(lab, kind)
        await lab.fail(kind)

        (verdict,) = await lab.door.deliver([lab.item(1)])

        assert isinstance(verdict, Later)
        assert verdict.scope == "operator"

    async def test_a_destination_that_does_not_answer_takes_no_longer_than_the_limit(self, lab: DoorLab) -> None:
        need(lab, "hang")
        await lab.fail("hang")
        begun_s = time.monotonic()

        (verdict,) = await lab.door.deliver([lab.item(1)])

        assert isinstance(verdict, Later)
        # Far above the limit, far below the library's own defaults of a minute and more.
        assert time.monotonic() - begun_s < TIMEOUT_S + 15

    async def test_the_loop_stays_free_while_the_destination_hangs(self, lab: DoorLab) -> None:
        need(lab, "hang")
        await lab.fail("hang")
        delivering = asyncio.ensure_future(lab.door.deliver([lab.item(1)]))
        await asyncio.sleep(0)

        assert not delivering.done()
        await delivering

    async def test_closing_during_a_delivery_does_not_wait_for_it(self, lab: DoorLab) -> None:
        need(lab, "hang")
        await lab.fail("hang")
        delivering = asyncio.ensure_future(lab.door.deliver([lab.item(1)]))
        await asyncio.sleep(0.05)
        delivering.cancel()
        await asyncio.wait([delivering])

        await asyncio.wait_for(lab.door.aclose(), 5.0)
        await lab.door.aclose()
