"""Collects the outcomes of the demo's events from the topics, and checks that every accepted event has exactly one.

Reads: result topics, dead letters, event topics.
"""

from collections import Counter
from dataclasses import dataclass, field

from contracts.codec import dead_letter, decode_json
from contracts.envelope import EVENT_ID, EVENT_SOURCE, parse_time
from contracts.payloads import DUPLICATE_TYPE, RESULT_TYPE, InferenceResult, OutcomeMarker
from gateways.cli.demo_http import Answer
from gateways.cli.demo_story import Act
from gateways.cli.reading import Read
from gateways.cli.wording import attribute, headline

RESULT = "result"
DEAD_LETTER = "dead letter"
EXPIRED = "expired"
REFUSED = "refused"
NONE = "no outcome"

EventKey = tuple[str, str]


@dataclass(frozen=True)
class Outcome:
    """How an event ended.

    Attributes:
        kind: RESULT, DEAD_LETTER or EXPIRED.
        text: the summary, or the reason.
        attempts: model calls.
        ended_at: unix seconds.
    """

    kind: str
    text: str
    attempts: int
    ended_at: float
    reason: str = ""


@dataclass
class Sent:
    """One webhook that was sent, and what became of it."""

    act: Act
    answer: Answer
    sent_at: float
    outcome: Outcome | None = None

    @property
    def is_accepted(self) -> bool:
        """True when the gateway has promised an outcome."""
        return 200 <= self.answer.status < 300  # noqa: PLR2004 - HTTP's success class

    @property
    def key(self) -> EventKey:
        """Source and id of the event."""
        return (self.act.settings.ce_source or self.act.source, self.answer.event_id)

    @property
    def ending(self) -> str:
        """In one word or two."""
        if not self.is_accepted:
            return f"{REFUSED} ({self.answer.status})"
        return self.outcome.kind if self.outcome else NONE


@dataclass
class Ledger:
    """Everything that was sent and everything that came back."""

    sent: list[Sent] = field(default_factory=list)
    terminal_records: Counter[EventKey] = field(default_factory=Counter)
    dead_letters: dict[EventKey, str] = field(default_factory=dict)

    @property
    def accepted(self) -> list[Sent]:
        """The events that were answered 2xx."""
        return [one for one in self.sent if one.is_accepted]

    @property
    def open(self) -> list[Sent]:
        """Accepted events without an outcome; a dead letter is complete when its record has been seen too."""
        return [
            one
            for one in self.accepted
            if one.outcome is None or (one.outcome.kind == DEAD_LETTER and one.key not in self.dead_letters)
        ]

    def take_terminal(self, record: Read) -> Sent | None:
        """Note a terminal record; return whose it is. A repetition's marker is not the outcome of its event."""
        if attribute(record, "type") == DUPLICATE_TYPE:
            return None
        key = (attribute(record, EVENT_SOURCE), attribute(record, EVENT_ID))
        self.terminal_records[key] += 1
        one = next((one for one in self.accepted if one.key == key), None)
        if one is not None:
            one.outcome = _outcome(record)
        return one

    def take_dead_letter(self, record: Read) -> None:
        """Note a dead letter."""
        self.dead_letters[attribute(record, "source"), attribute(record, "id")] = dead_letter(record.headers).reason

    def count(self, kind: str) -> int:
        """Return how many accepted events ended this way."""
        return sum(one.outcome is not None and one.outcome.kind == kind for one in self.accepted)


def _outcome(record: Read) -> Outcome:
    if attribute(record, "type") == RESULT_TYPE:
        result = decode_json(record.value or b"", InferenceResult)
        return Outcome(RESULT, headline(result.output), result.attempts, _seconds(result.completed_at))
    marker = decode_json(record.value or b"", OutcomeMarker)
    kind = DEAD_LETTER if marker.status == "dead_letter" else EXPIRED
    text = f"{marker.reason}: {marker.message}"
    return Outcome(kind, text, marker.attempts, _seconds(marker.completed_at), marker.reason)


def _seconds(text: str) -> float:
    instant = parse_time(text)
    return instant.timestamp() if instant else 0.0


def verdict(ledger: Ledger, events_on_topics: int, failures: int) -> list[tuple[bool, str]]:
    """Return what the demo claims, and whether it holds."""
    accepted = len(ledger.accepted)
    results, letters, expired = (ledger.count(kind) for kind in (RESULT, DEAD_LETTER, EXPIRED))
    once = all(ledger.terminal_records[one.key] == 1 for one in ledger.accepted)
    forged = [one for one in ledger.sent if one.act.kind == "forged"]
    stubborn = [one for one in ledger.sent if one.act.kind == "stubborn"]
    poison = [one for one in ledger.sent if one.act.kind == "poison"]
    plain = [one for one in ledger.sent if one.act.kind == "sample"]
    return [
        (
            accepted == results + letters + expired and not ledger.open and once,
            f"{accepted} accepted = {results} result + {letters} dead letter + {expired} expired, one outcome each",
        ),
        (
            all(one.outcome is not None and one.outcome.kind == RESULT for one in plain),
            "every ordinary event has its result",
        ),
        (
            all(one.answer.status == 401 for one in forged) and events_on_topics == accepted,  # noqa: PLR2004 - HTTP
            f"the forged signature was refused with 401; the event topics hold {events_on_topics} events, not one more",
        ),
        (
            all(one.outcome is not None and one.outcome.attempts == failures + 1 for one in stubborn),
            f"one event's model call failed {failures} times and was answered at attempt {failures + 1}",
        ),
        (
            all(ledger.dead_letters.get(one.key) == "undecodable" for one in poison),
            "the body that cannot be decoded is a dead letter at once, with its reason, and held nobody up",
        ),
    ]
