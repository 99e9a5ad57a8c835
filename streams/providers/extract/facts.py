"""Finds amounts, dates, ids and addresses in prose, by pattern."""

import re
from typing import NamedTuple

_MAX_FACTS = 40

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?|"
    r"Nov(?:ember)?|Dec(?:ember)?)"
)
_CURRENCY = r"(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|SEK|NOK|DKK|PLN)"
# Repetitions are bounded everywhere: the text is untrusted and an unbounded one can take quadratic time.
_NUMBER = r"\d(?:[\d,.']{0,30}\d)?"

PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("e-mail", re.compile(r"\b[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}\b")),
    ("link", re.compile(r"\bhttps?://[^\s<>\"')\]]{1,500}[^\s<>\"')\].,;:!?]")),
    ("date", re.compile(r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:Z|[+-]\d\d:?\d\d)?)?")),
    (
        "date",
        re.compile(rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}|{_MONTH} \d{{1,2}}(?:st|nd|rd|th)?)\b(?:,? \d{{4}})?"),
    ),
    (
        "amount",
        re.compile(
            rf"(?:\b{_CURRENCY} ?|[$\u20ac\u00a3\u00a5] ?){_NUMBER}(?:\s?(?:k|m|bn|million|thousand))?\b|"
            rf"\b{_NUMBER}(?:\s?(?:k|m|bn|million|thousand))?"
            rf" ?(?:{_CURRENCY}\b|dollars\b|euros\b|[\u20ac\u00a3])(?! ?\d)",
        ),
    ),
    ("percentage", re.compile(r"\b\d+(?:[.,]\d+)? ?(?:%|percent\b)")),
    (
        "id",
        re.compile(
            r"\b(?:[A-Z]{2,10}[-_]\d{2,20}[\w-]{0,40}|(?:in|ch|cus|sub|pi|re|evt)_[A-Za-z0-9]{6,64})\b|(?<!\w)#\d+\b"
        ),
    ),
    (
        "id",
        re.compile(
            r"\b(?:order|invoice|ticket|case|account|customer|contract|PO|reference|incident)"
            r"(?: (?:number|no\.?|id|#))?[ #:]+(?=[A-Z-]*\d)[A-Z0-9-]{3,40}\b",
            re.IGNORECASE,
        ),
    ),
    (
        "error",
        re.compile(
            r"\b(?:HTTP ?)?[45]\d\d (?:error|[A-Z][a-z]+(?: [A-Z][a-z]+)*)|\b[A-Z]\w{1,80}(?:Error|Exception)\b"
        ),
    ),
    (
        "quantity",
        re.compile(
            r"\b\d[\d,.]{0,30} (?:seats|users|licen[sc]es|units|items|orders|customers|employees|hours|minutes|days|"
            r"weeks|months|years|GB|TB|requests|times)\b",
            re.IGNORECASE,
        ),
    ),
)


class Fact(NamedTuple):
    """Something exact that a text says: its kind (a word of PATTERNS) and the words it uses."""

    kind: str
    text: str


def find(text: str) -> list[Fact]:
    """Return the facts in order of appearance, each once; of overlapping ones the first pattern wins."""
    taken: list[tuple[int, int, Fact]] = []
    for kind, pattern in PATTERNS:
        for match in pattern.finditer(text):
            if len(taken) >= _MAX_FACTS:
                break
            start, end = match.span()
            if all(end <= other_start or start >= other_end for other_start, other_end, _ in taken):
                taken.append((start, end, Fact(kind, " ".join(match[0].split()))))
    taken.sort(key=lambda item: item[0])
    return list(dict.fromkeys(fact for _, _, fact in taken))
