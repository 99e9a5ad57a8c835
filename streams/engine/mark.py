"""The mark: where the tail of the result topics starts, as metadata of an offset commit.

Form: `penstock1 <topic>=<offset> ...`, at most 4,096 bytes (the broker's default offset.metadata.max.bytes).
A commit without a mark was made by an operator's tool: nothing is skipped then, because a replay is wanted. While it
goes on, `!replay=<end>` stands there as well, and ever after `!floor=<offset>`, from where on no event was left out:
names that no topic can have.
"""

from collections.abc import Iterable

PREFIX = "penstock1"
MAX_METADATA_BYTES = 4096
_LARGEST_OFFSET = 2**63 - 1


_REPLAY = "!replay="
_FLOOR = "!floor="


def encode_mark(marks: dict[str, int], replay_until: int = 0, floor: int = 0) -> str:
    """Return commit metadata; the plain prefix when it would not fit, which makes the next scan start at the end."""
    notes = [f"{name}{offset}" for name, offset in ((_REPLAY, replay_until), (_FLOOR, floor)) if offset]
    text = " ".join([PREFIX, *notes, *(f"{topic}={offset}" for topic, offset in sorted(marks.items()))])
    return text if len(text.encode()) <= MAX_METADATA_BYTES else PREFIX


def mark_fits(topics: Iterable[str]) -> bool:
    """Tell whether a mark of these result topics fits whatever the offsets are."""
    return encode_mark(dict.fromkeys(topics, _LARGEST_OFFSET), _LARGEST_OFFSET, _LARGEST_OFFSET) != PREFIX


def decode_mark(metadata: str) -> dict[str, int] | None:
    """Return the marks of a commit; None when it carries none (an operator's reset, another application)."""
    prefix, *parts = metadata.split(" ")
    if prefix != PREFIX:
        return None
    marks = {}
    for part in parts:
        if part.startswith((_REPLAY, _FLOOR)):
            continue
        topic, _, offset = part.rpartition("=")
        if not topic or not (offset.isascii() and offset.isdecimal()):
            return None
        marks[topic] = int(offset)
    return marks


def decode_replay(metadata: str) -> int:
    """Return up to where an operator's replay goes; 0 when none is going on."""
    return _note(metadata, _REPLAY)


def decode_floor(metadata: str) -> int:
    """Return from where on no event was left out; an operator who sets offsets forward leaves some out."""
    return _note(metadata, _FLOOR)


def _note(metadata: str, name: str) -> int:
    if decode_mark(metadata) is None:
        return 0
    found = (part.removeprefix(name) for part in metadata.split(" ") if part.startswith(name))
    end = next(found, "")
    return int(end) if end.isascii() and end.isdecimal() else 0
