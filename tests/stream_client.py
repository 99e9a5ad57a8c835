"""A strict reader of `/v1/stream`, for tests and benchmarks: it keeps what a page would show, and counts what is wrong.

Blocking: nothing; every read ends with the server's stream, or when the caller stops.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Frame = dict[str, Any]


@dataclass
class Shown:
    """What a page would show of one event.

    Attributes:
        at: id of the last frame.
        text: of the current attempt.
        last: the frame with the outcome.
        gaps, repeats: numbers that were left out, or came again.
        restarts: attempts that began anew.
        ending: how the current attempt ended, as its last delta says.
    """

    at: str = ""
    text: str = ""
    last: Frame | None = None
    gaps: int = 0
    repeats: int = 0
    restarts: int = 0
    deltas: int = 0
    ending: str = ""
    accepted: Frame = field(default_factory=dict)
    _epoch: int = 0
    _number: int = 0

    def take(self, frame: Frame) -> None:
        """Take the next frame."""
        self.at = frame.get("at") or self.at
        match frame["type"]:
            case "accepted":
                self.accepted = frame
            case "restart":
                self._epoch, self._number, self.text, self.ending = int(frame["at"].partition(".")[0]), 0, "", ""
                self.restarts += 1
            case "delta":
                self._delta(frame)
            case "result" | "error":
                self.last = frame

    def _delta(self, frame: Frame) -> None:
        epoch, _, number = frame["at"].partition(".")
        if not self._epoch:
            self._epoch = int(epoch)
        expected = self._number + 1
        if int(epoch) != self._epoch or int(number) > expected:
            self.gaps += 1
        elif int(number) < expected:
            self.repeats += 1
            return
        self._number = int(number)
        self.text += frame["text"]
        self.ending = frame.get("ending", "")
        self.deltas += 1


async def events_of(response: aiohttp.ClientResponse) -> AsyncIterator[Frame]:
    """Yield the frames of server-sent events; comments are left out."""
    event: dict[str, str] = {}
    async for line in response.content:
        text = line.decode().rstrip("\n")
        if not text:
            if "data" in event:
                yield json.loads(event["data"])
            event = {}
            continue
        name, _, value = text.partition(":")
        if name:
            event[name] = value.removeprefix(" ")
