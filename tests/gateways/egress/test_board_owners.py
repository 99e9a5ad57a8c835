"""Whose endpoint a state on the board is: applications that share topics may each have a door of one name."""

from types import SimpleNamespace
from typing import Any

import pytest

from contracts.codec import Record, encode_json
from contracts.payloads import EndpointState, EndpointStatus
from gateways.egress.board import KafkaBoard

AT = "2026-01-01T00:00:00.000Z"


class _Log:
    """The compacted topic, and the boards that read it."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def produce(self, record: Record) -> None:
        self.records.append(record)

    def board(self, app_id: str) -> KafkaBoard:
        """Return the board of an application that has read everything."""
        board = KafkaBoard({}, "endpoints", self.produce, app_id)
        for record in self.records:
            message: Any = SimpleNamespace(
                error=lambda: None, key=lambda one=record: one.key, value=lambda one=record: one.value
            )
            board._take(message, set())
        return board

    def older(self, status: EndpointStatus) -> None:
        """Write as an older version did."""
        self.records.append(Record("endpoints", b"crm", encode_json(_state(status)), []))


def _state(status: EndpointStatus) -> EndpointState:
    return EndpointState(name="crm", status=status, since=AT)


def _status(board: KafkaBoard) -> str | None:
    found = board.get("crm")
    return None if found is None else found.status


async def test_an_endpoint_that_is_gone_disables_no_other_applications() -> None:
    log = _Log()
    await log.board("app").put(_state("disabled"))

    assert [_status(log.board(app_id)) for app_id in ("app", "another")] == ["disabled", None]


async def test_what_an_older_version_disabled_stays_so_until_something_else_is_said() -> None:
    log = _Log()
    log.older("disabled")
    assert _status(log.board("app")) == "disabled"

    await log.board("app").put(_state("active"))

    assert [_status(log.board(app_id)) for app_id in ("app", "another")] == ["active", "disabled"]


@pytest.mark.parametrize("status", ["active", "failing"])
async def test_what_is_said_of_this_application_stands_whichever_is_read_first(status: EndpointStatus) -> None:
    log = _Log()
    await log.board("app").put(_state(status))
    log.older("disabled")

    assert _status(log.board("app")) == status
