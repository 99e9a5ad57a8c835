"""YAML with line numbers: plain data, and where in the file each part of it stands."""

import itertools
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from contracts.errors import ConfigError

Path = tuple[str | int, ...]
# Where, and a text that begins with the setting.
Problem = tuple[Path, str]


# Of a text, and of `<<`.
_OF_KEYS = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"})
_OF_NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
# Beyond some 4,300 digits Python refuses to print an integer, however it was written: then not even an error could
# name it. So short, one in base 60 also fits a float.
_MAX_NUMBER_CHARS = 300
# A handful of aliases of aliases is more than any memory holds.
_MAX_VALUES = 100_000
_TOO_MANY = f"more than {_MAX_VALUES:,} values, those of an alias counted wherever it stands"
_HALF = re.compile("[\ud800-\udfff]")
_OPENED = ("while scanning a quoted scalar", "while parsing a flow ")


class Unusable(ConfigError):
    """Raise for settings that load and still cannot be used, such as a secret that is too short; all of them at once.

    Args:
        problems: place in the configuration, and a text that begins with the setting; `located` adds file and line.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(text for _, text in problems))
        self.problems = tuple(problems)

    @staticmethod
    def of(error: ConfigError, place: Path) -> tuple[Problem, ...]:
        """Return the problems of an error, which are at a place unless it knows better."""
        return error.problems if isinstance(error, Unusable) else ((place, str(error)),)


@dataclass
class Document:
    """Parsed YAML.

    Attributes:
        name: of the file, as the user gave it.
        data: plain Python data.
        lines: path -> 1-based line.
    """

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line_of(self, path: Path) -> int:
        """Return the line of a path, or of its nearest parent that is in the file."""
        known = path
        while known and known not in self.lines:
            known = known[:-1]
        return self.lines.get(known, 1)


class _Loader(yaml.SafeLoader):
    """Refuses duplicate keys, which YAML forbids and PyYAML lets pass, and scalars that nobody could even print."""

    def compose_scalar_node(self, anchor: dict[Any, Node]) -> ScalarNode:
        """Compose a scalar, key or value, after checking that it is text as UTF-8 knows it."""
        node = super().compose_scalar_node(anchor)
        # JSON, which is YAML too, escapes what lies beyond U+FFFF as a pair of halves.
        node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        problem = ""
        if node.tag in _OF_NUMBERS and len(node.value) > _MAX_NUMBER_CHARS:
            problem = f"a number has at most {_MAX_NUMBER_CHARS} characters, this one {len(node.value)}"
        elif half := _HALF.search(node.value):
            problem = f"\\u{ord(half[0]):04x} is half of a surrogate pair, and no character"
        if problem:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return node

    def flatten_mapping(self, node: MappingNode) -> None:
        """Take in what `<<` names, as far as anybody could mean it."""
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=node.start_mark)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping after checking its keys."""
        seen: dict[Any, int] = {}
        # One that is called a mapping, as in `!!map [a]`, and is none is for PyYAML to refuse.
        for key_node, _ in node.value if node.id == MappingNode.id else ():
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key must be plain text", problem_mark=key_node.start_mark)
            if key_node.tag not in _OF_KEYS:
                # YAML 1.1 also takes `on`, `off`, `yes` and `no` for true and false.
                problem = f"a key must be text; {key_node.value} is text in quotes only"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            if key_node.value in seen:
                problem = f"duplicate key {key_node.value!r}, first on line {seen[key_node.value]}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key_node.start_mark)
            seen[key_node.value] = line
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        """Build any value; PyYAML lets Python's own errors out for values such as the date 2026-02-30."""
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            problem = f"not a valid {kind}: {error}"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from error


def parse(text: str, name: str) -> Document:
    """Parse YAML text.

    Raises:
        ConfigError: with file, line and column.
    """
    try:
        return _parse(text, name)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        problem = error.problem or error.context or ""
        if problem.startswith("but "):
            problem = f"{error.context}, {problem}"
        problem += _still_open(text, error)
        message = f"{where}: not valid YAML: {problem}"
        raise ConfigError(message) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{error.character:04X} must not stand there as it is"
        message = f"{name}:{line}: not valid YAML: {what}"
        raise ConfigError(message) from error
    except yaml.YAMLError as error:
        message = f"{name}: not valid YAML: {error}"
        raise ConfigError(message) from error


def _still_open(text: str, error: yaml.MarkedYAMLError) -> str:
    """Name the quote or bracket that was not closed: what is wrong with it shows lines later, often at the end."""
    begun, mark = error.context_mark, error.problem_mark
    if begun is None or mark is None or begun.line == mark.line or not (error.context or "").startswith(_OPENED):
        return ""
    return f"; the {text[begun.index]} of line {begun.line + 1} is still open"


def _parse(text: str, name: str) -> Document:
    loader = _Loader(text)
    try:
        node = _composed(loader)
        if node is None:
            return Document(name, {})
        _refuse_loops(node, frozenset(), set())
        document = Document(name, loader.construct_document(node))
        _mark(node, (), document.lines)
        return document
    finally:
        loader.dispose()


def _composed(loader: _Loader) -> Node | None:
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:
        # Python's own, of chr().
        problem = r"no character has a number above \U0010ffff"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=loader.get_mark()) from error
    except RecursionError as error:
        # At the innermost part that is open. What comes later needs fewer frames for each level.
        raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=loader.marks[-1]) from error


def _refuse_loops(node: Node, around: frozenset[int], seen: set[int]) -> None:
    """Refuse an alias of something that it stands in."""
    if id(node) in around:
        raise yaml.MarkedYAMLError(problem="an alias within it names the whole of it", problem_mark=node.start_mark)
    if isinstance(node, ScalarNode) or id(node) in seen:
        return
    parts = itertools.chain.from_iterable(node.value) if isinstance(node, MappingNode) else node.value
    for part in parts:
        _refuse_loops(part, around | {id(node)}, seen)
    seen.add(id(node))


def parse_value(text: str) -> Any:
    """Parse one value, as an environment variable holds it.

    Raises:
        ConfigError: not YAML.
    """
    return parse(text, "value").data if text else ""


def _mark(node: Node, path: Path, lines: dict[Path, int]) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if len(lines) > _MAX_VALUES:
        raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=node.start_mark)
    if isinstance(node, MappingNode):
        for key, value in node.value:
            lines[(*path, key.value)] = key.start_mark.line + 1
            _mark(value, (*path, key.value), lines)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _mark(item, (*path, index), lines)
