"""GET /v1/stream as a WebSocket: submit events and watch answers over one connection, in the frames of the SSE door.

    client  {"type": "submit", "event": <CloudEvent>, "lane"?}     {"type": "watch", "id", "ticket", "after"?}
            {"type": "unwatch", "id"}                              {"type": "ping"}
    server  accepted, delta, restart, result, error; ping when there is nothing else to say; pong

Writes: events.*. Source: ASGI 3.0 WebSocket; granian 2.8, whose `send` waits until the socket takes the message and
which answers protocol pings by itself. A client that does not read is let go after the send timeout; what it missed
is on the log. See docs/streaming.md.
"""

import asyncio
import base64
import binascii
import contextlib
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from contracts.envelope import result_id
from contracts.errors import Busy, Forbidden, InvalidPayload, PenstockError, Unauthenticated
from contracts.logs import described, logger
from contracts.metrics import WATCHERS_ENDED
from gateways.asgi import Message, Receive, Request, Response, Send
from gateways.egress.feed import Seen
from gateways.egress.frames import Frame, read_seen
from gateways.egress.outcomes import event_name
from gateways.egress.tickets import Ticket
from gateways.endpoints.accepting import accepted_frame, note_accepted, places
from gateways.endpoints.results import decoded_id, query_of, ticket_of
from gateways.ingress import once, posted
from gateways.ingress.callers import Caller
from gateways.parts import Parts
from gateways.problems import told

PROTOCOL = "penstock.v1"
# A browser cannot set headers: it offers its key as a second subprotocol, base64url without padding.
_KEY_PREFIX = "penstock.key."
_PATH = b"/v1/stream"
_LABEL = "websocket"
MAX_WATCHED = 64
# Close codes, RFC 6455 section 7.4.1 and its registry.
_NORMAL, _GOING_AWAY, _TOO_BIG, _AGAIN = 1000, 1001, 1009, 1013
_STRUCTURED = [(b"content-type", b"application/cloudevents+json")]

_log = logger("gateway")


class _Submit(msgspec.Struct, tag_field="type", tag="submit"):
    event: msgspec.Raw
    lane: str | None = None


class _Watch(msgspec.Struct, tag_field="type", tag="watch"):
    id: str
    ticket: str
    after: str = ""


class _Unwatch(msgspec.Struct, tag_field="type", tag="unwatch"):
    id: str


class _Ping(msgspec.Struct, tag_field="type", tag="ping"):
    pass


_decode = msgspec.json.Decoder(_Submit | _Watch | _Unwatch | _Ping).decode


class _ClosedError(Exception):
    """Raised to end a connection, with a close code and why."""

    def __init__(self, code: int, reason: str, outcome: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.outcome = outcome


class Admitted(NamedTuple):
    """Who may have a connection.

    Attributes:
        caller: whose key it is; None for whoever has a ticket.
        first: what to watch at once.
    """

    caller: Caller | None
    first: _Watch | None


def raw_id_of(path: bytes) -> bytes | None:
    """Return the event id in a path, empty where it names none; None for a path that has no WebSocket."""
    rest, _, event_id = path[len(_PATH) :].partition(b"/")
    return None if rest or not path.startswith(_PATH) else event_id


def admit(parts: Parts, request: Request, raw_id: bytes, held: contextlib.ExitStack) -> Admitted:
    """Return who may have a connection, which has its place until the stack is closed.

    Raises:
        Forbidden: a web page of another origin.
        Unauthenticated: neither key nor ticket.
        UnknownResult: a forged ticket.
        RateLimited: too many requests with this key, or too many connections.
        Busy: we are about to end, or as many connections are open as may be.
    """
    if parts.health.is_shutting_down:
        message = "this instance is stopping"
        raise Busy(message)
    _check_origin(parts, request)
    if raw_id:
        query = query_of(request)
        ticket = ticket_of(parts, query, decoded_id(raw_id))
        admitted = Admitted(None, _Watch(ticket.id, query["ticket"], query.get("last_event_id", "")))
    else:
        caller = parts.callers.authenticate(_credentials(request))
        request.notes["owner"] = caller.id
        parts.caller_limits.request(caller)
        admitted = Admitted(caller, None)
    held.enter_context(parts.caller_limits.websocket(admitted.caller))
    return admitted


async def serve_websocket(parts: Parts, request: Request, admitted: Admitted, send: Send) -> None:
    """Accept a connection, and serve it until it ends."""
    offered = _offered(request)
    await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in offered else None})
    await _Session(parts, admitted.caller, request, send).run(request.receive, admitted.first)


