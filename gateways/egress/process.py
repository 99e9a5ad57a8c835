"""The process of the doors out: every configured door in one event loop, none of which can hold up another.

Reads: result topics, deliveries.<tier>, endpoints. Writes: deliveries.<tier>, undelivered, endpoints.
"""

import asyncio
import signal
from collections.abc import Sequence

from contracts.errors import ConfigError
from contracts.kafka_config import reading_nearby
from contracts.logs import logger
from contracts.settings import Settings
from contracts.settings.egress import CallbackDoor
from contracts.signals import StopSignals, end_at_once
from contracts.topics import Topics
from gateways.egress.base import Door
from gateways.egress.board import KafkaBoard
from gateways.egress.page import HealthPage
from gateways.egress.reading import reader_config
from gateways.egress.runner import DoorRunner, Surroundings, unless_stopped
from gateways.egress.settling import Produce
from gateways.egress.table import Shared, create_door
from producers.kafka_client import client_config

_BOARD_LIMIT_S = 10.0

_log = logger("egress")


def board_of(settings: Settings, produce: Produce) -> KafkaBoard | None:
    """Return the board of the endpoints, when there are callbacks; nothing is started."""
    if not any(isinstance(door, CallbackDoor) for door in settings.egress.values()):
        return None
    topic = Topics(settings.kafka.topic_prefix).endpoints
    return KafkaBoard(reader_config(settings.kafka, "penstock-egress-board"), topic, produce, settings.worker.app_id)


def chosen_doors(settings: Settings, names: Sequence[str], board: KafkaBoard | None = None) -> dict[str, Door]:
    """Return the doors to run, all of them when no name is given; nothing is started.

    Args:
        settings: the whole configuration.
        names: of their sections.
        board: where callbacks keep the state of their endpoints.

    Raises:
        ConfigError: no door is configured, there is none of a name, or a section cannot work.
    """
    unknown = [name for name in names if name not in settings.egress]
    if unknown or not settings.egress:
        there = ", ".join(sorted(settings.egress)) or "none"
        message = (
            f"no door {unknown[0]!r} under egress; configured: {there}"
            if unknown
            else "no door under egress; docs/egress.md shows one"
        )
        raise ConfigError(message)
    shared = Shared(board, settings.gateway.api_keys)
    return {name: create_door(name, settings.egress[name], shared) for name in names or settings.egress}


class Process:
    """Runs some doors.

    Args:
        settings: the whole configuration.
        doors: by the names of their sections.
        produce: returns when the broker has confirmed a record; see `Settler`.
        board: that of the doors; started and closed here.
    """

    def __init__(
        self, settings: Settings, doors: dict[str, Door], produce: Produce, board: KafkaBoard | None = None
    ) -> None:
        topics = Topics(settings.kafka.topic_prefix)
        around = Surroundings(
            consumer=client_config(settings.kafka),
            app_id=settings.worker.app_id,
            topics=topics,
            result_topics=sorted(topics.result_topics(route.output_topic for route in settings.routes)),
            routes=settings.routes,
            produce=produce,
            process=settings.egress_process,
            has_topic_ids=not settings.kafka.embedded,
            nearby=reading_nearby(settings.kafka),
        )
        self._doors = doors
        self._board = board
        self._runners = [DoorRunner(name, door, settings.egress[name], around) for name, door in doors.items()]
        self._tasks: list[asyncio.Task[None]] = []
        self._has_begun = False
        self._stop = asyncio.Event()
        page = settings.egress_process
        self._page = HealthPage("egress_process", page.health_host, page.health_port, self.problems, self.unready)

    async def run(self) -> None:
        """Deliver until SIGTERM or SIGINT, then finish what is under way; a second signal ends at once.

        Raises:
            ConfigError: a door or the health page cannot start.
        """
        loop = asyncio.get_running_loop()
        StopSignals(self._begin, _cut_short).follow(loop.add_signal_handler)
        try:
            # First, since who asks whether this process lives does not wait for Kafka.
            address = await self._page.start()
            await self._start_board()
            if self._stop.is_set():
                return
            for door in self._doors.values():
                await door.start()
            self._has_begun = True
            self._tasks = [loop.create_task(runner.run(self._stop), name=runner.name) for runner in self._runners]
            print(f"delivering {', '.join(self._doors)}; health on {address}", flush=True)  # noqa: T201 - for people
            await asyncio.gather(*self._tasks)
        finally:
            await self._page.aclose()
            for door in self._doors.values():
                await door.aclose()
            if self._board is not None:
                # It waits for a call into Kafka, and a second signal is to be heard meanwhile.
                try:
                    await asyncio.to_thread(self._board.close)
                except RuntimeError:
                    # No thread can be started.
                    self._board.close()
            _log.info("egress.stopped")

    async def _start_board(self) -> None:
        if self._board is None:
            return
        self._board.start()
        if await unless_stopped(self._stop, self._board.ready(_BOARD_LIMIT_S)) is False:
            # Kafka is away, so that nothing can be delivered yet either.
            _log.warning("egress.board_not_read")

    def problems(self) -> list[str]:
        """Return what only a restart can mend."""
        return [f"door_ended:{task.get_name()}" for task in self._tasks if task.done() and not self._stop.is_set()]

    def unready(self) -> list[str]:
        """Return which doors deliver nothing because Kafka is away; a destination that is away is no reason."""
        stopping = ["shutting_down"] if self._stop.is_set() else []
        if not self._has_begun:
            return [*stopping, "starting"]
        return stopping + [f"log_unavailable:{one.name}" for one in self._runners if not one.is_reachable]

    def _begin(self, _number: signal.Signals) -> None:
        _log.info("egress.stopping")
        self._stop.set()


def _cut_short(number: signal.Signals) -> None:
    _log.warning("egress.ended_at_once")
    end_at_once(number)
