"""Which headers and JSON fields a source's settings read, so that a sample can carry them."""

import re
from collections.abc import Iterator

from contracts.settings import SourceSettings

HEADER, JSON, FORM = "header", "json", "form"
_IN_TEXT = re.compile(r"\{(header|json|form):([^}]*)\}")
_WHOLE = re.compile(r"(header|json|form):(.*)")


def fields_of(source: SourceSettings) -> Iterator[tuple[str, str, str]]:
    """Yield (role, kind, name or pointer) for everything that `id`, `key`, `type` and `subject` read."""
    for role in ("id", "key", "type", "subject"):
        template = getattr(source, role) or ""
        whole = _WHOLE.fullmatch(template)
        found = [whole.groups()] if whole else _IN_TEXT.findall(template)
        for kind, name in found:
            yield role, kind, name


def is_form(source: SourceSettings) -> bool:
    """Tell whether a source's settings read its body as a form."""
    return any(kind == FORM for _, kind, _ in fields_of(source))
