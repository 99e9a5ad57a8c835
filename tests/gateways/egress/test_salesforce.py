"""The door to Salesforce, in front of the org stub: the suite, and what is special about records."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from contracts.errors import ConfigError
from contracts.payloads import EXPIRED_TYPE
from contracts.repetition import ANSWERED
from gateways.egress.base import DELIVERED, Later, Refused, Verdict
from gateways.egress.salesforce import mark_of
from gateways.egress.schedule import held_wait_s
from tests.gateways.egress.salesforce_lab import SalesforceLab, settings
from tests.gateways.orgstub.lab import SECRET, OrgLab, key_pair
from tests.suites.egress import DoorSuite

# What making the opportunities took.
CALLS = LOGINS = 1
pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def org_process() -> Iterator[OrgLab]:
    """Run an org."""
    running = OrgLab()
    running.start()
    yield running
    running.close()


@pytest.fixture
def org(org_process: OrgLab, monkeypatch: pytest.MonkeyPatch) -> OrgLab:
    """Return the org, as new."""
    monkeypatch.setenv("SF_SECRET", SECRET)
    monkeypatch.setenv("SF_KEY", key_pair()[0])
    if org_process.is_away:
        org_process.start()
    org_process.reset()
    return org_process


@pytest_asyncio.fixture
async def lab(org: OrgLab) -> AsyncIterator[SalesforceLab]:
    """Build a door to it."""
    made = SalesforceLab(org)
    await made.door.start()
    yield made
    await made.door.aclose()


def reasons(verdicts: Any) -> list[str]:
    """Return the reasons, an empty one for what was delivered."""
    return [getattr(verdict, "reason", "") for verdict in verdicts]


class TestSalesforceSuite(DoorSuite):
    """What every door does."""


async def deliver(door_lab: SalesforceLab, *numbers: int) -> list[Verdict]:
    return list(await door_lab.door.deliver([door_lab.item(number) for number in numbers]))


async def test_a_result_that_is_delivered_again_is_not_written_again(lab: SalesforceLab) -> None:
    for _ in range(3):
        assert await deliver(lab, 1, 2) == [DELIVERED, DELIVERED]

    assert [len(lab.org.writes(number)) for number in (1, 2)] == [1, 1]


async def test_an_update_whose_answer_was_lost_is_not_done_again(lab: SalesforceLab) -> None:
    lab.org.turn(fault="lost_answer", fault_calls=1)

    first = await deliver(lab, 1)
    second = await deliver(lab, 1)

    assert (reasons(first), second) == (["unreachable"], [DELIVERED])
    assert len(lab.org.writes(1)) == 1


async def test_an_older_result_never_replaces_a_newer_one(lab: SalesforceLab) -> None:
    older, newer = lab.item(1, record=5), lab.item(2, record=5)
    await lab.door.deliver([newer])

    assert list(await lab.door.deliver([older])) == [DELIVERED]
    assert [write["Penstock_Summary__c"] for write in lab.org.writes(5)] == ['{"summary":"result 2"}']


async def test_results_of_a_topic_that_was_made_anew_are_newer_whatever_their_offset(lab: SalesforceLab) -> None:
    await lab.door.deliver([lab.item(7, record=5, timestamp_ms=1_000_000)])

    await lab.door.deliver([lab.item(0, record=5, timestamp_ms=1_000_000 + 301_000)])

    assert len(lab.org.writes(5)) == 2


async def test_a_second_outcome_of_an_event_that_was_sent_again_on_purpose_is_written(lab: SalesforceLab) -> None:
    first = lab.item(1)
    second = first._replace(
        headers=[*first.headers, (ANSWERED, b"digest t/0/8")],
        position=first.position._replace(offset=first.position.offset + 1),
    )
    for _ in range(2):
        assert list(await lab.door.deliver([first, second])) == [DELIVERED] * 2

    assert len(lab.org.writes(1)) == 2


async def test_a_duplicate_of_a_crash_is_not_written(lab: SalesforceLab) -> None:
    first = lab.item(1)
    await lab.door.deliver([first])

    assert list(await lab.door.deliver([first._replace(position=first.position._replace(offset=9))])) == [DELIVERED]
    assert len(lab.org.writes(1)) == 1


async def test_a_mark_of_before_an_upgrade_says_that_the_result_is_shown(lab: SalesforceLab) -> None:
    item = lab.item(1)
    lab.org.type_in(1, Penstock_Result__c=mark_of(item.outcome.result_id, item.position))

    assert await deliver(lab, 1) == [DELIVERED]
    assert len(lab.org.writes(1)) == 1


async def test_a_mark_of_somebody_else_is_written_over(lab: SalesforceLab) -> None:
    lab.org.type_in(1, Penstock_Result__c="typed by a person")

    assert await deliver(lab, 1) == [DELIVERED]
    assert len(lab.org.writes(1)) == 2


async def test_a_mark_fits_its_field_however_long_the_names_are(lab: SalesforceLab) -> None:
    position = lab.item(1).position._replace(topic="t" * 249, partition=9_999, offset=2**63 - 1)

    assert len(mark_of(lab.item(1).delivery_id, position)) <= 120


async def test_two_results_of_one_record_in_one_batch_are_both_written_in_their_order(lab: SalesforceLab) -> None:
    verdicts = await lab.door.deliver([lab.item(1, record=5), lab.item(2, record=5), lab.item(3)])

    assert list(verdicts) == [DELIVERED] * 3
    assert [write["Penstock_Summary__c"] for write in lab.org.writes(5)] == [
        '{"summary":"result 1"}',
        '{"summary":"result 2"}',
    ]


async def test_a_locked_row_is_for_later_and_holds_up_its_own_record_alone(lab: SalesforceLab) -> None:
    lab.org.turn(locked=(lab.org.ids[5],))

    first, behind, other = await lab.door.deliver([lab.item(1, record=5), lab.item(2, record=5), lab.item(3)])

    assert isinstance(first, Later)
    assert (first.reason, first.scope) == ("unable_to_lock_row", "item")
    assert isinstance(behind, Later)
    assert (behind.reason, behind.scope, other) == ("behind_an_earlier_result", "item", DELIVERED)
    assert lab.org.writes(5) == []


async def test_a_row_that_stays_locked_is_given_up_before_it_stops_the_door(lab: SalesforceLab) -> None:
    lab.org.turn(locked=(lab.org.ids[1],))

    verdicts = await lab.door.deliver([lab.item(1, attempt=16)])

    assert [type(verdict) for verdict in verdicts] == [Refused]


def test_sixteen_attempts_take_some_forty_minutes() -> None:
    assert sum(held_wait_s(attempt) for attempt in range(1, 16)) == 2311


async def test_a_record_that_is_deleted_between_reading_and_writing_is_refused(lab: SalesforceLab) -> None:
    lab.org.turn(vanishing=(lab.org.ids[1],))

    assert reasons(await deliver(lab, 1, 2)) == ["entity_is_deleted", ""]


async def test_a_value_of_the_wrong_type_is_refused_and_all_others_are_written_once(org: OrgLab) -> None:
    lab = SalesforceLab(org, fields={"Penstock_Summary__c": "/output/summary"})
    items = [lab.item(number, output={"summary": 5 if number == 6 else f"text {number}"}) for number in range(10)]

    verdicts = await lab.door.deliver(items)

    assert reasons(verdicts) == ["wrong_type" if number == 6 else "" for number in range(10)]
    assert [len(org.writes(number)) for number in range(10)] == [1, 1, 1, 1, 1, 1, 0, 1, 1, 1]
    await lab.door.aclose()


@pytest.mark.parametrize(
    ("source", "written"),
    [
        ("/output/summary", "s" * 300),
        ({"pointer": "/output/summary", "max_chars": 20}, "s" * 17 + "..."),
        ("/output/facts", 'one\n2\n{"three":3}'),
        ("/output/nothing", None),
        ("/provenance/model", "m"),
    ],
)
async def test_values_are_written_as_a_text_field_takes_them(org: OrgLab, source: Any, written: str | None) -> None:
    lab = SalesforceLab(org, fields={"Penstock_Summary__c": source})
    output = {"summary": "s" * 300, "facts": ["one", 2, {"three": 3}], "nothing": None}

    assert list(await lab.door.deliver([lab.item(1, output=output)])) == [DELIVERED]
    assert org.writes(1)[0]["Penstock_Summary__c"] == written
    await lab.door.aclose()


async def test_text_that_the_field_does_not_take_is_refused(org: OrgLab) -> None:
    lab = SalesforceLab(org, fields={"Penstock_Model__c": "/output/summary"})

    (verdict,) = await lab.door.deliver([lab.item(1, output={"summary": "s" * 256})])

    assert reasons([verdict]) == ["string_too_long"]
    await lab.door.aclose()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"record_id": "subject"}, "bad_record_id"),
        ({"record_id": "json:/output/id"}, ""),
        ({"record_id": "json:/output/none"}, "field_missing"),
        ({"fields": {"Penstock_Summary__c": "/output/none"}}, "field_missing"),
    ],
)
async def test_the_record_is_found_where_the_configuration_says(
    org: OrgLab, changes: dict[str, Any], reason: str
) -> None:
    lab = SalesforceLab(org, **changes)

    verdicts = await lab.door.deliver([lab.item(1, output={"id": org.ids[4], "summary": "text"})])

    assert reasons(verdicts) == [reason]
    assert len(org.writes(4)) == (0 if reason else 1)
    await lab.door.aclose()


async def test_an_id_of_15_characters_is_the_record_of_18(lab: SalesforceLab) -> None:
    item = lab.item(1)
    short = item._replace(key=(item.key or b"")[:15])

    assert list(await lab.door.deliver([short, lab.item(2, record=1)])) == [DELIVERED] * 2
    assert len(lab.org.writes(1)) == 2


async def test_a_session_that_has_ended_is_renewed_within_the_delivery(lab: SalesforceLab) -> None:
    await deliver(lab, 1)
    lab.org.end_sessions()

    assert await deliver(lab, 2) == [DELIVERED]
    assert lab.org.state()["logins"] == LOGINS + 2


async def test_a_session_that_ends_at_once_again_is_for_later(lab: SalesforceLab) -> None:
    lab.org.turn(fault="session")

    assert reasons(await deliver(lab, 1)) == ["session_expired"]
    assert lab.org.state()["logins"] == LOGINS + 2


async def test_a_full_batch_costs_two_calls(org: OrgLab) -> None:
    lab = SalesforceLab(org)

    await lab.door.deliver([lab.item(number) for number in range(12)])

    assert (org.state()["calls"], org.state()["logins"]) == (CALLS + 2, LOGINS + 1)
    await lab.door.aclose()


async def test_parallel_deliveries_share_one_login(org: OrgLab) -> None:
    lab = SalesforceLab(org, max_in_flight=3)

    verdicts = await asyncio.gather(*(deliver(lab, number) for number in range(3)))

    assert verdicts == [[DELIVERED]] * 3
    assert org.state()["logins"] == LOGINS + 1
    await lab.door.aclose()


JWT = {"consumer_secret": None, "private_key": "env:SF_KEY", "username": "penstock@example.com"}


@pytest.mark.parametrize(
    ("login", "scope"),
    [
        (JWT, None),
        (JWT | {"username": "somebody@example.com"}, "operator"),
        (JWT | {"audience": "https://test.salesforce.com"}, "operator"),
        ({"consumer_key": "other"}, "operator"),
        ({"consumer_secret": "env:SF_KEY"}, "operator"),
    ],
)
@pytest.mark.filterwarnings("ignore:(?s).*authorize this:UserWarning")
async def test_a_login_is_good_or_for_the_operator(org: OrgLab, login: dict[str, Any], scope: str | None) -> None:
    lab = SalesforceLab(org, login=login)

    (verdict,) = await lab.door.deliver([lab.item(1)])

    assert getattr(verdict, "scope", None) == scope
    assert SECRET not in str(verdict)
    await lab.door.aclose()


async def test_an_answer_of_something_in_between_is_for_later(lab: SalesforceLab) -> None:
    lab.org.turn(fault="bad_gateway")

    (verdict,) = await deliver(lab, 1)

    assert isinstance(verdict, Later)
    assert (verdict.reason, verdict.scope) == ("http_502", "destination")


async def test_a_busy_token_endpoint_is_for_later(lab: SalesforceLab) -> None:
    lab.org.turn(fault="login_busy")

    (verdict,) = await deliver(lab, 1)

    assert isinstance(verdict, Later)
    assert (verdict.reason, verdict.scope) == ("login_failed", "destination")


async def test_an_org_with_another_certificate_is_not_talked_to(org: OrgLab) -> None:
    lab = SalesforceLab(org, ca_file=None)

    assert reasons(await deliver(lab, 1)) == ["unreachable"]
    assert org.state()["logins"] == LOGINS
    await lab.door.aclose()


@pytest.mark.parametrize("key", [b"no key", b"0\x82\x04\xbd\x02\x01 a key in DER"])
def test_a_private_key_that_is_none_is_a_mistake_of_the_configuration(
    org: OrgLab, monkeypatch: pytest.MonkeyPatch, key: bytes
) -> None:
    monkeypatch.setenv("SF_KEY", os.fsdecode(key))

    with pytest.raises(ConfigError, match=r"private_key: .*env:SF_KEY.* is not an RSA private key"):
        SalesforceLab(org, login=JWT)


@pytest.mark.parametrize(
    ("login", "message"),
    [
        ({"private_key": "env:SF_KEY", "username": "u"}, "exactly one of"),
        ({"consumer_secret": None}, "exactly one of"),
        ({"consumer_secret": None, "private_key": "env:SF_KEY"}, "belong together"),
        ({"url": "http://acme.my.salesforce.com"}, "must be https:// and a host"),
    ],
)
def test_a_login_is_one_flow_over_https(org: OrgLab, login: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(org, login=login)


async def test_what_has_no_result_is_not_for_this_door(lab: SalesforceLab) -> None:
    item = lab.item(1)

    assert lab.door.takes(item)
    assert not lab.door.takes(item._replace(outcome=item.outcome._replace(type=EXPIRED_TYPE)))
