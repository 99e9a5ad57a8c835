"""Reads CloudEvents over HTTP: binary mode, structured JSON mode, and plain JSON with few attributes.

The CloudEvents library reads the structured form; strict checks come first, because it invents missing ids and
versions, stumbles over arrays and lets line breaks into attributes.
Source: CloudEvents HTTP Protocol Binding and JSON Event Format 1.0.2 (checked 2026-11).
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

import msgspec
from cloudevents.core.exceptions import BaseCloudEventException
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from contracts.envelope import ATTRIBUTE_NAME
from contracts.errors import InvalidPayload, UnsupportedMedia
from gateways.ingress.text import MAX_ATTRIBUTE_CHARS, is_clean, single_header

_STRUCTURED = "application/cloudevents+json"
_PREFIX = b"ce-"
_MAX_ATTRIBUTES = 40
_RAW = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Parsed(NamedTuple):
    """Attributes as text, not judged yet, and the data byte for byte.

    Attributes:
        is_cloudevent: False for the plain form, in which source and id have defaults.
    """

    attributes: dict[str, str]
    data: bytes
    is_cloudevent: bool


def parse(headers: list[tuple[bytes, bytes]], body: bytes) -> Parsed:
    """Read a request.

    Raises:
        UnsupportedMedia: a batch, or an event format other than JSON.
        InvalidPayload: not a CloudEvent, or JSON that is none.
    """
    if sum(1 for name, _ in headers if name == b"content-type") > 1:
        message = "header content-type stands there twice"
        raise InvalidPayload(message)
    content_type = single_header(headers, b"content-type") or ""
    media = content_type.partition(";")[0].strip().lower()
    if media == _STRUCTURED:
        return _structured(body)
    if media.startswith("application/cloudevents"):
        message = f"{media[:60]} is not accepted; send one event at a time, structured as {_STRUCTURED} or binary"
        raise UnsupportedMedia(message)
    return _binary(headers, content_type, body)


def _binary(headers: list[tuple[bytes, bytes]], content_type: str, body: bytes) -> Parsed:
    attributes: dict[str, str] = {}
    for line, value in headers:
        if not line.startswith(_PREFIX):
            continue
        name = line[len(_PREFIX) :].decode("ascii", "replace")
        if name == "datacontenttype":
            message = "binary mode carries datacontenttype in the header content-type"
            raise InvalidPayload(message)
        if name in attributes:
            message = f"header ce-{name[:40]} stands there twice"
            raise InvalidPayload(message)
        attributes[name] = _percent_decoded(name, value)
    if content_type:
        attributes["datacontenttype"] = content_type
    is_cloudevent = "specversion" in attributes
    _check_attributes(attributes)
    if is_cloudevent:
        _check_required(attributes)
    if body and is_json(content_type):
        _check_json(body)
    return Parsed(attributes, body, is_cloudevent)


def _percent_decoded(name: str, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        message = f"attribute {name[:40]!r} is not UTF-8"
        raise InvalidPayload(message) from error


def _structured(body: bytes) -> Parsed:
    try:
        # Raw members are not looked at for this by the decoder.
        members = _RAW.decode(body.decode())
        values = {
            name: msgspec.json.decode(raw) for name, raw in members.items() if name not in {"data", "data_base64"}
        }
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = "the body is not one JSON object"
        raise InvalidPayload(message) from error
    attributes = {name: _as_text(name, value) for name, value in values.items() if value is not None}
    _check_attributes(attributes)
    _check_required(attributes)
    data = _data(members, attributes)
    _check_by_library(values)
    return Parsed(attributes, data, is_cloudevent=True)


def _as_text(name: str, value: Any) -> str:
    """Return an attribute's canonical text; CloudEvents has strings, booleans and integers in JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return msgspec.json.encode(value).decode()
    message = f"attribute {name[:40]!r} is neither a string, nor a boolean, nor an integer"
    raise InvalidPayload(message)


def _check_by_library(values: Mapping[str, Any]) -> None:
    document = {name: value for name, value in values.items() if value is not None}
    try:
        JSONFormat().read(CloudEvent, msgspec.json.encode(document))
    except (BaseCloudEventException, ValueError, TypeError, OverflowError) as error:
        message = f"not a CloudEvent: {error}"
        raise InvalidPayload(message) from error


def _data(members: Mapping[str, msgspec.Raw], attributes: Mapping[str, str]) -> bytes:
    """Return the data: the exact bytes of a JSON value, the text of a string of another type, or the decoded base64."""
    if "data" in members and "data_base64" in members:
        message = "data and data_base64 exclude each other"
        raise InvalidPayload(message)
    if "data_base64" in members:
        return _from_base64(members["data_base64"])
    if "data" not in members:
        return b""
    raw = bytes(members["data"])
    if is_json(attributes.get("datacontenttype", "application/json")):
        return raw
    try:
        return msgspec.json.decode(raw, type=str).encode()
    except msgspec.DecodeError as error:
        message = "data of a datacontenttype that is not JSON must be a string, or go into data_base64"
        raise InvalidPayload(message) from error


def _from_base64(raw: msgspec.Raw) -> bytes:
    try:
        return base64.b64decode(msgspec.json.decode(raw, type=str), validate=True)
    except (msgspec.DecodeError, binascii.Error, ValueError) as error:
        message = "data_base64 is not a base64 string"
        raise InvalidPayload(message) from error


def _check_attributes(attributes: Mapping[str, str]) -> None:
    if len(attributes) > _MAX_ATTRIBUTES:
        message = f"more than {_MAX_ATTRIBUTES} attributes"
        raise InvalidPayload(message)
    for name, text in attributes.items():
        if not ATTRIBUTE_NAME.fullmatch(name) or name == "data":
            message = f"{name[:40]!r} is not an attribute name: lower-case letters and digits, at most 20, and not data"
            raise InvalidPayload(message)
        if not is_clean(text, MAX_ATTRIBUTE_CHARS):
            message = (
                f"attribute {name} is empty, longer than {MAX_ATTRIBUTE_CHARS} characters, or has control characters"
            )
            raise InvalidPayload(message)


def _check_required(attributes: Mapping[str, str]) -> None:
    if attributes.get("specversion") != "1.0":
        message = "specversion must be 1.0"
        raise InvalidPayload(message)
    for name in ("id", "source", "type"):
        if name not in attributes:
            message = f"attribute {name} is missing"
            raise InvalidPayload(message)


def is_json(content_type: str) -> bool:
    """Tell whether a content type is JSON or ends in +json."""
    media = content_type.partition(";")[0].strip().lower()
    return media in {"application/json", "text/json"} or media.endswith("+json")


def _check_json(body: bytes) -> None:
    try:
        msgspec.json.decode(body.decode(), type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "the body is not JSON, as its content-type says"
        raise InvalidPayload(message) from error
