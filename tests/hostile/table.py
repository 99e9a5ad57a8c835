"""Rows 1 to 43 of the adversarial table of webhook gateways: what is sent, and what has to come back.

A case is built when it is sent, so that stamps are fresh and ids are its own. Rows that need time, a broken broker or
a look at the log stand in test_table.py beside these.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.senders import (
    API_KEY,
    GITHUB,
    OTHER_SECRET,
    RAW_SECRET,
    SALESFORCE,
    SENDERS,
    SLACK,
    STRIPE,
    SUPPORT,
    Lines,
    Sender,
    request,
)

_ids = itertools.count(1)
CAP_BYTES = 900_000


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        row: of the table.
        send: makes the bytes to send.
        status: that has to come back first; 0 = closed without an answer. Several where the table leaves a choice.
        closes: the connection has to be closed behind the answer.
        has_eof: the sender ends its side.
        records: how many have to lie on the log afterwards.
    """

    row: int
    name: str
    send: Callable[[], bytes]
    status: tuple[int, ...]
    closes: bool = False
    has_eof: bool = False
    records: int = 0


def fresh() -> tuple[bytes, bytes]:
    """Return an event id and a JSON body that nobody has sent before."""
    number = next(_ids)
    body = b'{"eventId":"e%d","id":"e%d","event_id":"e%d","type":"t","amount":100}' % (number, number, number)
    return b"e%d" % number, body


def signed(sender: Sender, change: Callable[[Lines], Lines] = lambda lines: lines, **how: bytes) -> bytes:
    """Return a request of a sender; `change` works on its headers, `how` goes to its signing."""
    event_id, body = fresh()
    lines = sender.lines(body, **({"event_id": event_id} | how))
    return request(b"/webhooks/" + sender.source, change(lines), body)


def with_value(name: bytes, change: Callable[[bytes], bytes]) -> Callable[[Lines], Lines]:
    """Return a change of one header's value."""
    return lambda lines: [(line, change(value) if line == name else value) for line, value in lines]


def without(name: bytes) -> Callable[[Lines], Lines]:
    """Return a change that drops a header."""
    return lambda lines: [(line, value) for line, value in lines if line != name]


def _with_body(sender: Sender, change: Callable[[bytes], bytes]) -> bytes:
    event_id, body = fresh()
    return request(b"/webhooks/" + sender.source, sender.lines(body, event_id=event_id), change(body))


def _plain(text: bytes) -> Callable[[], bytes]:
    return lambda: text


def _head(*lines: bytes, first: bytes = b"POST /webhooks/github HTTP/1.1", host: bytes = b"Host: gateway") -> bytes:
    return b"\r\n".join([first, *([host] if host else []), *lines]) + b"\r\n\r\n"


_PREFIXES = {GITHUB: b"sha256=", SLACK: b"v0=", STRIPE: b"t=1,v1=", SUPPORT: b"v1,", SALESFORCE: b""}


def _signatures() -> list[Case]:
    cases = []
    for sender in SENDERS:
        name, prefix = sender.signature, _PREFIXES[sender]
        label = sender.source.decode()
        changes: list[tuple[int, str, Callable[[Lines], Lines]]] = [
            (1, "missing", without(name)),
            (1, "empty", with_value(name, lambda _: b"")),
            (1, "nothing behind its prefix", with_value(name, lambda _, prefix=prefix: prefix)),  # type: ignore[misc]
            (2, "truncated", with_value(name, lambda value: value[:-1])),
            (2, "extended", with_value(name, lambda value: value + b"0")),
            (6, "not ASCII", with_value(name, lambda value: value[:-2] + b"\xc3\xa9")),
            (6, "junk inside", with_value(name, lambda value: value[:-4] + b"*" + value[-4:])),
            (10, "twice", lambda lines, name=name: [*lines, *((n, v) for n, v in lines if n == name)]),  # type: ignore[misc]
        ]
        for row, what, change in changes:
            expected = 400 if row == 10 else 401
            cases.append(Case(row, f"{label}: signature {what}", _signed(sender, change), (expected,)))
        cases.append(Case(2, f"{label}: another source's key", _signed(sender, secret=OTHER_SECRET), (401,)))
        for what, edit in _EDITS.items():
            cases.append(Case(3, f"{label}: body {what}", _edited(sender, edit), (401,)))
    return cases


