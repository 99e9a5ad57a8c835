"""An event that the Lambda door verified and queued."""

from gateways.ingress.base import Message
from gateways.ingress.envelopes.base import Item, parse
from gateways.ingress.queued import QueuedEvent, payload_of


def unwrap(message: Message) -> list[Item]:
    """Return the event as the function accepted it.

    Raises:
        Undecodable: not queued by the Lambda door.
    """
    found: QueuedEvent = parse(message.body, QueuedEvent, "an event that the Lambda door queued")
    evidence = {"penstock-scheme": found.scheme, "penstock-key-id": found.key_id}
    trace = [(b"traceparent", found.traceparent.encode())] if found.traceparent else []
    return [
        Item(
            trace,
            payload_of(found),
            found.id,
            found.type,
            key=found.key,
            subject=found.subject,
            time=found.received_at,
            source=found.source,
            content_type=found.content_type,
            lane=found.lane,
            evidence=tuple((name, text.encode()) for name, text in evidence.items() if text),
        )
    ]
