"""What a run is made of, drawn from its seed: routes, limits, and how much goes wrong."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.settings import ProducerSettings, Settings, build, parse
from contracts.topics import RETRY_LANE, Topics
from streams.engine.item import TP
from streams.engine.work import Limits

TOPICS = Topics("t")
OTHER = "other.results"
LANES = ("interactive", "standard", "bulk")
SOURCES = {lane: TOPICS.events(lane) for lane in LANES} | {RETRY_LANE: TOPICS.retries}
JOURNAL = frozenset({TOPICS.results, OTHER, TOPICS.retries, TOPICS.handovers})
APP_ID = "app"
PARTITIONS = 2
TPS = tuple(TP(topic, number) for topic in SOURCES.values() for number in range(PARTITIONS))
PLENTY = 10**6
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@dataclass
class Plan:
    """What a run is made of, apart from the dice.

    Attributes:
        places: workers at a time, at most.
        events: sent in all, within `seconds`, during which there are faults.
        max_kept, max_kept_bytes: of answers for redelivered events.
        remembered: events of which repetitions are recognised.
        faults: how often a call fails in bad weather.
        crashes: workers may die.
        rests: how often there is a pause behind an event; the fewer the longer.
        pace: faults in all, about half of it.
        spills: some events go to the batch API.
    """

    seed: int
    dice: random.Random
    settings: Settings
    limits: Limits
    outlet: ProducerSettings
    places: int
    events: int
    seconds: float
    max_kept: int
    max_kept_bytes: int
    remembered: int
    faults: float
    crashes: bool
    rests: float
    pace: float
    spills: bool

    @property
    def keeps_all(self) -> bool:
        """Tell whether no answer is dropped because of a bound."""
        return self.max_kept >= PLENTY and self.max_kept_bytes >= PLENTY

    @property
    def fits_all(self) -> bool:
        """Tell whether no record is too large."""
        return self.outlet.max_record_bytes >= PLENTY and self.outlet.max_buffer_bytes >= PLENTY


def draw(seed: int) -> Plan:
    """Draw a plan."""
    dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
    pick = dice.choice
    return Plan(
        seed=seed,
        dice=dice,
        settings=_settings(dice),
        limits=Limits(
            in_flight=pick((1, 3, 16, 64, 64)),
            ready_keys=pick((1, 4, 100)),
            held_events=pick((4, 20, 1000)),
            held_bytes=pick((2_000, 10**8)),
            uncommitted=pick((5, 10_000)),
            tenant_weights={"big": 5.0},
        ),
        # Far below what can be configured: so small are the events.
        outlet=ProducerSettings().model_copy(
            update={
                "max_record_bytes": pick((1_200, 2_000, PLENTY)),
                "max_buffer_bytes": pick((4_000, 10**8)),
                "linger_s": 0.0,
            }
        ),
        places=pick((1, 1, 2)),
        events=pick((10, 30, 100)),
        seconds=pick((5.0, 30.0, 120.0)),
        max_kept=pick((PLENTY, PLENTY, 2)),
        max_kept_bytes=pick((PLENTY, PLENTY, 100)),
        remembered=pick((0, 1000)),
        faults=pick((0.0, 0.1, 0.4)),
        crashes=dice.random() < 0.5,
        rests=pick((0.05, 0.5)),
        pace=pick((4.0, 8.0, 30.0)),
        spills=dice.random() < 0.2,
    )


def _settings(dice: random.Random) -> Settings:
    document = {
        "version": 1,
        "kafka": {"topic_prefix": "t"},
        "worker": {"app_id": APP_ID, "max_in_flight": 64},
        "providers": {"p": {"kind": "fake"}, "q": {"kind": "fake"}},
        "models": {
            "a": {
                "provider": "p",
                "model": "m",
                "retry_budget": dice.choice(({}, {"share": 0.0, "min_per_s": 0.5})),
            },
            "b": {"provider": "q", "model": "m", "price": {"input_usd": 1.0, "output_usd": 1.0}},
            "c": {"provider": "q", "model": "m", "task": "completion"},
        },
        "routes": _routes(dice),
    }
    return build(parse(yaml.safe_dump(document), "storm.yaml"), {}, Path())


def _routes(dice: random.Random) -> list[dict[str, Any]]:
    pick = dice.choice
    common: dict[str, Any] = {
        "prompt": {"system": "Be brief.", "user": "{{ data.n }} {{ data.account }}"},
        "deadline_s": pick((8.0, 60.0, 600.0, 3600.0)),
        "attempt_timeout_s": pick((1.0, 5.0, 30.0)),
        "retry": {
            "base_s": pick((0.1, 1.0)),
            "max_s": pick((1.0, 20.0)),
            "max_attempts": pick((2, 4, 8)),
            "park_after_s": pick((0.5, 5.0, 30.0)),
        },
        "dead_letter_limit": pick(({}, {"ratio": 1.0}, {"ratio": 0.3, "min_events": 5, "window_s": 20.0})),
    }
    batch = {
        "max_events": pick((2, 3, 8)),
        "max_wait_s": min(pick((0.0, 0.05, 2.0)), common["attempt_timeout_s"] / 2),
        "max_calls": pick((1, 2, 8)),
        "max_bytes": pick((20, 32_768)),
    }
    pack = {"output_schema": SCHEMA, "batch": {"kind": "pack", **batch}}
    kinds: list[dict[str, Any]] = [
        {"name": "plain", "model": "a"},
        {"name": "schema", "model": "a", "output_schema": SCHEMA},
        {"name": "free", "model": "b", "order": "none"},
        {"name": "partition", "model": "a", "order": "partition"},
        {"name": "pointer", "model": "b", "order": "/account", "output_topic": OTHER},
        {"name": "pack", "model": "a", **pack},
        {"name": "freepack", "model": "b", "order": "none", **pack},
        {"name": "inputs", "model": "c", "batch": {"kind": "inputs", **batch}},
    ]
    kinds = dice.sample(kinds, pick((1, 2, 3, len(kinds))))
    return [{**common, **kind, "match": {"type": kind["name"]}} for kind in kinds]
