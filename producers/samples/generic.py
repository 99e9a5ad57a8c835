"""A plain event, JSON or a form, for a source without a sample of its own, with every field that its settings read."""

import random
from typing import Any
from urllib.parse import urlencode

from contracts.settings import SourceSettings
from producers.samples.base import Sample, guid, moment, stamp, to_json
from producers.samples.fields import FORM, HEADER, fields_of

_KEYS = 20


def generic_event(source: SourceSettings, rng: random.Random) -> Sample:
    """Return an event whose `type`, `id`, `key` and `subject` can be read as the source's settings say."""
    event_id, key = guid(rng), f"sample-{rng.randrange(_KEYS):02d}"
    document: dict[str, Any] = {
        "id": event_id,
        "type": "sample.created",
        "created_at": stamp(moment(rng)),
        "data": {"number": rng.randrange(1_000_000), "text": "A sample event sent by penstock send."},
    }
    headers, form = {}, {}
    for role, kind, name in fields_of(source):
        value = {"id": event_id, "key": key}.get(role, "sample")
        if kind == HEADER:
            headers[name] = value
        elif kind == FORM:
            form[name] = value
        else:
            _set(document, name, value)
    body = to_json(document)
    if form:
        headers["content-type"] = "application/x-www-form-urlencoded"
        body = urlencode(form | {"Body": "A sample event sent by penstock send."}).encode()
    return Sample(event_id, body, key, f"sample {event_id[:8]}", headers)


def _set(document: dict[str, Any], pointer: str, value: str) -> None:
    """Put a value where a JSON pointer looks for it; list positions are beyond a sample."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]] or [""]
    target = document
    for parent in parents:
        inner = target.setdefault(parent, {})
        if not isinstance(inner, dict):
            inner = target[parent] = {}
        target = inner
    target.setdefault(last, value)
