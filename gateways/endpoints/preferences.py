"""What a caller prefers: how long to wait, or not to wait at all. Source: RFC 7240, sections 2, 4.1 and 4.3."""

import re
from typing import NamedTuple

from gateways.ingress.header_lines import HeaderLines

# Begins with a token, not with blanks: anybody may send these, and from each of a run of them it would be tried anew.
_TOKEN = re.compile(r'([^\s=;,"]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;,"]*)))?\s*(?:;[^,]*)?')
_MAX_WAIT_S = 86_400


class Preferences(NamedTuple):
    """The preferences we know; the others may be ignored.

    Attributes:
        wait_s: how long the caller waits; None when it does not say.
        is_async: it does not want to wait.
    """

    wait_s: int | None = None
    is_async: bool = False


def preferences(headers: HeaderLines) -> Preferences:
    """Read them; of a preference that stands there twice the first counts, and what cannot be read does not."""
    found: dict[str, str] = {}
    for line, raw in headers:
        if line == b"prefer":
            for match in _TOKEN.finditer(raw.decode("latin-1")):
                found.setdefault(match[1].lower(), match[2] if match[2] is not None else match[3] or "")
    wait = found.get("wait", "")
    # Python takes no number of thousands of digits; so many as the longest wait has, and one more, say enough.
    digits = wait.lstrip("0")[: len(str(_MAX_WAIT_S)) + 1] or "0"
    wait_s = min(int(digits), _MAX_WAIT_S) if wait.isascii() and wait.isdecimal() else None
    return Preferences(wait_s, "respond-async" in found)
