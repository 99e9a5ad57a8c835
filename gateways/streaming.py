"""Sends an answer that goes on for long: as the client reads it, until it ends, the client leaves or does not read.

Source: ASGI 3.0; granian 2.8 holds at most four chunks of a body before `send` waits for the client.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

from contracts.logs import described, logger
from gateways.asgi import Receive, Response, Send

_log = logger("gateway")


class Stream(NamedTuple):
    """The body of an answer, piece by piece.

    Attributes:
        chunks: what to send.
        close: gives back what it holds; called once, whatever happens.
        send_timeout_s: a client that does not read for this long is let go.
        max_duration_s: of the whole.
        ended: hears how it ended: finished, left, slow, limit or failed.
    """

    chunks: AsyncIterator[bytes]
    close: Callable[[], None]
    send_timeout_s: float
    max_duration_s: float
    ended: Callable[[str], None]


async def send_stream(response: Response, stream: Stream, receive: Receive, send: Send, *, is_head: bool) -> None:
    """Send headers and body."""
    outcome = "failed"
    try:
        headers = [*response.headers, (b"content-type", response.content_type)]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        outcome = "finished" if is_head else await _race(stream, receive, send)
    finally:
        stream.close()
        stream.ended(outcome)
    if outcome != "left":
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _race(stream: Stream, receive: Receive, send: Send) -> str:
    pumping = asyncio.ensure_future(_pump(stream, send))
    leaving = asyncio.ensure_future(_left(receive))
    both = {pumping, leaving}
    try:
        await asyncio.wait(both, timeout=stream.max_duration_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_ended, has_left = pumping.done(), leaving.done()
        for task in both:
            task.cancel()
        await asyncio.wait(both)
    if has_ended:
        return _result_of(pumping)
    return "left" if has_left else "limit"


def _result_of(pumping: "asyncio.Future[str]") -> str:
    error = pumping.exception()
    if error is None:
        return pumping.result()
    _log.error("stream.failed", error=described(error), exc_info=error)
    return "failed"


async def _pump(stream: Stream, send: Send) -> str:
    async for chunk in stream.chunks:
        try:
            async with asyncio.timeout(stream.send_timeout_s):
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except TimeoutError:
            return "slow"
    return "finished"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
