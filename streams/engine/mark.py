"""The mark: where the tail of the result topics starts, as metadata of an offset commit.

Form: `penstock1 <topic>=<offset> ...`, at most 4,096 bytes (the broker's default offset.metadata.max.bytes).
A commit without a mark was made by an operator's tool: nothing is skipped then, because a replay is wanted.
"""

from collections.abc import Iterable

PREFIX = "penstock1"
MAX_METADATA_BYTES = 4096
_LARGEST_OFFSET = 2**63 - 1


def encode_mark(marks: dict[str, int]) -> str:
    """Return commit metadata; the plain prefix when it would not fit, which makes the next scan start at the end."""
    text = " ".join([PREFIX, *(f"{topic}={offset}" for topic, offset in sorted(marks.items()))])
    return text if len(text.encode()) <= MAX_METADATA_BYTES else PREFIX


def mark_fits(topics: Iterable[str]) -> bool:
    """Tell whether a mark of these result topics fits whatever the offsets are."""
    return encode_mark(dict.fromkeys(topics, _LARGEST_OFFSET)) != PREFIX


def decode_mark(metadata: str) -> dict[str, int] | None:
    """Return the marks of a commit; None when it carries none (an operator's reset, another application)."""
    prefix, *parts = metadata.split(" ")
    if prefix != PREFIX:
        return None
    marks = {}
    for part in parts:
        topic, _, offset = part.rpartition("=")
        if not topic or not (offset.isascii() and offset.isdecimal()):
            return None
        marks[topic] = int(offset)
    return marks
