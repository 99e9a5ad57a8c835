"""Says what a document is about: kind, name, amount, state, people, dates, and its longest text."""

from dataclasses import dataclass, field
from typing import Any

from streams.providers.extract import money
from streams.providers.extract.fields import Field, flatten, name_of, readable, words
from streams.providers.extract.lexicon import word_set

# Role -> key words that play it, the most telling first. Checked against payloads of Salesforce (REST, change events),
# GitHub (issues, pull_request), Stripe (invoice, charge) and common ticket systems.
ROLES: dict[str, tuple[str, ...]] = {
    "title": ("title", "subject", "summary", "headline", "name", "opportunity name", "short description"),
    "status": ("stage name", "stage", "status", "state", "phase"),
    "amount": ("amount", "amount due", "amount total", "total", "total amount", "amount paid", "price", "value",
               "grand total", "amount usd", "amount eur"),
    "owner": ("owner", "owner name", "assignee", "assigned to", "assignees", "agent"),
    "account": ("account", "account name", "customer name", "company", "company name", "organization name", "customer",
                "client"),
    "due": ("close date", "due date", "due at", "due on", "due", "deadline", "expires at", "closing date"),
    "created": ("created at", "created date", "created", "opened at", "occurred at"),
    "ident": ("number", "ticket id", "case number", "invoice number", "order number", "order id", "ticket", "key",
              "id"),
    "priority": ("priority", "severity", "urgency"),
    "body": ("description", "body", "message", "text", "comment", "content", "details", "notes", "question"),
    "author": ("requester", "author", "from", "reporter", "user", "sender", "created by", "customer email", "email",
               "billing email", "receipt email"),
    "labels": ("labels", "tags"),
    "next step": ("next step", "next action"),
    "reason": ("reason", "failure message", "failure code", "loss reason"),
}  # fmt: skip

_GENERIC_KEYS = word_set(
    "data object record records payload sobject detail event body new old before after item resource attributes"
)
_ENTITY_KEYS = word_set(
    "issue pull request ticket opportunity charge invoice order case incident alert lead contact customer payment "
    "subscription comment review task deal document"
) | {"pull request", "payment intent"}
_SURROUNDINGS = word_set(
    "repository sender user organization installation owner assignee requester account links previous attributes "
    "metadata customer base head labels milestone change event header"
) | {"previous attributes", "change event header", "customer address"}
_MAX_DEPTH = 5
_MIN_ROLES = 2
# Longer ones are texts.
_MAX_NAME_CHARS = 100


@dataclass(frozen=True)
class Brief:
    """What a reader wants to know of a document first.

    Attributes:
        kind: what it is, in words ("opportunity", "issue"); empty when nothing says so.
        action: what happened ("opened", "payment failed"); may be empty.
        roles: role name -> text for reading.
        names: role name -> the document's own word for it ("stage", "close date").
        amount: the amount as a number in major units; None when there is none.
        entity: the object that was chosen as the subject.
        fields: all scalars of the whole document.
    """

    kind: str = ""
    action: str = ""
    roles: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    amount: float | None = None
    entity: dict[str, Any] = field(default_factory=dict)
    fields: tuple[Field, ...] = ()


def describe(document: Any, hint: str = "") -> Brief:
    """Return the brief of a document; `hint` is an event type from outside it (`invoice.payment_failed`)."""
    whole = document if isinstance(document, dict) else {"items": document}
    key, entity = _subject(whole)
    named = {words(str(name)): value for name, value in entity.items()}
    outer = {words(str(name)): value for name, value in whole.items()}
    kind, action = _kind_and_action(key, named, outer, hint)
    currency = str(named.get("currency") or named.get("currency iso code") or outer.get("currency") or "")
    names = _names(named)
    roles = {role: _said(key, named[key]) for role, key in names.items()}
    if roles.get("ident") == roles.get("title"):
        roles.pop("ident", None)
    amount = money.amount(named, ROLES["amount"], currency)
    if amount is not None:
        roles["amount"] = money.written(amount, currency)
        names.setdefault("amount", "amount")
    where = name_of({"name": _nested(outer, "repository", "full_name")})
    if where:
        roles["repository"] = where
    return Brief(kind, action, roles, names, amount, entity, tuple(flatten(whole)))


