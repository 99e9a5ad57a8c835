"""The mark: where the tail of the result topics starts, as metadata of an offset commit.

Form: `penstock1 <topic>=<offset> ...`, at most 4,096 bytes (the broker's default offset.metadata.max.bytes).
A commit without a mark was made by an operator's tool: nothing is skipped then, because a replay is wanted. While it
goes on, `!replay=<end>` stands there as well, and ever after `!floor=<offset>`, from where on no event was left out;
`!log=<id>` is of the topic that the offset belongs to: names that no topic can have.
"""

from collections.abc import Iterable
from typing import NamedTuple

PREFIX = "penstock1"
MAX_METADATA_BYTES = 4096
_LARGEST_OFFSET = 2**63 - 1
_LARGEST_ID = 2**128 - 1

_REPLAY = "!replay"
_FLOOR = "!floor"
# A number, as all the others are: a worker that does not know this name reads the rest of the mark all the same.
_LOG = "!log"


class Mark(NamedTuple):
    """What a commit carries besides its offset.

    Attributes:
        starts: where the tail of each result topic starts.
        replay_until: up to where an operator's replay goes; 0 when none is going on.
        floor: from where on no event was left out; an operator who sets offsets forward leaves some out.
        log: Kafka's id of the topic as a number, which a topic that is made anew does not have; 0 = not known.
    """

    starts: dict[str, int]
    replay_until: int = 0
    floor: int = 0
    log: int = 0


def encode_mark(marks: dict[str, int], replay_until: int = 0, floor: int = 0, log: int = 0) -> str:
    """Return commit metadata; the plain prefix when it would not fit, which makes the next scan start at the end."""
    found = ((_REPLAY, replay_until), (_FLOOR, floor), (_LOG, log))
    notes = [f"{name}={number}" for name, number in found if number]
    text = " ".join([PREFIX, *notes, *(f"{topic}={offset}" for topic, offset in sorted(marks.items()))])
    return text if len(text.encode()) <= MAX_METADATA_BYTES else PREFIX


def mark_fits(topics: Iterable[str]) -> bool:
    """Tell whether a mark of these result topics fits whatever the offsets are."""
    starts = dict.fromkeys(topics, _LARGEST_OFFSET)
    return encode_mark(starts, _LARGEST_OFFSET, _LARGEST_OFFSET, _LARGEST_ID) != PREFIX


def decode_mark(metadata: str) -> Mark | None:
    """Return what a commit carries; None when it is none of ours (an operator's reset, another application)."""
    prefix, *parts = metadata.split(" ")
    if prefix != PREFIX:
        return None
    found: dict[str, int] = {}
    for part in parts:
        name, _, offset = part.rpartition("=")
        if name and offset.isascii() and offset.isdecimal():
            found[name] = int(offset)
        elif name not in {_REPLAY, _FLOOR, _LOG}:
            return None
    return Mark(replay_until=found.pop(_REPLAY, 0), floor=found.pop(_FLOOR, 0), log=found.pop(_LOG, 0), starts=found)
