"""The worker process: builds everything, runs Faust, ends cleanly or hard.

Exit status: 0 after a clean stop, 1 after a crash (an outcome could not be confirmed, a fault of the group), 2 for a
configuration that cannot be used. A supervisor restarts it; nothing is committed that has no confirmed outcome.
"""

import asyncio
import gc
import os
import signal
from importlib.metadata import version
from pathlib import Path

import faust

from contracts import logs
from contracts.codec import Position
from contracts.errors import ConfigError, LogUnavailable, PenstockError
from contracts.metrics import BUILD_INFO, FM_CONCURRENCY_LIMIT
from contracts.settings import Settings, Unusable, WorkerSettings
from contracts.signals import StopSignals
from contracts.stuck import StuckReport
from contracts.topics import RETRY_LANE, Topics
from producers.admin import TopicAdmin
from producers.kafka_client import in_thread
from producers.producer import KafkaProducer
from producers.topic_plan import Wanted, blockers, wanted_topics
from streams.app import create_app
from streams.cancels import CancelReader, Cancels
from streams.deltas import Deltas, delta_producer
from streams.engine.engine import Engine
from streams.engine.item import TP
from streams.engine.mark import mark_fits
from streams.engine.work import Limits
from streams.health import HealthServer
from streams.instance import Instance
from streams.large_pages import keep_large
from streams.liveness import Liveness
from streams.membership import Membership
from streams.pipeline import Pipeline
from streams.providers.base import Provider, arrivals_of
from streams.providers.table import create_provider
from streams.providers.transport.choice import shortfalls
from streams.pulse import Pulse
from streams.recall import Recall
from streams.settle import Settler
from streams.shell import Shell, check_versions
from streams.spill import Spill, hands_over
from streams.tail import TailReader

_KAFKA_RETRY_S = 2.0
_PROBE_TIMEOUT_S = 5.0
_FLUSH_LIMIT_S = 15.0
# An event has some 60 tracked objects while its call is in flight. At Python's first threshold of 700 each of them is
# looked at again and again before it ends, a quarter of a worker's CPU (measured, 256 in flight); they end by
# reference count (tests/streams/pipeline/test_garbage.py). What is left in cycles waits for the collection.
_GC_THRESHOLDS = (50_000, 10, 10)
# With more calls in flight than the first threshold has room for, each collection would find them all alive.
_OBJECTS_PER_CALL = 150


