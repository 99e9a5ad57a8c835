"""What the demo sends: samples of every source, a forged signature, a broken body, an event that needs patience."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import click

from contracts.errors import ConfigError
from contracts.settings import Settings, SourceSettings
from producers.samples.base import Sample
from producers.samples.table import sampler

SOURCES = ("salesforce", "github", "stripe", "support")
FAILURES = 2
_ROUNDS = 3
_DRAWS = 50
Kind = Literal["sample", "poison", "stubborn", "forged"]


@dataclass(frozen=True)
class Act:
    """One webhook of the demo.

    Attributes:
        kind: sample, poison (its body is cut off before it is signed), stubborn (its first model calls fail) or forged.
    """

    kind: Kind
    source: str
    settings: SourceSettings
    sample: Sample

    @property
    def title(self) -> str:
        """What it is, for people."""
        extra = {"poison": " (body cut off)", "stubborn": "", "forged": " (forged signature)", "sample": ""}[self.kind]
        return self.sample.title + extra


def story(settings: Settings, seed: int) -> list[Act]:
    """Return the webhooks in the order in which they are sent; the last one is the forged one.

    Raises:
        click.ClickException: the configuration lacks one of the four sources.
    """
    absent = [name for name in SOURCES if name not in settings.sources]
    if absent:
        message = (
            f"the demo sends events of {', '.join(SOURCES)}; this configuration has no {', '.join(absent)}.\n"
            "Use the project's own penstock.yaml: penstock demo --config PATH/penstock.yaml"
        )
        raise click.ClickException(message)
    rng = random.Random(seed)  # noqa: S311 - sample data
    used: set[str] = set()
    acts = [_act(name, settings.sources[name], rng, used) for _ in range(_ROUNDS) for name in SOURCES]
    last_of = {act.source: index for index, act in enumerate(acts)}
    acts[last_of["github"]] = _cut_off(acts[last_of["github"]])
    acts[last_of["support"]] = replace(acts[last_of["support"]], kind="stubborn")
    forged = replace(_act("salesforce", settings.sources["salesforce"], rng, used), kind="forged")
    return [*acts, forged]


def marker(acts: list[Act]) -> str:
    """Return the text by which the model stand-in knows the stubborn event: its key, which no other event has."""
    return next(act.sample.key for act in acts if act.kind == "stubborn")


def secret_of(source: SourceSettings, variables: Mapping[str, str]) -> bytes:
    """Return the secret that signs for a source: the demo's own where it made one."""
    reference = source.secrets[0].value
    text = variables.get(reference.reference.removeprefix("env:"))
    try:
        return text.encode() if text is not None else reference.resolve()
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


def _act(name: str, source: SourceSettings, rng: random.Random, used: set[str]) -> Act:
    """Draw a sample whose key and title no earlier one has, so that each row of the table is another story."""
    make = sampler(name, source)
    sample = make(rng)
    for _ in range(_DRAWS):
        if used.isdisjoint({sample.key, sample.title}):
            break
        sample = make(rng)
    used |= {sample.key, sample.title}
    return Act("sample", name, source, sample)


def _cut_off(act: Act) -> Act:
    body = act.sample.body
    return replace(act, kind="poison", sample=replace(act.sample, body=body[: len(body) // 2]))
