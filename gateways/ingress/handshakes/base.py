"""What the handshakes have in common: the request, the answer, and reading what has to be echoed.

What is echoed is capped and plain, and is never shown as HTML: it may come from anybody.
"""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

from contracts.codec import decode_any_json
from contracts.errors import InvalidPayload, Undecodable
from gateways.ingress.header_lines import HeaderLines
from gateways.ingress.verifying import Incoming, Verified

# A challenge has some 60 to 300 characters at the senders we know (checked 2026-11).
MAX_TOKEN_CHARS = 1024
# A handshake's body holds little beside its token; a longer one is an event.
MAX_BODY_BYTES = 4096
_MAX_PARAMETERS = 16
TEXT = b"text/plain; charset=utf-8"
JSON = b"application/json"
# Nothing of this is to be kept, or taken for anything but text.
GUARDS = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'"),
    (b"cache-control", b"no-store"),
)

Verify = Callable[[Incoming, datetime], Verified]


class HandshakeRequest(NamedTuple):
    """A request to a source's URL, nothing decoded; `body` is empty where none was read."""

    method: str
    query: bytes
    headers: HeaderLines
    body: bytes
    peer: str = ""

    @property
    def incoming(self) -> Incoming:
        """Return it as a verifier takes it."""
        return Incoming(self.headers, self.body, self.query, self.peer)


class HandshakeAnswer(NamedTuple):
    """What the sender wants to hear; `kind` is the handshake's name, for the log."""

    kind: str
    body: bytes = b""
    content_type: bytes = TEXT
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Handshake(Protocol):
    """One kind of handshake of one source; pure but for what its own file says."""

    method: str

    def answer(self, request: HandshakeRequest, now: datetime) -> HandshakeAnswer | None:
        """Return the answer; None for what is no such handshake.

        Raises:
            BadSignature: it is one that must be signed, and is not signed well.
            InvalidPayload: it is one, and what it carries cannot be answered.
        """
        ...


def parameter(query: bytes, name: str) -> str | None:
    """Return a decoded parameter of the query; None when it is not there.

    Raises:
        InvalidPayload: it stands there twice, or the query cannot be read.
    """
    if name.encode() not in query:
        return None
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS, errors="strict"
        )
    except ValueError as error:
        message = "the query cannot be read"
        raise InvalidPayload(message) from error
    values = [value for key, value in pairs if key == name]
    if len(values) > 1:
        message = f"parameter {name} stands there twice"
        raise InvalidPayload(message)
    return values[0] if values else None


def echoed(text: Any, name: str) -> str:
    """Return a token that may be sent back: printable ASCII without what begins a tag.

    Raises:
        InvalidPayload: it may not.
    """
    if not isinstance(text, str) or not 0 < len(text) <= MAX_TOKEN_CHARS or not (text.isascii() and text.isprintable()):
        message = f"{name} must be 1 to {MAX_TOKEN_CHARS} printable ASCII characters"
        raise InvalidPayload(message)
    if "<" in text or ">" in text:
        message = f"{name} may not contain angle brackets"
        raise InvalidPayload(message)
    return text


def document(body: bytes) -> dict[str, Any]:
    """Return a small body's JSON object; an empty one for anything else."""
    try:
        found = decode_any_json(body)
    except Undecodable:
        return {}
    return found if isinstance(found, dict) else {}
