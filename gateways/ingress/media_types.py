"""Refuses bodies of a media type that a source does not send. Source: RFC 9110, section 8.3 (checked 2026-11)."""

from collections.abc import Collection

from contracts.errors import InvalidPayload, UnsupportedMedia
from gateways.ingress.header_lines import HeaderLines, values_of
from gateways.ingress.text import MAX_ATTRIBUTE_CHARS


def check_media_type(allowed: Collection[str], headers: HeaderLines) -> None:
    """Let pass a request whose Content-Type is allowed; with none listed every one is, and so is a missing one.

    Raises:
        UnsupportedMedia: another one, or none.
        InvalidPayload: it stands there twice, so it could be read in two ways.
    """
    if not allowed:
        return
    values = values_of(headers, b"content-type")
    if len(values) > 1:
        message = "header content-type stands there twice"
        raise InvalidPayload(message)
    # Parameters, such as the charset, are the worker's.
    essence = values[0][:MAX_ATTRIBUTE_CHARS].partition(b";")[0].strip().lower() if values else b""
    if essence.decode("ascii", "replace") not in allowed:
        message = f"content-type must be one of {', '.join(allowed)}"
        raise UnsupportedMedia(message)
