"""Carries posts over keep-alive connections of our own: no task, no timer, no callback per call.

A call costs one future and one write; one timer watches the deadlines of all calls and the age of idle connections.
See: ADR 0010.
"""

import asyncio
import contextlib
import math
import ssl
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

from streams.providers.base import Arrivals, Waiter
from streams.providers.transport.base import BrokenOff, ConnectFailed, Limits, Response, TimedOut
from streams.providers.transport.connection import Connection, Stream
from streams.providers.transport.request import Address, Heads, dial, trust

# Deadlines nearer together than this are looked at together.
_GRAIN_S = 0.01
# Below the shortest keep-alive that common model servers have (uvicorn, Node: 5 s): a connection that the server closes
# while we write to it is a call that may have been billed.
_IDLE_S = 4.0
# Answers to many calls come at every moment. Those of 8 or 16 ms are given together, for less of a worker's CPU.
# That they have come is told sooner, so that the next calls go out and the model does not wait for us (ADR 0028).
_MANY, _VERY_MANY = 128, 512
_GATHER_S, _GATHER_LONGER_S = 0.008, 0.016
_TELL_S = 0.001
# So many are given in one turn of the loop. All that follows from one turn's answers is done before the next requests
# go out: hundreds at once would be asked for at once, too, and answered at once, time after time.
_AT_ONCE = 64
_REFUSALS = 300


