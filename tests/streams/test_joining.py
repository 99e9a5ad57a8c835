"""aiokafka's place in the group: whom it lets join, and what it takes for an answer."""

import asyncio
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    InvalidSessionTimeoutError,
    KafkaError,
    NotCoordinatorForGroupError,
)
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.protocol.group import LeaveGroupRequest, SyncGroupRequest
from structlog.testing import capture_logs

from streams import joining
from streams.joining import date_assignments, guard_joins, hear_refusals, keep_joining, leave_for_good
from tests.support import FakeClock

# --- the names


def test_coordinator_do_rejoin_group() -> None:
    assert list(inspect.signature(GroupCoordinator._do_rejoin_group).parameters) == ["self", "subscription"]
    assert "await self._do_rejoin_group(subscription)" in inspect.getsource(GroupCoordinator.ensure_active_group)
    assert "self.member_id = JoinGroupRequest.UNKNOWN_MEMBER_ID" in inspect.getsource(GroupCoordinator.reset_generation)


def test_coordinator_push_error_to_user_is_where_a_refused_join_ends() -> None:
    routine = inspect.getsource(GroupCoordinator._GroupCoordinator__coordination_routine)
    assert "except Errors.KafkaError as exc:\n                await self._push_error_to_user(exc)" in routine
    assert "for task in [self._heartbeat_task, self._commit_refresh_task]:" in routine
    assert "self._coordination_task = create_task(self._coordination_routine())" in inspect.getsource(
        GroupCoordinator.__init__
    )


def test_coordinator_looks_at_the_errors_of_partitions_only() -> None:
    question = inspect.getsource(GroupCoordinator._do_fetch_commit_offsets)

    assert "response = await self._send_req(request)" in question
    assert "response.error_code" not in question
    assert "if not err.retriable:" in inspect.getsource(GroupCoordinator.fetch_committed_offsets)
    assert "self.coordinator_id = None" in inspect.getsource(GroupCoordinator.coordinator_dead)


def test_coordinator_says_once_that_it_leaves() -> None:
    leaving = inspect.getsource(GroupCoordinator._maybe_leave_group)

    assert "error_code" not in leaving
    assert "if self.generation > 0 and self._group_instance_id is None" in leaving
    assert "LeaveGroupRequest(self.group_id, self.member_id)" in leaving
    closing = inspect.getsource(GroupCoordinator.close)
    assert closing.index("self._closing.set_result(None)") < closing.index("await self._maybe_leave_group()")
    assert "return resp.coordinator_id" in inspect.getsource(AIOKafkaClient.coordinator_lookup)


def test_a_static_member_leaves_no_group() -> None:
    assert "self._group_instance_id is None" in inspect.getsource(GroupCoordinator._maybe_leave_group)


# --- joining


class Coordinator:
    """Stands for aiokafka's: joins, fails, or gets no answer."""

    def __init__(self) -> None:
        self.member_id = ""
        self.joins: list[str | Exception] = []

    async def _do_rejoin_group(self, _subscription: object) -> bool:
        joined = self.joins.pop(0)
        if isinstance(joined, Exception):
            raise joined
        self.member_id = joined
        return bool(joined)


class Guard:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[frozenset[str], bool]] = []

    async def before_join(self, member_ids: frozenset[str], *, is_unsure: bool) -> None:
        self.asked.append((member_ids, is_unsure))


async def test_the_guard_is_asked_before_a_join_without_a_member_id_only() -> None:
    coordinator, guard = Coordinator(), Guard()
    guard_joins(coordinator, guard)
    coordinator.joins = ["m1", "m1"]
    await coordinator._do_rejoin_group(None)
    await coordinator._do_rejoin_group(None)

    assert guard.asked == [(frozenset(), False)]


async def test_the_guard_knows_our_member_ids_and_a_join_that_went_unanswered() -> None:
    coordinator, guard = Coordinator(), Guard()
    guard_joins(coordinator, guard)
    coordinator.joins = ["m1", "", "m2"]
    await coordinator._do_rejoin_group(None)
    coordinator.member_id = ""
    await coordinator._do_rejoin_group(None)
    await coordinator._do_rejoin_group(None)

    assert guard.asked[1:] == [(frozenset({"m1"}), False), (frozenset({"m1"}), True)]


async def test_the_guard_is_asked_when_the_group_fences_us() -> None:
    coordinator, guard = Coordinator(), Guard()
    guard_joins(coordinator, guard)
    coordinator.member_id = "m1"
    coordinator.joins = [KafkaError("UnknownError")]

    with pytest.raises(KafkaError):
        await coordinator._do_rejoin_group(None)

    assert guard.asked == [(frozenset(), False)]


# --- questions for commits


