"""Tests of gateways/cli/demo_story.py: what the demo sends."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import click
import msgspec
import pytest

from contracts.settings import build, load, parse
from gateways.cli import throwaway
from gateways.cli.demo_story import marker, secret_of, story
from tests.gateways.cli.settings import SMALL
from tests.support import ROOT

EXAMPLE = load(ROOT / "penstock.yaml", {})


def test_twelve_events_of_four_sources_and_one_forgery_are_sent() -> None:
    acts = story(EXAMPLE, 7)

    assert Counter(act.kind for act in acts) == {"sample": 10, "poison": 1, "stubborn": 1, "forged": 1}
    assert Counter(act.source for act in acts[:-1]) == {"salesforce": 3, "github": 3, "stripe": 3, "support": 3}
    assert acts[-1].kind == "forged"


def test_one_seed_tells_one_story() -> None:
    assert story(EXAMPLE, 7) == story(EXAMPLE, 7)
    assert story(EXAMPLE, 7) != story(EXAMPLE, 8)


@pytest.mark.parametrize("seed", range(20))
def test_only_the_stubborn_event_carries_the_marker(seed: int) -> None:
    acts = story(EXAMPLE, seed)

    text = marker(acts).encode()

    assert [act.kind for act in acts if text in act.sample.body] == ["stubborn"]


def test_the_poison_is_not_json() -> None:
    poison = next(act for act in story(EXAMPLE, 7) if act.kind == "poison")

    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(poison.sample.body)


def test_a_configuration_without_the_sources_is_told_what_to_do() -> None:
    settings = build(parse(SMALL, "x"), {}, Path())

    with pytest.raises(click.ClickException, match=r"has no salesforce, stripe, support\.\n.*--config"):
        story(settings, 7)


def test_the_secret_is_the_one_made_for_this_run() -> None:
    made = throwaway.environment_of(EXAMPLE, {}, renew=True)

    assert secret_of(EXAMPLE.sources["github"], made) == made["PENSTOCK_SECRET_GITHUB"].encode()


def test_a_secret_from_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file-0123")
    text = SMALL.replace("env:PENSTOCK_SECRET_GITHUB", f"file:{tmp_path}/secret")
    source = build(parse(text, "x"), {}, Path()).sources["github"]

    assert secret_of(source, {}) == b"from-a-file-0123"
    gone = replace_secret(text, tmp_path)
    with pytest.raises(click.ClickException, match="cannot be read"):
        secret_of(build(parse(gone, "x"), {}, Path()).sources["github"], {})


def replace_secret(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/secret", f"{folder}/gone")


def test_acts_are_immutable() -> None:
    act = story(EXAMPLE, 7)[0]

    assert replace(act, kind="forged").title.endswith("(forged signature)")
