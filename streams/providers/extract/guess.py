"""Guesses the value of one named scalar field: by the prompt's own fields first, then by what the name asks for."""

import re
from dataclasses import dataclass
from typing import Any, Final

from streams.providers.extract import classify, money
from streams.providers.extract.brief import ROLES
from streams.providers.extract.fields import Field, words
from streams.providers.extract.lexicon import word_set
from streams.providers.extract.sentences import shorten
from streams.providers.extract.summary import Content

MISSING: Final = object()

_SUMMARY = word_set("summary text description answer abstract tldr overview content output result message response "
                     "digest gist synopsis brief analysis")  # fmt: skip
_TITLE = word_set("title headline subject name")
_REASON = word_set("reason rationale explanation evidence justification why reasoning")
_ACTION = word_set("step steps action actions recommendation recommendations todo todos follow followup")
_SURE = word_set("confidence certainty probability score likelihood")
_MONEY = word_set("amount total price value cost sum revenue")
_DEGREE = word_set("urgency priority severity risk importance impact")
_ASKING = word_set("is has have needs need should can was requires require contains mentions a the any")
_UNITS = word_set("usd eur gbp percent pct days hours")
# Any other date field means a certain date, which the first one in a text need not be.
_ANY_DATE = frozenset({"date", "when", "mentioned date"})
_URGENT_FROM = 0.65
_ACTION_WORDS = "please need needs must should want wants next asked request follow call send schedule review refund"
_FORMATS = {"email": "e-mail", "date": "date", "date-time": "date", "uri": "link", "url": "link"}


@dataclass
class Certainty:
    """What the surest choice among labels rested on."""

    confidence: float = 0.0
    evidence: tuple[str, ...] = ()

    def note(self, confidence: float, evidence: tuple[str, ...]) -> None:
        """Keep a choice when it is surer than those before it."""
        if confidence > self.confidence:
            self.confidence, self.evidence = confidence, evidence


def field_named(name: str, content: Content) -> Field | None:
    """Return the prompt's own field of that name: of the main object first, the shallowest before the deeper."""
    wanted = {name, " ".join(word for word in name.split() if word not in _UNITS)} - {""}
    own = {words(str(key)) for key in content.main.entity}
    matches = [
        field
        for field in content.fields
        if {field.path[-1], field.label, " ".join(field.path[-2:])} & wanted and str(field.value).strip()
    ]
    return min(matches, key=lambda field: (not wanted & own, len(field.path)), default=None)


def said(name: str, content: Content) -> str:
    """Return the text for a name: the role it plays in the main object, or the field of that name; empty when none."""
    roles = content.main.roles
    for role, keys in ROLES.items():
        if (name == role or name in keys) and role in roles:
            return roles[role]
    field = field_named(name, content)
    return field.text if field else ""


def fitted(text: str, schema: dict[str, Any]) -> Any:
    """Return the text within the schema's lengths and pattern; MISSING when it cannot be."""
    text = shorten(text, schema.get("maxLength", len(text)))
    if len(text) < schema.get("minLength", 0) or not text:
        return MISSING
    pattern = schema.get("pattern")
    return text if pattern is None or _search(pattern, text) else MISSING


def _search(pattern: str, text: str) -> str | None:
    try:
        match = re.search(pattern, text)
    except re.error:
        return None
    return match[0] if match else None


def string(schema: dict[str, Any], name: str, content: Content, sure: Certainty) -> Any:  # noqa: PLR0911 - one per rule
    """Return a text for a string field, or MISSING."""
    if "format" in schema or "pattern" in schema:
        return _of_form(schema, name, content)
    last = name.rsplit(maxsplit=1)[-1] if name.split() else name
    if last in _SUMMARY:
        return fitted(content.summary(), schema)
    direct = said(name, content)
    if direct:
        return fitted(direct, schema)
    if last in _TITLE and name == last:
        return fitted(content.title(), schema)
    if last in _REASON and sure.evidence:
        return fitted(f"Words that speak for it: {', '.join(sure.evidence[:6])}.", schema)
    if last in _ACTION or name.split()[:1] == ["next"]:
        found = content.sentences_about(_ACTION_WORDS, 1, only_matching=True)
        return fitted(found[0], schema) if found else MISSING
    return MISSING


def _of_form(schema: dict[str, Any], name: str, content: Content) -> Any:
    """Return what has the form the schema asks for: the field of that name, or the first such thing in the text."""
    kind = _FORMATS.get(schema.get("format", ""))
    field = field_named(name, content)
    candidates = [str(field.value)] if field else []
    role = said(name, content)
    candidates += [role] if role else []
    if not candidates and kind and (kind != "date" or name in _ANY_DATE):
        candidates = [fact.text for fact in content.found if fact.kind == kind]
    for candidate in candidates:
        text = candidate[:10] if schema.get("format") == "date" else candidate
        if schema.get("format") == "date" and not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            continue
        if fitted(text, schema) is not MISSING:
            return fitted(text, schema)
    found = _search(schema["pattern"], content.text) if "pattern" in schema else None
    return fitted(found, schema) if found else MISSING