class Lean:
    """The transport for plain JSON and SSE posts, without proxies.

    Args:
        base_url: http or https; paths are appended to it.
        headers: sent with every call.
        max_connections: further calls wait, first come first served.
        connect_timeout_s: limit of name resolution, TCP and TLS handshake.
        ca_file: certificates to trust in place of the system's.
        arrivals: where answers are counted that have come and are given to their calls a little later, and who asks
            for requests to be written before the loop's next turn.
    """

    name = "lean"

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        max_connections: int,
        connect_timeout_s: float = 3.0,
        limits: Limits | None = None,
        ca_file: Path | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        self._address = Address(base_url)
        self._heads = Heads(self._address, headers)
        self._max_connections = max_connections
        self._connect_timeout_s = connect_timeout_s
        self._limits = limits or Limits()
        self._ca_file = ca_file
        self._tls: ssl.SSLContext | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connections = 0
        self._busy: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._unsent: list[Connection] = []
        self._answers: deque[tuple[Waiter, Response]] = deque()
        self._arrivals = arrivals or Arrivals()
        self._arrivals.senders.append(self._send_ahead)
        self._tells = False
        # Futures in the order of arrival; each gets a connection, or None: leave to open one.
        self._queue: dict[asyncio.Future[Connection | None], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    async def start(self) -> None:
        """Load trusted certificates.

        Raises:
            ConfigError: ca_file has none.
        """
        if self._address.is_tls:
            self._tls = trust(self._ca_file)
        self._loop = asyncio.get_running_loop()

    async def aclose(self) -> None:
        """Cancel the calls in flight and close every connection."""
        self._loop = None
        while self._answers:
            self._hand_out()
        for connection in [*self._busy, *self._idle]:
            connection.cancel()
        for waiting in list(self._queue):
            waiting.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    def post(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> Coroutine[Any, Any, Response]:
        """Post and return the whole answer."""
        # The call's coroutine itself: another one around it costs a microsecond per call.
        call = self._call(path, body, headers, timeout_s, is_streamed=False)
        return cast("Coroutine[Any, Any, Response]", call)

    def begin(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float, waiter: Waiter) -> bool:
        """Post as `post`, on a connection that is there; the waiter gets the answer or a TransportError.

        Nothing is tried again: who had BrokenOff, with nothing billed, makes the call anew.

        Returns:
            False when no connection is free.
        """
        loop = self._loop
        if loop is None or not self._idle:
            return False
        # Before a connection is taken: a head that cannot be rendered must not cost one.
        request = self._heads.render(path, headers, len(body)) + body
        connection = self._take_idle()
        if connection is not None:
            self._ask(connection, request, loop.time() + timeout_s, waiter)
        return connection is not None

    @contextlib.asynccontextmanager
    async def open(self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> AsyncIterator[Stream]:
        """Post, and yield the answer as soon as its head is there."""
        stream = cast("Stream", await self._call(path, body, headers, timeout_s, is_streamed=True))
        try:
            yield stream
        finally:
            stream.leave()

    async def _call(
        self, path: str, body: bytes, headers: Mapping[str, str], timeout_s: float, *, is_streamed: bool
    ) -> Response | Stream:
        loop = self._running()
        # Joined once: one write, one packet for what is small.
        request = self._heads.render(path, headers, len(body)) + body
        deadline_at = loop.time() + timeout_s
        connection = self._take_idle() or await self._acquire(deadline_at)
        has_retried = False
        while True:
            waiter: asyncio.Future[Response | Stream] = self._usable(connection).create_future()
            self._ask(connection, request, deadline_at, waiter, is_streamed=is_streamed)
            try:
                return await waiter
            except asyncio.CancelledError:
                connection.abandon(waiter)
                self._forget(waiter)
                raise
            except BrokenOff as error:
                if error.possibly_billed or not connection.is_reused:
                    raise
            # The server had gone before it had the request. The last try is on a connection of its own, which fails for
            # good. One that is idle and alive is tried before, once, if nothing was sent: what was cut off half sent
            # may be the reason for it.
            is_last = has_retried or connection.has_sent
            connection = (None if is_last else self._take_live()) or await self._acquire(deadline_at, is_fresh=is_last)
            has_retried = True

    def _usable(self, connection: Connection) -> asyncio.AbstractEventLoop:
        """Return the loop; where the transport was closed meanwhile, close the connection as well."""
        if self._loop is None:
            connection.abort()
        return self._running()

    def _ask(
        self, connection: Connection, request: bytes, deadline_at: float, waiter: Waiter, *, is_streamed: bool = False
    ) -> None:
        """Write the request, soon; the waiter gets the answer."""
        self._busy.add(connection)
        connection.begin(request, deadline_at, waiter, is_streamed=is_streamed)
        if not self._unsent:
            self._running().call_soon(self._send)
        self._unsent.append(connection)
        if deadline_at < self._timer_at:
            self._watch(deadline_at)

    def _send(self) -> None:
        """Write the requests of the tasks that ran before, one after the other.

        Each of them alone would find the processor's caches full of other code: measured, see ADR 0028.
        """
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.send()

    def _send_ahead(self) -> None:
        """Write requests before the loop's next turn where there are many calls: it would read many answers first.

        With few calls nothing is gained, and some runs were slower (ADR 0028).
        """
        if len(self._busy) >= _MANY:
            self._send()

    def answered(self, waiter: Waiter, answer: Response) -> None:
        """Give a call its answer; of many calls in flight, together with those that come just behind it.

        A refusal at once: it may be the reason for no more calls.
        """
        if len(self._busy) < _MANY or self._loop is None or answer.status >= _REFUSALS:
            waiter.set_result(answer)
            return
        if not self._answers:
            wait_s = _GATHER_S if len(self._busy) < _VERY_MANY else _GATHER_LONGER_S
            self._loop.call_later(wait_s, self._hand_out)
        self._answers.append((waiter, answer))
        self._arrivals.count += 1
        if not self._tells:
            self._tells = True
            self._loop.call_later(_TELL_S, self._tell)

    def _tell(self) -> None:
        self._tells = False
        for listener in self._arrivals.listeners:
            listener()

    def _hand_out(self) -> None:
        answers = self._answers
        for _ in range(min(_AT_ONCE, len(answers))):
            waiter, answer = answers.popleft()
            self._arrivals.count -= 1
            if not waiter.done():
                waiter.set_result(answer)
        if answers and self._loop is not None:
            self._loop.call_soon(self._hand_out)

    def _forget(self, waiter: Waiter) -> None:
        """Take back the answer to a call that was cancelled: its slot is freed now, and must not count twice."""
        for place, (waiting, _) in enumerate(self._answers):
            if waiting is waiter:
                del self._answers[place]
                self._arrivals.count -= 1
                return

    def freed(self, connection: Connection) -> None:
        """Hand a connection to who waits longest, or keep it."""
        self._busy.discard(connection)
        if self._loop is None:
            connection.abort()
            return
        if self._queue and self._hand_over(connection):
            return
        connection.idle_until = self._loop.time() + _IDLE_S
        self._idle.append(connection)
        if connection.idle_until < self._timer_at:
            self._watch(connection.idle_until)

    def lost(self, connection: Connection) -> None:
        """Give the place of a connection to who waits longest."""
        self._busy.discard(connection)
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)
        self._leave()

    def _leave(self) -> None:
        """Pass on the place of a connection that is no more."""
        if not self._hand_over(None):
            self._connections -= 1

    def _hand_over(self, connection: Connection | None) -> bool:
        for waiting in list(self._queue):
            del self._queue[waiting]
            if not waiting.done():
                waiting.set_result(connection)
                return True
        return False

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            message = "the transport is not started, or closed"
            raise ConnectFailed(message)
        return self._loop

    def _take_idle(self) -> Connection | None:
        """Return the connection used last: the others may age and be closed."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_lost:
                return connection
        return None

    def _take_live(self) -> Connection | None:
        """Return an idle connection that was looked at, and close those that have gone; each of them once."""
        while (connection := self._take_idle()) is not None:
            if connection.is_usable():
                return connection
            connection.abort()
        return None

    async def _acquire(self, deadline_at: float, *, is_fresh: bool = False) -> Connection:
        """Open a connection, or wait for one; a fresh one takes the place of any other."""
        while self._connections >= self._max_connections:
            connection = self._idle.popleft() if is_fresh and self._idle else await self._wait(deadline_at)
            if connection is not None and not is_fresh and connection.is_usable():
                return connection
            if connection is None or connection.give_place():
                return await self._open(deadline_at)
        self._connections += 1
        return await self._open(deadline_at)

    async def _wait(self, deadline_at: float) -> Connection | None:
        """Return a connection, or None with leave to open one."""
        waiting: asyncio.Future[Connection | None] = self._running().create_future()
        self._queue[waiting] = deadline_at
        self._watch(deadline_at)
        try:
            return await waiting
        except asyncio.CancelledError:
            self._queue.pop(waiting, None)
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                connection = waiting.result()
                if connection is None:
                    self._leave()
                else:
                    self.freed(connection)
            raise

    async def _open(self, deadline_at: float) -> Connection:
        """Connect; the place is already counted."""
        connection: Connection | None = None
        try:
            connection = await self._connect(deadline_at)
        finally:
            if connection is None:
                self._leave()
        return connection

    async def _connect(self, deadline_at: float) -> Connection:
        loop, address = self._running(), self._address
        limit_at = loop.time() + self._connect_timeout_s
        made, has_connected = Connection(self, self._limits), False
        try:
            async with asyncio.timeout_at(min(limit_at, deadline_at)):
                name = address.host if self._tls else None
                if (dialled := await dial(address)) is not None:
                    await loop.create_connection(lambda: made, sock=dialled, ssl=self._tls, server_hostname=name)
                else:
                    await loop.create_connection(
                        lambda: made, address.host, address.port, ssl=self._tls, server_hostname=name
                    )
            has_connected = True
        except (OSError, UnicodeError, RuntimeError) as error:
            # RuntimeError: no thread to look the name up in can be started.
            is_late = loop.time() >= deadline_at
            raise _refusal(error, address.netloc, self._connect_timeout_s, is_late=is_late) from error
        finally:
            if not has_connected:
                made.abort()
        if made.is_lost:
            message = f"no connection to {address.netloc}: it was closed at once"
            raise ConnectFailed(message)
        made.is_counted = True
        return made

    def _watch(self, at: float) -> None:
        if at >= self._timer_at or self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._sweep)

    def _sweep(self) -> None:
        """End what is over its time, and look again when the next is due."""
        self._timer, self._timer_at = None, math.inf
        if self._loop is None:
            return
        now = self._loop.time()
        for connection in [busy for busy in self._busy if busy.deadline_at <= now]:
            connection.expire(f"{self._address.netloc} did not answer in time")
        for waiting in [waiting for waiting, at in self._queue.items() if at <= now]:
            del self._queue[waiting]
            if not waiting.done():
                waiting.set_exception(TimedOut("no free connection in time", possibly_billed=False))
        while self._idle and self._idle[0].idle_until <= now:
            self._idle.popleft().abort()
        due = [busy.deadline_at for busy in self._busy]
        due.extend(self._queue.values())
        if self._idle:
            due.append(self._idle[0].idle_until)
        if due:
            self._watch(max(min(due), now + _GRAIN_S))


def _refusal(error: Exception, netloc: str, limit_s: float, *, is_late: bool) -> ConnectFailed | TimedOut:
    """Return what to raise when connecting failed with an error."""
    if isinstance(error, TimeoutError) and is_late:
        return TimedOut(f"no connection to {netloc} before the call's time was over", possibly_billed=False)
    if isinstance(error, TimeoutError):
        return ConnectFailed(f"no connection to {netloc} within {limit_s:g} s")
    return ConnectFailed(f"no connection to {netloc}: {error}")