async def refuse_websocket(response: Response, send: Send) -> None:
    """Answer with the status that the request would have over HTTP."""
    headers = [(b"content-type", response.content_type), *response.headers]
    if response.closes:
        headers.append((b"connection", b"close"))
    await send({"type": "websocket.http.response.start", "status": response.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": response.body})


def _check_origin(parts: Parts, request: Request) -> None:
    """Refuse web pages that are neither ours nor allowed: a browser would send its cookies and its network with it."""
    origins = [value.decode("ascii", "replace") for value in request.values(b"origin")]
    hosts = [value.decode("ascii", "replace") for value in request.values(b"host")]
    for origin in origins:
        if origin not in parts.settings.streams.allowed_origins and _host_of(origin) not in hosts:
            message = "pages of this origin may not open streams; see gateway.streams.allowed_origins"
            raise Forbidden(message)


def _host_of(origin: str) -> str | None:
    """Return host and port of an origin; None where the text is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


def _offered(request: Request) -> list[str]:
    lines = b",".join(request.values(b"sec-websocket-protocol")).decode("ascii", "replace")
    return [text.strip() for text in lines.split(",") if text.strip()]


def _credentials(request: Request) -> list[tuple[bytes, bytes]]:
    """Return the headers, with the key of a subprotocol as the header that it stands for."""
    keys = [text.removeprefix(_KEY_PREFIX) for text in _offered(request) if text.startswith(_KEY_PREFIX)]
    if not keys or request.values(b"authorization"):
        return request.headers
    try:
        raw = base64.urlsafe_b64decode(keys[0] + "=" * (-len(keys[0]) % 4))
    except (binascii.Error, ValueError) as error:
        message = "the key in the subprotocol is not base64url"
        raise Unauthenticated(message) from error
    return [*request.headers, (b"authorization", b"Bearer " + raw)]


class _Session:
    """One connection: a reader of what the client says, and a task for each event that it watches."""

    def __init__(self, parts: Parts, caller: Caller | None, request: Request, send: Send) -> None:
        self._parts = parts
        self._caller = caller
        self._request = request
        self._send_message = send
        self._settings = parts.settings.streams
        self._sending = asyncio.Lock()
        self._watched: dict[str, asyncio.Task[None]] = {}
        self._closing: asyncio.Future[_ClosedError] = asyncio.get_running_loop().create_future()

    async def run(self, receive: Receive, first: _Watch | None) -> None:
        """Serve until the client leaves, breaks the rules or does not read, or this instance ends."""
        reading = asyncio.ensure_future(self._read(receive, first))
        beating = asyncio.ensure_future(self._beat())
        try:
            ends: set[asyncio.Future[Any]] = {reading, beating, self._closing}
            await asyncio.wait(ends, timeout=self._settings.max_duration_s, return_when=asyncio.FIRST_COMPLETED)
            ending = self._ending(reading, beating)
        finally:
            # The watchers first: what they hold counts.
            tasks = {reading, beating, *self._watched.values()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._closing.cancel()
        WATCHERS_ENDED.labels(_LABEL, ending.outcome).inc()
        if ending.outcome != "left":
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1.0):
                    await self._send_message({"type": "websocket.close", "code": ending.code, "reason": ending.reason})

    def _ending(self, *tasks: "asyncio.Task[None]") -> _ClosedError:
        if self._closing.done():
            return self._closing.result()
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                if isinstance(error, _ClosedError):
                    return error
                _log.error("stream.failed", error=described(error), exc_info=error)
                return _ClosedError(_AGAIN, "please come back", "failed")
        if self._parts.live.is_ending:
            return _ClosedError(_GOING_AWAY, "stopping; come back and go on after the last id", "stopping")
        return _ClosedError(_AGAIN, "long enough; come back and go on after the last id", "limit")

    async def _read(self, receive: Receive, first: _Watch | None) -> None:
        if first is not None:
            await self._answer(first)
        while True:
            # In a call of its own: nothing of a message is kept while the next one is waited for.
            await self._hear(await receive())

    async def _hear(self, message: Message) -> None:
        if message["type"] == "websocket.disconnect":
            raise _ClosedError(_NORMAL, "", "left")
        raw = message.get("text") or message.get("bytes") or b""
        if _is_longer(raw, self._parts.settings.max_body_bytes):
            raise _ClosedError(_TOO_BIG, "the message is too large", "failed")
        try:
            said = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            await self._say(_refusal(InvalidPayload(f"not a message of {PROTOCOL}: {error}")))
            return
        await self._answer(said)

    async def _answer(self, said: _Submit | _Watch | _Unwatch | _Ping) -> None:
        named = getattr(said, "id", "")
        try:
            match said:
                case _Submit():
                    await self._submit(said)
                case _Watch():
                    ticket = ticket_of(self._parts, {"ticket": said.ticket}, said.id)
                    seen = read_seen(said.after)
                    if seen is not None:
                        self._watch(ticket, seen)
                case _Unwatch():
                    task = self._watched.pop(said.id, None)
                    if task is not None:
                        task.cancel()
                case _Ping():
                    await self._say({"type": "pong"})
        except PenstockError as error:
            await self._say(_refusal(error, named))

    async def _submit(self, said: _Submit) -> None:
        parts, settings = self._parts, self._parts.settings
        if self._caller is None:
            message = "submitting needs an API key"
            raise Unauthenticated(message)
        # Looked up again: since the connection was made the key may have been taken away, or have got other limits.
        caller = parts.callers.authenticate(_credentials(self._request))
        limits = parts.caller_limits
        limits.request(caller)
        headers = [*_STRUCTURED, *([(b"penstock-lane", said.lane.encode())] if said.lane else [])]
        event, record, _ = sent = posted.accept(
            caller, headers, b"", bytes(said.event), parts.topics, delivery="stream", usual_lane="interactive"
        )
        parts.backlog.check(record.topic)
        limits.event(caller, len(bytes(said.event)))
        candidate = posted.candidate(sent, headers, settings.idempotency.window_s)
        once.check_id(parts.claims, candidate)
        with contextlib.ExitStack() as stack:
            name = event_name(result_id(event.source, event.id), event.owner)
            is_new = once.is_new(parts.claims, candidate)
            entry = stack.enter_context(parts.live.watching(name, _LABEL, is_new=is_new))
            self._check_room(event.id)
            placed = await once.produce_once(parts.claims, parts.producer, candidate, settings.ack_timeout_s)
            position = placed.position
            note_accepted(parts, event, candidate, position)
            await self._say(accepted_frame(event, places(parts, event, position), placed))
            self._start(Ticket(event.source, event.id, position, event.owner), Seen(), entry, stack.pop_all())

    def _watch(self, ticket: Ticket, seen: Seen) -> None:
        with contextlib.ExitStack() as stack:
            entry = stack.enter_context(self._parts.live.watching(ticket.name, _LABEL))
            self._check_room(ticket.id)
            self._start(ticket, seen, entry, stack.pop_all())

    def _check_room(self, event_id: str) -> None:
        if event_id in self._watched:
            message = "this connection watches that event already"
            raise InvalidPayload(message)
        if len(self._watched) >= MAX_WATCHED:
            message = f"a connection watches at most {MAX_WATCHED} events"
            raise Busy(message)

    def _start(self, ticket: Ticket, seen: Seen, entry: Any, held: contextlib.ExitStack) -> None:
        task = asyncio.ensure_future(self._tell(ticket, seen, entry))
        self._watched[ticket.id] = task

        def done(ended: "asyncio.Task[None]") -> None:
            held.close()
            if self._watched.get(ticket.id) is ended:
                del self._watched[ticket.id]
            if ended.cancelled() or (error := ended.exception()) is None:
                return
            if not isinstance(error, _ClosedError):
                _log.error("stream.failed", error=described(error), exc_info=error)
                error = _ClosedError(_AGAIN, "please come back", "failed")
            if not self._closing.done():
                self._closing.set_result(error)

        task.add_done_callback(done)

    async def _tell(self, ticket: Ticket, seen: Seen, entry: Any) -> None:
        try:
            # Too old: said at once.
            await self._parts.results.outcome_of(ticket.source, ticket.id, ticket.position, ticket.owner)
            async for frames in self._parts.live.frames(entry, ticket, seen):
                for frame in frames:
                    await self._say(frame)
        except PenstockError as error:
            await self._say(_refusal(error, ticket.id))

    async def _beat(self) -> None:
        while not self._parts.live.is_ending:
            await self._say({"type": "ping"})
            await self._parts.live.ending(self._settings.heartbeat_s)

    async def _say(self, frame: Frame) -> None:
        """Send a frame; everybody waits for a client that does not read, and then lets it go."""
        text = msgspec.json.encode(frame).decode()
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                async with self._sending:
                    await self._send_message({"type": "websocket.send", "text": text})
        except TimeoutError as error:
            raise _ClosedError(_AGAIN, "too slow; come back and go on after the last id", "slow") from error
        except RuntimeError as error:
            # granian's word for a connection that is gone.
            raise _ClosedError(_NORMAL, "", "left") from error


def _is_longer(raw: str | bytes, limit_bytes: int) -> bool:
    """Tell whether a message has more bytes than it may; text comes as characters, of which one may be four."""
    if len(raw) > limit_bytes:
        return True
    return isinstance(raw, str) and not raw.isascii() and len(raw.encode()) > limit_bytes


def _refusal(error: PenstockError, named: str = "") -> Frame:
    frame: Frame = {"type": "error", "reason": error.reason, "message": told(error), "status": "refused"}
    wait_s = getattr(error, "retry_after_s", None)
    return frame | ({"id": named} if named else {}) | ({"retry_after_s": wait_s} if wait_s else {})
