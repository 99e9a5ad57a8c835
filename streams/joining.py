"""aiokafka's place in the group, with what it takes for something else put right; part of streams/shell.py.

Verified, like that file, against its TESTED_VERSIONS; a test touches every name.

    _coordinator._do_rejoin_group    wrapped: a static member asks first whether a twin has taken its place; and a join
                                     that works ends what is said of refusals
    _coordinator._push_error_to_user wrapped: a refused join waits for a reader who does not read before it has joined
    _coordinator._heartbeat_task, ._commit_refresh_task  their errors are no refused join
    _coordinator._send_req           wrapped: an answer that refuses the whole question for commits is not "no commits";
                                     and notes when an assignment was asked for
    _coordinator.coordinator_dead    has it looked for again
    _coordinator._maybe_leave_group  wrapped: says once that it leaves, and hears neither a refusal nor silence
    _coordinator._closing, ._group_instance_id, ._client  whether it leaves for good, as a member that may, and how
    _coordinator._session_timeout_ms what it asks for, to be said when the broker does not allow it
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import GroupLoadInProgressError, InvalidSessionTimeoutError, KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import LeaveGroupRequest, SyncGroupRequest

from contracts.kafka_config import SESSION_LIMITS_MS
from contracts.logs import logger

_JOIN_PAUSE_S = 1.0
# The same refusal is said again after so long: it may last for days.
_SAY_AGAIN_S = 30.0
# A worker that stops waits so long for a broker that hears it: one that has come back takes a second or two.
_LEAVE_S = 3.0
_LEAVE_AGAIN_S = 0.2
_ASK_S = 5.0
# In the protocol's list of what has settings.
_BROKER = 4
# Seconds since boot, suspended time included: a lease does not stop while the machine sleeps. Linux only.
boot_time_s: Callable[[], float] = (
    functools.partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)


class JoinGuard(Protocol):
    """Asked on the consumer's thread, before it joins the group under an instance id."""

    async def before_join(self, member_ids: frozenset[str], *, is_unsure: bool) -> None:
        """Return when the place in the group is free or ours; never when it is not.

        Args:
            member_ids: the ones the group gave to us so far.
            is_unsure: a join of ours went unanswered, so an unknown member may be ourselves.
        """
        ...


def guard_joins(coordinator: Any, guard: JoinGuard) -> None:
    """Have a static member look before it joins.

    aiokafka takes being thrown out by a twin for a lost session, and would throw the twin out in turn, for ever.
    """
    original: Callable[[Any], Awaitable[bool]] = coordinator._do_rejoin_group  # noqa: SLF001
    ours: set[str] = set()
    is_unsure = False

    async def rejoin(subscription: Any) -> bool:
        nonlocal is_unsure
        if not coordinator.member_id:
            await guard.before_join(frozenset(ours), is_unsure=is_unsure)
            is_unsure = True
        try:
            is_joined = await original(subscription)
        except KafkaError:
            # FENCED_INSTANCE_ID, which this version of aiokafka has no name for: a twin joined during a rebalance.
            await guard.before_join(frozenset(ours), is_unsure=is_unsure)
            raise
        if coordinator.member_id:
            ours.add(coordinator.member_id)
            is_unsure = False
        return is_joined

    coordinator._do_rejoin_group = rejoin  # noqa: SLF001


class _Refusals:
    """What is said of refused joins: each kind at once, the same from time to time with how long it has lasted."""

    def __init__(self) -> None:
        self.joined()

    def joined(self) -> None:
        self._told, self._since_s, self._say_again_s = "", 0.0, 0.0

    async def tell(self, coordinator: Any, error: Exception) -> None:
        now_s, told = time.monotonic(), repr(error)
        if told != self._told:
            self._told, self._since_s = told, now_s
        elif now_s < self._say_again_s:
            return
        self._say_again_s = now_s + _SAY_AGAIN_S
        more: dict[str, object] = (
            {"detail": await _session(coordinator)} if isinstance(error, InvalidSessionTimeoutError) else {}
        )
        if now_s > self._since_s:
            more["lasts_s"] = round(now_s - self._since_s)
        logger("worker").warning("group.refused", error=told, **more, wait_s=_JOIN_PAUSE_S)


