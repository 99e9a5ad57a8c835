"""What the benchmark's model does with each event, drawn from a seed: the server and the ideal schedule read the same.

Reads and writes nothing. An event is known by its id, so that order, repetition and process do not change its fate.
"""

import json
import zlib
from dataclasses import asdict, dataclass
from typing import Literal

Fate = Literal["ok", "straggler", "unavailable_once", "poison"]
_BUCKETS = 2**32
# Refusals come at once, as a server's own checks do: a slot spent on one would lower the possible throughput itself.
REFUSAL_S = 0.002


@dataclass(frozen=True)
class Plan:
    """Latency and faults of a model.

    Attributes:
        latency_s: of an ordinary answer, seconds.
        straggler_share: of the events, which take `straggler_factor` times as long.
        unavailable_share: of the events, whose first call is answered 503 at once.
        poison_share: of the events, every call of which is answered 400 at once.
    """

    seed: int = 7
    latency_s: float = 0.2
    straggler_share: float = 0.0
    straggler_factor: float = 25.0
    unavailable_share: float = 0.0
    poison_share: float = 0.0

    def fate(self, event_id: str) -> Fate:
        """Return what happens to the event; the shares are those of all events, one after the other."""
        drawn = zlib.crc32(f"{self.seed}:{event_id}".encode()) * 2654435761 % _BUCKETS / _BUCKETS
        shares: tuple[tuple[float, Fate], ...] = (
            (self.straggler_share, "straggler"),
            (self.unavailable_share, "unavailable_once"),
            (self.poison_share, "poison"),
        )
        for share, fate in shares:
            if drawn < share:
                return fate
            drawn -= share
        return "ok"

    def answer(self, event_id: str, call: int) -> tuple[int, float]:
        """Return HTTP status and latency in seconds of the event's call, counted from 1."""
        fate = self.fate(event_id)
        if fate == "poison":
            return 400, REFUSAL_S
        if fate == "unavailable_once" and call == 1:
            return 503, REFUSAL_S
        return 200, self.latency_s * (self.straggler_factor if fate == "straggler" else 1.0)

    def to_text(self) -> str:
        """Return the plan as the server takes it on its command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Plan":
        """Read what `to_text` wrote."""
        return cls(**json.loads(text))