class Worker:
    """One worker process.

    Args:
        settings: the whole configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = logs.logger("worker")
        self._topics = Topics(settings.kafka.topic_prefix)
        self._producer = KafkaProducer(settings.kafka, settings.producer, client_id=f"{settings.worker.app_id}-worker")
        self._delta_producer = delta_producer(settings.kafka, settings.producer, settings.worker.app_id)
        self._providers: dict[str, Provider] = {}
        self._ended: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        where = (settings.worker.health_host, settings.worker.health_port)
        self._health = HealthServer("worker", *where, self._problems, self._unready, self._warnings, self._report)
        self._pulse = Pulse(asyncio.get_running_loop(), settings.worker.watchdog.loop_lag_s)
        self._liveness: Liveness | None = None
        self._cancel_reader: CancelReader | None = None
        self._settler: Settler | None = None
        self._waits_for: list[str] = []
        self._has_worked = False
        self._engine: Engine | None = None
        self._membership: Membership | None = None
        self._app: faust.App | None = None

    async def run(self, port_file: Path | None = None) -> int:
        """Run until a signal or a crash; return the exit status."""
        StopSignals(self._signalled, self._killed).follow(asyncio.get_running_loop().add_signal_handler)
        self._pulse.start()
        await self._health.start()
        if port_file is not None:
            await asyncio.to_thread(_announce, self._health.port, port_file)
        logs.OUTPUT.write(f"worker health on {self._health.address}\n")
        BUILD_INFO.labels(version("penstock"), "worker").set(1)
        await self._producer.start()
        await self._delta_producer.start()
        await self._start_providers()
        started = asyncio.ensure_future(self._start())
        started.add_done_callback(self._task_ended)
        error = await self._ended
        started.cancel()
        if error is not None:
            return self._crash(error)
        await self._stop()
        return 0

    async def _start_providers(self) -> None:
        wanted: dict[str, int] = {}
        for route in self._settings.routes:
            name, events = self._settings.models[route.model].provider, route.batch.events_per_call
            wanted[name] = min(wanted.get(name, events), events)
        for name in sorted(wanted):
            self._providers[name] = create_provider(self._settings.providers[name])
            await self._providers[name].start()
        used = [(name, self._settings.providers[name]) for name in sorted(wanted)]
        for shortfall in shortfalls(used, self._settings.worker.max_in_flight, events=wanted):
            self._log.warning("transport.limited", detail=shortfall)
            logs.OUTPUT.write(f"warning: {shortfall}\n")

    async def _start(self) -> None:
        settings = self._settings
        settler = self._settler = Settler(self._producer, self._topics, settings.worker.app_id)
        deltas = Deltas(self._delta_producer, self._topics.deltas, settings.worker.app_id)
        cancels = Cancels()
        spills = Spill(settings, self._behind).wants
        pipeline = Pipeline(settings, self._providers, settler, deltas, cancels, spills)
        self._cancel_reader = CancelReader(settings.kafka, self._topics.cancels, cancels)
        self._cancel_reader.start()
        arriving = [arrivals_of(provider) for provider in self._providers.values()]

        def send() -> None:
            for arrivals in arriving:
                arrivals.send()

        engine = Engine(
            pipeline,
            _limits(settings.worker),
            (*settings.worker.lanes, RETRY_LANE),
            self._end,
            pipeline.calls.keep,
            pipeline.calls.drop,
            pipeline.replay,
            pipeline.prepare,
            lambda: sum(arrivals.count for arrivals in arriving),
            send,
            pipeline.straight,
        )
        self._engine = engine
        for arrivals in arriving:
            arrivals.listeners.append(engine.hand_out)
        FM_CONCURRENCY_LIMIT.labels("all").set(settings.worker.max_in_flight)
        journal = _journal(settings)
        await self._wait_for_kafka()
        instance = await self._take_place()
        answers = settings.worker.max_answers, settings.worker.max_uncommitted
        tail = TailReader(settings.kafka, settings.worker.app_id, frozenset(journal), answers)
        events = frozenset(self._topics.events(lane) for lane in settings.worker.lanes)
        recall = Recall(settings.kafka, settings.worker.app_id, settings.worker.max_remembered, events)
        membership = Membership(engine, tail, settings.worker, self._end, recall, self._producer.probe)
        self._membership = membership
        app = create_app(settings, engine, pipeline)
        self._app = app
        app.in_worker = True
        membership.attach(Shell(app, membership, instance, settings.kafka.client_rack))
        self._liveness = Liveness(settings, engine, membership, self._producer.probe, lambda: self._pulse.lag_s)
        self._liveness.start()
        await app.start()
        _spare_collections(self._settings.worker.max_in_flight)
        self._log.info("worker.started", lanes=list(settings.worker.lanes), app_id=settings.worker.app_id)
        asyncio.ensure_future(self._watch(app)).add_done_callback(self._task_ended)
        asyncio.ensure_future(membership.run()).add_done_callback(self._task_ended)
        asyncio.ensure_future(keep_large()).add_done_callback(self._task_ended)

    def _behind(self, position: Position) -> int:
        """Return how many events lie behind one in its partition; 0 where that is not known."""
        tp = TP(position.topic, position.partition)
        end = self._membership.shell.high_watermark(tp) if self._membership is not None else None
        return 0 if end is None else max(0, end - position.offset - 1)

    async def _take_place(self) -> Instance | None:
        """Return the place of a static member, once no other process has it."""
        settings = self._settings
        if settings.worker.instance_id is None or settings.kafka.embedded:
            return None
        loop = asyncio.get_running_loop()
        instance = Instance(settings.kafka, settings.worker, lambda error: loop.call_soon_threadsafe(self._end, error))
        await instance.take()
        return instance

    async def _wait_for_kafka(self) -> None:
        """Return when the brokers answer and the topics fit; say what is missing until then."""
        while problems := await self._blockers():
            self._waits_for = problems
            self._log.warning("kafka.waiting", problems=problems, wait_s=_KAFKA_RETRY_S)
            await asyncio.sleep(_KAFKA_RETRY_S)
        self._waits_for = []

    async def _blockers(self) -> list[str]:
        try:
            await self._producer.probe(_PROBE_TIMEOUT_S)
            if self._settings.kafka.embedded:
                return []
            wanted = wanted_topics(self._settings)
            return await in_thread(self._find_blockers, wanted)
        except LogUnavailable as error:
            return [f"{error} (at {','.join(self._settings.kafka.bootstrap_servers)})"]

    def _find_blockers(self, wanted: tuple[Wanted, ...]) -> list[str]:
        found = TopicAdmin(self._settings.kafka).find((want.topic.name for want in wanted), with_config=False)
        problems = blockers(wanted, found, hands_over=hands_over(self._settings))
        return [*problems, "`penstock topics create` makes missing topics"] if problems else []

    async def _watch(self, app: faust.App) -> None:
        """End the process when Faust crashes."""
        while True:
            await asyncio.sleep(0.5)
            if app.crashed:
                self._end(app.crash_reason or RuntimeError("Faust crashed"))
                return

    def _task_ended(self, task: "asyncio.Future[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._end(task.exception())

    def _end(self, error: BaseException | None) -> None:
        if not self._ended.done():
            self._ended.set_result(error)

    def _signalled(self, number: signal.Signals) -> None:
        held = self._engine.holds if self._engine is not None else 0
        limit_s = self._settings.worker.drain_timeout_s
        self._log.info("worker.stopping", detail=number.name, held=held, drain_timeout_s=limit_s)
        self._end(None)

    def _killed(self, _number: signal.Signals) -> None:
        self._log.warning("worker.killed", detail="second signal: ending at once, in-flight events will be redelivered")
        self._exit_now(1)

    def _crash(self, error: BaseException) -> int:
        """Say why and end hard: nothing may be committed on the way out."""
        if isinstance(error, ConfigError):
            logs.OUTPUT.write(f"penstock worker: {error}\n")
            return self._exit_now(2)
        self._log.error("worker.crashed", error=logs.described(error), exc_info=error)
        return self._exit_now(1)

    async def _stop(self) -> None:
        """Drain, commit, leave the group, close; end hard if that takes too long."""
        bound_s = self._settings.worker.stop_limit_s
        asyncio.get_running_loop().call_later(bound_s, self._overdue, bound_s)
        if self._liveness is not None:
            self._liveness.stop()
        if self._app is not None:
            await self._app.stop()
        if self._cancel_reader is not None:
            self._cancel_reader.close()
        await self._producer.aclose(_FLUSH_LIMIT_S)
        await self._delta_producer.aclose(1.0)
        for provider in self._providers.values():
            await provider.aclose()
        if self._liveness is not None:
            await self._liveness.aclose()
        await self._health.aclose()
        self._pulse.stop()
        self._flush()
        self._log.info("worker.stopped")

    def _overdue(self, bound_s: float) -> None:
        self._log.error("worker.killed", detail=f"stop took longer than {bound_s:g} s")
        self._exit_now(1)

    def _exit_now(self, status: int) -> int:
        self._flush()
        logs.OUTPUT.flush()
        os._exit(status)

    def _flush(self) -> None:
        if self._settler is not None:
            self._settler.lines.flush()
        logs.tell_left_out(is_end=True)

    def _problems(self) -> list[str]:
        if self._ended.done() and self._ended.result() is not None:
            return ["crashed"]
        found = self._liveness.problems if self._liveness is not None else ()
        return [f"{one.check}: {one.detail}, for {one.for_s:.0f} s" for one in found if one.restart_helps]

    def _unready(self) -> list[str]:
        if self._ended.done():
            return ["stopping"]
        if self._membership is None or not self._membership.is_member:
            return [f"waits: {one}" for one in self._waits_for] or ["not in the consumer group yet"]
        # Once only: at a rebalance the books are read again, and whoever waits for a restart to end should not wait
        # for every other worker's share of it.
        self._has_worked = self._has_worked or (self._engine is not None and self._engine.is_open)
        return [] if self._has_worked else ["reads what is answered already: the tail of the result topics"]

    def _warnings(self) -> list[str]:
        return self._liveness.warnings if self._liveness is not None else []

    def _report(self) -> StuckReport:
        if self._liveness is not None:
            return self._liveness.report()
        worker = self._settings.worker
        return StuckReport(
            app_id=worker.app_id,
            instance_id=worker.instance_id,
            state="stopping" if self._ended.done() else "starting",
            max_in_flight=worker.max_in_flight,
            waits_for=tuple(self._waits_for),
        )


def _spare_collections(max_in_flight: int) -> None:
    """Look for garbage cycles rarely, and not among what lives as long as the process."""
    gc.collect()
    gc.freeze()
    first, *others = _GC_THRESHOLDS
    gc.set_threshold(max(first, _OBJECTS_PER_CALL * max_in_flight), *others)


def _announce(port: int, port_file: Path) -> None:
    try:
        port_file.write_text(f"{port}\n", encoding="ascii")
    except OSError as error:
        message = f"--port-file {port_file} cannot be written: {error.strerror}"
        raise ConfigError(message) from error


def _limits(worker: WorkerSettings) -> Limits:
    return Limits(
        in_flight=worker.max_in_flight,
        ready_keys=worker.ready_keys_limit,
        held_events=worker.held_events_limit,
        held_bytes=worker.max_held_bytes,
        uncommitted=worker.max_uncommitted,
        tenant_weights=worker.tenant_weights,
    )


def _journal(settings: Settings) -> set[str]:
    """Return the topics whose records answer events.

    A retry stands for its event as a result does, and so does a record for the provider's batch API.
    """
    topics = Topics(settings.kafka.topic_prefix)
    results = topics.result_topics(route.output_topic for route in settings.routes) | {topics.retries}
    return results | {topics.handovers} if hands_over(settings) else results


def check(settings: Settings) -> None:
    """Refuse what only the worker needs.

    Raises:
        ConfigError: no route is configured, or an untested version of Faust is installed.
    """
    check_versions()
    if not settings.routes:
        message = "routes: none is configured, so the worker has nothing to do"
        raise ConfigError(message)
    outputs = _journal(settings)
    if not mark_fits(outputs):
        message = (
            f"routes: {len(outputs)} result topics are too many for the metadata of an offset commit: "
            "use fewer output_topic, or shorter names"
        )
        raise ConfigError(message)


def run_worker(settings: Settings, port_file: Path | None = None) -> int:
    """Run a worker in this process until it ends; return the exit status."""
    import uvloop

    check(settings)
    logs.configure(settings.logging)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return asyncio.run(_main(settings, port_file))


async def _main(settings: Settings, port_file: Path | None) -> int:
    try:
        return await Worker(settings).run(port_file)
    except Unusable:
        # Who knows the file tells its line.
        raise
    except PenstockError as error:
        logs.OUTPUT.write(f"penstock worker: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
