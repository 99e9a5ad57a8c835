"""What the pages name is there: links, settings, metrics, commands, files, decisions; their YAML loads."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from pydantic import BaseModel

from contracts.metrics import REGISTRY
from contracts.settings import (
    GatewaySettings,
    KafkaSettings,
    LogSettings,
    ProducerSettings,
    WorkerSettings,
    build,
    parse,
)
from gateways.cli.main import COMMANDS, cli
from streams.__main__ import main as streams
from tests.architecture.source import project_files, relative
from tests.docs.pages import READMES, Block, anchors, blocks, inline_commands, links, pages
from tests.support import ROOT

PAGES = pages()
YAML = [block for page in PAGES for block in blocks(page, "yaml")]
SHELL = [block for page in PAGES for block in blocks(page, "sh")]
HOW = re.compile(r"background|make|docker|run( [a-z]+)*|not-run: .+")
MAX_ADR_LINES = 60
SECTIONS: dict[str, type[BaseModel]] = {
    "gateway": GatewaySettings,
    "kafka": KafkaSettings,
    "logging": LogSettings,
    "producer": ProducerSettings,
    "worker": WorkerSettings,
}
_SETTING = re.compile(rf"`({'|'.join(SECTIONS)})\.([a-z_]+)`")
_METRIC = re.compile(r"\bpenstock_[a-z0-9_]+")
_FILE = re.compile(r"`((?:contracts|producers|streams|gateways|tests|deploy|examples|docs)/[\w./*-]*)`")
_PAGE_IN_CODE = re.compile(r"docs/([\w/-]+\.md)(?:#([\w-]+))?|docs/adr/(\d{4})")
# Environment variables and commands in front of `penstock`.
_ASSIGNMENT = re.compile(r"[A-Z_]+=.*")


def page_ids(page: Path) -> str:
    """Name a page."""
    return relative(page)


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [
        f"{target}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target))
    ]

    assert broken == []


def test_every_page_that_the_code_names_exists() -> None:
    missing = {
        f"{relative(file)}: {found[0]}"
        for file in project_files()
        if file.suffix in {".py", ".yml", ".yaml", ".toml"} or file.name in {"Makefile", "Dockerfile"}
        for found in _PAGE_IN_CODE.finditer(file.read_text("utf-8"))
        if not _is_there(found)
    }

    assert missing == set()


def _is_there(found: re.Match[str]) -> bool:
    if found[3]:
        return any((ROOT / "docs/adr").glob(f"{found[3]}-*.md"))
    page = ROOT / "docs" / found[1]
    return page.exists() and (not found[2] or found[2] in anchors(page))


@pytest.mark.parametrize("block", YAML, ids=str)
def test_every_yaml_block_is_a_valid_part_of_a_configuration(block: Block) -> None:
    whole = yaml.safe_load((ROOT / "penstock.yaml").read_text("utf-8"))

    settings = build(parse(yaml.safe_dump(_merged(whole, yaml.safe_load(block.text))), str(block)), {}, base=ROOT)

    assert settings.version == 1


def _merged(whole: Any, part: Any) -> Any:
    if not isinstance(whole, dict) or not isinstance(part, dict) or whole.get("kind") != part.get("kind"):
        return part
    return whole | {name: _merged(whole.get(name), value) for name, value in part.items()}


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_penstock_command_of_a_page_can_be_parsed(block: Block) -> None:
    for line in block.commands:
        words = [word for word in shlex.split(line) if not _ASSIGNMENT.fullmatch(word)]
        if words[:1] == ["penstock"]:
            _parse(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_penstock_command_within_a_sentence_exists_with_its_options(page: Path) -> None:
    for _, *words in inline_commands(page):
        command, names = _found(words)
        known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}

        assert {word for word in names if word.startswith("--")} - {*known, "--help", "--version"} == set(), words


def _found(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words name, and the other words; what a command takes may be left out in a sentence."""
    command: click.Command = streams if words[0] in {"worker", "fm-stub", "hand-over"} else cli
    while isinstance(command, click.Group) and words and words[0][0] not in "-.<":
        found = command.get_command(click.Context(command), words[0]) if words[0] in _names(command) else None
        assert found is not None, words
        command, words = found, words[1:]
    return command, words


def _names(group: click.Group) -> list[str]:
    return group.list_commands(click.Context(group))


def _parse(words: list[str]) -> None:
    """Let click read a command line, without running it."""
    name, *rest = words
    assert name in COMMANDS, f"penstock {name}"
    group: click.Group = streams if name in {"worker", "fm-stub", "hand-over"} else cli
    command = group.get_command(click.Context(group), name)
    assert command is not None
    context = command.make_context(name, rest)
    if isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command.commands[rest[0]].make_context(rest[0], rest[1:], parent=context)


@pytest.mark.parametrize("page", READMES, ids=page_ids)
def test_every_shell_block_of_a_readme_says_how_it_is_tested(page: Path) -> None:
    silent = [str(block) for block in blocks(page, "sh") if not HOW.fullmatch(block.how)]

    assert silent == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_metric_that_a_page_names_exists(page: Path) -> None:
    known = {sample for family in REGISTRY.collect() for sample in (family.name, f"{family.name}_total")}

    assert set(_METRIC.findall(page.read_text("utf-8"))) - known == set()


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = _SETTING.findall(page.read_text("utf-8"))

    assert [f"{section}.{name}" for section, name in named if name not in SECTIONS[section].model_fields] == []


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = _FILE.findall(page.read_text("utf-8"))

    assert [name for name in named if not any(ROOT.glob(name.rstrip("/")))] == []


@pytest.mark.parametrize("page", sorted((ROOT / "docs/adr").glob("[0-9]*.md")), ids=page_ids)
def test_a_decision_is_short_and_has_its_three_parts(page: Path) -> None:
    text = page.read_text("utf-8")
    headings = [line for line in text.splitlines() if line.startswith("## ")]

    assert len(text.splitlines()) <= MAX_ADR_LINES
    assert headings == ["## Context", "## Decision", "## Consequences"]


def test_the_list_of_decisions_is_complete() -> None:
    folder = ROOT / "docs/adr"
    listed = {target.name for target, _ in links(folder / "README.md")}

    assert {page.name for page in folder.glob("[0-9]*.md")} == listed
