"""Makes hostile requests from signed ones: seeded, structure-aware, and raw bytes beside that.

`Attempt` says what was sent and how the client has to treat the connection; whether it may be accepted is not said
here but by the oracle, which looks at the bytes.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.senders import API_KEY, OTHER_SECRET, RAW_SECRET, SENDERS, Lines, Sender, request

CALLER_PATH = b"/v1/events"
_ODD_VALUES = (
    b"", b" ", b"0", b"-1", b"1e9", b"nan", b"null", b"v1,", b"v1a,AAAA", b"sha256=", b"sha1=00", b"t=1,v1=", b"v0=",
    b",", b"=", b"\xff", b"\xc3\xa9", b"a" * 300, b"%0d%0a", b"\t", b"v1,AAAA " * 40, b"../..", b"00000000000000000001",
)  # fmt: skip
_ODD_PATHS = (
    b"/webhooks/", b"/webhooks/unknown", b"/webhooks/../metrics", b"/webhooks/%00", b"/", b"//", b"/v1/results/x",
    b"/v1/results/x?ticket=a.b", b"/webhooks/github?x=1", b"/openapi.json", b"*", b"/v1/stream/x",
)  # fmt: skip
_METHODS = (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"post", b"POST ")
_EXTRA = (
    (b"transfer-encoding", b"chunked"),
    (b"content-length", b"0"),
    (b"host", b"other"),
    (b"content-encoding", b"gzip"),
    (b"expect", b"100-continue"),
    (b"connection", b"close"),
    (b"upgrade", b"websocket"),
    (b"x-forwarded-for", b"127.0.0.1"),
    (b"ce-id", b"x"),
)
_JOINTS = (b"\r\n\r\n", b"\r\n", b"\n", b": ", b" ", b"HTTP/1.1", b"content-length", b"\0", b"\r", b"POST")


@dataclass(frozen=True)
class Attempt:
    """What is sent at once.

    Attributes:
        kind: of the mutation, for the ledger.
        sent: the bytes.
        requests: how many answers are to be waited for; 0 when the framing was touched, and nobody can know.
        is_untouched: it has to be accepted.
    """

    kind: str
    sent: bytes
    requests: int = 1
    is_untouched: bool = False


@dataclass
class _Draft:
    """A request that can still be changed."""

    path: bytes
    lines: Lines
    body: bytes
    method: bytes = b"POST"

    def sent(self) -> bytes:
        return request(self.path, self.lines, self.body, method=self.method)


class Mutator:
    """Makes attempts; the same seed makes the same ones, but for the time in their stamps and signatures."""

    def __init__(self, seed: str) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - reproducible on purpose
        self._seed = seed.replace("/", "-").encode()
        self._number = 0
        self._kinds: tuple[tuple[int, Callable[[], Attempt]], ...] = (
            (8, self._untouched),
            (36, self._of_bytes),
            (30, self._of_headers),
            (10, self._pipelined),
            (8, self._of_framing),
            (8, self._raw),
        )
        self._changes: tuple[Callable[[_Draft], None], ...] = (
            self._drop,
            self._repeat,
            self._replace,
            self._rename,
            self._respell,
            self._restamp,
            self._readdress,
            self._add,
        )
        self._weights = [weight for weight, _ in self._kinds]

    def attempt(self) -> Attempt:
        """Return the next one."""
        ((_, make),) = self._dice.choices(self._kinds, self._weights)
        return make()

    def _draft(self) -> _Draft:
        self._number += 1
        event_id = b"%b-%d" % (self._seed, self._number)
        body = b'{"eventId":"%b","id":"%b","event_id":"%b","type":"t","text":"%b"}' % (
            event_id, event_id, event_id, b"x" * self._dice.choice((0, 10, 200)),
        )  # fmt: skip
        if self._dice.random() < 0.1:
            lines = [(b"authorization", b"Bearer " + API_KEY.encode()), (b"ce-type", b"t"), (b"ce-id", event_id)]
            return _Draft(CALLER_PATH, lines, body)
        sender = self._dice.choice(SENDERS)
        return _Draft(b"/webhooks/" + sender.source, sender.lines(body, event_id=event_id), body)

    def _untouched(self) -> Attempt:
        return Attempt("untouched", self._draft().sent(), is_untouched=True)

    def _of_bytes(self) -> Attempt:
        draft = self._draft()
        if self._dice.random() < 0.4:
            draft.body = self._bent(draft.body)
        else:
            at = self._dice.randrange(len(draft.lines))
            name, value = draft.lines[at]
            # A line end would be another header; that is the business of the raw ones.
            draft.lines[at] = (name, self._bent(value).translate(None, b"\r\n\0"))
        return Attempt("bytes", draft.sent())

    def _of_headers(self) -> Attempt:
        draft = self._draft()
        for _ in range(self._dice.choice((1, 1, 2, 3))):
            self._dice.choice(self._changes)(draft)
        return Attempt("headers", draft.sent())

    def _pipelined(self) -> Attempt:
        count = self._dice.randint(2, 5)
        made = [self._dice.choice((self._untouched, self._of_bytes, self._of_headers))() for _ in range(count)]
        return Attempt("pipelined", b"".join(one.sent for one in made), count)

    def _of_framing(self) -> Attempt:
        draft, dice = self._draft(), self._dice
        size = len(draft.body)
        chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (size, draft.body)
        length = dice.choice((size + 1, size - 1, 0, size * 2, 900_001, 10**14))
        coding = dice.choice((b"", b"", b"chunked", b"chunked", b"gzip", b"gzip, chunked"))
        extra: Lines = [(b"transfer-encoding", coding)] if coding else []
        head, _, body = request(draft.path, [*draft.lines, *extra], draft.body, length=length).partition(b"\r\n\r\n")
        if extra and dice.random() < 0.5:
            head = head.replace(b"content-length: ", b"x-length: ")
        body = dice.choice(
            (body, chunk, self._bent(chunk), b"%x;a=b\r\n" % size + draft.body + b"\r\n0\r\nx: y\r\n\r\n")
        )
        return Attempt("framing", head + b"\r\n\r\n" + body, 0)

    def _raw(self) -> Attempt:
        sent = self._draft().sent()
        for _ in range(self._dice.choice((1, 1, 2, 8, 64))):
            sent = self._bent(sent)
        return Attempt("raw", sent, 0)

    def _bent(self, value: bytes) -> bytes:
        """Return a value with one place changed."""
        dice = self._dice
        at, end = dice.randrange(len(value) + 1), dice.randrange(len(value) + 1)
        low, high = min(at, end), max(at, end)
        put = dice.choice(
            (
                dice.randbytes(dice.choice((1, 1, 4))),
                dice.choice(_JOINTS),
                dice.choice((b" ", b"0", b"a", b"A", b"=", b",", b".")),
                bytes((value[at] ^ (1 << dice.randrange(8)),)) if at < len(value) else b"",
            )
        )
        return dice.choice(
            (
                value[:at] + put + value[at:],
                value[:at] + put + value[at + 1 :],
                value[:low] + value[high:],
                value[:high] + value[low:],
            )
        )

    def _drop(self, draft: _Draft) -> None:
        if draft.lines:
            del draft.lines[self._dice.randrange(len(draft.lines))]

    def _repeat(self, draft: _Draft) -> None:
        if draft.lines:
            draft.lines.append(self._dice.choice(draft.lines))

    def _replace(self, draft: _Draft) -> None:
        if draft.lines:
            at = self._dice.randrange(len(draft.lines))
            draft.lines[at] = (draft.lines[at][0], self._dice.choice(_ODD_VALUES))

    def _rename(self, draft: _Draft) -> None:
        if draft.lines:
            at = self._dice.randrange(len(draft.lines))
            name = self._dice.choice((draft.lines[at][0] + b"x", b"svix-id", b"x-hub-signature", b"ce_id"))
            draft.lines[at] = (name, draft.lines[at][1])

    def _respell(self, draft: _Draft) -> None:
        """Change nothing that counts: names have no case."""
        draft.lines = [(name.title(), value) for name, value in draft.lines]

    def _restamp(self, draft: _Draft) -> None:
        """Sign anew: another time, another key, or another sender's way."""
        sender: Sender = self._dice.choice(SENDERS)
        stamp = self._dice.choice(
            (b"%d" % (time.time() - 10_000), b"%d" % (time.time() + 10_000), b"0", b"1e9", b"%d" % time.time())
        )
        secret = self._dice.choice((RAW_SECRET, OTHER_SECRET))
        draft.lines = sender.lines(draft.body, event_id=b"e.1", stamp=stamp, secret=secret)

    def _readdress(self, draft: _Draft) -> None:
        if self._dice.random() < 0.5:
            draft.path = self._dice.choice((*_ODD_PATHS, *(b"/webhooks/" + sender.source for sender in SENDERS)))
        else:
            draft.method = self._dice.choice(_METHODS)

    def _add(self, draft: _Draft) -> None:
        name, value = self._dice.choice(_EXTRA)
        if name == b"transfer-encoding":
            # Beside the length that every request here has: read as chunks, of which there are none.
            draft.body = b"0\r\n\r\n"
        draft.lines.insert(self._dice.randrange(len(draft.lines) + 1), (name, value))
