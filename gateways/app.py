"""Runs the gateway: settings in, parts together, signals, an orderly end.

Writes: events.*. Blocking: `run_gateway` for the life of the process.
"""

import asyncio
import gc
import signal
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from contracts import logs, tallies
from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import BUILD_INFO, GATEWAY_PROCESSES, GATEWAY_RESTARTS, LOOP_LAG, WEBSOCKETS_LIMIT
from contracts.settings import Settings, environment
from contracts.signals import ENDING, StopSignals, end_at_once
from gateways.api import Api
from gateways.listening import announce, listen
from gateways.member import Member, Refusals
from gateways.metrics_page import FOLDER_VARIABLE
from gateways.openapi import package_version
from gateways.parts import Parts, build_parts
from gateways.reloading import ConfigFile, Reloader
from gateways.server import Room, Server, room_for, serve
from producers.base import Producer
from producers.kafka_client import in_thread

_LOOP_CHECK_S = 1.0
_FLUSH_TIMEOUT_S = 5.0
_WAIT_SHARE = 0.6
# As in streams/worker.py: at Python's first threshold of 700 the objects of every request in flight are looked at again
# and again, and now and then all that was imported; nearly all of them end by reference count.
_GC_THRESHOLDS = (50_000, 10, 10)

_log = logger("gateway")


