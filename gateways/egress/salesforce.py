"""Writes results into the fields of the Salesforce records they are about, each once.

Before a record is written, its `result_field` is read: it says which result the record shows. A result that is shown
already, or that is older than the one shown, is not written again, whoever delivers it however often.
"""

import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jsonpointer
import msgspec

from contracts.codec import Position, decode_any_json
from contracts.errors import ConfigError, Undecodable
from contracts.settings.egress import FieldSource, SalesforceDoor
from gateways.egress.base import DELIVERED, Item, Later, PlainDoor, Refused, Shape, Verdict
from producers.threads import DaemonPool

try:
    from gateways.egress.salesforce_org import Org, OrgFault, UnreadableError
except ModuleNotFoundError as missing:
    text = "the door to Salesforce needs the extra `salesforce`: pip install 'penstock[salesforce]'"
    raise ConfigError(text) from missing

# Salesforce takes 50 MB in one request.
_MAX_BATCH_BYTES = 4 * 2**20
# The runner cancels at the limit; by then the thread is to be free again.
_SHARE_OF_LIMIT = 0.9
_ID = re.compile(r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?")
_MARK = re.compile(r"(\S{1,64}) ([0-9a-f]{8})/(\d{1,10})/(\d{1,20}) (\d{1,15})")
# Producers' clocks differ less than this. What is newer by more with a lower offset lies on a topic made anew.
_CLOCKS_MS = 300_000
# Of one record: it will be taken later. An entity is locked while somebody is to approve it, a row for seconds.
_BUSY_CODES = frozenset(
    {"UNABLE_TO_LOCK_ROW", "ENTITY_IS_LOCKED", "REQUEST_RUNNING_TOO_LONG", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT"}
)
# A record that waits holds back the commit of its partition, and in the end the door. The runner's waits between
# sixteen attempts add up to 38 minutes.
_MAX_BUSY_ATTEMPTS = 16
# Of one record, and of every other one alike.
_OPERATOR_CODES = frozenset(
    {
        "INVALID_FIELD",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "INVALID_TYPE",
        "API_DISABLED_FOR_ORG",
        "STORAGE_LIMIT_EXCEEDED",
    }
)


@dataclass(frozen=True)
class _Write:
    """A result on its way into a record; `index` is its place in the batch."""

    index: int
    record_id: str
    item: Item
    values: dict[str, Any]

    @property
    def record(self) -> str:
        """Return the record's id in its short form: the long one of 18 characters is the same record."""
        return self.record_id[:15]


class SalesforceRecords(PlainDoor):
    """The door.

    Args:
        name: of its section.
        settings: the section.

    Raises:
        ConfigError: a secret is missing, or the private key is none.
    """

    def __init__(self, name: str, settings: SalesforceDoor) -> None:
        self._settings = settings
        self._org = Org(settings)
        self._threads = DaemonPool(settings.max_in_flight, f"salesforce-{name}")
        self._place = settings.login.url.removeprefix("https://")
        # One of a key at a time: a record's results are written in their order.
        self._shape = Shape(settings.max_records, _MAX_BATCH_BYTES, settings.linger_s, order="key")

    @property
    def shape(self) -> Shape:
        """Return how this door wants its items."""
        return self._shape

    async def start(self) -> None:
        """Do nothing: the first delivery logs in."""

    async def aclose(self) -> None:
        """Let go; a call under way ends by its own limit."""
        self._threads.close()
        self._org.close()

    def takes(self, item: Item) -> bool:
        """Take results; an event without one has nothing to write."""
        return item.status == "succeeded"

    def destination(self, item: Item) -> str:  # noqa: ARG002 - the protocol's
        """Return the org's host."""
        return self._place

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Write the results of one batch: one call that reads which are shown, one that writes the others."""
        return await self._threads.run(self._deliver, list(items))

    def _deliver(self, items: list[Item]) -> list[Verdict]:
        until_s = time.monotonic() + self._settings.timeout_s * _SHARE_OF_LIMIT
        verdicts: dict[int, Verdict] = {}
        writes = []
        for index, item in enumerate(items):
            prepared = self._prepare(index, item)
            if isinstance(prepared, _Write):
                writes.append(prepared)
            else:
                verdicts[index] = prepared
        held: set[str] = set()
        for wave in _waves(writes):
            # Behind one that has to wait, the later ones of its record wait as well.
            free = [write for write in wave if write.record not in held]
            found = self._write_wave(free, until_s)
            verdicts |= found | {write.index: _BEHIND for write in wave if write.record in held}
            held |= {write.record for write in free if isinstance(found[write.index], Later)}
        return [verdicts[index] for index in range(len(items))]

    def _prepare(self, index: int, item: Item) -> _Write | Refused:
        """Return what is to be written for an item, or why it cannot be."""
        try:
            document = decode_any_json(item.outcome.value)
            values = {name: _value(document, source) for name, source in self._settings.fields.items()}
            record_id = self._record_id(item, document)
        except (Undecodable, jsonpointer.JsonPointerException) as error:
            return Refused("field_missing", f"the result does not have what the mapping names: {error}"[:300])
        if not _ID.fullmatch(record_id):
            return Refused("bad_record_id", f"{self._settings.record_id} holds no Salesforce id")
        return _Write(index, record_id, item, values)

    def _record_id(self, item: Item, document: Any) -> str:
        where = self._settings.record_id
        if where == "key":
            return (item.key or b"").decode(errors="replace")
        return item.attribute("subject") if where == "subject" else str(_found(document, where.removeprefix("json:")))

    def _write_wave(self, writes: list[_Write], until_s: float) -> dict[int, Verdict]:
        """Write results of different records; return index -> verdict."""
        if not writes:
            return {}
        try:
            shown = self._org.retrieve(
                self._settings.object, [write.record_id for write in writes], [self._settings.result_field], until_s
            )
        except OrgFault as fault:
            return dict.fromkeys((write.index for write in writes), fault.later)
        except UnreadableError as error:
            return dict.fromkeys((write.index for write in writes), Later("unreadable", str(error), scope="operator"))
        verdicts: dict[int, Verdict] = {}
        due = []
        for write, record in zip(writes, shown, strict=True):
            if record is None:
                verdicts[write.index] = Refused("record_not_found", f"{self._settings.object} is deleted, or hidden")
            elif _is_shown(record.get(self._settings.result_field), write.item):
                verdicts[write.index] = DELIVERED
            else:
                due.append(write)
        return verdicts | self._update(due, until_s)

    def _update(self, writes: list[_Write], until_s: float) -> dict[int, Verdict]:
        """Write; a record that makes the request unreadable is found by halves, so that it harms no other."""
        if not writes:
            return {}
        try:
            saved = self._org.update([self._body(write) for write in writes], until_s)
        except OrgFault as fault:
            return dict.fromkeys((write.index for write in writes), fault.later)
        except UnreadableError as error:
            if len(writes) == 1:
                return {writes[0].index: Refused("wrong_type", str(error))}
            middle = len(writes) // 2
            return self._update(writes[:middle], until_s) | self._update(writes[middle:], until_s)
        return {write.index: _verdict(result, write.item.attempt) for write, result in zip(writes, saved, strict=True)}

    def _body(self, write: _Write) -> dict[str, Any]:
        mark = {self._settings.result_field: mark_of(write.item.delivery_id, write.item.position)}
        return {"attributes": {"type": self._settings.object}, "id": write.record_id, **write.values, **mark}


_BEHIND = Later("behind_an_earlier_result", "an earlier result of this record waits", scope="item")


def mark_of(delivery_id: str, position: Position) -> str:
    """Return what `result_field` holds of a result: which it is, and where it lies; 120 characters at most."""
    topic = hashlib.sha256(position.topic.encode()).hexdigest()[:8]
    return f"{delivery_id} {topic}/{position.partition}/{position.offset} {position.timestamp_ms}"


def _is_shown(mark: Any, item: Item) -> bool:
    """Tell whether a record shows this result already, or a newer one."""
    if not isinstance(mark, str):
        return False
    if mark.partition(" ")[0] == item.delivery_id:
        return True
    # Older marks begin with the result's id alone; where it lies tells as well.
    shown, mine = _MARK.fullmatch(mark), _MARK.fullmatch(mark_of(item.delivery_id, item.position))
    if shown is None or mine is None or shown.group(2, 3) != mine.group(2, 3):
        return False
    is_anew = int(mine[5]) - int(shown[5]) > _CLOCKS_MS
    return int(shown[4]) >= int(mine[4]) and not is_anew


def _waves(writes: list[_Write]) -> Iterator[list[_Write]]:
    """Yield the writes so that no record is twice in one request, which Salesforce refuses; order is kept."""
    while writes:
        wave = {write.record: write for write in reversed(writes)}
        yield [write for write in writes if wave[write.record] is write]
        writes = [write for write in writes if wave[write.record] is not write]


def _verdict(result: dict[str, Any], attempt: int) -> Verdict:
    if result.get("success") is True:
        return DELIVERED
    errors = result.get("errors") or [{}]
    code, message = str(errors[0].get("statusCode", "unknown"))[:80], str(errors[0].get("message", ""))[:300]
    # A trigger's or flow's failure to lock a row comes in its own words around Salesforce's.
    if (code in _BUSY_CODES or "UNABLE_TO_LOCK_ROW" in message) and attempt < _MAX_BUSY_ATTEMPTS:
        return Later(code.lower(), message, scope="item")
    if code in _OPERATOR_CODES:
        return Later(code.lower(), message, scope="operator")
    return Refused(code.lower(), message)


def _value(document: Any, source: FieldSource) -> Any:
    """Return a value as a field takes it: a list becomes lines, anything deeper JSON."""
    found = _found(document, source.pointer)
    if isinstance(found, list):
        found = "\n".join(one if isinstance(one, str) else _as_json(one) for one in found)
    elif isinstance(found, dict):
        found = _as_json(found)
    if isinstance(found, str) and source.max_chars is not None and len(found) > source.max_chars:
        return found[: max(0, source.max_chars - 3)] + "..."[: source.max_chars]
    return found


def _found(document: Any, pointer: str) -> Any:
    return jsonpointer.resolve_pointer(document, pointer)


def _as_json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
