"""Notices, topic by topic, when nothing is confirmed any more: no further sender waits for an ack that does not come.

What counts is time in which records of a topic waited and none was confirmed, as the producer sees it at each of its
ticks. So nothing is refused while acks come, however slowly; and a process that was frozen, or an event loop that was
late, is not taken for a broker that is away.
"""

import time
from collections.abc import Callable

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import PRODUCER_STALLED, PRODUCER_STALLED_REFUSED

# Of the limit: so much time between two looks counts at most. More passes unseen only in a process that did not run.
_LONGEST_STEP_SHARE = 1 / 8
_PROBE_EVERY_S = 1.0
_RETRY_AFTER_S = 5.0

_log = logger("producer")


class Flow:
    """One topic's records and their acks.

    Attributes:
        waiting: records without an ack.
        silent_s: for so long some waited and none was confirmed.
        looked_s: until when that was counted.
        is_stalled: new records are refused, but for one now and then.
        probe_at_s: when the next one is let through.
        refused: since then.
    """

    __slots__ = ("is_stalled", "looked_s", "probe_at_s", "refused", "silent_s", "topic", "waiting")

    def __init__(self, topic: str, now_s: float) -> None:
        self.topic = topic
        self.waiting = 0
        self.silent_s = 0.0
        self.looked_s = now_s
        self.is_stalled = False
        self.probe_at_s = now_s
        self.refused = 0


class Stalls:
    """The topics of one producer; used by one event loop.

    Args:
        after_s: silence after which new records are refused; infinite = never.
        clock: monotonic seconds.

    Attributes:
        flows: by topic.
        confirmed_at_s: when any topic's record was confirmed.
    """

    def __init__(self, after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._after_s = after_s
        self._longest_step_s = after_s * _LONGEST_STEP_SHARE
        self._clock = clock
        self.flows: dict[str, Flow] = {}
        self.confirmed_at_s = float("-inf")

    @property
    def is_stalled(self) -> bool:
        """Tell whether records are refused and no topic's are confirmed: it is not one topic alone."""
        if not any(flow.is_stalled for flow in self.flows.values()):
            return False
        return self._clock() - self.confirmed_at_s >= self._after_s

    def enter(self, topic: str, now_s: float) -> Flow:
        """Count a record in; its end is counted by whoever holds it (`waiting`, `confirmed`).

        Raises:
            LogUnavailable: none of the topic is confirmed at present; nothing was counted.
        """
        flow = self.flows.get(topic)
        if flow is None:
            flow = self.flows[topic] = Flow(topic, now_s)
        if not flow.waiting:
            self._count(flow, now_s)
        if flow.is_stalled:
            self._let_through(flow, now_s)
        flow.waiting += 1
        return flow

    def confirmed(self, flow: Flow, now_s: float) -> None:
        """Take notice of an ack."""
        # Counted from here, not from the last look: behind a late loop that may be long ago.
        flow.silent_s, flow.looked_s = 0.0, now_s
        self.confirmed_at_s = now_s
        if flow.is_stalled:
            self._open(flow, "a record was confirmed")

    def look(self) -> None:
        """Take notice of the time; called at every tick, after acks have been taken."""
        now_s = self._clock()
        for flow in self.flows.values():
            self._count(flow, now_s)

    def _count(self, flow: Flow, now_s: float) -> None:
        passed_s, flow.looked_s = now_s - flow.looked_s, now_s
        if flow.waiting:
            flow.silent_s = min(self._after_s, flow.silent_s + min(passed_s, self._longest_step_s))
            if flow.silent_s >= self._after_s and not flow.is_stalled:
                self._close(flow, now_s)
        elif flow.silent_s:
            # Forgotten as slowly as it came: a sender that makes pauses between its tries is noticed, too.
            flow.silent_s = max(0.0, flow.silent_s - passed_s)
            if flow.is_stalled and not flow.silent_s:
                # Who is not ready gets no traffic, and so no probe: only a new record can tell how things are.
                self._open(flow, "nothing was tried for as long")

    def _let_through(self, flow: Flow, now_s: float) -> None:
        """Let one record in a second pass, to see whether it is confirmed.

        Raises:
            LogUnavailable: any other.
        """
        if now_s < flow.probe_at_s:
            flow.refused += 1
            PRODUCER_STALLED_REFUSED.labels(flow.topic).inc()
            message = f"no record for topic {flow.topic} is confirmed at present"
            raise LogUnavailable(message, retry_after_s=_RETRY_AFTER_S)
        flow.probe_at_s = now_s + _PROBE_EVERY_S

    def _close(self, flow: Flow, now_s: float) -> None:
        flow.is_stalled = True
        # What waits already is a probe, too.
        flow.probe_at_s = now_s + _PROBE_EVERY_S
        flow.refused = 0
        PRODUCER_STALLED.labels(flow.topic).set(1)
        _log.warning("producer.stalled", topic=flow.topic, silent_s=round(self._after_s, 3), waiting=flow.waiting)

    def _open(self, flow: Flow, why: str) -> None:
        flow.is_stalled = False
        PRODUCER_STALLED.labels(flow.topic).set(0)
        _log.info("producer.flows_again", topic=flow.topic, detail=why, refused=flow.refused)
