"""Plays worker and log for the gateway's streams, without Kafka: deltas and outcomes by hand."""

import asyncio
import itertools
from typing import Any

import msgspec

from contracts.codec import encode_json
from contracts.envelope import result_id
from contracts.payloads import EXPIRED_TYPE, RESULT_TYPE, Delta, OutcomeMarker
from gateways.egress.deltas_tail import Arrival
from gateways.egress.outcomes import Outcome, event_name
from tests.gateways.driver import Gateway

EPOCH = 7_000_000_000_000


class LiveLab:
    """The log behind a gateway's streams; make it inside the running loop.

    Args:
        gateway: whose streams are fed.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.live = gateway.parts.live
        self.live._loop = asyncio.get_running_loop()
        self.live._tail._followed = frozenset({0})
        self._offsets = itertools.count()

    def say(self, event_id: str, *texts: str, epoch: int = EPOCH, first: int = 1, **final: Any) -> None:
        """Put deltas of an event on the log; `ending` makes the last one final."""
        for number, text in enumerate(texts, start=first):
            is_final = bool(final) and number == first + len(texts) - 1
            more = {"is_final": True, **final} if is_final else {}
            delta = Delta(event_id=event_id, epoch=epoch, sequence=number, text=text, **more)
            self.live._take(
                [Arrival(event_name(result_id("crm", event_id), "crm"), next(self._offsets), encode_json(delta))]
            )

    def finish(self, event_id: str, output: Any = None) -> None:
        """Put the outcome on the log: a result, or an expired event where there is no output."""
        kind, value = RESULT_TYPE, msgspec.json.encode({"event_id": event_id, "output": output})
        if output is None:
            marker = OutcomeMarker(
                event_id=event_id,
                source="crm",
                type="t",
                status="expired",
                reason="deadline_exceeded",
                attempts=0,
                completed_at="",
            )
            kind, value = EXPIRED_TYPE, encode_json(marker)
        outcome = Outcome(result_id("crm", event_id), event_id, "crm", "crm", kind, value, 0)
        self.gateway.results.outcomes["crm", event_id] = outcome
        self.live.note_outcome(outcome)
