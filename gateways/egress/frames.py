"""What a watcher gets to read: the same JSON for server-sent events and for WebSocket.

    accepted  the event is durable on the log; where its stream and its result are
    delta     the next piece of the answer
    restart   a new attempt: what was read so far is void, the answer begins anew
    result    the outcome; last
    error     the outcome of an event without a result, last; or a request on a WebSocket that was refused

Source: WHATWG HTML, "Server-sent events" (checked 2026-11); a 204 ends an EventSource for good.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from contracts.errors import InvalidPayload
from gateways.egress.feed import Feed, Seen
from gateways.egress.outcomes import Outcome

Frame = dict[str, Any]
# The id of the last frame: who has it, has everything.
END = "end"
HEARTBEAT = b": alive\n\n"
# How long an EventSource waits before it comes back.
RETRY = b"retry: 1000\n\n"
_SEEN = re.compile(r"([0-9]{1,16})\.([0-9]{1,9})")


def read_seen(text: str) -> Seen | None:
    """Return how far a client has come by the id of its last frame; None when it has everything.

    Raises:
        InvalidPayload: no id of ours.
    """
    if text == END:
        return None
    if not text:
        return Seen()
    found = _SEEN.fullmatch(text)
    if found is None:
        message = "the last event id is not one of this stream"
        raise InvalidPayload(message)
    return Seen(int(found[1]), int(found[2]))


def news(feed: Feed, event_id: str, seen: Seen) -> Iterator[tuple[Frame, Seen]]:
    """Yield the frames a watcher has not seen yet, each with how far it has come behind it."""
    if not feed.epoch or feed.is_ahead(seen):
        return
    if seen.epoch != feed.epoch:
        had_something = seen.epoch != 0
        seen = Seen(feed.epoch, 0)
        if had_something:
            yield {"type": "restart", "id": event_id, "at": _at(seen)}, seen
    for piece in feed.pieces[seen.sequence :]:
        seen = Seen(seen.epoch, seen.sequence + 1)
        frame = {"type": "delta", "id": event_id, "at": _at(seen), "text": piece.text}
        yield frame if piece.ending is None else frame | {"ending": piece.ending}, seen


def last(outcome: Outcome) -> Frame:
    """Return the frame of an outcome.

    Raises:
        Undecodable: the record's value is not what its type says.
    """
    body = outcome.body()
    return {"type": "result" if body["status"] == "succeeded" else "error", "at": END} | body


def as_event(frame: Frame) -> bytes:
    """Return a frame as a server-sent event."""
    at = frame.get("at")
    head = f"id: {at}\n" if at else ""
    # JSON has no line ends of its own.
    return f"{head}event: {frame['type']}\ndata: ".encode() + msgspec.json.encode(frame) + b"\n\n"


def _at(seen: Seen) -> str:
    return f"{seen.epoch}.{seen.sequence}"