def label(schema: dict[str, Any], name: str, content: Content, sure: Certainty) -> Any:
    """Return one of an enum's values: the one the prompt states, or the one its words speak for."""
    options = schema["enum"]
    direct = said(name, content).casefold()
    for option in options:
        if isinstance(option, str) and direct and option.casefold() == direct:
            sure.note(1.0, (f"{name}: {option}",))
            return option
    texts = [option for option in options if isinstance(option, str)]
    if not texts:
        value = number({}, name, content, sure)
        return value if value in options else None if None in options else MISSING
    choice = classify.choose(content.text, texts, topic=name, keywords=_keywords(schema))
    sure.note(choice.confidence, choice.evidence)
    return None if None in options and not choice.evidence else choice.label


def labels(schema: dict[str, Any], name: str, content: Content) -> list[Any]:
    """Return every label of an enum that something speaks for, the strongest first."""
    del name
    texts = [option for option in schema["enum"] if isinstance(option, str)]
    scored = sorted(classify.score(content.text, texts, _keywords(schema)), key=lambda item: -item[1])
    return [option for option, points, _ in scored if points > 0]


def _keywords(schema: dict[str, Any]) -> dict[str, list[str]]:
    given = schema.get("x-keywords")
    stated = (
        {str(key).casefold(): [str(word) for word in spoken] for key, spoken in given.items()}
        if isinstance(given, dict)
        else {}
    )
    described = classify.keywords_in(str(schema.get("description", "")))
    allowed = {str(option).casefold() for option in schema["enum"]}
    return {key: spoken for key, spoken in (described | stated).items() if key in allowed}


def number(schema: dict[str, Any], name: str, content: Content, sure: Certainty) -> Any:
    """Return a number the prompt states under that name, or a score the name asks for; else MISSING."""
    whole = schema.get("type") == "integer" or "integer" in schema.get("type", ())
    parts = set(name.split())
    stated = _stated_number(name, parts, content)
    if stated is not None:
        return int(stated) if stated == int(stated) else MISSING if whole else stated
    low, high = schema.get("minimum", 1 if whole else 0), schema.get("maximum", 5 if whole else 1)
    if "sentiment" in parts:
        low, high = schema.get("minimum", -1), schema.get("maximum", 1)
        share = (_sentiment(content.text) + 1) / 2
    elif parts & _DEGREE:
        share = classify.urgency(content.text)[0]
    elif parts & _SURE:
        share = sure.confidence
    else:
        return MISSING
    scaled = low + share * (high - low)
    return round(scaled) if whole else round(scaled, 3)


def _stated_number(name: str, parts: set[str], content: Content) -> float | None:
    role_keys = ROLES["amount"]
    if (name in role_keys or parts & _MONEY) and content.main.amount is not None:
        return content.main.amount
    field = field_named(name, content)
    if field is not None:
        return money.number(field.value)
    if parts & _MONEY:
        return next((_plain(fact.text) for fact in content.found if fact.kind == "amount"), None)
    return None


def _plain(text: str) -> float | None:
    """Return `$1,200.50` or `EUR 30k` as a number."""
    match = re.search(r"\d[\d,.']*", text)
    value = money.number(match[0].replace("'", "").rstrip(".,")) if match else None
    scale = re.search(r"\d\s?(k|thousand|m|million|bn)\b", text, re.IGNORECASE)
    factor = {"k": 1e3, "t": 1e3, "m": 1e6, "b": 1e9}[scale[1][0].lower()] if scale else 1.0
    return None if value is None else value * factor


def _sentiment(text: str) -> float:
    points = {name: value for name, value, _ in classify.score(text, ("positive", "negative"), {})}
    total = points["positive"] + points["negative"]
    return (points["positive"] - points["negative"]) / total if total else 0.0


def boolean(schema: dict[str, Any], name: str, content: Content) -> bool:
    """Return whether the prompt says so: by its field of that name, or by the words of the name."""
    field = field_named(name, content)
    if field is not None and isinstance(field.value, bool):
        return field.value
    asked = [word for word in name.split() if word not in _ASKING]
    if {"urgent", "escalate", "escalation", "critical"} & set(asked):
        return classify.urgency(content.text)[0] >= _URGENT_FROM
    given = schema.get("x-keywords")
    phrases = [str(word) for word in given] if isinstance(given, list) else []
    return classify.score(content.text, [" ".join(asked)], {" ".join(asked): phrases})[0][1] > 0
