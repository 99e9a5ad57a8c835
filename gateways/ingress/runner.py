"""Runs doors: one producer for all, a health page, signals, an orderly end.

Writes: events.*, dead-letters. Blocking: `run_doors` for the life of the process.
"""

import asyncio
import signal
from collections.abc import Sequence

import uvloop

from contracts import logs
from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.metrics import BUILD_INFO
from contracts.settings import Settings
from contracts.signals import StopSignals, end_at_once
from contracts.topics import Topics
from gateways.ingress.base import Door
from gateways.ingress.door_health import DoorHealth
from gateways.ingress.table import build
from producers.base import Producer

_FLUSH_TIMEOUT_S = 5.0

_log = logger("ingress")


def chosen(settings: Settings, names: Sequence[str]) -> list[str]:
    """Return the names of the doors to run: those that are named, or all.

    Raises:
        ConfigError: there is none, or none of that name.
    """
    known = ", ".join(settings.ingress) or "none is configured"
    unknown = [name for name in names if name not in settings.ingress]
    if unknown:
        message = f"there is no door {unknown[0]!r} in section ingress; there are: {known}"
        raise ConfigError(message)
    if not settings.ingress:
        message = "section ingress has no door to run; docs/ingress.md shows one"
        raise ConfigError(message)
    return list(dict.fromkeys(names)) or list(settings.ingress)


def run_doors(settings: Settings, names: Sequence[str], version: str) -> None:
    """Run doors until SIGTERM or SIGINT; what is in progress is finished, a second signal ends at once.

    Raises:
        ConfigError: a name, a setting or the health port cannot be used.
    """
    from producers.producer import KafkaProducer

    wanted = chosen(settings, names)
    logs.configure(settings.logging)
    # Nobody waits for an answer, so a record waits out an outage in the client, where it cannot be repeated.
    producer = KafkaProducer(settings.kafka, settings.producer, client_id="penstock-ingress")
    topics = Topics(settings.kafka.topic_prefix)
    doors = [build(name, settings.ingress[name], topics, producer, settings.batch_jobs.inputs) for name in wanted]
    BUILD_INFO.labels(version, "ingress").set(1)
    uvloop.run(run(settings, doors, producer))


async def run(settings: Settings, doors: Sequence[Door], producer: Producer) -> None:
    """Start producer and doors, work until a signal, and end in order.

    Raises:
        ConfigError: a setting cannot be used.
    """
    process = settings.ingress_process
    ending = Ending(doors, process.drain_timeout_s)
    health = DoorHealth(process.health_host, process.health_port, ending.unready)
    try:
        await producer.start()
        for door in doors:
            await door.start()
        print(f"health on {await health.start()}", flush=True)  # noqa: T201 - the one line for people
        ending.follow_signals()
        _log.info("ingress.started", doors=[door.name for door in doors])
        async with asyncio.TaskGroup() as group:
            for door in doors:
                group.create_task(door.run())
    finally:
        await health.aclose()
        for door in doors:
            await door.aclose()
        await producer.aclose(_FLUSH_TIMEOUT_S)
        _log.info("ingress.stopped")


class Ending:
    """Tells the doors to stop at the first signal; the second one ends the process at once."""

    def __init__(self, doors: Sequence[Door], limit_s: float) -> None:
        self._doors = doors
        self._limit_s = limit_s
        self._is_ending = False

    def unready(self) -> list[str]:
        """Return what is wrong, by door."""
        ending = ["shutting_down"] if self._is_ending else []
        return ending + [f"{door.name}: {reason}" for door in self._doors for reason in door.unready()]

    def follow_signals(self) -> None:
        """Listen for SIGTERM and SIGINT."""
        StopSignals(self._begin, _cut_short).follow(asyncio.get_running_loop().add_signal_handler)

    def _begin(self, _number: signal.Signals) -> None:
        self._is_ending = True
        _log.info("ingress.stopping", limit_s=self._limit_s)
        for door in self._doors:
            door.stop(self._limit_s)


def _cut_short(number: signal.Signals) -> None:
    _log.warning("ingress.ended_at_once")
    end_at_once(number)
