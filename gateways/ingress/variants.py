"""What else a request may have been before something on its way changed it: other bodies, other spellings.

Only to explain a refusal: nothing that is made here is ever accepted. Whoever sees that a signature fits the body in
another notation knows that a proxy or framework wrote the JSON anew, and that no secret is wrong.
"""

import base64
import binascii
import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote_plus, urlencode

import msgspec
from msgspec import structs

from gateways.ingress.verifying import Detail, Incoming

_BOM = b"\xef\xbb\xbf"
_HEX = re.compile(rb"[0-9A-Fa-f]{40,128}")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{27,88}={0,2}")
_SIGNATURE_NAME = re.compile(rb"signature|hmac|sign$")
_PREFIXES = (b"sha256=", b"v1,", b"v0=", b"v1=", b"sha1=", b"sha512=")
_PADDED = 4
# No scheme has more of them; what a stranger sends beyond is not tried.
_MAX_SIGNATURE_LINES = 4
_MAX_SIGNATURE_BYTES = 1024

# Layouts: words for it, and msgspec's `indent`. Numbers, escapes and repeated keys stay as they are.
_LAYOUTS = (("compact", -1), ("indented by two", 2), ("indented by four", 4), ("with a space behind , and :", 0))
# Writers that change the text as well: words for it, and how one writes.
_WRITERS: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("by JSON.stringify", lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))),
    ("compact, with \\u escapes", lambda value: json.dumps(value, separators=(",", ":"))),
    ("by Python's json.dumps", json.dumps),
    ("compact, keys sorted", lambda v: json.dumps(v, ensure_ascii=False, separators=(",", ":"), sort_keys=True)),
    ("by PHP, with \\/", lambda value: json.dumps(value, separators=(",", ":")).replace("/", "\\/")),
)


class Variant(NamedTuple):
    """Another form of a request.

    Attributes:
        detail: reason code, if the signature fits it.
        words: what is different, to stand behind "the signature fits".
    """

    detail: Detail
    words: str
    request: Incoming


def variants(request: Incoming) -> Iterator[Variant]:
    """Yield other forms of a request, each once, the likely ones first; some sixty at most."""
    seen = {request.body}
    for detail, words, body in _bodies(request.body):
        if body not in seen:
            seen.add(body)
            yield Variant(detail, words, structs.replace(request, body=body))
    named = [index for index, (name, _) in enumerate(request.headers) if _SIGNATURE_NAME.search(name)]
    for index in named[:_MAX_SIGNATURE_LINES]:
        name, value = request.headers[index]
        if len(value) <= _MAX_SIGNATURE_BYTES:
            for detail, words, other in _spellings(value):
                if other != value:
                    lines = [*request.headers[:index], (name, other), *request.headers[index + 1 :]]
                    yield Variant(
                        detail, f"{words} in header {name.decode('latin-1')}", structs.replace(request, headers=lines)
                    )


def _bodies(body: bytes) -> Iterator[tuple[Detail, str, bytes]]:
    yield "body_line_end", "the body without its last line end", body.rstrip(b"\r\n")
    yield "body_line_end", "the body with a line feed at its end", body + b"\n"
    yield "body_line_end", "the body with CR LF at its end", body + b"\r\n"
    yield "body_line_end", "the body without the spaces around it", body.strip()
    as_lf = body.replace(b"\r\n", b"\n")
    yield "body_line_end", "the body with LF for CR LF", as_lf
    yield "body_line_end", "the body with CR LF for LF", as_lf.replace(b"\n", b"\r\n")
    yield "body_charset", "the body without its byte order mark", body.removeprefix(_BOM)
    yield "body_charset", "the body with a byte order mark", _BOM + body
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return
    with contextlib.suppress(UnicodeEncodeError):
        yield "body_charset", "the body before Latin-1 was taken for UTF-8", text.encode("latin-1")
    yield from _written_anew(text)


def _written_anew(text: str) -> Iterator[tuple[Detail, str, bytes]]:
    try:
        for words, indent in _LAYOUTS:
            yield "body_reserialised", f"the JSON laid out {words}", msgspec.json.format(text, indent=indent).encode()
        value = json.loads(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        yield from _forms(text)
        return
    for words, write in _WRITERS:
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            yield "body_reserialised", f"the JSON written {words}", write(value).encode("utf-8", "surrogatepass")


def _forms(text: str) -> Iterator[tuple[Detail, str, bytes]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=256)
    except ValueError:
        return
    yield "body_reserialised", "the form encoded anew", urlencode(pairs).encode()
    yield "body_reserialised", "the form with %20 for spaces", urlencode(pairs, quote_via=_quote).encode()


def _quote(text: Any, safe: Any = "", encoding: Any = None, errors: Any = None) -> str:
    return quote_plus(text, safe, encoding, errors).replace("+", "%20")


def _spellings(value: bytes) -> Iterator[tuple[Detail, str, bytes]]:
    bare = value.strip(b" \t\"'")
    yield "signature_spelling", "the value without spaces and quotes", bare
    yield "signature_spelling", "lower-case hex", _HEX.sub(lambda found: found[0].lower(), bare)
    yield "signature_spelling", "base64 of the usual alphabet, padded", _BASE64.sub(_usual, bare)
    yield "signature_encoding", "base64 for hex", _HEX.sub(_hex_to_base64, bare)
    yield "signature_encoding", "hex for base64", _BASE64.sub(_base64_to_hex, bare)
    for prefix in _PREFIXES:
        if not bare.startswith(prefix):
            yield "signature_prefix", f"{prefix.decode()} in front of the signature", prefix + bare
        else:
            yield "signature_prefix", f"no {prefix.decode()} in front of the signature", bare.removeprefix(prefix)


def _usual(found: re.Match[bytes]) -> bytes:
    text = found[0].rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    return text + b"=" * (-len(text) % _PADDED)


def _hex_to_base64(found: re.Match[bytes]) -> bytes:
    text = found[0]
    return base64.b64encode(bytes.fromhex(text.decode())) if len(text) % 2 == 0 else text


def _base64_to_hex(found: re.Match[bytes]) -> bytes:
    try:
        return base64.b64decode(_usual(found), validate=True).hex().encode()
    except binascii.Error:
        return found[0]
