"""The demo's HTTP client: posts signed webhooks, asks for a result, sets the knobs of the model stand-in.

Blocking: each call up to its timeout.
"""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import click

from gateways.cli.demo_story import Act
from producers.samples.signing import forge, sign

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Answer:
    """What the gateway said."""

    status: int
    document: dict[str, Any]

    @property
    def event_id(self) -> str:
        """Id under which an event was accepted."""
        return str(self.document.get("id", ""))

    @property
    def reason(self) -> str:
        """Why it was refused."""
        return str(self.document.get("reason", ""))


def post(port: int, act: Act, secret: bytes) -> Answer:
    """Sign a webhook as its sender does, and post it."""
    sample, now_s = act.sample, int(time.time())
    if act.kind == "forged":
        headers = forge(act.settings, sample.body, event_id=sample.id, timestamp_s=now_s)
    else:
        headers = sign(act.settings, secret, sample.body, event_id=sample.id, timestamp_s=now_s)
    headers |= {"content-type": "application/json", **sample.headers}
    return call(port, "POST", f"/webhooks/{act.source}", sample.body, headers)


def fail_first(port: int, marker: str, times: int) -> None:
    """Let the first calls fail whose prompt contains a marker."""
    knobs = json.dumps({"fail_first": {marker: times}}).encode()
    answer = call(port, "PUT", "/_stub/knobs", knobs, {"content-type": "application/json"})
    if answer.status != http.client.OK:
        message = f"the model stand-in refused its script: {answer.status} {answer.document}"
        raise click.ClickException(message)


def get(port: int, url: str) -> Answer:
    """Ask for a result by its status URL."""
    parts = urlsplit(url)
    return call(port, "GET", f"{parts.path}?{parts.query}", b"", {})


def call(port: int, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Do one request on 127.0.0.1.

    Raises:
        click.ClickException: no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, body or None, dict(headers))
        response = connection.getresponse()
        raw = response.read()
    except (OSError, http.client.HTTPException) as error:
        message = f"{method} {path.partition('?')[0]} on port {port}: no answer ({error})"
        raise click.ClickException(message) from error
    finally:
        connection.close()
    return Answer(response.status, _document(raw))


def _document(raw: bytes) -> dict[str, Any]:
    try:
        document = json.loads(raw)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
