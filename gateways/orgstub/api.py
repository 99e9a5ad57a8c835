"""The REST API of the stub: sObjects one by one and as collections, limits, and the errors as Salesforce writes them.

Source: REST API Developer Guide 62.0 (checked 2026-11).
"""

import json
from typing import Any

from aiohttp import web

from gateways.orgstub.org import ORG, Org
from gateways.orgstub.records import SOBJECT, ApiError, Record, check_fields, checked, save_error

_MAX_COLLECTION = 200
_MAX_RETRIEVED = 2000
_ID_LENGTHS = (15, 18)


async def create(request: web.Request) -> web.Response:
    """Serve POST sobjects/<object>."""
    org = request.app[ORG]
    _known_object(request)
    record, result = org.records.create(await _json(request, dict))
    if record is None:
        return _refusal(400, result)
    org.note_created(record)
    return web.json_response(result, status=201)


async def show(request: web.Request) -> web.Response:
    """Serve GET sobjects/<object>/<id>."""
    _known_object(request)
    record = _existing(request)
    fields = request.query.get("fields", "")
    names = check_fields([name for name in fields.split(",") if name]) or ["Id", *record.values]
    return web.json_response(record.shown(names, _version(request)))


async def change(request: web.Request) -> web.Response:
    """Serve PATCH sobjects/<object>/<id>."""
    org = request.app[ORG]
    _known_object(request)
    result = _update(org, request.match_info["id"], checked(await _json(request, dict)), set())
    return web.Response(status=204) if result["success"] else _refusal(_status_of(result), result)


async def delete(request: web.Request) -> web.Response:
    """Serve DELETE sobjects/<object>/<id>."""
    _known_object(request)
    _existing(request).is_deleted = True
    return web.Response(status=204)


async def create_many(request: web.Request) -> web.Response:
    """Serve POST composite/sobjects."""
    org = request.app[ORG]
    results = []
    for values in _collection(await _json(request, dict)):
        _object_of(values)
        record, result = org.records.create({name: value for name, value in values.items() if name != "attributes"})
        if record is not None:
            org.note_created(record)
        results.append(result)
    return web.json_response(results)


async def change_many(request: web.Request) -> web.Response:
    """Serve PATCH composite/sobjects: well-formed requests are answered 200, with one SaveResult per record."""
    org = request.app[ORG]
    wanted = []
    for values in _collection(await _json(request, dict)):
        _object_of(values)
        ids = [value for name, value in values.items() if name.lower() == "id"]
        fields = {name: value for name, value in values.items() if name.lower() not in {"id", "attributes"}}
        wanted.append((str(ids[0]) if ids else "", checked(fields)))
    seen: set[str] = set()
    return web.json_response([_update(org, record_id, values, seen) for record_id, values in wanted])


async def retrieve_many(request: web.Request) -> web.Response:
    """Serve POST composite/sobjects/<object>: null for what is deleted or unknown."""
    org = request.app[ORG]
    _known_object(request)
    asked = await _json(request, dict)
    ids, fields = asked.get("ids"), asked.get("fields")
    if not isinstance(ids, list) or not isinstance(fields, list) or not ids:
        raise ApiError(400, "INVALID_ARGUMENT", "ids and fields are required")
    if len(ids) > _MAX_RETRIEVED:
        raise ApiError(400, "EXCEEDED_ID_LIMIT", f"record limit reached: {_MAX_RETRIEVED}")
    names = list(dict.fromkeys([*check_fields(fields), "Id"]))
    found = [org.records.find(str(one)) for one in ids]
    for record in found:
        if record is not None:
            record.reads += 1
    version = _version(request)
    return web.json_response(
        [None if record is None or record.is_deleted else record.shown(names, version) for record in found]
    )


async def limits(request: web.Request) -> web.Response:
    """Serve GET limits."""
    org = request.app[ORG]
    left = max(0, org.knobs.daily_calls - org.calls)
    return web.json_response({"DailyApiRequests": {"Max": org.knobs.daily_calls, "Remaining": left}})


async def versions(_request: web.Request) -> web.Response:
    """Serve GET /services/data."""
    return web.json_response([{"label": "Stub", "url": "/services/data/v62.0", "version": "62.0"}])


def _update(org: Org, record_id: str, values: dict[str, Any], seen: set[str]) -> dict[str, Any]:
    """Write one record of a request; `seen` are the ids before it."""
    if len(record_id) not in _ID_LENGTHS or not record_id.isalnum():
        return save_error("MALFORMED_ID", f"{SOBJECT} ID: id value of incorrect type: {record_id[:40]}", ["Id"])
    if record_id[:15] in seen:
        return save_error("DUPLICATE_VALUE", f"Duplicate id specified: {record_id}")
    seen.add(record_id[:15])
    record = org.records.find(record_id)
    if record is None:
        return save_error("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
    if record.is_deleted or _names(org.knobs.vanishing, record):
        return save_error("ENTITY_IS_DELETED", "entity is deleted")
    if _names(org.knobs.locked, record) or org.dice.random() < org.knobs.lock_rate:
        record.lockouts += 1
        message = f"unable to obtain exclusive access to this record or 1 records: {record.id}"
        return save_error("UNABLE_TO_LOCK_ROW", message)
    return org.records.update(record, values)


def _names(ids: tuple[str, ...], record: Record) -> bool:
    return record.id in ids or record.id[:15] in ids


def _existing(request: web.Request) -> Record:
    record = request.app[ORG].records.find(request.match_info["id"])
    if record is None or record.is_deleted:
        raise ApiError(404, "NOT_FOUND", "The requested resource does not exist")
    return record


def _known_object(request: web.Request) -> None:
    if request.match_info["sobject"].lower() != SOBJECT.lower():
        raise ApiError(404, "NOT_FOUND", "The requested resource does not exist")


def _object_of(values: dict[str, Any]) -> None:
    kind = (values.get("attributes") or {}).get("type", "")
    if kind.lower() != SOBJECT.lower():
        raise ApiError(400, "INVALID_TYPE", f"sObject type '{kind}' is not supported.")


def _collection(body: dict[str, Any]) -> list[dict[str, Any]]:
    records = body.get("records")
    if not isinstance(records, list) or not all(isinstance(one, dict) for one in records):
        raise ApiError(400, "JSON_PARSER_ERROR", "records is required")
    if len(records) > _MAX_COLLECTION:
        raise ApiError(
            400, "EXCEEDED_ID_LIMIT", f"record limit reached. cannot submit more than {_MAX_COLLECTION} records"
        )
    return records


async def _json(request: web.Request, kind: type[dict[str, Any]]) -> dict[str, Any]:
    try:
        found = json.loads(await request.read())
    except ValueError as error:
        raise ApiError(400, "JSON_PARSER_ERROR", "Unexpected character in the body") from error
    if not isinstance(found, kind):
        raise ApiError(400, "JSON_PARSER_ERROR", "the body is not an object")
    return found


def _version(request: web.Request) -> str:
    return request.match_info["version"]


def _status_of(result: dict[str, Any]) -> int:
    gone = {"ENTITY_IS_DELETED", "INVALID_CROSS_REFERENCE_KEY"}
    return 404 if result["errors"][0]["statusCode"] in gone else 400


def _refusal(status: int, result: dict[str, Any]) -> web.Response:
    """Answer one record's failure as the single-record calls do: an array with `errorCode`."""
    error = result["errors"][0]
    body = {"message": error["message"], "errorCode": error["statusCode"], "fields": error["fields"]}
    return web.json_response([body], status=status)
