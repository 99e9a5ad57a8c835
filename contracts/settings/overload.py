"""Overload: who may send how much, and when senders are turned away before anything breaks."""

from typing import Annotated

from pydantic import Field, IPvAnyNetwork

from contracts.settings.section import Lane, Seconds, Section

PerSecond = Annotated[float, Field(gt=0, le=1_000_000)]


class RateLimit(Section):
    """How much may come from one sender in the long run, and how much at once; beyond it the answer is 429."""

    events_per_s: PerSecond
    """Events per second, in the long run."""
    burst: int = Field(default=100, ge=1, le=1_000_000)
    """Events that may come at once after a pause."""
    bytes_per_s: int | None = Field(default=None, ge=1024)
    """Bytes of bodies per second; what a burst may hold is ten seconds of it. Not limited when absent."""


class CallerLimit(Section):
    """How much may come with one API key; beyond it the answer is 429."""

    requests_per_s: PerSecond | None = None
    """Requests of any kind with this key, in the long run: events, results that are asked for, streams, and each event
    over a WebSocket. Not limited when absent."""
    requests_burst: int = Field(default=100, ge=1, le=1_000_000)
    """Requests that may come at once after a pause."""
    events: RateLimit | None = None
    """Limit of its events, however they are posted, and of their bytes; not limited when absent."""
    in_flight_bytes: int | None = Field(default=None, ge=1024)
    """Bytes of its bodies between their arrival and Kafka's ack, of all requests together; not less than
    `gateway.max_body_bytes`. A WebSocket has one event in flight. A part of what all may hold when absent."""
    websockets: int | None = Field(default=None, ge=1, le=1_000_000)
    """WebSockets open at a time with this key. Not limited when absent."""


class BadSignatures(Section):
    """Requests without a good signature. They have a budget of their own, so that they use up nobody else's."""

    per_peer_per_s: PerSecond = 2.0
    """From one address to one source: so many a second are answered 401. The others get 429, unless their signature
    is good after all."""
    per_peer_burst: int = Field(default=50, ge=1, le=1_000_000)
    """So many of them at once after a pause."""
    per_source_per_s: PerSecond = 50.0
    """The same from all addresses together to one source, against floods from many; an address whose last good
    signature is known does not suffer from it."""
    per_source_burst: int = Field(default=1000, ge=1, le=1_000_000)
    """So many of them at once after a pause."""
    suspect_bytes_per_s: int = Field(default=16 * 2**20, ge=2**16)
    """Bytes per second that are read and verified for addresses whose budget is spent, all together; beyond it they
    get 429 unread. It bounds the CPU time that forged signatures can take: about half a millisecond per MB."""


class OverloadSettings(Section):
    """Limits that keep one sender, or a stranger, from using up what all share."""

    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(default=(), max_length=256)
    """Networks of your own proxies and load balancers. Only when the connection comes from one of them is
    X-Forwarded-For read: the last address in it that is none of them is the sender's. Without it the address of the
    connection counts."""
    per_peer: RateLimit | None = None
    """Limit of verified events per address, all sources together; not limited when absent. An IPv6 address counts with
    its whole /64."""
    max_open_per_peer: int | None = Field(default=None, ge=1, le=1_000_000)
    """Requests being answered, streams included, and WebSockets, at a time from one address; beyond it the answer is
    429. Probes (`/healthz`, `/readyz`) are left out. Not limited when absent."""
    bad_signatures: BadSignatures | None = BadSignatures()
    """Budget of requests without a good signature; null switches it off."""
    max_peers: int = Field(default=10_000, ge=16, le=1_000_000)
    """Addresses remembered in each table; those seen longest ago are forgotten first."""
    max_lag: dict[Lane, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Per lane: when the workers (group `worker.app_id`) are more records behind than this, webhooks and API events of
    the lane are answered 503 with Retry-After until they have caught up. Lanes that are absent are not limited."""
    lag_resume_share: float = Field(default=0.8, gt=0, le=1)
    """Share of `max_lag` below which the lane is open again."""
    lag_interval_s: Seconds = 5.0
    """How often the lag is read. When it cannot be read for three times as long, nobody is turned away for it."""
