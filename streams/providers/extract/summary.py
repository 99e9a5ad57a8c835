"""Sums a prompt's content up as a person would: a headline per document, then the best sentences."""

from dataclasses import dataclass
from functools import cached_property

from streams.providers.extract import facts as patterns
from streams.providers.extract.brief import ROLES, Brief, describe, is_telling
from streams.providers.extract.fields import Field, words
from streams.providers.extract.lexicon import word_set
from streams.providers.extract.reading import Reading
from streams.providers.extract.sentences import best, shorten, split

_MAX_DOCUMENTS = 5
_MAX_FACTS = 8
_MAX_FACT_CHARS = 120
_MAX_TITLE_CHARS = 160
_TYPE_LABELS = frozenset({"event type", "type", "event"})
_MAX_FACT_DEPTH = 4
_ABOUT_OTHERS = frozenset({"repository", "sender", "organization", "installation", "event type"})
# Said in the headline already, or of interest to machines only.
_DULL = word_set(
    "id api livemode object url uuid type event specversion datacontenttype time action currency created login number "
    "name version"
) | {"api version", "created at", "currency iso code", "full name", "updated at", *ROLES["amount"]}
# What a person wants to know, in this order, and how it is introduced.
_FACT_ROLES = ("amount", "status", "priority", "due", "owner", "account", "author", "next step", "reason", "labels")


@dataclass(frozen=True)
class Content:
    """What a prompt says, read once and asked many questions.

    Attributes:
        briefs: one per JSON document.
        fields: scalars of all documents, and the labelled lines.
        prose: running text: of the prompt and of the documents' bodies.
    """

    briefs: tuple[Brief, ...]
    fields: tuple[Field, ...]
    prose: str

    @classmethod
    def of(cls, reading: Reading) -> "Content":
        """Describe what was read."""
        hint = next((value for label, value in reading.labelled if words(label) in _TYPE_LABELS), "")
        briefs = [describe(document, hint) for document in reading.documents[:_MAX_DOCUMENTS]]
        lines = [Field((words(label) or "note",), value) for label, value in reading.labelled]
        if not briefs and lines:
            labelled = describe({field.path[0]: field.value for field in lines}, hint)
            briefs = [labelled] if is_telling(labelled) else []
        bodies = [brief.roles["body"] for brief in briefs if "body" in brief.roles]
        fields = tuple(field for brief in briefs for field in brief.fields)
        return cls(tuple(briefs), (*fields, *lines), "\n".join([*bodies, reading.prose]).strip())

    @property
    def main(self) -> Brief:
        """The brief of the longest document; an empty one when there is none."""
        return self.briefs[0] if self.briefs else Brief()

    @cached_property
    def text(self) -> str:
        """Everything that can speak for a label."""
        spoken = [f"{field.label}: {field.text}" for field in self.fields if isinstance(field.value, str)]
        return "\n".join([self.main.kind, self.main.action, *spoken, self.prose])

    @cached_property
    def found(self) -> list[patterns.Fact]:
        """The exact things in the running text."""
        return patterns.find(self.prose)

    def title(self) -> str:
        """Return what the content is called, in one line."""
        named = self.main.roles.get("title") or self.headline()
        return shorten(named or next(iter(best(self.prose, 1)), ""), _MAX_TITLE_CHARS)

    def headline(self) -> str:
        """Return one sentence on the main document; empty when it does not say enough."""
        return _headline(self.main) if is_telling(self.main) else ""

    def summary(self, sentences: int = 2) -> str:
        """Return a headline and the most telling sentences."""
        parts = [_headline(brief) for brief in self.briefs if is_telling(brief)]
        # Sentences that only repeat the title say nothing new.
        title = self.main.roles.get("title", "")
        parts += [line for line in best(self.prose, sentences, topic=title) if line.rstrip(".!?") != title]
        if not parts:
            parts = ["; ".join(self.facts(_MAX_FACTS)) + "."] if self.facts(1) else []
        return " ".join(_closed(part) for part in parts if part)

    def facts(self, limit: int = _MAX_FACTS) -> list[str]:
        """Return `label: value` lines, the most wanted first."""
        roles = self.main.roles
        lines = [
            f"{self.main.names[role].removesuffix(' name').capitalize()}: {roles[role]}"
            for role in _FACT_ROLES
            if role in roles
        ]
        told = {value.casefold() for value in roles.values()}
        for item in self.found:
            if item.text.casefold() not in told:
                told.add(item.text.casefold())
                lines.append(f"{item.kind.capitalize()}: {item.text}")
        lines += [
            f"{field.label.capitalize()}: {field.text}"
            for field in self.fields
            if field.path[-1] not in _DULL and _is_telling_field(field) and field.text.casefold() not in told
        ]
        return list(dict.fromkeys(shorten(line, _MAX_FACT_CHARS) for line in lines))[:limit]

    def sentences_about(self, topic: str, limit: int, *, only_matching: bool = False) -> list[str]:
        """Return sentences near a topic; with `only_matching` those that share a word with it, maybe none."""
        wanted = set(topic.split())
        if only_matching:
            return [line for line in split(self.prose) if wanted & set(line.lower().split())][:limit]
        return best(self.prose, limit, topic=topic) or ([self.headline()] if self.headline() else [])


