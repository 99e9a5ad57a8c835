"""Picks the sentences that say most: TextRank over words weighted by rarity, with cues and position.

Source: R. Mihalcea, P. Tarau, "TextRank: Bringing Order into Texts", EMNLP 2004 (checked 2026-11).
"""

import functools
import math
import re
from collections import Counter

from streams.providers.extract.lexicon import CUES, stems

_MAX_SENTENCES = 40
_MAX_SENTENCE_CHARS = 400
_MIN_SPACES = 3
_MIN_CHARS = 16
_ROUNDS = 12
_DAMPING = 0.85

_END = re.compile("(?<=[.!?])[\"')\\]]*\\s+(?=\\S)|(?<=[\u3002\uff01\uff1f])|\\n+")
_FENCE = re.compile(r"```.*?(?:```|\Z)|<!--.*?(?:-->|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\]\n]{0,80})\]\([^)\n]{0,300}\)")
_TAG = re.compile(r"<[^<>\n]{1,200}>")
_LINE_NOISE = re.compile(r"^[ \t]*(?:[>#*+-]+[ \t]+|\d+\.[ \t]+)", re.MULTILINE)
_LEFTOVER = re.compile(r"^[\W_]*$")
# An abbreviation's full stop does not end a sentence: "e.g. the invoice", "Mr. Reyes".
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|mr|mrs|ms|dr|st|no|vs|inc|ltd|approx|cf|etc)\.)$", re.IGNORECASE)


@functools.lru_cache(maxsize=8)
def split(text: str) -> tuple[str, ...]:
    """Return the sentences of a text, without Markdown and HTML noise."""
    plain = _LINE_NOISE.sub("", _TAG.sub(" ", _LINK.sub(r"\1", _FENCE.sub(" ", text))))
    joined: list[str] = []
    for piece in _END.split(plain):
        sentence = " ".join(piece.split())
        if joined and _ABBREVIATION.search(joined[-1]):
            joined[-1] = f"{joined[-1]} {sentence}"
        elif not _LEFTOVER.match(sentence):
            joined.append(sentence)
    return tuple(shorten(sentence, _MAX_SENTENCE_CHARS) for sentence in joined)


def shorten(text: str, limit: int) -> str:
    """Return the text cut at a word, with an ellipsis, when it is longer than the limit in characters."""
    if len(text) <= limit:
        return text
    if limit <= 3:  # noqa: PLR2004 - no room for an ellipsis
        return text[:limit]
    cut = text[: limit - 3]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > limit // 2 else cut).rstrip(" ,;:") + "..."


def best(text: str, count: int, topic: str = "") -> list[str]:
    """Return the `count` most telling sentences in their order; `topic` pulls towards its words."""
    distinct = list(dict.fromkeys(split(text)))[:_MAX_SENTENCES]
    distinct = [sentence for sentence in distinct if not _is_scrap(sentence)] or distinct
    if len(distinct) <= count:
        return distinct
    scores = _scores(distinct, set(stems(topic)))
    ranked = sorted(range(len(distinct)), key=lambda index: (-scores[index], index))[:count]
    return [distinct[index] for index in sorted(ranked)]


def _is_scrap(sentence: str) -> bool:
    """Greetings, headings and sign-offs; sentences of scripts without spaces are none."""
    return len(sentence) < _MIN_CHARS and sentence.count(" ") < _MIN_SPACES


def _scores(sentences: list[str], topic: set[str]) -> list[float]:
    bags = [Counter(stems(sentence)) for sentence in sentences]
    spread = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(bags) / count) for word, count in spread.items()}
    ranks = _rank(_similarities(bags, weight))
    return [
        rank * (1 + 0.3 * len(CUES & set(bag)) + 0.3 * len(topic & set(bag))) * (1.25 if index == 0 else 1.0)
        for index, (rank, bag) in enumerate(zip(ranks, bags, strict=True))
    ]


def _similarities(bags: list[Counter[str]], weight: dict[str, float]) -> list[list[float]]:
    norms = [math.sqrt(sum((weight[word] * n) ** 2 for word, n in bag.items())) or 1.0 for bag in bags]
    table = [[0.0] * len(bags) for _ in bags]
    for i, first in enumerate(bags):
        for j in range(i):
            shared = first.keys() & bags[j].keys()
            if shared:
                dot = sum(weight[word] ** 2 * first[word] * bags[j][word] for word in sorted(shared))
                table[i][j] = table[j][i] = dot / (norms[i] * norms[j])
    return table


def _rank(table: list[list[float]]) -> list[float]:
    size = len(table)
    totals = [sum(row) or 1.0 for row in table]
    ranks = [1.0] * size
    for _ in range(_ROUNDS):
        shares = [rank / total for rank, total in zip(ranks, totals, strict=True)]
        ranks = [1 - _DAMPING + _DAMPING * sum(map(float.__mul__, row, shares)) for row in table]
    return ranks
