"""The mark: where the tail of the result topics starts, as metadata of an offset commit.

Form: `penstock1 <topic>=<offset> ...`, at most 4,096 bytes (the broker's default offset.metadata.max.bytes).
A commit without a mark was made by an operator's tool: nothing is skipped then, because a replay is wanted. While it
goes on, `!replay=<end>` stands there as well, and ever after `!floor=<offset>`, from where on no event was left out;
`!log=<id>` is of the topic that the offset belongs to, and `!log:<topic>=<id>` of a result topic that an offset of the
mark belongs to. `!read=<offset>` and `!epoch=<epoch>` are of the last record below the commit: the offset behind it,
and the epoch of the leader that it was written under: a log whose epoch ends before that offset has lost it.
`!former=<kind>` stands there while answers are looked through that may be to events of a former log. No topic can have
such names. The ids of result topics, and then these two, are left out when the mark would not fit with them.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple

PREFIX = "penstock1"
MAX_METADATA_BYTES = 4096
_LARGEST_OFFSET = 2**63 - 1
_LARGEST_ID = 2**128 - 1

_REPLAY = "!replay"
_FLOOR = "!floor"
# A number, as all the others are: a worker that does not know this name reads the rest of the mark all the same.
_LOG = "!log"
_READ, _EPOCH = "!read", "!epoch"
_FORMER = "!former"
_NOTES = (_REPLAY, _FLOOR, _LOG, _READ, _EPOCH, _FORMER)
# What `!former` says: answers behind the end of the log are of another one, or of this one before it was cut.
FOREIGN, CUT = 1, 2
_JOURNAL = "!log:"
# A part of the id is enough to tell two logs of one name apart, and leaves room for more topics.
_JOURNAL_IDS = 2**32
_NONE: Mapping[str, int] = MappingProxyType({})


class Mark(NamedTuple):
    """What a commit carries besides its offset.

    Attributes:
        starts: where the tail of each result topic starts.
        replay_until: up to where an operator's replay goes; 0 when none is going on.
        floor: from where on no event was left out; an operator who sets offsets forward leaves some out.
        log: Kafka's id of the topic as a number, which a topic that is made anew does not have; 0 = not known.
        journal: by result topic, the end of the id (see `journal_id`) that it had when `starts` was found; without
            those that are not known.
        read: the offset behind the last record below the commit, and the epoch of that record; None = not known.
        former: whose the answers may be that lie behind `starts`, besides those of this log: FOREIGN or CUT;
            0 = nobody's.
    """

    starts: dict[str, int]
    replay_until: int = 0
    floor: int = 0
    log: int = 0
    journal: Mapping[str, int] = _NONE
    read: tuple[int, int] | None = None
    former: int = 0


def journal_id(topic_id: int) -> int:
    """Return what a mark keeps of a result topic's id: its last 32 bits, which are random."""
    return topic_id % _JOURNAL_IDS


def journal_of(mark: Mark | None, ids: Mapping[str, int], topics: Iterable[str]) -> dict[str, int]:
    """Return, by result topic, which log it is now; what the mark says where its id is not known."""
    former = mark.journal if mark else _NONE
    known = {topic: former[topic] for topic in topics if topic in former}
    return known | {topic: journal_id(ids[topic]) for topic in topics if topic in ids}


def former_topics(mark: Mark, journal: Mapping[str, int]) -> frozenset[str]:
    """Return the result topics of which the mark has another log than the one that is there now.

    They were recreated, and are scanned from the beginning: answers may lie below the offset of the former one.
    """
    return frozenset(topic for topic, log in mark.journal.items() if journal.get(topic, log) != log)


def encode_mark(
    marks: dict[str, int],
    replay_until: int = 0,
    floor: int = 0,
    log: int = 0,
    journal: Mapping[str, int] = _NONE,
    read: tuple[int, int] | None = None,
    former: int = 0,
) -> str:
    """Return commit metadata.

    Without the result topics' ids when it would not fit with them, then without `read`; the plain prefix when it would
    not fit without them either, which makes the next scan start at the end.
    """
    found = ((_REPLAY, replay_until), (_FLOOR, floor), (_LOG, log), (_FORMER, former))
    notes = [f"{name}={number}" for name, number in found if number]
    place = [f"{name}={number}" for name, number in zip((_READ, _EPOCH), read or (), strict=False)]
    starts = [f"{topic}={offset}" for topic, offset in sorted(marks.items())]
    ids = [f"{_JOURNAL}{topic}={number}" for topic in sorted(marks) if (number := journal.get(topic))]
    forms = ([*notes, *place, *ids, *starts], [*notes, *place, *starts], [*notes, *starts])
    texts = (" ".join([PREFIX, *form]) for form in forms)
    return next((text for text in texts if len(text.encode()) <= MAX_METADATA_BYTES), PREFIX)


def mark_fits(topics: Iterable[str]) -> bool:
    """Tell whether a mark of these result topics, without their ids, fits whatever the offsets are."""
    starts = dict.fromkeys(topics, _LARGEST_OFFSET)
    return encode_mark(starts, _LARGEST_OFFSET, _LARGEST_OFFSET, _LARGEST_ID, former=CUT) != PREFIX


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
        elif name not in _NOTES and not name.startswith(_JOURNAL):
            return None
    journal = {name.removeprefix(_JOURNAL): found.pop(name) for name in tuple(found) if name.startswith(_JOURNAL)}
    replay_until, floor, log, read_to, epoch, former = (found.pop(name, 0) for name in _NOTES)
    return Mark(found, replay_until, floor, log, journal, (read_to, epoch) if read_to else None, former)
