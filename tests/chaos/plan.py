"""The plan of a run: which fault when, and to whom; the same seed gives the same plan."""

import random
from dataclasses import dataclass

# What may happen on one broker, with its weight; a worker that was killed or stopped is started again.
STORM = {
    "kill": 5,
    "term": 3,
    "freeze": 3,
    "join": 2,
    "leave": 2,
    "broker_restart": 1,
    "broker_kill": 1,
    "broker_freeze": 1,
    "faults_5": 2,
    "faults_20": 2,
    "hangs": 2,
    "gateway_freeze": 1,
}
# On three brokers it is the brokers' turn.
CLUSTER = {"broker_kill": 5, "broker_freeze": 2, "broker_restart": 2, "kill": 3, "term": 1, "freeze": 1, "faults_5": 1}
PAUSE_S = 3.0, 8.0
# Long enough for one fault to be over, and everything to be usual again, before the next: a frozen worker is away for a
# session and half of its time, and then has to join.
APART_S = 25.0


@dataclass(frozen=True)
class Action:
    """One fault.

    Attributes:
        at_s: when, from the start of the leg; later when the one before takes longer.
        kind: a key of STORM or CLUSTER.
        victim: 0 to 1, picks among those who are there at that moment.
        lasts_s: for what ends by itself.
    """

    at_s: float
    kind: str
    victim: float
    lasts_s: float

    def __str__(self) -> str:
        """Return one line of the printed plan."""
        return f"{self.at_s:6.1f} s  {self.kind:<15} victim {self.victim:.2f}  lasts {self.lasts_s:.1f} s"


@dataclass(frozen=True)
class Plan:
    """All of a leg.

    Attributes:
        is_static: whether workers have stable instance ids.
        is_apart: whether each fault is over before the next one.
    """

    seed: int
    seconds: float
    is_static: bool
    actions: tuple[Action, ...]
    is_apart: bool = False

    def lines(self) -> list[str]:
        """Return the plan for people."""
        membership = "static" if self.is_static else "dynamic"
        return [f"{membership} membership, {len(self.actions)} faults in {self.seconds:g} s", *map(str, self.actions)]


def make_plan(seed: int, seconds: float, weights: dict[str, int], *, is_apart: bool = False) -> Plan:
    """Draw a plan: every kind that fits once, in random order, then by weight; `is_apart` keeps faults from meeting."""
    # Text, because a tuple's hash would differ from process to process.
    dice = random.Random(f"{seed}/{sorted(weights)}")  # noqa: S311 - reproducible on purpose
    kinds = list(weights)
    dice.shuffle(kinds)
    is_static = dice.random() < 0.4
    actions: list[Action] = []
    at_s = dice.uniform(4.0, 6.0)
    while at_s < seconds:
        number = len(actions)
        kind = kinds[number] if number < len(kinds) else dice.choices(list(weights), list(weights.values()))[0]
        actions.append(Action(round(at_s, 1), kind, dice.random(), round(dice.uniform(4.0, 12.0), 1)))
        at_s += APART_S if is_apart else dice.uniform(*PAUSE_S)
    return Plan(seed, seconds, is_static, tuple(actions), is_apart)
