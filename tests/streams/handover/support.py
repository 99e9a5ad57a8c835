"""A small installation whose model has a batch API, and records of its hand-over topic."""

import json
import time
from typing import Any

from contracts.codec import Position, encode_event, retry_headers
from contracts.envelope import Event
from contracts.payloads import RetryNote, Usage
from contracts.settings import Settings
from contracts.topics import Topics
from producers.log_reader import Found

TOPICS = Topics()
API = {
    "role_arn": "arn:aws:iam::123456789012:role/batch",
    "input": "s3://jobs/in",
    "output": "s3://jobs/out",
    "min_records": 2,
    "max_records": 3,
    "min_time_left_s": 3600,
}


def make_settings(**route: Any) -> Settings:
    """Return a configuration with the routes `r` (patient) and `other` (another provider)."""
    bedrock = {"kind": "bedrock", "region": "eu-central-1", "batch_api": API}
    patient = {"name": "r", "match": {"source": "batch"}, "prompt": {"user": "{{ data.text }}"}, "model": "m",
               "deadline_s": 86400}  # fmt: skip
    price = {"input_usd": 1000, "output_usd": 1000}
    return Settings.model_validate(
        {
            "version": 1,
            "providers": {"p": bedrock, "q": {"kind": "fake"}},
            "models": {
                "m": {"provider": "p", "model": "model-1", "price": price},
                "n": {"provider": "q", "model": "model-2"},
            },
            "routes": [patient | route, {"name": "other", "prompt": {"user": "{{ text }}"}, "model": "n"}],
        }
    )


def record(
    offset: int, data: Any = None, *, source: str = "batch", partition: int = 0, parked_by: str = "", attempts: int = 0
) -> Found:
    """Return a record: an event as it is, or one that a worker has parked."""
    body = json.dumps(data or {"text": f"ticket {offset}"}).encode()
    now_ms = int(time.time() * 1000)
    headers = encode_event(Event(id=f"e{offset}", source=source, type="t", data=body, extensions={"delivery": "batch"}))
    pairs: list[tuple[str, bytes | None]] = list(headers)
    if parked_by:
        note = RetryNote(
            topic="events", partition=partition, offset=7, timestamp_ms=now_ms, not_before_ms=now_ms,
            deadline_ms=now_ms + 86_400_000, reason="spilled", attempts=attempts, cost_usd=0.0, usage=Usage(),
        )  # fmt: skip
        pairs = retry_headers(pairs, note, parked_by, Position("events", partition, 7, now_ms))
    named = {name: raw for name, raw in pairs if raw is not None}
    return Found(TOPICS.handovers, partition, offset, None, body, named, tuple(pairs), now_ms)