def keep_joining(coordinator: Any) -> None:
    """Try again when the group refuses a join.

    aiokafka hands the error to whoever reads next, and waits for that. Faust reads nothing until it has joined: one
    answer that aiokafka does not know (REBALANCE_IN_PROGRESS after a replication timeout, a permission that comes
    late) would end in a silent hang.
    """
    original: Callable[[Exception], Awaitable[Any]] = coordinator._push_error_to_user  # noqa: SLF001
    join: Callable[[Any], Awaitable[bool]] = coordinator._do_rejoin_group  # noqa: SLF001
    refusals = _Refusals()

    async def refused(error: Exception) -> Any:
        tasks = (coordinator._heartbeat_task, coordinator._commit_refresh_task)  # noqa: SLF001
        if any(task and task.done() and not task.cancelled() and task.exception() is error for task in tasks):
            return await original(error)
        await refusals.tell(coordinator, error)
        return await asyncio.wait([coordinator._closing], timeout=_JOIN_PAUSE_S)  # noqa: SLF001

    async def rejoin(subscription: Any) -> bool:
        is_joined = await join(subscription)
        if is_joined:
            refusals.joined()
        return is_joined

    coordinator._push_error_to_user, coordinator._do_rejoin_group = refused, rejoin  # noqa: SLF001


async def _session(coordinator: Any) -> str:
    """Return what was asked for and what the broker allows, as far as it says so to a client without rights on it."""
    found, node = SESSION_LIMITS_MS, coordinator.coordinator_id
    request = DescribeConfigsRequest([(_BROKER, str(node), list(SESSION_LIMITS_MS))])
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(_ASK_S):
            answer = await coordinator._client.send(node, request)  # noqa: SLF001
        found = {name: int(value) for one in answer.resources for name, value, *_ in one[-1]}
    least_s, most_s = ((found or SESSION_LIMITS_MS)[name] / 1000 for name in SESSION_LIMITS_MS)
    source = "" if found and found is not SESSION_LIMITS_MS else " unless its settings were changed"
    return (
        f"worker.session_timeout_s is {coordinator._session_timeout_ms / 1000:g}, the broker allows "  # noqa: SLF001
        f"{least_s:g} to {most_s:g}{source} ({', '.join(SESSION_LIMITS_MS)})"
    )


def hear_refusals(coordinator: Any) -> None:
    """Raise what a broker answers to the question for commits when it refuses the whole of it.

    aiokafka looks at the errors of the partitions only, and such an answer has none. It would take it for "nothing was
    ever committed", and everything on the log would be called again: a broker that was just started answers so until
    it has loaded the group.
    """
    original: Callable[[Any], Awaitable[Any]] = coordinator._send_req  # noqa: SLF001

    async def send(request: Any) -> Any:
        response = await original(request)
        code = getattr(response, "error_code", 0) if isinstance(request, OffsetFetchRequest) else 0
        if not code:
            return response
        error = for_code(code)()
        if error.retriable and not isinstance(error, GroupLoadInProgressError):
            coordinator.coordinator_dead()
        raise error

    coordinator._send_req = send  # noqa: SLF001


def date_assignments(coordinator: Any) -> None:
    """Note, as `synced_s`, when an assignment was asked for: its session may have begun then, and not later.

    No heartbeat is sent until an interval after it was taken. A machine that is frozen before that would think that the
    session has just begun, while others have its partitions already.
    """
    original: Callable[[Any], Awaitable[Any]] = coordinator._send_req  # noqa: SLF001
    coordinator.synced_s = float("-inf")

    async def send(request: Any) -> Any:
        if isinstance(request, SyncGroupRequest):
            coordinator.synced_s = boot_time_s()
        return await original(request)

    coordinator._send_req = send  # noqa: SLF001


def leave_for_good(coordinator: Any) -> None:
    """Have a member that stops say so again, for a moment, when nobody has heard it.

    aiokafka says it once. Behind a restart of a broker its coordinator is not known, or still loads the group; nobody
    would get the partitions before the session has ended, as behind a kill.
    """
    original: Callable[[], Awaitable[None]] = coordinator._maybe_leave_group  # noqa: SLF001

    async def leave() -> None:
        may_leave = coordinator.generation > 0 and coordinator._group_instance_id is None  # noqa: SLF001
        if may_leave and coordinator._closing.done():  # noqa: SLF001
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await _leave(coordinator)
            coordinator.reset_generation()
        await original()

    coordinator._maybe_leave_group = leave  # noqa: SLF001


async def _leave(coordinator: Any) -> None:
    client: Any = coordinator._client  # noqa: SLF001
    request = LeaveGroupRequest(coordinator.group_id, coordinator.member_id)
    node = coordinator.coordinator_id
    while True:
        try:
            if node is None:
                node = await client.coordinator_lookup(CoordinationType.GROUP, coordinator.group_id)
            answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
            error = for_code(answer.error_code)()
        except KafkaError as raised:
            error = raised
        if not error.retriable:
            # Heard, or unknown to the group, or not allowed.
            return
        node = None
        await asyncio.sleep(_LEAVE_AGAIN_S)


__all__ = [
    "JoinGuard",
    "boot_time_s",
    "date_assignments",
    "guard_joins",
    "hear_refusals",
    "keep_joining",
    "leave_for_good",
]
