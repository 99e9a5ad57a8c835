"""The org stub speaks as Salesforce does: status codes, error bodies, limits; a third-party client takes it for one."""

import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import requests
from simple_salesforce.api import Salesforce
from simple_salesforce.exceptions import SalesforceResourceNotFound

from gateways.orgstub.callout import payload_of
from gateways.orgstub.records import FIELDS, Records, long_id
from tests.examples.salesforce import SAMPLE, apex
from tests.gateways.orgstub.lab import API, KEY, SECRET, OrgLab, key_pair, opportunity

pytestmark = pytest.mark.process
TOKEN = "/services/oauth2/token"
OBJECT = f"{API}/sobjects/Opportunity"


@pytest.fixture(scope="module")
def org_process() -> Iterator[OrgLab]:
    """Run an org."""
    running = OrgLab()
    running.start()
    yield running
    running.close()


@pytest.fixture
def org(org_process: OrgLab) -> OrgLab:
    """Return the org, as new."""
    org_process.reset(3)
    return org_process


def call(org: OrgLab, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Return status and body of a call with a session of its own."""
    answer = org.call(method, path, body, headers=org.login())
    return answer.status_code, answer.json() if answer.content else None


def test_a_third_party_client_creates_reads_changes_and_deletes(org: OrgLab) -> None:
    token = org.login()["Authorization"].removeprefix("Bearer ")
    with requests.Session() as session:
        session.verify, session.trust_env = str(org.ca_file), False
        client = Salesforce(session_id=token, instance_url=org.url, session=session, version="62.0")
        table: Any = client.Opportunity
        made = table.create({name: value for name, value in opportunity(1).items() if name != "attributes"})
        table.update(made["id"], {"NextStep": "Offer"})

        assert table.get(made["id"])["NextStep"] == "Offer"
        assert client.limits()["DailyApiRequests"]["Max"] == 100_000
        table.delete(made["id"])
        with pytest.raises(SalesforceResourceNotFound):
            table.get(made["id"])


def test_ids_have_the_checksum_of_their_capitals() -> None:
    # Ids in the examples of Salesforce's REST API Developer Guide.
    assert long_id("001xx000003DGb2") == "001xx000003DGb2AAG"
    assert long_id("003xx000004TmiQ") == "003xx000004TmiQAAS"


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({}, 200, None),
        ({"client_id": "other"}, 400, "invalid_client_id"),
        ({"client_secret": "other"}, 400, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ],
)
def test_client_credentials_are_checked(org: OrgLab, change: dict[str, str], status: int, error: str | None) -> None:
    form = {"grant_type": "client_credentials", "client_id": KEY, "client_secret": SECRET} | change
    answer = requests.post(org.url + TOKEN, data=form, verify=str(org.ca_file), timeout=20)

    assert (answer.status_code, answer.json().get("error")) == (status, error)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, None),
        ({"iss": "other"}, "invalid_client_id"),
        ({"sub": "other@example.com"}, "invalid_grant"),
        ({"aud": "https://test.salesforce.com"}, "invalid_grant"),
        ({"exp": 1}, "invalid_grant"),
        ({"exp": 4_000_000_000}, "invalid_grant"),
    ],
)
def test_assertions_are_verified(org: OrgLab, change: dict[str, Any], error: str | None) -> None:
    claims = {
        "iss": KEY,
        "sub": "penstock@example.com",
        "aud": "https://login.salesforce.com",
        "exp": int(time.time()) + 60,
    }
    assertion = jwt.encode(claims | change, key_pair()[0], algorithm="RS256")
    form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    answer = requests.post(org.url + TOKEN, data=form, verify=str(org.ca_file), timeout=20)

    assert answer.json().get("error") == error


def test_an_assertion_of_another_key_is_refused(org: OrgLab) -> None:
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": jwt.encode({"iss": KEY, "exp": int(time.time()) + 60}, "k" * 32, algorithm="HS256"),
    }
    answer = requests.post(org.url + TOKEN, data=form, verify=str(org.ca_file), timeout=20)

    assert answer.json() == {"error": "invalid_grant", "error_description": "invalid assertion"}


def test_a_call_without_a_session_is_told_so(org: OrgLab) -> None:
    answer = org.call("GET", f"{OBJECT}/{org.ids[0]}")

    assert answer.status_code == 401
    assert answer.json() == [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}]


def test_a_session_ends_after_its_calls(org: OrgLab) -> None:
    org.turn(session_calls=1)
    headers = org.login()

    statuses = [org.call("GET", f"{OBJECT}/{org.ids[0]}", headers=headers).status_code for _ in range(2)]

    assert statuses == [200, 401]


def test_calls_are_counted_and_those_above_the_limit_are_refused(org: OrgLab) -> None:
    org.turn(daily_calls=1)
    answer = org.call("GET", f"{OBJECT}/{org.ids[0]}", headers=org.login())

    assert answer.status_code == 403
    assert answer.json()[0]["errorCode"] == "REQUEST_LIMIT_EXCEEDED"
    assert answer.headers["Sforce-Limit-Info"] == "api-usage=2/1"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"{OBJECT}/006000000000000AAA", None, 404, "NOT_FOUND"),
        ("GET", f"{API}/sobjects/Lead/006000000000000AAA", None, 404, "NOT_FOUND"),
        ("PATCH", f"{OBJECT}/006000000000000AAA", {}, 404, "INVALID_CROSS_REFERENCE_KEY"),
        ("PATCH", f"{OBJECT}/short", {}, 400, "MALFORMED_ID"),
        ("POST", OBJECT, {"Name": "No stage"}, 400, "REQUIRED_FIELD_MISSING"),
        ("POST", OBJECT, {"Unknown__c": "x"}, 400, "INVALID_FIELD"),
        ("POST", OBJECT, {"Name": 5}, 400, "JSON_PARSER_ERROR"),
        ("PATCH", f"{API}/composite/sobjects", {"records": [{"id": "x"}]}, 400, "INVALID_TYPE"),
        ("PATCH", f"{API}/composite/sobjects", {"records": [{}] * 201}, 400, "EXCEEDED_ID_LIMIT"),
        ("POST", f"{API}/composite/sobjects/Opportunity", {"ids": ["x"], "fields": ["no"]}, 400, "INVALID_FIELD"),
    ],
)
def test_errors_are_an_array_with_a_code(
    org: OrgLab, method: str, path: str, body: Any, status: int, code: str
) -> None:
    found = call(org, method, path, body)

    assert (found[0], found[1][0]["errorCode"]) == (status, code)


def test_a_collection_answers_for_each_record_in_its_order(org: OrgLab) -> None:
    org.turn(locked=[org.ids[1]])
    org.delete(2)
    kind = {"attributes": {"type": "Opportunity"}, "NextStep": "Offer"}
    records = [kind | {"id": one} for one in (org.ids[0], org.ids[1], org.ids[2], org.ids[0], "x")]

    status, results = call(org, "PATCH", f"{API}/composite/sobjects", {"records": records})

    codes = [one["errors"][0]["statusCode"] if one["errors"] else "" for one in results]
    assert status == 200
    assert codes == ["", "UNABLE_TO_LOCK_ROW", "ENTITY_IS_DELETED", "DUPLICATE_VALUE", "MALFORMED_ID"]


def test_reading_a_collection_gives_null_for_what_is_gone(org: OrgLab) -> None:
    org.delete(1)
    asked = {"ids": [org.ids[0], org.ids[1], "x"], "fields": ["Name"]}

    _, found = call(org, "POST", f"{API}/composite/sobjects/Opportunity", asked)

    assert [one and one["Name"] for one in found] == ["Customer 0 - Fleet telemetry", None, None]


def test_an_unknown_knob_is_refused(org: OrgLab) -> None:
    assert org.call("PATCH", "/_stub/knobs", {"no_such_knob": 1}).status_code == 400


def test_the_callout_sends_what_the_apex_class_sends() -> None:
    record, _ = Records().create({"Name": "n", "StageName": "s", "CloseDate": "2026-12-18"})
    assert record is not None
    event = payload_of(record)

    sent = {*event, *event["opportunity"]}

    assert [name for name in sent if f"'{name}' =>" not in apex()] == []
    assert SAMPLE.read_text("utf-8").count('"eventId"') == 1


def test_the_fields_of_the_example_are_those_of_the_stub() -> None:
    folder = SAMPLE.parent / "salesforce/objects/Opportunity/fields"
    described = {file.name.partition(".")[0] for file in folder.iterdir()}

    assert described == {name for name in FIELDS if name.endswith("__c")}
