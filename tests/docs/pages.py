"""Reads the pages that people wrote: their code blocks, links and headings.

A block fenced as `sh` in a README says in a comment before it how it is tested: `<!-- test: run -->`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.support import ROOT

README = ROOT / "README.md"
SALESFORCE = ROOT / "examples/salesforce-opportunity-summary/README.md"
SYNC = ROOT / "examples/sync/README.md"
LAMBDA = ROOT / "examples/lambda/README.md"
READMES = (README, SALESFORCE, SYNC, LAMBDA)

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<how>.+?) -->\n)?```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.+)$", re.MULTILINE)
_COMMAND = re.compile(r"`(penstock [a-z][^`]*)`")
_CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        how: `run` and the programs it needs, `background`, `make`, `docker`, `not-run: reason`; empty when not said.
    """

    page: Path
    line: int
    language: str
    text: str
    how: str

    def __str__(self) -> str:
        """Name it as an editor does."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def needs(self) -> tuple[str, ...]:
        """Programs that a block marked `run` names behind the word."""
        return tuple(self.how.split()[1:])

    @property
    def commands(self) -> list[str]:
        """Its command lines, continued ones joined."""
        return [line.strip() for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def pages() -> list[Path]:
    """Return every page that a person wrote; generated ones have their own check."""
    found = [
        *READMES,
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/adr").glob("*.md"),
    ]
    return sorted(page for page in found if page.exists())


def blocks(page: Path, language: str) -> list[Block]:
    """Return a page's blocks of a language."""
    text = page.read_text("utf-8")
    return [
        Block(page, text.count("\n", 0, found.start()) + 1, language, found["text"], found["how"] or "")
        for found in _BLOCK.finditer(text)
        if found["language"] == language
    ]


def links(page: Path) -> list[tuple[Path, str]]:
    """Return a page's links within the project: file and anchor."""
    found = []
    for target in _LINK.findall(_prose(page)):
        name, _, anchor = target.partition("#")
        found.append(((page.parent / name).resolve() if name else page, anchor))
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(_prose(page))
    return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}


def inline_commands(page: Path) -> list[list[str]]:
    """Return the command lines of ours within a page's sentences, as words; pipes cut off."""
    return [shlex.split(found.partition("|")[0].rstrip("\\")) for found in _COMMAND.findall(_prose(page))]


def _prose(page: Path) -> str:
    return _CODE.sub("", page.read_text("utf-8"))
