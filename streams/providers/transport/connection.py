"""One keep-alive connection: writes a request, reads its answer, and knows whether it may be used again."""

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import Protocol, cast

from streams.providers.base import Waiter
from streams.providers.transport.base import BrokenOff, Headers, Limits, Response, TimedOut, TransportError, Unusable
from streams.providers.transport.parser import Parser, read_headers

# A reader that is slower than the server pauses the socket here; far above any burst of server-sent events.
_MAX_UNREAD_BYTES = 256 * 1024


class Owner(Protocol):
    """Who is told when a connection is free again, or gone."""

    def answered(self, waiter: Waiter, answer: Response) -> None:
        """Give a call its whole answer, at once or a little later."""
        ...

    def freed(self, connection: "Connection") -> None:
        """Take back a connection that may serve another call."""
        ...

    def lost(self, connection: "Connection") -> None:
        """Forget a connection; called once."""
        ...


class Stream:
    """The body of an answer as it comes."""

    def __init__(self, connection: "Connection", status: int, headers: Headers) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._is_whole = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._is_whole or self._error is not None

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        while True:
            while self._unread:
                piece = self._unread.popleft()
                self._unread_bytes -= len(piece)
                yield piece
            if self._error is not None:
                raise self._error
            if self._is_whole:
                return
            self._connection.resume()
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def leave(self) -> None:
        """Close the connection early; once the answer is whole, it may already serve somebody else."""
        if not self.is_over:
            self._connection.abort()

    def push(self, pieces: list[bytes]) -> bool:
        """Hand over pieces; return whether the reader should be waited for."""
        self._unread.extend(pieces)
        self._unread_bytes += sum(map(len, pieces))
        self._wake()
        return self._unread_bytes > _MAX_UNREAD_BYTES

    def finish(self, error: BaseException | None = None) -> None:
        """Say that nothing more comes, and why."""
        self._error, self._is_whole = error, error is None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """Serves one call at a time.

    Attributes:
        deadline_at: when the call in flight has to be over, in the loop's time.
        idle_until: when an idle connection is given up, in the loop's time.
        is_counted: it has a place among the owner's connections, which the owner hears of when it is lost.
        is_lost: it is closed, or about to be.
        is_reused: it has served a call before the one in flight.
    """

    __slots__ = (
        "_is_paused", "_is_streamed", "_is_unwritten", "_owner", "_parser", "_poll", "_request", "_stream",
        "_transport", "_waiter", "deadline_at", "idle_until", "is_counted", "is_lost",
        "is_reused",
    )  # fmt: skip

    def __init__(self, owner: Owner, limits: Limits) -> None:
        self._owner = owner
        self._parser = Parser(limits)
        self._poll = select.poll()
        self._transport: asyncio.Transport | None = None
        self._waiter: Waiter | None = None
        self._stream: Stream | None = None
        self._is_streamed = self._is_unwritten = self._is_paused = self.is_lost = self.is_counted = False
        self.deadline_at = self.idle_until = 0.0
        self.is_reused = False
        self._request: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)
        # With next to no slack, pause_writing and resume_writing say whether the request has left us. Not 0: with TLS,
        # asyncio then takes an empty buffer for a full one.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    @property
    def has_sent(self) -> bool:
        """Whether any of the last request may have left."""
        return self._request is None

    def is_usable(self) -> bool:
        """Return whether an idle connection is open with nothing in it, as far as this machine knows.

        The loop may not have seen yet what the kernel has: a close that came before our write must not become a call
        of which nobody knows whether it was billed.
        """
        transport = self._transport
        return not (self.is_lost or transport is None or transport.is_closing() or self._poll.poll(0))

    def begin(self, request: bytes, deadline_at: float, waiter: Waiter, *, is_streamed: bool) -> None:
        """Take a request, for `send`; the waiter gets the answer, or its head when it is streamed."""
        self.deadline_at = deadline_at
        self._waiter, self._stream, self._is_streamed = waiter, None, is_streamed
        self._request, self._is_unwritten = request, True

    def send(self) -> None:
        """Write the request, unless the call has ended meanwhile."""
        request, transport = self._request, self._transport
        if request is None or self._waiter is None:
            return
        if transport is None or self.is_lost or (self.is_reused and not self.is_usable()):
            self._fail(BrokenOff("the connection was gone before the request", possibly_billed=False))
            return
        self._request, self._is_unwritten = None, False
        transport.write(request)

    def give_place(self) -> bool:
        """Close; return whether the place among the owner's connections passes to the caller."""
        has_place, self.is_counted = self.is_counted and not self.is_lost, False
        self.abort()
        return has_place

    def data_received(self, data: bytes) -> None:
        """Read a piece of the answer."""
        waiter = self._waiter
        if waiter is None:
            # Nobody asked: whatever it is, it would be taken for the answer to the next question.
            self.abort()
            return
        if self._request is not None:
            # Nor was this question asked yet.
            self._fail(BrokenOff("the server sent something before the request", possibly_billed=False))
            return
        parser = self._parser
        try:
            is_whole = parser.feed(data)
        except Unusable as error:
            self._fail(error)
            return
        if is_whole:
            self._finish()
        elif self._is_streamed and parser.has_head:
            self._pass_on(waiter)

    def eof_received(self) -> None:
        """Take the server's half-close as the end: a server that says nothing more answers nothing more."""
        self._ended(None)

    def connection_lost(self, error: Exception | None) -> None:
        """End the call in flight, and tell the owner."""
        self._ended(error)
        self._lose()

    def pause_writing(self) -> None:
        """Know that a part of the request has not left yet."""
        self._is_unwritten = True

    def resume_writing(self) -> None:
        """Know that all of the request has left."""
        self._is_unwritten = False

    def resume(self) -> None:
        """Read on, once the reader of a stream has caught up."""
        if self._is_paused and self._transport is not None and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def expire(self, message: str) -> None:
        """End the call in flight, since its time is over."""
        self._fail(TimedOut(message, possibly_billed=self._may_be_billed()))

    def cancel(self) -> None:
        """Cancel the call in flight and close."""
        waiter, stream = self._waiter, self._stream
        self.abort()
        if stream is not None:
            stream.finish(asyncio.CancelledError())
        elif waiter is not None:
            waiter.cancel()

    def abandon(self, waiter: Waiter) -> None:
        """Close, since the caller of this call has gone; not when its answer is whole: it may serve somebody else."""
        if self._waiter is waiter:
            self.abort()

    def abort(self) -> None:
        """Close at once; a call in flight is forgotten, its caller has gone."""
        self._waiter = self._stream = None
        if self._transport is not None:
            self._transport.abort()
        self._lose()

    def _lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            if self.is_counted:
                self._owner.lost(self)

    def _may_be_billed(self) -> bool:
        return self._parser.has_begun or not self._is_unwritten

    def _ended(self, error: Exception | None) -> None:
        if self._waiter is None:
            return
        # A reset says nothing about what would still have come: only a clean end completes a body without a length. Of
        # a refusal the beginning is enough: who refuses a question before it has read it resets the connection.
        if (error is None or self._parser.is_refusal) and self._parser.end():
            self._finish()
            return
        said = f": {error}" if error else ""
        self._fail(BrokenOff(f"the server closed the connection{said}", possibly_billed=self._may_be_billed()))

    def _pass_on(self, waiter: Waiter) -> None:
        parser = self._parser
        stream = self._stream
        if stream is None:
            stream = self._stream = Stream(self, parser.status, parser.headers)
            if not waiter.done():
                waiter.set_result(stream)
        pieces, parser.pieces = parser.pieces, []
        if pieces and stream.push(pieces) and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def _finish(self) -> None:
        parser, waiter = self._parser, self._waiter
        if waiter is None:
            return
        if self._is_streamed:
            self._pass_on(waiter)
            if self._stream is not None:
                self._stream.finish()
        elif not waiter.done():
            pieces = parser.pieces
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._owner.answered(waiter, Response(parser.status, partial(read_headers, parser.block), body))
        self._free()

    def _free(self) -> None:
        self._waiter = self._stream = None
        # An answer that came before all of the question did leaves a connection that nobody can use.
        transport = self._transport
        if not self._parser.keeps_alive or self._is_unwritten or transport is None or transport.is_closing():
            self.abort()
            return
        self._parser.reset()
        if self._is_paused:
            self.resume()
        self.is_reused = True
        self._owner.freed(self)

    def _fail(self, error: TransportError) -> None:
        waiter, stream = self._waiter, self._stream
        self.abort()
        if stream is not None:
            stream.finish(error)
        elif waiter is not None and not waiter.done():
            waiter.set_exception(error)
