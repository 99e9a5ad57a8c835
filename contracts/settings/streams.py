"""Watching answers grow: how many may, how long, and from where."""

from typing import Annotated

from pydantic import Field

from contracts.settings.section import Form, Seconds, Section

Origin = Annotated[
    str, Form(r"^https?://[^\s/]+$", "an origin: scheme and host, no path, such as https://app.example.com")
]


class StreamSettings(Section):
    """`/v1/stream`: server-sent events and WebSocket."""

    max_watchers: int = Field(default=1000, ge=1, le=4000)
    """Events watched at a time; beyond it a request is refused with 503, before anything is accepted."""
    max_websockets: int = Field(default=1000, ge=0, le=1_000_000)
    """WebSockets open at a time, beside `gateway.max_connections`; beyond it one is refused with 503. For each the HTTP
    server may hold 64 MiB of a message that has not come to its end. 0 = none: streams are server-sent events only."""
    max_buffered_bytes: int = Field(default=64 * 2**20, ge=2**20)
    """Text of the watched answers held in memory; beyond it the newest stops growing, and its watchers get the result
    alone."""
    max_answer_bytes: int = Field(default=2**20, ge=1024)
    """The same for one answer."""
    heartbeat_s: Seconds = 15.0
    """A watcher that has nothing to read gets a sign of life this often; below the idle limit of what stands in
    front."""
    send_timeout_s: Seconds = 20.0
    """A client that does not read for this long is let go; it may come back and go on where it was."""
    max_duration_s: Seconds = 3600.0
    """How long one connection may last; its client comes back and goes on where it was."""
    allowed_origins: tuple[Origin, ...] = ()
    """Origins (`https://app.example.com`) of web pages that may read streams from a browser; the gateway's own origin
    always may."""