def _is_telling_field(field: Field) -> bool:
    text = str(field.value)
    if not text or text in ("0", "False") or len(text) > _MAX_FACT_CHARS or text.startswith(("http://", "https://")):
        return False
    return (
        "id" not in field.path[-1].split() and field.path[0] not in _ABOUT_OTHERS and len(field.path) <= _MAX_FACT_DEPTH
    )


def _closed(sentence: str) -> str:
    return sentence if sentence[-1:] in ".!?\u3002" else f"{sentence}."


def _headline(brief: Brief) -> str:
    """Return one sentence, such as: Opportunity 'Acme - 200 seats' (USD 48,000, stage Prospecting)."""
    roles = brief.roles
    number = roles.get("ident", "")
    shown = f"#{number}" if number.isdigit() and len(number) < 8 else number if len(number) <= 12 else ""  # noqa: PLR2004 - longer ids are noise
    title = shorten(roles["title"], _MAX_TITLE_CHARS) if "title" in roles else ""
    head = [brief.kind.capitalize() or "Event", shown, f"'{title}'" if title else ""]
    if "repository" in roles and brief.entity.get("full_name") != roles["repository"]:
        head.append(f"in {roles['repository']}")
    state_word = "stage " if brief.kind == "opportunity" else "status "
    inside = [
        roles.get("amount", ""),
        state_word + roles["status"] if "status" in roles else "",
        f"priority {roles['priority']}" if "priority" in roles else "",
        f"labels {roles['labels']}" if "labels" in roles else "",
    ]
    described = ", ".join(part for part in inside if part)
    sentence = " ".join(part for part in head if part) + (f" ({described})" if described else "")
    return ", ".join([sentence, *_circumstances(brief)])


def _circumstances(brief: Brief) -> list[str]:
    roles = brief.roles
    due_word = "closes" if brief.kind == "opportunity" else "due"
    shown = {"opened": "", "created": ""}.get(brief.action, brief.action)
    told = (
        (shown, shown),
        ("author", f"{_author_word(brief.kind)} {roles.get('author', '')}"),
        ("account", f"account {roles.get('account', '')}"),
        ("due", f"{due_word} {roles.get('due', '')}"),
        ("owner", f"owner {roles.get('owner', '')}"),
        ("next step", f"next step: {roles.get('next step', '')}"),
        ("reason", f"reason: {roles.get('reason', '')}"),
    )
    return [text for role, text in told if role and (role in roles or role == shown)]


def _author_word(kind: str) -> str:
    if kind in ("issue", "pull request"):
        return "opened by"
    return "contact" if kind in ("invoice", "charge", "payment intent", "subscription", "order") else "by"
