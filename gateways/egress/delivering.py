"""One delivery: asks the door, and decides per item between finished, again, parked and given up.

verdict    order none                                order key or partition
Delivered  finished                                  finished
Refused    undelivered topic                         undelivered topic
Later      delay topic; kept here while the          kept here, its key or partition waits with it; undelivered
           breaker of the only destination is open   topic when patience is over
"""

import asyncio
import time
from collections.abc import Sequence

from contracts.logs import logger
from contracts.metrics import DELIVERIES, DELIVERY_AGE, DELIVERY_DURATION
from contracts.settings.egress import DoorSection
from gateways.egress.base import DELIVERED, Delivered, Door, Later, Refused, Verdict
from gateways.egress.breaker import Breaker
from gateways.egress.ledger import Entry
from gateways.egress.schedule import held_wait_s, patience_s, untried_wait_s, wait_s
from gateways.egress.settling import Settler
from producers.threads import NoThread

_log = logger("egress")


class Delivery:
    """How one door's items are delivered.

    Args:
        name: of the door's section.
        door: the door.
        settings: its section.
        settler: puts aside what could not be delivered.
    """

    def __init__(self, name: str, door: Door, settings: DoorSection, settler: Settler) -> None:
        self._name = name
        self._door = door
        self._settings = settings
        self._settler = settler
        self._patience_s = patience_s(settings.max_attempts)

    async def deliver(self, breaker: Breaker, batch: Sequence[Entry]) -> tuple[dict[Entry, float], set[Entry]]:
        """Deliver a batch; return what goes out again, with its rest in seconds, and what is finished."""
        now_s = time.time()
        for entry in batch:
            entry.first_at_s = entry.first_at_s or now_s
        open_ones = [entry for entry in batch if not entry.is_confirmed]
        asked = await self._ask(open_ones) if open_ones else ()
        if asked:
            _judge(breaker, asked)
        answers = dict(zip(open_ones, asked, strict=True))
        verdicts = [answers.get(entry, DELIVERED) for entry in batch]
        again: dict[Entry, float] = {}
        settling = []
        for entry, verdict in zip(batch, verdicts, strict=True):
            self._count(entry, verdict)
            is_late = isinstance(verdict, Later) and self._is_late(breaker, entry, verdict)
            if isinstance(verdict, Delivered):
                entry.confirm(verdict.through)
            elif isinstance(verdict, Later) and not is_late and self._is_held(breaker, verdict):
                again[entry] = self._rest_s(entry, verdict)
            else:
                settling.append(self._settle(entry, verdict, is_late=is_late))
        if settling:
            await asyncio.gather(*settling)
        return again, {entry for entry in batch if entry not in again}

    async def strand(self, breaker: Breaker, entry: Entry) -> None:
        """Put an item aside that was not tried, because its destination is down or has enough to do."""
        entry.first_at_s = entry.first_at_s or time.time()
        age_s = time.time() - entry.first_at_s
        reason = "destination_down" if breaker.is_open else "destination_busy"
        tried = entry.item.attempt - 1
        if age_s >= self._patience_s and breaker.is_open:
            await self._settler.give_up(entry, "exhausted", tried, reason, "its destination was down all the time")
            return
        wait_for_s = max(0.0, breaker.retry_at_s - time.monotonic()) if breaker.is_open else 0.0
        await self._settler.park(entry, tried, untried_wait_s(age_s, wait_for_s, is_down=breaker.is_open), reason, "")

    async def _ask(self, batch: Sequence[Entry]) -> Sequence[Verdict]:
        begun_s = time.monotonic()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                verdicts = await self._door.deliver([entry.item for entry in batch])
            if len(verdicts) == len(batch):
                return verdicts
            failure = Later("door_failed", f"{len(verdicts)} verdicts for {len(batch)} items")
        except NoThread as error:
            # Nothing was sent, and nothing can be until this process may have more threads.
            failure = Later(error.reason, str(error), scope="operator")
        except TimeoutError:
            failure = Later("timeout", f"no answer within {self._settings.timeout_s:g} s")
        except Exception as error:  # noqa: BLE001 - the edge of an adapter: its fault must not lose an item
            _log.exception("egress.door_raised", door=self._name)
            failure = Later("door_failed", type(error).__name__)
        finally:
            DELIVERY_DURATION.labels(self._name).observe(time.monotonic() - begun_s)
        return [failure] * len(batch)

    def _is_late(self, breaker: Breaker, entry: Entry, later: Later) -> bool:
        """Tell whether an item that would wait here has been tried for so long that it is given up."""
        has_patience = later.scope == "operator" or time.time() - entry.first_at_s < self._patience_s
        return not has_patience and self._is_held(breaker, later)

    def _rest_s(self, entry: Entry, later: Later) -> float:
        """Return how long an item rests here until it goes out again, and count the attempt."""
        if self._door.shape.order == "none":
            # It tries for an open breaker, which spaces the tries. Counted, they would use up within minutes what is to
            # last for three days, and the first fault behind the outage would give the item up.
            return 0.0
        rest_s = held_wait_s(entry.item.attempt, later.retry_after_s)
        if later.scope != "operator":
            entry.item = entry.item._replace(attempt=entry.item.attempt + 1)
        return rest_s

    def _is_held(self, breaker: Breaker, later: Later) -> bool:
        shape = self._door.shape
        if shape.order != "none":
            return True
        return breaker.is_open and not shape.many_destinations and later.scope != "item"

    async def _settle(self, entry: Entry, verdict: Later | Refused, *, is_late: bool) -> None:
        attempt = entry.item.attempt
        if isinstance(verdict, Refused):
            await self._settler.give_up(entry, "refused", attempt, verdict.reason, verdict.message)
        elif verdict.scope == "operator":
            age_s = time.time() - entry.first_at_s
            delay_s = untried_wait_s(age_s, verdict.retry_after_s or 0.0, is_down=True)
            await self._settler.park(entry, attempt - 1, delay_s, verdict.reason, verdict.message)
        elif is_late or attempt >= self._settings.max_attempts:
            await self._settler.give_up(entry, "exhausted", attempt, verdict.reason, verdict.message)
        else:
            delay_s = wait_s(attempt, verdict.retry_after_s)
            await self._settler.park(entry, attempt, delay_s, verdict.reason, verdict.message)

    def _count(self, entry: Entry, verdict: Verdict) -> None:
        if isinstance(verdict, Delivered):
            DELIVERIES.labels(self._name, "delivered", "").inc()
            age_s = time.time() - entry.item.position.timestamp_ms / 1000
            DELIVERY_AGE.labels(self._name).observe(max(0.0, age_s))
            return
        outcome = "refused" if isinstance(verdict, Refused) else "later"
        DELIVERIES.labels(self._name, outcome, verdict.reason).inc()
        _log.info(
            f"delivery.{'refused' if outcome == 'refused' else 'failed'}",
            door=self._name,
            result_id=entry.item.outcome.result_id,
            destination=entry.destination,
            attempt=entry.item.attempt,
            reason=verdict.reason,
            error=verdict.message,
        )


def _judge(breaker: Breaker, verdicts: Sequence[Verdict]) -> None:
    """Tell the breaker how a batch ended: one item that got through says that the destination is there."""
    later = [verdict for verdict in verdicts if isinstance(verdict, Later)]
    if len(later) < len(verdicts):
        breaker.succeeded()
        return
    blamed = [verdict for verdict in later if verdict.scope != "item"]
    if blamed:
        waits_s = [verdict.retry_after_s for verdict in blamed if verdict.retry_after_s]
        breaker.failed(max(waits_s, default=None), opens=any(verdict.scope == "operator" for verdict in blamed))