def run_gateway(
    settings: Settings,
    port_file: Path | None = None,
    config: ConfigFile | None = None,
    member: Member | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; what is in progress is finished, a second signal ends at once.

    Args:
        settings: the whole configuration.
        port_file: gets the port once it listens.
        config: where the settings came from, to follow its changes.
        member: place of this process among several.

    Raises:
        ConfigError: a secret, a template, an address or the port file cannot be used.
    """
    logs.configure(settings.logging, None if member is None else member.number)
    producer = _producer(settings)
    uvloop.run(run(settings, producer, build_parts(settings, producer), port_file, config, member))


def _producer(settings: Settings) -> Producer:
    from producers.producer import KafkaProducer

    # A record that is not confirmed while its sender waits is given up, so that a retry does not find it twice.
    return KafkaProducer(
        settings.kafka,
        settings.producer,
        client_id="penstock-gateway",
        delivery_timeout_s=settings.gateway.ack_timeout_s,
        stall_after_s=settings.gateway.ack_timeout_s,
    )


async def run(
    settings: Settings,
    producer: Producer,
    parts: Parts,
    port_file: Path | None = None,
    config: ConfigFile | None = None,
    member: Member | None = None,
) -> None:
    """Start the parts, serve until a signal, and end in order; SIGHUP reloads.

    Raises:
        ConfigError: the address or the port file cannot be used.
    """
    listener = member.listener() if member else listen(settings.gateway.host, settings.gateway.port)
    port: int = listener.getsockname()[1]
    api = Api(parts)
    ending = Ending(parts, api)
    watching = asyncio.ensure_future(_watch(parts))
    reloader = Reloader(settings, parts, config, Refusals(Path(environment()[FOLDER_VARIABLE])) if member else None)
    reloading = asyncio.ensure_future(reloader.run())
    # As early as can be: until then the signal would end the process.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.ask)
    try:
        await producer.start()
        parts.results.start()
        parts.backlog.start()
        if parts.replies is not None:
            parts.replies.start()
        if settings.gateway.api_keys:
            # Nobody else can have streamed events.
            parts.live.start()
        serving = asyncio.ensure_future(
            serve(
                Server(api, listener, settings.gateway.header_timeout_s, _room(settings, parts)),
                ending.closes_door,
            )
        )
        ending.follow_signals()
        BUILD_INFO.labels(package_version(), "gateway").set(1)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        if member is None:
            announce(settings.gateway.host, port, port_file)
        else:
            ending.follow(member)
        GATEWAY_PROCESSES.set(1)
        await ending.wait_for(serving)
    finally:
        watching.cancel()
        reloading.cancel()
        parts.secrets.close()
        await parts.backlog.aclose()
        await _closed(parts.live.close)
        if parts.replies is not None:
            await _closed(parts.replies.close)
        await _closed(parts.results.close)
        await producer.aclose(_FLUSH_TIMEOUT_S)
        _flush(api)
        _log.info("gateway.stopped")


def _room(settings: Settings, parts: Parts) -> Room:
    wanted = Room(settings.gateway.max_connections, settings.gateway.streams.max_websockets)
    room = room_for(wanted)
    parts.caller_limits.websockets.limit = room.websockets
    WEBSOCKETS_LIMIT.set(room.websockets)
    if room != wanted:
        _log.warning("gateway.few_files", connections=room.connections, websockets=room.websockets)
    return room


async def _closed(close: Callable[[], None]) -> None:
    try:
        await in_thread(close)
    except LogUnavailable:
        # No thread can be started for it: nobody is served any more, so that it may hold up the loop.
        close()


class Ending:
    """The orderly end: readiness says no, open requests are answered, then the door is closed; all within a limit.

    Attributes:
        closes_door: set when no new connections are to be taken any more.
    """

    def __init__(self, parts: Parts, api: Api) -> None:
        self._parts = parts
        self._api = api
        # Half for the requests that are open at the signal, half for those that came while the door was still open.
        self._phase_s = parts.settings.shutdown_timeout_s / 2
        self._closing: asyncio.Future[None] | None = None
        self._watching: asyncio.Future[None] | None = None
        self._signals = StopSignals(self._begin, self._cut_short)
        self.closes_door = asyncio.Event()

    def follow_signals(self) -> None:
        """Let the first SIGTERM or SIGINT begin the end, and the second cut it short."""
        self._signals.follow(asyncio.get_running_loop().add_signal_handler, ENDING)

    def follow(self, member: Member) -> None:
        """Serve as one of several: end with the supervisor, and when only a restart helps."""
        member.follow_supervisor(lambda: self._signals(signal.SIGTERM))
        if member.starts:
            GATEWAY_RESTARTS.inc()
        self._watching = asyncio.ensure_future(self._end_when_broken())
        member.announce()

    async def _end_when_broken(self) -> None:
        # A balancer's probe would meet this process once in a while only.
        while not (reasons := self._parts.health.broken()):  # noqa: ASYNC110 - health is asked, it does not tell
            await asyncio.sleep(_LOOP_CHECK_S)
        _log.error("gateway.process_broken", error=", ".join(reasons))
        self._signals(signal.SIGTERM)

    async def wait_for(self, serving: asyncio.Future[None]) -> None:
        """Return when everything is answered, or after the limit.

        Raises:
            PenstockError: the server ended by itself.
        """
        closing = asyncio.ensure_future(self.closes_door.wait())
        await asyncio.wait((serving, closing), return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()
        done, _ = await asyncio.wait({serving}, timeout=self._phase_s)
        if done:
            await serving
        else:
            _log.warning("gateway.requests_abandoned", in_progress=len(self._api.in_progress))
            serving.cancel()

    def _cut_short(self, number: signal.Signals) -> None:
        _log.warning("gateway.ended_at_once")
        self._api.log.flush()
        end_at_once(number)

    def _begin(self, _number: signal.Signals) -> None:
        _log.info("gateway.stopping", in_progress=len(self._api.in_progress))
        self._parts.health.is_shutting_down = True
        # Watchers come back to another instance, and go on where they were.
        self._parts.live.end()
        # What can still be answered is answered; who then still waits gets a 202, in time for it to go out.
        asyncio.get_running_loop().call_later(_WAIT_SHARE * self._phase_s, self._parts.waiters.end)
        self._closing = asyncio.ensure_future(self._close_when_answered())

    async def _close_when_answered(self) -> None:
        # Until then the door stays open: who has not heard of readiness yet gets an answer, not a reset.
        begun = set(self._api.in_progress)
        if begun:
            await asyncio.wait(begun, timeout=self._phase_s)
        self.closes_door.set()


def _flush(api: Api) -> None:
    api.log.flush()
    tallies.flush()


async def _watch(parts: Parts) -> None:
    while True:
        before_s = time.monotonic()
        await asyncio.sleep(_LOOP_CHECK_S)
        LOOP_LAG.set(max(0.0, time.monotonic() - before_s - _LOOP_CHECK_S))
        parts.claims.gauge()
        tallies.flush()
        parts.health.clock.look()
