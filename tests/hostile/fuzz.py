"""Fuzzes a gateway process in slices, and keeps the books: answers by status, forgeries, hangs, memory.

The limits stay as they are shipped. Bad signatures beyond the budgets get 429 in place of 401, and are verified all the
same: every untouched request has to be accepted among them.
Three settings differ: what is remembered of events, results and addresses is little, so that those tables are full, and
what grows besides them shows, before memory is measured. Connections come from many addresses of 127/8, which takes
Linux.
"""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from bench.figures import Figure
from tests.hostile.client import Client
from tests.hostile.lab import Lab, addresses, resident_bytes
from tests.hostile.mutations import Attempt, Mutator
from tests.hostile.oracle import authentic_requests

SLICE = 5_000
# Of the gateway, in place of shipped ones.
SETTINGS = {
    "idempotency": {"max_entries": 1_000},
    "overload": {"max_peers": 500},
    "results_cache_bytes": 2**20,
}
# A line of the log for every refusal would measure the disk.
QUIET = {"logging": {"level": "error"}}
# Many wait for answers that do not come.
_SENDERS = 128
# The allocator and the caches of the Python objects settle within the first slices.
_WARM_SLICES = 2
_GROWTH_RATIO, _GROWTH_BYTES = 0.10, 8 * 2**20


@dataclass
class Ledger:
    """What came of the requests so far.

    Attributes:
        forgeries: accepted without proof; the bytes, for whoever looks into it.
        refused: untouched requests that were not accepted, with their status.
        hung: attempts that were neither answered nor closed in time.
        repeated: 202s that say that their event was there before.
        unlogged: 202s whose event, or the event that they repeat, is not on the log.
        grown: by how many bytes the memory of a gateway grew after its first slices, at most.
    """

    slices: int = 0
    requests: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    forgeries: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    hung: list[str] = field(default_factory=list)
    repeated: int = 0
    unlogged: int = 0
    resident: list[int] = field(default_factory=list)
    grown: int = 0
    allowed: int = _GROWTH_BYTES
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Return the books of an earlier run; new ones when there are none."""
        if not path.exists():
            return cls()
        found = json.loads(path.read_text("utf-8"))
        return cls(**found | {name: Counter(found[name]) for name in ("answers", "kinds", "refused")})

    def write(self, path: Path) -> None:
        """Keep the books."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(vars(self)) + "\n", encoding="utf-8")

    def note(self, attempt: Attempt, statuses: list[int], *, in_time: bool, now_s: float) -> None:
        """Enter an attempt."""
        self.requests += max(1, attempt.requests)
        self.kinds[attempt.kind] += max(1, attempt.requests)
        self.answers.update(map(str, statuses))
        self.answers["none"] += max(0, max(1, attempt.requests) - len(statuses))
        if not in_time:
            self.hung.append(ascii(attempt.sent[:4000]))
        accepted = statuses.count(202)
        if accepted and accepted > authentic_requests(attempt.sent, now_s):
            self.forgeries.append(ascii(attempt.sent))
        if attempt.is_untouched and statuses != [202]:
            self.refused[str(statuses)] += 1

    def note_memory(self, resident: list[int]) -> None:
        """Enter what one gateway held after each of its slices."""
        self.resident += resident
        settled = resident[_WARM_SLICES - 1 :]
        if len(settled) > 1:
            self.grown = max(self.grown, settled[-1] - settled[0])
            self.allowed = max(self.allowed, int(settled[0] * _GROWTH_RATIO))

    def figures(self) -> list[Figure]:
        """Return the figures."""
        errors = sum(count for status, count in self.answers.items() if status.startswith("5"))
        return [
            Figure("mutated requests", self.requests, "requests"),
            *(Figure(f"of kind {kind}", count, "requests") for kind, count in sorted(self.kinds.items())),
            *(Figure(f"answered {status}", count, "requests") for status, count in sorted(self.answers.items())),
            Figure("of them answered 202 as a repetition", self.repeated, "requests"),
            _none("answers of 500 and above", errors, "answers"),
            _none("accepted forgeries", len(self.forgeries), "requests"),
            _none("untouched requests that were refused", sum(self.refused.values()), "requests"),
            _none("neither answered nor closed in time", len(self.hung), "requests"),
            _none("202s that are not on the log", self.unlogged, "requests"),
            Figure("memory of the gateway, largest", max(self.resident, default=0) / 2**20, "MiB"),
            Figure(
                "memory of the gateway, grown after the first slices",
                self.grown / 2**20,
                "MiB",
                f"<= {self.allowed / 2**20:.0f}",
                self.grown <= self.allowed,
                is_strict=True,
            ),
            Figure("requests a second", self.requests / self.seconds if self.seconds else 0, "1/s"),
        ]


def _none(name: str, count: int, unit: str) -> Figure:
    return Figure(name, count, unit, "= 0", count == 0, is_strict=True)


async def fuzz(lab: Lab, seed: int, wanted: int, ledger: Ledger, budget_s: float) -> None:
    """Send slices until so many requests are in the books, or the time is up."""
    end_s = time.monotonic() + budget_s
    resident: list[int] = []
    clients = [Client(lab.port, addresses) for _ in range(_SENDERS)]
    try:
        while ledger.requests < wanted and time.monotonic() < end_s:
            await _slice(lab, clients, Mutator(f"{seed}/{ledger.slices}"), ledger, min(SLICE, wanted - ledger.requests))
            ledger.slices += 1
            resident.append(resident_bytes(lab.child.pid))
    finally:
        ledger.note_memory(resident)
        for client in clients:
            client.close()


async def _slice(lab: Lab, clients: list[Client], mutator: Mutator, ledger: Ledger, size: int) -> None:
    before, accepted, started_s = lab.log.records, ledger.answers["202"], time.monotonic()
    end = ledger.requests + size

    async def work(client: Client) -> None:
        while ledger.requests < end:
            attempt = mutator.attempt()
            now_s = time.time()
            if attempt.requests:
                statuses, in_time = await client.well_framed(attempt.sent, attempt.requests)
            else:
                statuses, in_time = await client.of_any_framing(attempt.sent)
            ledger.note(attempt, statuses, in_time=in_time, now_s=now_s)

    await asyncio.gather(*map(work, clients))
    repeated = [event_id for client in clients for event_id in client.repeated]
    for client in clients:
        client.repeated.clear()
    ledger.repeated += len(repeated)
    # More records than answers there may be: a sender that leaves early has its event all the same.
    ledger.unlogged += max(0, ledger.answers["202"] - accepted - len(repeated) - (lab.log.records - before))
    if repeated:
        on_log = lab.log.event_ids()
        ledger.unlogged += sum(event_id not in on_log for event_id in repeated)
    ledger.seconds += time.monotonic() - started_s
