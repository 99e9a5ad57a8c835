"""Prints the ledger of a run and writes its figures file."""

from collections.abc import Callable, Sequence

from bench.figures import Figure, publish
from tests.chaos.lab import SESSION_S
from tests.chaos.leg import Verdict

MAX_SHOWN = 20
SHOWN_STALLS = 5


def report(seed: int, command: str, verdicts: Sequence[Verdict], say: Callable[[str], None]) -> int:
    """Print what went wrong, the table, and return the exit status."""
    figures = [figure for verdict in verdicts for figure in figures_of(verdict)]
    status = publish(f"chaos-{seed}", command, 1, figures)
    for verdict in verdicts:
        for title, lines in offenders(verdict).items():
            say(f"{verdict.name}: {title}: {len(lines)}")
            for line in lines[:MAX_SHOWN]:
                say(f"  {line}")
    return status


def figures_of(verdict: Verdict) -> list[Figure]:
    """Return a leg's figures; those about loss, order and payment fail the run."""
    balance, leg = verdict.balance, verdict.name

    def none(name: str, lines: Sequence[str]) -> Figure:
        return Figure(f"{leg}: {name}", len(lines), "events", "= 0", not lines, is_strict=True)

    return [
        Figure(f"{leg}: sent", verdict.sent, "events"),
        Figure(f"{leg}: accepted", verdict.accepted, "events"),
        *(Figure(f"{leg}: {kind}", count, "records") for kind, count in sorted(balance.kinds.items())),
        none("lost", balance.lost),
        none("ends that the event gave no reason for", balance.unfit),
        none("dead letters that are missing or not the record", balance.unburied),
        none("accepted and not on the log", balance.unlogged),
        none("duplicates", balance.duplicates),
        Figure(f"{leg}: repeats in the producer's buffer at a freeze", len(balance.buffered_repeats), "events"),
        none("order violations", balance.disorder),
        none("outcomes of no event", balance.foreign),
        none("outcomes on another partition than their event", balance.astray),
        none("commits ahead of finished events", balance.ahead),
        Figure(
            f"{leg}: model calls beyond one per event",
            verdict.extra,
            "calls",
            f"<= {verdict.bound} (slots of killed and frozen workers)",
            verdict.extra <= verdict.bound,
            is_strict=True,
        ),
        Figure(f"{leg}: calls in flight at kills and freezes (their metrics, just before)", verdict.floor, "calls"),
        stall(f"{leg}: longest stall, beyond silence and session timeout", balance.stall_ms(verdict.silences)),
        *after_each(verdict),
        Figure(
            f"{leg}: workers that ended by themselves",
            len(verdict.crashes),
            "workers",
            f"<= {verdict.may_crash} (all of them, once for each fault of a broker)",
            len(verdict.crashes) <= verdict.may_crash,
            is_strict=True,
        ),
        none("other problems", verdict.problems),
    ]


def stall(name: str, length_ms: float) -> Figure:
    """Return the figure of a stall of a partition, beyond the session timeout."""
    return Figure(
        name, round(max(0.0, length_ms / 1000 - SESSION_S), 3), "s", "<= 5", length_ms / 1000 <= SESSION_S + 5
    )


def after_each(verdict: Verdict) -> list[Figure]:
    """Return the longest stall after each kind of fault, where no fault has met another."""
    found = verdict.balance.stalls_after(verdict.acts, verdict.silences)
    return [
        stall(f"{verdict.name}: longest stall after {kind}, beyond silence and session timeout", ms)
        for kind, ms in found.items()
    ]


def offenders(verdict: Verdict) -> dict[str, list[str]]:
    """Return what is to be looked at, by title."""
    balance = verdict.balance
    found = {
        "lost": balance.lost,
        "ends that the event gave no reason for": balance.unfit,
        "dead letters that are missing or not the record": balance.unburied,
        "accepted and not on the log": balance.unlogged,
        "duplicates": balance.duplicates,
        "repeats in the producer's buffer at a freeze": balance.buffered_repeats,
        "order violations": balance.disorder,
        "outcomes of no event": balance.foreign,
        "outcomes on another partition than their event": balance.astray,
        "commits ahead": balance.ahead,
        "workers that ended by themselves": verdict.crashes,
        "other problems": verdict.problems,
        "stalls, the longest first": [
            f"{one.length_ms} ms from {one.from_ms}, {one.where}"
            for one in sorted(balance.stalls, key=lambda one: -one.length_ms)[:SHOWN_STALLS]
        ],
    }
    return {title: lines for title, lines in found.items() if lines}
