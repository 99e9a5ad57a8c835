"""The records of the stub: one object, its fields and what they take, the recycle bin, and every write.

Source: REST API Developer Guide 62.0; Object Reference, "ID Field Type" (checked 2026-11).
"""

import datetime as dt
import random
import re
import time
from typing import Any, NamedTuple

_SUFFIX = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_PREFIX = "006Hs0"
SOBJECT = "Opportunity"


class ApiError(Exception):
    """An answer that refuses a whole request."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class FieldType(NamedTuple):
    """What a field takes; `length` for text."""

    kind: str
    length: int = 0


_TEXT = FieldType("string", 255)
_NUMBER = FieldType("currency")
_LONG = FieldType("textarea", 32_768)
FIELDS: dict[str, FieldType] = {
    "Name": FieldType("string", 120),
    "StageName": _TEXT,
    "Probability": _NUMBER,
    "Amount": _NUMBER,
    "CloseDate": FieldType("date"),
    "Type": _TEXT,
    "LeadSource": _TEXT,
    "NextStep": _TEXT,
    "Description": _LONG,
    # As the example's README has them made.
    "Penstock_Summary__c": _LONG,
    "Penstock_Key_Facts__c": _LONG,
    "Penstock_Model__c": _TEXT,
    "Penstock_Result__c": _TEXT,
}
_SYSTEM = frozenset({"Id", "CreatedDate", "SystemModstamp", "IsDeleted"})
_REQUIRED = ("Name", "StageName", "CloseDate")


class Write(NamedTuple):
    """One update of a record: when (Unix seconds), and the values."""

    at_s: float
    values: dict[str, Any]


class Record:
    """One record, with every update it has had."""

    def __init__(self, record_id: str, values: dict[str, Any]) -> None:
        self.id = record_id
        self.created_s = time.time()
        self.values = dict.fromkeys(FIELDS) | values
        self.is_deleted = False
        self.writes: list[Write] = []
        self.reads = self.lockouts = 0

    def shown(self, fields: list[str], version: str) -> dict[str, Any]:
        """Return the record as the API writes it."""
        url = f"/services/data/{version}/sobjects/{SOBJECT}/{self.id}"
        system = {
            "Id": self.id,
            "CreatedDate": _stamp(self.created_s),
            "SystemModstamp": _stamp(self.writes[-1].at_s if self.writes else self.created_s),
            "IsDeleted": self.is_deleted,
        }
        named = {name.lower(): name for name in (*_SYSTEM, *FIELDS)}
        values = {named[name.lower()]: (system | self.values)[named[name.lower()]] for name in fields}
        return {"attributes": {"type": SOBJECT, "url": url}, **values}


class Records:
    """All records of the org.

    Args:
        seed: of the ids.
    """

    def __init__(self, seed: int = 0) -> None:
        self._ids = random.Random(seed)  # noqa: S311 - ids of a stub, no secret
        self._by_id: dict[str, Record] = {}

    def all(self) -> list[Record]:
        """Return every record, deleted ones too."""
        return list(self._by_id.values())

    def find(self, record_id: str) -> Record | None:
        """Return a record by its id of 15 or 18 characters; case counts."""
        return self._by_id.get(record_id[:15]) if len(record_id) in {15, 18} else None

    def create(self, values: dict[str, Any]) -> tuple[Record | None, dict[str, Any]]:
        """Make a record; return it with its SaveResult.

        Raises:
            ApiError: a field is unknown or of another type.
        """
        values = checked(values)
        missing = [name for name in _REQUIRED if not values.get(name)]
        error = _too_long(values) or (
            save_error("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", missing)
            if missing
            else None
        )
        if error:
            return None, error
        record = Record(self._new_id(), values)
        self._by_id[record.id[:15]] = record
        return record, saved(record.id)

    def update(self, record: Record, values: dict[str, Any]) -> dict[str, Any]:
        """Write values into a record; return the SaveResult."""
        error = _too_long(values)
        if error:
            return error
        record.values |= values
        record.writes.append(Write(time.time(), values))
        return saved(record.id)

    def _new_id(self) -> str:
        alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
        while True:
            short = _PREFIX + "".join(self._ids.choices(alphabet, k=9))
            if short not in self._by_id:
                return long_id(short)


def long_id(short: str) -> str:
    """Return the 18 characters of an id of 15: the last three say which of the others are capitals."""
    groups = (short[start : start + 5] for start in (0, 5, 10))
    return short + "".join(_SUFFIX[sum(1 << n for n, char in enumerate(group) if char.isupper())] for group in groups)


def saved(record_id: str) -> dict[str, Any]:
    """Return the SaveResult of a success."""
    return {"id": record_id, "success": True, "errors": []}


def save_error(code: str, message: str, fields: list[str] | None = None) -> dict[str, Any]:
    """Return the SaveResult of a failure."""
    return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": fields or []}]}


def checked(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values under their fields' own names.

    Raises:
        ApiError: a field is unknown or of another type.
    """
    named = {name.lower(): name for name in FIELDS}
    found = {}
    for given, value in values.items():
        name = named.get(given.lower())
        if name is None:
            raise ApiError(400, "INVALID_FIELD", f"No such column '{given}' on sobject of type {SOBJECT}")
        if value is not None and not _fits(FIELDS[name].kind, value):
            shape = "VALUE_STRING" if isinstance(value, str) else "VALUE_NUMBER_INT"
            message = f"Cannot deserialize instance of {FIELDS[name].kind} from {shape} value {value!s:.40}"
            raise ApiError(400, "JSON_PARSER_ERROR", message)
        found[name] = value
    return found


def check_fields(fields: list[str]) -> list[str]:
    """Return names of fields to read.

    Raises:
        ApiError: one of them is unknown.
    """
    known = {name.lower() for name in (*FIELDS, *_SYSTEM)}
    for name in fields:
        if name.lower() not in known:
            raise ApiError(400, "INVALID_FIELD", f"No such column '{name}' on sobject of type {SOBJECT}")
    return fields


def _fits(kind: str, value: Any) -> bool:
    if kind == "currency":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if not isinstance(value, str):
        return False
    return kind != "date" or bool(re.fullmatch(r"\d{4}-\d{2}-\d{2}", value))


def _too_long(values: dict[str, Any]) -> dict[str, Any] | None:
    for name, value in values.items():
        limit = FIELDS[name].length
        if isinstance(value, str) and limit and len(value) > limit:
            message = f"{name}: data value too large: {value[:30]} (max length={limit})"
            return save_error("STRING_TOO_LONG", message, [name])
    return None


def _stamp(at_s: float) -> str:
    instant = dt.datetime.fromtimestamp(at_s, dt.UTC)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}+0000"
