"""Finds what a prompt is about: JSON documents, labelled lines and prose, without the instructions around them."""

import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

# Beyond these sizes a summary gains nothing and the loop would be held up (measured: about 10 ms for 32 KiB of prose).
MAX_JSON_CHARS = 256 * 1024
MAX_PROSE_CHARS = 32 * 1024
_MAX_FAILED_STARTS = 32
_MAX_LABEL_WORDS = 12

_OPENING = re.compile(r"<([A-Za-z][\w.-]{0,60})(?:\s[^<>]{0,200})?>")
_BESIDE_THE_POINT = re.compile(r"passage|context|reference|knowledge|example|schema|instruction|policy", re.IGNORECASE)
_JSON_START = re.compile(r"\{\s{0,200}\"|\[\s{0,200}\{")
_DELIMITER = re.compile(r"^\s*(?:[<\[=#~*`_-]{3,}.*|</?[A-Za-z][\w.-]{0,60}>)\s*$")
_LABELLED = re.compile(r"^\s*(?:[-*]\s+)?\**([A-Za-z][\w /()-]{0,40}?)\**:\s+(\S.*)$")
_INSTRUCTION = re.compile(
    r"^\s*(?:[-*\d.]+\s+)?(?:please\s+)?(?:summari[sz]e|extract|classify|return|answer|reply|respond|write|you are|"
    r"you will|given|the following|here is|here are|below is|use only|do not|don't|output|treat|read|describe|give|"
    r"list|identify|analy[sz]e|assess|produce|generate|triage|rate|draft)\b",
    re.IGNORECASE,
)
_decoder = json.JSONDecoder()


class Reading(NamedTuple):
    """What was found in a prompt.

    Attributes:
        documents: parsed JSON objects and arrays, the longest first.
        labelled: `Label: value` lines, in order.
        prose: the remaining text.
    """

    documents: tuple[Any, ...]
    labelled: tuple[tuple[str, str], ...]
    prose: str


def read(texts: Iterable[str]) -> Reading:
    """Read the texts of a prompt, newest last."""
    whole = "\n".join(texts)[-MAX_JSON_CHARS:]
    text = _inside_tags(whole)
    documents, rest = _split_json(text)
    labelled, prose = _split_lines(rest[:MAX_PROSE_CHARS])
    if not (documents or labelled or prose.strip()):
        prose = whole[:MAX_PROSE_CHARS]
    return Reading(tuple(documents), tuple(labelled), prose.strip())


def _inside_tags(text: str) -> str:
    """Return the data that the prompt fences in with tags, and the labelled lines around it; else all."""
    tagged, outside = _split_tags(text)
    parts = [inner for name, inner in tagged if not _BESIDE_THE_POINT.search(name)]
    if not any(part.strip() for part in parts):
        return outside if outside.strip() else text
    head = [line for line in outside.splitlines() if _LABELLED.match(line) and not _INSTRUCTION.match(line)]
    return "\n".join([*head, *parts])


def _split_tags(text: str) -> tuple[list[tuple[str, str]], str]:
    """Return the outermost tagged parts by name, and the text without them."""
    # Linear but for a bounded number of misses; a regular expression with a back reference would be quadratic.
    tagged: list[tuple[str, str]] = []
    outside: list[str] = []
    position = kept = failures = 0
    while failures < _MAX_FAILED_STARTS:
        match = _OPENING.search(text, position)
        if match is None:
            break
        end = text.find(f"</{match[1]}>", match.end())
        if end < 0:
            failures, position = failures + 1, match.end()
            continue
        tagged.append((match[1], text[match.end() : end]))
        outside.append(text[kept : match.start()])
        position = kept = end + len(match[1]) + 3
    outside.append(text[kept:])
    return tagged, "".join(outside)


def _split_json(text: str) -> tuple[list[Any], str]:
    """Return the JSON values in the text, longest first, and the text without them."""
    found: list[tuple[int, Any]] = []
    rest: list[str] = []
    position = kept = failures = 0
    while failures < _MAX_FAILED_STARTS:
        opening = _JSON_START.search(text, position)
        if opening is None:
            break
        start = opening.start()
        try:
            value, end = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            failures, position = failures + 1, start + 1
            continue
        position = end
        if _is_document(value):
            found.append((end - start, value))
            rest.append(text[kept:start])
            kept = end
    rest.append(text[kept:])
    found.sort(key=lambda item: -item[0])
    return [value for _, value in found], "\n".join(rest)


def _is_document(value: Any) -> bool:
    return bool(value) and (isinstance(value, dict) or any(isinstance(item, dict) for item in value))


def _split_lines(text: str) -> tuple[list[tuple[str, str]], str]:
    """Return the labelled lines and the prose; instructions and delimiters are in neither."""
    labelled: list[tuple[str, str]] = []
    prose: list[str] = []
    for line in text.splitlines():
        match = _LABELLED.match(line)
        if _DELIMITER.match(line) or _INSTRUCTION.match(line):
            continue
        if match and len(match[2].split()) <= _MAX_LABEL_WORDS:
            labelled.append((match[1], match[2].rstrip()))
        elif not line.rstrip().endswith(":"):
            prose.append(line)
    return labelled, "\n".join(prose)
