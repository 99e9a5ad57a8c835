"""Chooses among labels by the words that speak for them: a keyword classifier, not a judgement."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from streams.providers.extract.lexicon import CALM, DEGREES, FALLBACK_LABELS, NEGATIONS, SYNONYMS, URGENT, stem, stems

_WORD = re.compile(r"\w[\w'-]*")
_DEGREE_FIELD = re.compile(r"priorit|urgen|severit|importan|impact|risk|level", re.IGNORECASE)
_MIN_DEGREES = 2
_MAX_CHARS = 16 * 1024
# `billing: refund, charge; technical: error, crash` in a schema's description.
_KEYWORDS_IN_TEXT = re.compile(r"([\w -]{1,40})\s*[:=]\s*([^;\n]+)")
_SYNONYMS = {stem(word): spoken for word, spoken in SYNONYMS.items()}


class Choice(NamedTuple):
    """A label, how sure (0..1), and the words that spoke for it."""

    label: str
    confidence: float
    evidence: tuple[str, ...]


def keywords_in(description: str) -> dict[str, list[str]]:
    """Return the keywords that a description gives per label."""
    return {
        label.strip().casefold(): [word.strip().casefold() for word in re.split(r"[,|]", spoken) if word.strip()]
        for label, spoken in _KEYWORDS_IN_TEXT.findall(description)
    }


def choose(
    text: str, labels: Sequence[str], *, topic: str = "", keywords: Mapping[str, Sequence[str]] | None = None
) -> Choice:
    """Return the label that the text speaks for most; a neutral one when it speaks for none."""
    degrees = [label for label in labels if label.casefold() in DEGREES]
    given = keywords or {}
    if not given and len(degrees) >= _MIN_DEGREES and (len(degrees) == len(labels) or _DEGREE_FIELD.search(topic)):
        return _choose_degree(text, degrees)
    scored = score(text, labels, given)
    best = max(scored, key=lambda item: item[1])
    if best[1] <= 0:
        return Choice(_fallback(labels), 0.0, ())
    total = sum(max(points, 0.0) for _, points, _ in scored)
    return Choice(best[0], round(best[1] / (total + 1.0), 3), best[2])


def score(
    text: str, labels: Sequence[str], keywords: Mapping[str, Sequence[str]]
) -> list[tuple[str, float, tuple[str, ...]]]:
    """Return for each label its points and the words that gave them."""
    heard = _heard(text[:_MAX_CHARS])
    results = []
    for label in labels:
        points, evidence = 0.0, []
        for phrase, weight in _spoken_for(label, keywords).items():
            hits = heard.count(phrase)
            if hits:
                evidence.append(phrase)
                points += weight * min(hits, 3)
        results.append((label, points, tuple(evidence)))
    return results


class _Heard:
    """The words of a text, by stem and position."""

    def __init__(self, text: str) -> None:
        self._tokens = _WORD.findall(text.lower())
        self._rooted = [stem(token) for token in self._tokens]
        self._places: dict[str, list[int]] = {}
        for index, root in enumerate(self._rooted):
            self._places.setdefault(root, []).append(index)

    def count(self, phrase: str) -> int:
        """Return how often a phrase occurs without a negation within the two words before it."""
        wanted = [stem(word) for word in _WORD.findall(phrase.lower())]
        places = self._places.get(wanted[0], []) if wanted else []
        return sum(
            self._rooted[index : index + len(wanted)] == wanted
            and not NEGATIONS & set(self._tokens[max(0, index - 2) : index])
            for index in places
        )


@functools.lru_cache(maxsize=8)
def _heard(text: str) -> _Heard:
    """Return the words of a text; one prompt asks several questions."""
    return _Heard(text)


def _spoken_for(label: str, keywords: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return phrases and their weights: given ones count most, then the label's own words, then its synonyms."""
    roots = stems(re.sub(r"[_/-]+", " ", label))
    spoken = {synonym: 1.0 for root in roots for synonym in _SYNONYMS.get(root, ())}
    return spoken | dict.fromkeys(roots, 2.0) | dict.fromkeys(keywords.get(label.casefold(), ()), 3.0)


def urgency(text: str) -> tuple[float, tuple[str, ...]]:
    """Return how urgent a text sounds, 0..1, and the words that say so; 0.5 when none does."""
    heard = _heard(text[:_MAX_CHARS])
    urgent = tuple(word for word in URGENT if heard.count(word))
    calm = tuple(word for word in CALM if heard.count(word))
    level = 0.5 + 0.2 * len(urgent) - 0.2 * len(calm)
    return min(1.0, max(0.0, level)), urgent + calm


def _choose_degree(text: str, labels: Sequence[str]) -> Choice:
    level, evidence = urgency(text)
    label = min(labels, key=lambda name: abs(DEGREES[name.casefold()] - level))
    return Choice(label, round(min(1.0, 0.2 + 0.2 * len(evidence)), 3), evidence)


def _fallback(labels: Sequence[str]) -> str:
    by_name = {label.casefold(): label for label in labels}
    return next((by_name[name] for name in FALLBACK_LABELS if name in by_name), labels[0])
