"""A door to the org stub, for its suite and its own tests."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from contracts.settings.egress import SalesforceDoor
from gateways.egress.base import Item
from gateways.egress.salesforce import SalesforceRecords
from tests.gateways.orgstub.lab import KEY, OrgLab
from tests.suites.egress import TIMEOUT_S, Received, result_item

FAULTS = {
    "throttled": "limit",
    "unavailable": "unavailable",
    "denied": "no_permission",
    "missing": "no_field",
    "cut": "cut",
    "hang": "hang",
}


def settings(lab: OrgLab, **changes: Any) -> SalesforceDoor:
    """Return the section of a door to a lab's org."""
    login = {"url": lab.url, "consumer_key": KEY, "consumer_secret": "env:SF_SECRET"}
    section = {
        "kind": "salesforce",
        "login": login | changes.pop("login", {}),
        "fields": {"Penstock_Summary__c": "/output"},
        "result_field": "Penstock_Result__c",
        "timeout_s": TIMEOUT_S,
        "ca_file": lab.ca_file,
    }
    return SalesforceDoor.model_validate(section | changes)


class SalesforceLab:
    """The door, in front of an org with twelve opportunities: item `n` is about the n-th."""

    cannot: Mapping[str, str] = {}

    def __init__(self, org: OrgLab, **changes: Any) -> None:
        self.org = org
        self.door = SalesforceRecords("crm", settings(org, **changes))

    def item(self, number: int, **changes: Any) -> Item:
        """Return a result about the n-th opportunity."""
        return result_item(number, key=self.org.ids[changes.pop("record", number)].encode(), **changes)

    def poison(self) -> Item:
        """Return a result about an opportunity that is in the recycle bin."""
        self.org.delete(11)
        return self.item(11)

    async def received(self) -> list[Received]:
        """Return the results that the records show, put back into the records they came in."""
        numbers = {record_id: number for number, record_id in enumerate(self.org.ids)}
        writes = [
            (write["at_s"], numbers[record["id"]], write["values"])
            for record in self.org.state()["records"]
            for write in record["writes"]
        ]
        found = []
        for _, number, values in sorted(writes, key=lambda write: write[0]):
            value = msgspec.json.decode(self.item(number).outcome.value)
            value["output"] = json.loads(values["Penstock_Summary__c"])
            found.append(Received(values["Penstock_Result__c"][:36], value))
        return found

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        """Let every further call fail."""
        if kind == "away":
            self.org.stop()
        else:
            wait = None if retry_after_s is None else int(retry_after_s)
            self.org.turn(fault=FAULTS[kind], retry_after_s=wait)

    async def recover(self) -> None:
        """Heal; an org that was away has forgotten everything but the ids."""
        if self.org.is_away:
            self.org.start()
            self.org.reset()
        else:
            self.org.heal()