def _signed(
    sender: Sender, change: Callable[[Lines], Lines] = lambda lines: lines, **how: bytes
) -> Callable[[], bytes]:
    return lambda: signed(sender, change, **how)


def _edited(sender: Sender, edit: Callable[[bytes], bytes]) -> Callable[[], bytes]:
    return lambda: _with_body(sender, edit)


_EDITS: dict[str, Callable[[bytes], bytes]] = {
    "with one bit flipped": lambda body: body[:-2] + bytes([body[-2] ^ 1]) + body[-1:],
    "with a space": lambda body: body + b" ",
    "with a newline": lambda body: body + b"\n",
    "with a BOM": lambda body: b"\xef\xbb\xbf" + body,
    "re-serialised": lambda body: body.replace(b":", b": ").replace(b",", b", "),
}


def _stamps() -> list[Case]:
    import time

    now = int(time.time())
    malformed = {
        "1e9": b"1e9",
        "with a plus": b"+%d" % now,
        "with a space inside": b"%d 0" % (now // 10),
        "with an underscore": b"1_%d" % now,
        "with a fraction": b"%d.0" % now,
        "negative": b"-%d" % now,
        "nan": b"nan",
        "Arabic digits": "".join(chr(0x660 + int(digit)) for digit in str(now)).encode(),
        "400 digits": b"1" * 400,
        "leading zeros": b"00%d" % now,
    }
    far = {
        "an hour old": b"%d" % (now - 3600),
        "an hour ahead": b"%d" % (now + 3600),
        "in milliseconds": b"%d000" % now,
    }
    cases = []
    for sender in (SLACK, STRIPE, SUPPORT, SALESFORCE):
        for row, stamps in ((4, far), (5, malformed)):
            for what, stamp in stamps.items():
                name = f"{sender.source.decode()}: stamp {what}"
                cases.append(Case(row, name, _signed(sender, stamp=stamp), (401,)))
    return cases


def _url_safe() -> bytes:
    while True:
        event_id, body = fresh()
        lines = SUPPORT.lines(body, event_id=event_id)
        value = dict(lines)[b"webhook-signature"]
        if b"+" in value or b"/" in value[3:]:
            changed = with_value(
                b"webhook-signature", lambda v: b"v1," + v[3:].translate(bytes.maketrans(b"+/", b"-_"))
            )
            return request(b"/webhooks/support", changed(lines), body)


def _lists() -> list[Case]:
    name = b"webhook-signature"
    many = b" ".join([b"v1,AAAA"] * 1000)
    return [
        Case(6, "url-safe base64", _url_safe, (401,)),
        Case(6, "upper-case hex", _signed(GITHUB, with_value(b"x-hub-signature-256", _upper)), (401,)),
        Case(7, "v2 beside v1", _signed(SUPPORT, with_value(name, lambda v: b"v2,abc " + v)), (202,), records=1),
        Case(7, "v1a without a key", _signed(SUPPORT, with_value(name, lambda v: b"v1a,abc " + v)), (202,), records=1),
        Case(7, "garbage before", _signed(SUPPORT, with_value(name, lambda v: b",, \xff= " + v)), (202,), records=1),
        Case(7, "garbage behind", _signed(SUPPORT, with_value(name, lambda v: v + b" v1 ,")), (202,), records=1),
        Case(
            7,
            "stripe: v0 beside v1",
            _signed(STRIPE, with_value(b"stripe-signature", lambda v: v + b",v0=abc")),
            (202,),
            records=1,
        ),
        Case(
            8, "100,000 signatures", _signed(SUPPORT, with_value(name, lambda v: b"v1,AA " * 100_000 + v)), (431,), True
        ),
        Case(8, "1,000 signatures", _signed(SUPPORT, with_value(name, lambda v: many + b" " + v)), (401,)),
        Case(
            9,
            "only sha1",
            _signed(GITHUB, lambda lines: [(b"x-hub-signature", b"sha1=" + b"0" * 40), *lines[1:]]),
            (401,),
        ),
        Case(9, "sha1 in the header of sha256", _signed(GITHUB, with_value(GITHUB.signature, _as_sha1)), (401,)),
        Case(
            9,
            "stripe: only v0",
            _signed(STRIPE, with_value(STRIPE.signature, lambda v: v.replace(b"v1=", b"v0="))),
            (401,),
        ),
        Case(
            9,
            "algorithm named by the sender",
            _signed(GITHUB, with_value(GITHUB.signature, lambda v: b"none=" + v[7:])),
            (401,),
        ),
        Case(
            10, "two stamps in one header", _signed(STRIPE, with_value(STRIPE.signature, lambda v: b"t=1," + v)), (400,)
        ),
        Case(10, "two ids", _signed(SUPPORT, lambda lines: [*lines, (b"webhook-id", b"other")]), (400,)),
        Case(10, "two stamps", _signed(SUPPORT, lambda lines: [*lines, (b"webhook-timestamp", b"1")]), (400,)),
        Case(10, "svix-id that differs", _signed(SUPPORT, lambda lines: [*lines, (b"svix-id", b"other")]), (400,)),
        Case(11, "id with a dot", _signed(SUPPORT, event_id=b"a.b"), (401,)),
        Case(11, "id of 257", _signed(SUPPORT, event_id=b"a" * 257), (401,)),
        Case(11, "empty id", _signed(SUPPORT, event_id=b""), (401,)),
        Case(11, "encoded CRLF", _signed(SUPPORT, event_id=b"a%0d%0aX-Evil:1"), (401,)),
        Case(11, "control character", _signed(SUPPORT, event_id=b"a\x01b"), (400, 401)),
        Case(11, "not ASCII", _signed(SUPPORT, event_id="\u00fcid".encode()), (401,)),
    ]


def _upper(value: bytes) -> bytes:
    return value[:7] + value[7:].upper()


def _as_sha1(value: bytes) -> bytes:
    return b"sha1=" + value[7:47]


def _chunked(*lines: bytes, chunks: bytes) -> Callable[[], bytes]:
    return lambda: _head(b"Transfer-Encoding: chunked", *lines) + chunks


def _cut(missing: int) -> Callable[[], bytes]:
    def send() -> bytes:
        event_id, body = fresh()
        return request(b"/webhooks/github", GITHUB.lines(body, event_id=event_id), body[:-missing], length=len(body))

    return send


def _sizes() -> list[Case]:
    too_long = b"Content-Length: %d" % (CAP_BYTES + 1)
    big = b"%x\r\n" % (CAP_BYTES + 1) + b"x" * (CAP_BYTES + 1) + b"\r\n0\r\n\r\n"
    return [
        Case(19, "above the topic's largest record", _signed_of(CAP_BYTES + 1), (413,), True),
        Case(20, "declared above the cap", _plain(_head(too_long)), (413,), True),
        Case(20, "the same with Expect", _plain(_head(too_long, b"Expect: 100-continue")), (413,), True),
        Case(20, "a length of 15 digits", _plain(_head(b"Content-Length: 999999999999999")), (413,), True),
        Case(20, "a length of 30 digits", _plain(_head(b"Content-Length: " + b"9" * 30)), (400,), True),
        Case(21, "chunked above the cap", _chunked(chunks=big), (413,), True),
        Case(21, "more than declared", lambda: signed(GITHUB) + b"more\r\n\r\n", (202,), True, records=1),
        Case(22, "cut short by one", _cut(1), (400, 0), True, has_eof=True),
        Case(22, "cut short by all", _cut(10**6), (400, 0), True, has_eof=True),
        Case(22, "chunks cut short", _chunked(chunks=b"5\r\nabc"), (400, 0), True, has_eof=True),
        Case(24, "5,000 headers", _plain(_head(*[b"x: y"] * 5000)), (431,), True),
        Case(24, "33 KB of headers", _plain(_head(b"x: " + b"y" * 33_000)), (431,), True),
        Case(24, "300 KB in one header", _plain(_head(b"x: " + b"y" * 300_000)), (431,), True),
        Case(24, "9 KB of URL", _plain(_head(first=b"GET /" + b"u" * 9000 + b" HTTP/1.1")), (414,), True),
        Case(24, "100 KB of URL", _plain(_head(first=b"GET /" + b"u" * 100_000 + b" HTTP/1.1")), (414, 431), True),
    ]


def _signed_of(size: int) -> Callable[[], bytes]:
    def send() -> bytes:
        body = b"x" * size
        return request(b"/webhooks/github", GITHUB.lines(body, event_id=fresh()[0]), body)

    return send


def _framing() -> list[Case]:
    chunk = b"3\r\nabc\r\n0\r\n\r\n"
    malformed = {
        "two lengths": b"Content-Length: 3\r\nContent-Length: 4",
        "a list of lengths": b"Content-Length: 3, 3",
        "a length with a sign": b"Content-Length: +3",
        "a hexadecimal length": b"Content-Length: 0x3",
        "an empty length": b"Content-Length:",
        "an unknown coding": b"Transfer-Encoding: xchunked",
        "a coding before chunked": b"Transfer-Encoding: gzip, chunked",
        "identity before chunked": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "a vertical tab before chunked": b"Transfer-Encoding:\x0bchunked",
        "a folded line": b"X: a\r\n b",
        "a space before the colon": b"Content-Length : 3",
        "NUL in a value": b"X: a\0b",
        "NUL in a name": b"X\0: a",
        "CR in a value": b"X: a\rb",
        "a line without a colon": b"garbage",
    }
    cases = [Case(25, what, _plain(_head(lines) + chunk), (400,), True) for what, lines in malformed.items()]
    bad_chunks = {"no number": b"zz\r\nabc\r\n0\r\n\r\n", "negative": b"-1\r\nabc\r\n0\r\n\r\n", "too large": b"f" * 17}
    cases += [Case(25, f"chunk size: {what}", _chunked(chunks=sent), (400,), True) for what, sent in bad_chunks.items()]
    return [
        *cases,
        # RFC 9112, section 6.1: read as chunks, and the connection must be closed behind it; see ADR 0024.
        Case(
            25,
            "length, then chunked",
            _plain(_head(b"Content-Length: 3", b"Transfer-Encoding: chunked") + chunk),
            (401,),
            True,
        ),
        Case(
            25,
            "chunked, then length",
            _plain(_head(b"Transfer-Encoding: chunked", b"Content-Length: 3") + chunk),
            (401,),
            True,
        ),
        # Section 2.2 allows a bare LF as the end of a line; what could be done with it is in the ADR too.
        Case(25, "lines that end in LF", _plain(_head(b"Content-Length: 3").replace(b"\r\n", b"\n") + b"abc"), (401,)),
        Case(25, "two equal lengths", _plain(_head(b"Content-Length: 3", b"Content-Length: 3") + b"abc"), (401,)),
        Case(26, "no Host", _plain(_head(b"Content-Length: 0", host=b"")), (400,), True),
        Case(26, "an empty Host", _plain(_head(b"Content-Length: 0", host=b"Host:")), (400,), True),
        Case(26, "two Hosts", _plain(_head(b"Host: b", b"Content-Length: 0")), (400,), True),
        Case(26, "HTTP/9.9", _plain(_head(first=b"GET / HTTP/9.9")), (400,), True),
        Case(26, "HTTP/0.9", _plain(b"GET /\r\n\r\n"), (400,), True),
        Case(26, "TLS", _plain(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 32), (400,), True),
        # The beginning of HTTP/2 with prior knowledge.
        Case(26, "HTTP/2", _plain(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), (400, 0), True),
        Case(26, "a target without a path", _plain(_head(first=b"GET gateway HTTP/1.1")), (400,), True),
        # RFC 9112, section 3.2.2: a server must accept it; the Host in it is used as little as the other one.
        Case(
            26,
            "absolute form",
            _plain(_head(b"Content-Length: 0", first=b"POST http://evil.example/webhooks/github HTTP/1.1")),
            (401,),
        ),
    ]


def _places() -> list[Case]:
    methods = [
        Case(27, f"{method.decode()}", _plain(_head(first=method + b" /webhooks/github HTTP/1.1")), (405,))
        for method in (b"GET", b"PUT", b"DELETE", b"TRACE", b"PATCH", b"post", b"BREW")
    ]
    # Its answer has no body, so only the end of the connection shows where it ends.
    methods.append(
        Case(27, "HEAD", _plain(_head(b"Connection: close", first=b"HEAD /webhooks/github HTTP/1.1")), (405,), True)
    )
    origin = b"WebHook-Request-Origin: evil.example\r\nWebHook-Request-Callback: http://127.0.0.1:1/"
    paths = (
        b"unknown",
        b"..",
        b"%2e%2e",
        b"%00",
        b"",
        b"github/",
        b"/github",
        b"github/..",
        b"./github",
        b"GITHUB",
        b"git%68ub",
        b"github%00",
        b"__consumer_offsets",
        b"penstock.events.standard.v1",
        b"a" * 7000,
        b"github;a=b",
        b"gith\xc3\xbcb",
    )
    return [
        *methods,
        Case(27, "CONNECT", _plain(_head(first=b"CONNECT gateway:1 HTTP/1.1")), (405,)),
        Case(
            28,
            "OPTIONS where it is not enabled",
            _plain(_head(origin, first=b"OPTIONS /webhooks/github HTTP/1.1")),
            (405,),
        ),
        Case(
            29,
            "unknown source, before its body has come",
            _plain(_head(b"Content-Length: 800000", first=b"POST /webhooks/unknown HTTP/1.1")),
            (404,),
            True,
        ),
        Case(29, "10 KB of id", _plain(_head(first=b"POST /webhooks/" + b"a" * 10_240 + b" HTTP/1.1")), (414,), True),
        *(
            Case(
                29, f"source {path[:30]!a}", _elsewhere(b"/webhooks/" + path), (404,) if path.isascii() else (400, 404)
            )
            for path in paths
        ),
    ]


def _elsewhere(path: bytes) -> Callable[[], bytes]:
    def send() -> bytes:
        event_id, body = fresh()
        return request(path, GITHUB.lines(body, event_id=event_id), body)

    return send


def _media() -> list[Case]:
    def typed(path: bytes, value: bytes | None, *more: tuple[bytes, bytes]) -> Callable[[], bytes]:
        def send() -> bytes:
            event_id, body = fresh()
            secret = OTHER_SECRET if path == b"json-only" else None
            lines = GITHUB.lines(body, event_id=event_id, **({"secret": secret} if secret else {}))
            lines = without(b"content-type")(lines) + ([] if value is None else [(b"content-type", value)])
            return request(b"/webhooks/" + path, [*lines, *more], body)

        return send

    strange: dict[str, bytes | None] = {
        "missing": None,
        "multipart": b"multipart/form-data; boundary=x",
        "a form": b"application/x-www-form-urlencoded",
        "text": b"text/plain",
        "empty": b"",
        "not one": b"application/json, text/plain",
        "not ASCII": b"application/json\xff",
    }
    good = b"Application/JSON; charset=utf-8"
    cases = [
        Case(31, f"{what}, where JSON is wanted", typed(b"json-only", value), (415,)) for what, value in strange.items()
    ]
    cases += [
        Case(31, f"{what}, where nothing is said", typed(b"github", value), (202,), records=1)
        for what, value in strange.items()
    ]
    return [
        *cases,
        Case(31, "JSON, where JSON is wanted", typed(b"json-only", good), (202,), records=1),
        Case(31, "two types", typed(b"json-only", good, (b"content-type", b"text/plain")), (400,)),
        Case(30, "gzip", typed(b"github", good, (b"content-encoding", b"gzip")), (415,), True),
        Case(30, "two encodings", typed(b"github", good, (b"content-encoding", b"identity, br")), (415,), True),
    ]


def _callers() -> list[Case]:
    def event(kind: bytes, body: bytes, key: str = API_KEY, *more: tuple[bytes, bytes]) -> Callable[[], bytes]:
        lines = [(b"authorization", b"Bearer " + key.encode()), (b"content-type", kind), *more]
        return _plain(request(b"/v1/events", lines, body))

    structured = b"application/cloudevents+json"
    whole = b'{"specversion":"1.0","id":"row36","source":"local-tools","type":"t"}'
    missing = {name: whole.replace(f'"{name}":'.encode(), b'"x":') for name in ("specversion", "type")}
    # Ours to fill in where a caller leaves them out of a plain request; in a structured event they are the caller's.
    missing |= {name: whole.replace(f'"{name}":'.encode(), b'"x":') for name in ("id", "source")}
    return [
        Case(36, "whole", event(structured, whole), (202,), records=1),
        *(Case(36, f"without {name}", event(structured, sent), (400,)) for name, sent in missing.items()),
        Case(36, "a batch", event(b"application/cloudevents-batch+json", b"[" + whole + b"]"), (415,)),
        Case(36, "an array", event(structured, b"[" + whole + b"]"), (400,)),
        Case(36, "not JSON", event(structured, b"{"), (400,)),
        Case(36, "before anything is parsed", event(structured, b"{", "x" * 40), (401,)),
        Case(
            35,
            "reserved attribute",
            event(b"text/plain", b"", API_KEY, (b"ce-type", b"t"), (b"ce-owner", b"x")),
            (400,),
        ),
    ]


def _rotation() -> list[Case]:
    def old(path: bytes) -> Callable[[], bytes]:
        def send() -> bytes:
            event_id, body = fresh()
            return request(b"/webhooks/" + path, GITHUB.lines(body, event_id=event_id, secret=OTHER_SECRET), body)

        return send

    return [
        Case(39, "an old secret inside of its overlap", old(b"in-overlap"), (202,), records=1),
        Case(39, "an old secret behind its overlap", old(b"behind-overlap"), (401,)),
    ]


def _handshakes() -> list[Case]:
    challenge = b'{"type":"url_verification","challenge":"c-%d","token":"t"}'
    slack, options = b"/webhooks/slack", b"OPTIONS /webhooks/json-only HTTP/1.1"
    callback = b"WebHook-Request-Callback: http://127.0.0.1:1/"

    def verification(secret: bytes) -> Callable[[], bytes]:
        body = challenge % next(_ids)
        return lambda: request(slack, SLACK.lines(body, event_id=b"", secret=secret), body)

    def asked(origin: bytes) -> Callable[[], bytes]:
        return _plain(_head(b"WebHook-Request-Origin: " + origin, callback, first=options))

    return [
        Case(28, "OPTIONS of a listed origin", asked(b"events.example"), (200,)),
        Case(28, "OPTIONS of another origin", asked(b"evil.example"), (403,)),
        Case(28, "OPTIONS without an origin", _plain(_head(first=options)), (400, 403, 404, 405)),
        Case(37, "url_verification, signed", verification(RAW_SECRET), (200,)),
        Case(37, "url_verification, forged", verification(OTHER_SECRET), (401,)),
        Case(37, "url_verification, not signed", _plain(request(slack, [], challenge % 0)), (401,)),
        Case(
            37,
            "a token where none is wanted",
            _plain(_head(first=b"GET /webhooks/github?crc_token=a HTTP/1.1")),
            (405,),
        ),
    ]


CASES: tuple[Case, ...] = (
    *_signatures(),
    *_stamps(),
    *_lists(),
    *_sizes(),
    *_framing(),
    *_places(),
    *_media(),
    *_callers(),
    *_rotation(),
    *_handshakes(),
)
