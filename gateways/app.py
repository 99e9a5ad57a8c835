"""Runs the gateway: settings in, parts together, signals, an orderly end.

Writes: events.*. Blocking: `run_gateway` for the life of the process.
"""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import uvloop

from contracts import logs
from contracts.logs import logger
from contracts.metrics import BUILD_INFO, LOOP_LAG
from contracts.settings import Settings
from gateways.api import Api
from gateways.openapi import package_version
from gateways.parts import Parts, build_parts
from gateways.server import Server, listen, serve
from producers.base import Producer

_LOOP_CHECK_S = 1.0
_FLUSH_TIMEOUT_S = 5.0

_log = logger("gateway")


def run_gateway(settings: Settings, port_file: Path | None = None) -> None:
    """Serve until SIGTERM or SIGINT; what is in progress is finished, a second signal ends at once.

    Args:
        settings: the whole configuration.
        port_file: gets the port once it listens.

    Raises:
        ConfigError: a secret, a template, an address or the port file cannot be used.
    """
    logs.configure(settings.logging)
    producer = _producer(settings)
    uvloop.run(run(settings, producer, build_parts(settings, producer), port_file))


def _producer(settings: Settings) -> Producer:
    from producers.producer import KafkaProducer

    # A record that is not confirmed while its sender waits is given up, so that a retry does not find it twice.
    return KafkaProducer(
        settings.kafka,
        settings.producer,
        client_id="penstock-gateway",
        delivery_timeout_s=settings.gateway.ack_timeout_s,
    )


async def run(settings: Settings, producer: Producer, parts: Parts, port_file: Path | None = None) -> None:
    """Start the parts, serve until a signal, and end in order.

    Raises:
        ConfigError: the address or the port file cannot be used.
    """
    listener = listen(settings.gateway.host, settings.gateway.port)
    port: int = listener.getsockname()[1]
    await producer.start()
    parts.results.start()
    api = Api(parts)
    server = Server(api, listener, settings.gateway.header_timeout_s)
    BUILD_INFO.labels(package_version(), "gateway").set(1)
    stop = asyncio.Event()
    ending = _end_on_signals(parts, api, stop)
    watching = asyncio.ensure_future(_watch_loop())
    serving = asyncio.ensure_future(serve(server, stop))
    _announce(settings.gateway.host, port, port_file)
    try:
        await _until_drained(serving, stop, settings.gateway.shutdown_timeout_s)
    finally:
        watching.cancel()
        ending.clear()
        await asyncio.to_thread(parts.results.close)
        await producer.aclose(_FLUSH_TIMEOUT_S)
        _log.info("gateway.stopped")


def _announce(host: str, port: int, port_file: Path | None) -> None:
    shown = f"[{host}]" if ":" in host else host
    print(f"listening on http://{shown}:{port}", flush=True)  # noqa: T201 - the one line for people
    if port_file is not None:
        # Renamed into place, so that a reader never sees half of it.
        partial = port_file.with_name(f"{port_file.name}.{os.getpid()}")
        partial.write_text(f"{port}\n", encoding="ascii")
        partial.replace(port_file)


def _end_on_signals(parts: Parts, api: Api, stop: asyncio.Event) -> list[asyncio.Future[None]]:
    """Let the first signal end this process in order, and the second at once; return where the ending task is kept."""
    loop = asyncio.get_running_loop()
    ending: list[asyncio.Future[None]] = []

    def on_signal(number: signal.Signals) -> None:
        if parts.health.is_shutting_down:
            _log.warning("gateway.ended_at_once")
            sys.stderr.flush()
            os._exit(128 + number)
        _log.info("gateway.stopping", in_progress=len(api.in_progress))
        parts.health.is_shutting_down = True
        ending.append(asyncio.ensure_future(_stop_when_answered(api, stop, parts.settings.shutdown_timeout_s)))

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return ending


async def _stop_when_answered(api: Api, stop: asyncio.Event, timeout_s: float) -> None:
    """Close the door when the requests that are in progress now have been answered.

    Until then it stays open: readiness already says no, and who did not hear it yet gets an answer, not a reset.
    """
    begun = set(api.in_progress)
    if begun:
        await asyncio.wait(begun, timeout=timeout_s / 2)
    stop.set()


async def _until_drained(serving: asyncio.Future[None], stop: asyncio.Event, timeout_s: float) -> None:
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    done, _ = await asyncio.wait({serving}, timeout=timeout_s)
    if not done:
        _log.warning("gateway.requests_abandoned")
        serving.cancel()
        return
    await serving


async def _watch_loop() -> None:
    while True:
        before_s = time.monotonic()
        await asyncio.sleep(_LOOP_CHECK_S)
        LOOP_LAG.set(max(0.0, time.monotonic() - before_s - _LOOP_CHECK_S))