def _nested(mapping: dict[str, Any], key: str, inner: str) -> Any:
    value = mapping.get(key)
    return value.get(inner) if isinstance(value, dict) else None


def _subject(document: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the key and the object that plays most roles: a payload is often wrapped in an envelope."""
    best: tuple[float, str, dict[str, Any]] = (_weight("", document), "", document)
    level: list[tuple[str, dict[str, Any]]] = [("", document)]
    for depth in range(1, _MAX_DEPTH + 1):
        level = [(key, child) for _, parent in level for key, child in _children(parent)][:200]
        for key, child in level:
            weight = _weight(key, child) - 0.1 * depth
            if weight > best[0]:
                best = (weight, key, child)
    return best[1], best[2]


def _children(parent: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, value in parent.items():
        key = words(str(name))
        items = value[:1] if isinstance(value, list) and key in _GENERIC_KEYS | {"items"} else [value]
        found += [(key, item) for item in items if isinstance(item, dict)]
    return found


def _weight(key: str, candidate: dict[str, Any]) -> float:
    keys = {words(str(name)) for name, value in candidate.items() if value not in (None, "", [], {})}
    roles = sum(1.0 for names in ROLES.values() if keys & set(names))
    if key in _ENTITY_KEYS:
        return roles + 2.0
    return roles - 4.0 if key in _SURROUNDINGS else roles


def _names(named: dict[str, Any]) -> dict[str, str]:
    """Return which key plays each role."""
    found = {}
    for role, keys in ROLES.items():
        key = next((key for key in keys if name_of(named.get(key))), None)
        if key:
            found[role] = key
    return found


def _said(key: str, value: Any) -> str:
    return readable(key, value) if isinstance(value, str | int | float) else name_of(value)


def _kind_and_action(key: str, named: dict[str, Any], outer: dict[str, Any], hint: str) -> tuple[str, str]:
    header = outer.get("change event header")
    changed = {words(str(name)): value for name, value in header.items()} if isinstance(header, dict) else {}
    stated_type = next(
        (outer[name] for name in ("type", "event type", "event", "detail type") if outer.get(name)), hint
    )
    parts = stated_type.replace("/", ".").split(".") if _is_name(stated_type) else []
    segments = [words(part) for part in parts if part]
    kind = _kind(key, named, outer | changed) or _kind_in(segments)
    if not kind and {"stage name", "stage"} & named.keys() and "amount" in named:
        kind = "opportunity"
    kind = kind[:-1] if kind.endswith("s") and kind[:-1] in _ENTITY_KEYS else kind
    action = outer.get("action") or changed.get("change type") or (segments[-1] if len(segments) > 1 else "")
    action = words(str(action))
    is_version = action.startswith("v") and action[1:].isdigit()
    return kind, "" if action == kind or is_version else action


def _kind(key: str, named: dict[str, Any], outer: dict[str, Any]) -> str:
    """Return what the document itself calls its subject."""
    attributes = named.get("attributes")
    stated = (
        named.get("object"),
        attributes.get("type") if isinstance(attributes, dict) else None,
        outer.get("entity name"),
        named.get("sobject type") or outer.get("sobject type") or outer.get("object type"),
        key if key not in _GENERIC_KEYS else None,
    )
    return next((words(value) for value in stated if _is_name(value)), "")


def _kind_in(segments: list[str]) -> str:
    known = (part for part in reversed(segments) if part in _ENTITY_KEYS or part.rstrip("s") in _ENTITY_KEYS)
    return next(known, "")


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _MAX_NAME_CHARS


def is_telling(brief: Brief) -> bool:
    """Return whether the document says enough of itself for a headline."""
    return len(brief.roles) >= _MIN_ROLES