class Asked:
    """Stands in for aiokafka's coordinator: gives one answer, and notes whether it is still believed in."""

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.is_dead = False

    async def _send_req(self, _request: object) -> object:
        return self.answer

    def coordinator_dead(self) -> None:
        self.is_dead = True


@pytest.mark.parametrize(
    ("code", "error", "is_dead"),
    [
        (14, GroupLoadInProgressError, False),
        (16, NotCoordinatorForGroupError, True),
        (30, GroupAuthorizationFailedError, False),
    ],
)
async def test_an_answer_that_refuses_a_question_for_commits_does_not_say_that_there_are_none(
    code: int, error: type[Exception], is_dead: bool
) -> None:
    coordinator = Asked(SimpleNamespace(topics=[], error_code=code))
    hear_refusals(coordinator)
    with pytest.raises(error):
        await coordinator._send_req(OffsetFetchRequest("g", [("events", [0])]))

    assert coordinator.is_dead is is_dead


@pytest.mark.parametrize("answer", [SimpleNamespace(topics=[], error_code=0), SimpleNamespace(topics=[])])
async def test_an_answer_to_a_question_for_commits_is_led_on(answer: object) -> None:
    coordinator = Asked(answer)
    hear_refusals(coordinator)

    assert await coordinator._send_req(OffsetFetchRequest("g", [])) is answer


async def test_errors_of_other_answers_are_left_to_aiokafka() -> None:
    coordinator = Asked(SimpleNamespace(error_code=16))
    hear_refusals(coordinator)

    assert await coordinator._send_req(object()) is coordinator.answer


# --- since when a place is held


async def test_the_place_of_a_generation_is_held_from_when_its_assignment_was_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What comes between the broker's answer and its being read, such as a freeze of the machine, counts as silence."""
    clock = FakeClock()
    monkeypatch.setattr(joining, "boot_time_s", clock)

    async def answer_late(_request: object) -> object:
        clock.advance(60)
        return object()

    coordinator: Any = SimpleNamespace(_send_req=answer_late)
    date_assignments(coordinator)

    assert coordinator.synced_s < 0

    asked_s = clock()
    await coordinator._send_req(SyncGroupRequest("g", 7, "m", None, []))
    await coordinator._send_req(OffsetFetchRequest("g", []))

    assert coordinator.synced_s == asked_s


def test_no_heartbeat_is_sent_before_an_assignment_was_taken() -> None:
    routine = inspect.getsource(GroupCoordinator._heartbeat_routine)

    assert routine.index("await asyncio.sleep(sleep_time)") < routine.index("await self._do_heartbeat()")
    assert "sleep_time = hb_interval" in routine
    assert "self._coordinator._send_req(request)" in inspect.getsource(CoordinatorGroupRebalance)


# --- refused joins


class Refusing:
    """Stands in for aiokafka's coordinator."""

    def __init__(self) -> None:
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heartbeat_task: asyncio.Future[None] | None = None
        self._commit_refresh_task: asyncio.Future[None] | None = None
        self._client: Any = None
        self._session_timeout_ms = 3_600_000
        self.coordinator_id = 7
        self.told: list[Exception] = []

    async def _push_error_to_user(self, exc: Exception) -> None:
        self.told.append(exc)

    async def _do_rejoin_group(self, _subscription: object) -> bool:
        return True


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_JOIN_PAUSE_S", 0.0)


@pytest.mark.usefixtures("no_pause")
async def test_a_refused_join_is_tried_again_and_waits_for_no_reader() -> None:
    coordinator = Refusing()
    keep_joining(coordinator)
    await coordinator._push_error_to_user(KafkaError("RebalanceInProgressError()"))

    assert coordinator.told == []


async def said_of(coordinator: Any, error: Exception, clock: FakeClock, times: int) -> list[tuple[str, float | None]]:
    """Return error and duration of what is said while a join is refused once a second."""
    with capture_logs() as lines:
        for _ in range(times):
            await coordinator._push_error_to_user(error)
            clock.advance(1.0)
    return [(line["error"], line.get("lasts_s")) for line in lines]


@pytest.mark.usefixtures("no_pause")
async def test_a_refusal_is_said_at_once_and_from_time_to_time_with_how_long_it_has_lasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, coordinator = FakeClock(), Refusing()
    monkeypatch.setattr(joining, "time", SimpleNamespace(monotonic=clock))
    keep_joining(coordinator)

    first = "GroupAuthorizationFailedError()"
    assert await said_of(coordinator, GroupAuthorizationFailedError(), clock, 65) == [
        (first, None), (first, 30), (first, 60),
    ]  # fmt: skip
    assert await said_of(coordinator, KafkaError("other"), clock, 2) == [("KafkaError('other')", None)]
    await coordinator._do_rejoin_group(None)
    assert await said_of(coordinator, KafkaError("other"), clock, 2) == [("KafkaError('other')", None)]


