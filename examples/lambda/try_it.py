"""Calls the function as Lambda does, with signed and forged events of API Gateway, on the embedded broker.

Needs no AWS, no Docker and no Java; the broker is librdkafka's mock cluster, in memory. Ends by itself.
"""

import hashlib
import hmac
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

from confluent_kafka import Consumer  # noqa: E402 - behind the path

from gateways.ingress.lambda_handler import handler  # noqa: E402 - behind the path
from producers.embedded import EmbeddedBroker  # noqa: E402 - behind the path

SECRET = "example-only-secret-change-me-0123456789"
BODY = json.dumps({"action": "opened", "repository": {"full_name": "acme/shop"}, "issue": {"title": "It is broken"}})


class Context:
    """What Lambda hands over beside the event."""

    def get_remaining_time_in_millis(self) -> int:
        """Return 30 s."""
        return 30_000


def event(name: str, secret: str) -> dict[str, Any]:
    """Return a documented event with a body, signed as GitHub signs."""
    found: dict[str, Any] = json.loads((HERE / "events" / f"{name}.json").read_text("utf-8"))
    signature = hmac.new(secret.encode(), BODY.encode(), hashlib.sha256).hexdigest()
    headers = {
        "x-hub-signature-256": f"sha256={signature}",
        "x-github-event": "issues",
        "x-github-delivery": f"delivery-{name}",
    }
    found["headers"].update(headers)
    for header, text in headers.items():
        found.get("multiValueHeaders", {})[header] = [text]
    found["body"] = BODY
    return found


def main() -> None:
    """Call the function five times, and show what lies on the topic."""
    with EmbeddedBroker() as broker:
        os.environ["PENSTOCK_CONFIG"] = str(HERE / "penstock.yaml")
        os.environ["PENSTOCK_SECRET_GITHUB"] = SECRET
        os.environ["PENSTOCK_KAFKA__BOOTSTRAP_SERVERS"] = broker.bootstrap
        os.environ["PENSTOCK_KAFKA__EMBEDDED"] = "true"
        for name in ("rest-api-v1", "http-api-v2", "function-url"):
            answer = handler(event(name, SECRET), Context())
            print(f"{name:<14} signed  {answer['statusCode']} {answer['body']}")
        for name in ("rest-api-v1", "http-api-v2"):
            answer = handler(event(name, "somebody else's secret"), Context())
            print(f"{name:<14} forged  {answer['statusCode']} {answer['body']}")
        show(broker.bootstrap)


def show(bootstrap: str) -> None:
    """Print the records of the event topic."""
    options = {"bootstrap.servers": bootstrap, "group.id": "try-it", "auto.offset.reset": "earliest"}
    consumer = Consumer(options)
    consumer.subscribe(["penstock.events.standard.v1"])
    count, end_s = 0, time.monotonic() + 20
    while count < 3 and time.monotonic() < end_s:  # noqa: PLR2004 - as many as were signed
        for message in consumer.consume(10, 0.5):
            headers = dict(message.headers() or [])
            print(f"on the log: {headers['ce_id'].decode()} {headers['ce_type'].decode()} key {message.key().decode()}")
            count += 1
    consumer.close()


if __name__ == "__main__":
    main()
