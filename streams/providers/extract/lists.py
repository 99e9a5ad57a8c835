"""Lists out of a prompt: facts, dates, people, actions, or the parts of a list in a document."""

from typing import Any

from streams.providers.extract import guess
from streams.providers.extract.brief import Brief
from streams.providers.extract.fields import Field, flatten, words
from streams.providers.extract.guess import MISSING
from streams.providers.extract.lexicon import word_set
from streams.providers.extract.summary import Content

_MAX_ITEMS = 10
_KINDS = {
    "emails": "e-mail", "email": "e-mail", "dates": "date", "amounts": "amount", "ids": "id", "identifiers": "id",
    "links": "link", "urls": "link", "errors": "error", "quantities": "quantity",
}  # fmt: skip
_ACTIONS = word_set("actions steps todos tasks recommendations followups items")
_ACTION_TOPIC = "please need needs must should want wants asked request follow call send schedule review refund"
_SENTENCES = word_set("sentences highlights quotes excerpts points takeaways bullets")
_OF_THE_PROMPT = word_set("labels tags people participants assignees topics keywords")


def strings(items: dict[str, Any], name: str, content: Content) -> list[Any]:
    """Return texts for an array of strings; facts when the name asks for nothing else."""
    last = name.rsplit(maxsplit=1)[-1] if name.split() else name
    stated = guess.said(name, content) or guess.said(last, content)
    if last in _KINDS:
        found = [fact.text for fact in content.found if fact.kind == _KINDS[last]]
    elif stated:
        found = [part.strip() for part in stated.split(",")]
    elif last in _ACTIONS:
        found = content.sentences_about(_ACTION_TOPIC, 3, only_matching=True)
    elif last in _OF_THE_PROMPT:
        found = []
    elif last in _SENTENCES:
        found = content.sentences_about("", 4) or content.facts()
    else:
        found = content.facts()
    fitting = [guess.fitted(text, items) for text in found] if items.get("type", "string") == "string" else []
    return [text for text in fitting if text is not MISSING][:_MAX_ITEMS]


def parts(name: str, content: Content) -> list[Content]:
    """Return what each element of an array of objects is about: the document's list of that name, or the facts."""
    listed = _list_named(name, content.main.entity)
    if listed:
        return [
            Content((Brief(entity=item, fields=tuple(flatten(item))),), tuple(flatten(item)), "") for item in listed
        ]
    return [_of_fact(line) for line in content.facts()]


def _list_named(name: str, entity: dict[str, Any]) -> list[dict[str, Any]]:
    for key, value in entity.items():
        if words(str(key)) == name and isinstance(value, list):
            return [item for item in value[:_MAX_ITEMS] if isinstance(item, dict)]
    return []


def _of_fact(line: str) -> Content:
    """Return a fact as a small document that answers to the names people give its two halves."""
    kind, _, text = line.partition(": ")
    names = {"type": kind, "kind": kind, "label": kind, "key": kind, "name": kind, "field": kind}
    values = {"value": text, "text": text, "detail": text, "fact": line}
    fields = tuple(Field((key,), value) for key, value in (names | values).items())
    return Content((Brief(entity=dict(names | values), fields=fields),), fields, "")