async def test_a_worker_that_stops_does_not_wait_to_join_again() -> None:
    coordinator = Refusing()
    keep_joining(coordinator)
    coordinator._closing.set_result(None)
    async with asyncio.timeout(0.5):
        await coordinator._push_error_to_user(KafkaError("GroupAuthorizationFailedError()"))


@pytest.mark.usefixtures("no_pause")
async def test_an_error_of_the_heartbeats_is_told_as_before() -> None:
    coordinator, error = Refusing(), KafkaError("unexpected")
    coordinator._heartbeat_task = asyncio.get_running_loop().create_future()
    coordinator._heartbeat_task.set_exception(error)
    keep_joining(coordinator)
    await coordinator._push_error_to_user(error)

    assert coordinator.told == [error]


class Limits:
    """Stands in for the client of a coordinator.

    Args:
        answer: to a question for settings, or what is raised.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def send(self, node: int, request: DescribeConfigsRequest) -> Any:
        assert (node, request._resources[0][:2]) == (7, (4, "7"))
        if isinstance(self._answer, Exception):
            raise self._answer
        return SimpleNamespace(resources=[(0, None, 4, "7", self._answer)])


@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize(
    ("answer", "limits"),
    [
        (
            [("group.max.session.timeout.ms", "60000", True), ("group.min.session.timeout.ms", "500", True)],
            "0.5 to 60",
        ),
        ([], "6 to 1800 unless its settings were changed"),
        (KafkaError("away"), "6 to 1800 unless its settings were changed"),
    ],
)
async def test_a_session_that_the_broker_does_not_allow_is_told_with_setting_and_limit(
    answer: Any, limits: str
) -> None:
    coordinator = Refusing()
    coordinator._client = Limits(answer)
    keep_joining(coordinator)
    with capture_logs() as lines:
        await coordinator._push_error_to_user(InvalidSessionTimeoutError())

    said = f"worker.session_timeout_s is 3600, the broker allows {limits} "
    assert [line["detail"] for line in lines] == [f"{said}(group.min.session.timeout.ms, group.max.session.timeout.ms)"]


# --- leaving


class Leaving:
    """Stands in for aiokafka's coordinator and its client.

    Args:
        answers: to what is sent: an error code, or an error that is raised.
        instance_id: of a static member.
        is_closing: it leaves for good.
    """

    def __init__(self, *answers: int | Exception, instance_id: str | None = None, is_closing: bool = True) -> None:
        self.generation, self.group_id, self.member_id, self.coordinator_id = 3, "g", "m1", 1
        self._group_instance_id, self._client = instance_id, self
        self._closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_closing:
            self._closing.set_result(None)
        self.answers = list(answers)
        self.asked: list[int | None] = []
        self.originals: list[int] = []
        leave_for_good(self)

    async def _maybe_leave_group(self) -> None:
        self.originals.append(self.generation)

    def reset_generation(self) -> None:
        self.generation = -1

    async def coordinator_lookup(self, _kind: object, _group: str) -> int:
        self.asked.append(None)
        return 2

    async def send(self, node: int, request: object, **_group: object) -> object:
        assert isinstance(request, LeaveGroupRequest)
        self.asked.append(node)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(error_code=answer)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LEAVE_AGAIN_S", 0.0)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("unheard", [14, 16, GroupCoordinatorNotAvailableError()])
async def test_a_member_that_stops_says_so_until_a_coordinator_has_heard_it(unheard: int | Exception) -> None:
    coordinator = Leaving(unheard, 0)
    await coordinator._maybe_leave_group()

    assert (coordinator.asked, coordinator.originals) == ([1, None, 2], [-1])


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("code", [0, 25, 30])
async def test_a_member_that_was_heard_is_unknown_or_may_not_leave_says_so_once(code: int) -> None:
    coordinator = Leaving(code)
    await coordinator._maybe_leave_group()

    assert coordinator.asked == [1]


async def test_a_member_that_nobody_hears_stops_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_LEAVE_S", 0.01)
    coordinator = Leaving(*[GroupCoordinatorNotAvailableError()] * 100)
    await coordinator._maybe_leave_group()

    assert coordinator.originals == [-1]


@pytest.mark.parametrize(("instance_id", "is_closing"), [("one", True), (None, False)])
async def test_who_does_not_leave_for_good_is_left_to_aiokafka(instance_id: str | None, is_closing: bool) -> None:
    coordinator = Leaving(instance_id=instance_id, is_closing=is_closing)
    await coordinator._maybe_leave_group()

    assert (coordinator.asked, coordinator.originals) == ([], [3])
