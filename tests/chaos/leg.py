"""One leg of a run: an installation under its plan, and the ledger at its end.

Blocking; every wait is bounded.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from confluent_kafka import KafkaException

from contracts.errors import LogUnavailable
from tests.chaos.batches import with_writers
from tests.chaos.fleet import MAX_WORKERS, Fleet, Nothing, disturb
from tests.chaos.lab import LATENCY_S, SLOTS, Lab, Model
from tests.chaos.ledger import Balance, Ledger, LogEvent, Reset, Sample
from tests.chaos.plan import Action, Plan
from tests.chaos.reader import Reader
from tests.chaos.source import Source
from tests.support import ChildProcess, NotReachedError, read_port

# Without any end of an event for so long, while some wait and workers are there.
NO_PROGRESS_S = 30.0
DRAIN_LIMIT_S = 150.0
# Events a second of a worker that loses no time, and of one on a slow machine that has to join again after most faults:
# as quick it must be with a backlog. One that hangs is found out before, by NO_PROGRESS_S.
IDEAL_RATE = SLOTS / LATENCY_S
MODEST_RATE = IDEAL_RATE / 4
SOME = 20
SAMPLE_EVERY_S = 3.0
PAUSE_S = 0.05
# A broker that was launched or let go on, until it confirms records.
BACK_WITHIN_S = 5.0
FAULTS = {
    "faults_5": {"unavailable": 0.02, "throttling": 0.02, "timeout": 0.01},
    "faults_20": {"unavailable": 0.08, "throttling": 0.08, "timeout": 0.04},
    "hangs": {"hang": 0.05},
}


class Breakable(Protocol):
    """A broker that may be disturbed."""

    def launch(self) -> object:
        """Start it without waiting."""
        ...

    def stop(self) -> None:
        """Stop it in an orderly way."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def pause(self) -> None:
        """Freeze it."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...


class NoProgressError(Exception):
    """Raised when nothing moves although there is work and somebody to do it."""


@dataclass
class Verdict:
    """How a leg ended.

    Attributes:
        extra: paid calls beyond one per event and wanted replay.
        may_crash: workers that may end by themselves: those that could not confirm an outcome while a broker was out.
        acts: when which kind of fault began, Unix milliseconds, where each was over before the next one.
        silences: when no broker confirmed anything, likewise: (from, until).
        problems: what else went wrong, for people.
    """

    name: str
    balance: Balance
    sent: int
    accepted: int
    extra: int
    floor: float
    bound: int
    may_crash: int = 0
    acts: list[tuple[int, str]] = field(default_factory=list)
    silences: list[tuple[float, float]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)


class Leg:
    """One installation under chaos; a context manager, which ends everything it started.

    Args:
        brokers: those that may be disturbed.
        say: prints a line.
        with_gateway: send some events as webhooks.
        workers: at the start; the mock cluster bears one.
        injected: further kinds of actions, each with what it does; it returns what was done.
        unmet: tells at the end which of them have met nobody.
        data: folders of the brokers' logs, to find out who wrote what names nobody.
        is_mixed: events of more kinds; see Source.
    """

    def __init__(
        self,
        name: str,
        lab: Lab,
        plan: Plan,
        brokers: Sequence[Breakable],
        say: Callable[[str], None],
        *,
        rate: float = 60.0,
        with_gateway: bool = False,
        workers: int = 2,
        injected: Mapping[str, Callable[[], str]] | None = None,
        unmet: Callable[[], list[str]] = list,
        data: Sequence[Path] = (),
        is_mixed: bool = False,
    ) -> None:
        self.name = name
        self.lab = lab
        self.plan = plan
        self.fleet = Fleet(lab, plan.is_static, SLOTS, lab.folder)
        self.model = Model(plan.seed, lab.folder)
        self.source = Source(lab, plan.seed, rate, self._gateway_address, is_mixed=is_mixed)
        self._brokers = brokers
        self._say = say
        self._with_gateway = with_gateway
        self._workers = workers
        self._injected = injected or {}
        self._unmet = unmet
        self._data = data
        self._gateway: ChildProcess | None = None
        self._address: str | None = None
        self._reader: Reader | None = None
        self._due: list[tuple[float, Callable[[], object]]] = []
        self._events: list[LogEvent] = []
        self._resets: list[Reset] = []
        self._samples: list[Sample] = []
        self._incarnation = self._count = 0
        self._sampled_at_s = self._moved_at_s = 0.0
        self._acts: list[tuple[int, str]] = []
        self._storm_end_ms = 0
        self.problems: list[str] = []

    def __enter__(self) -> Self:
        """Start model, gateway and workers."""
        self.lab.folder.mkdir(parents=True, exist_ok=True)
        self.model.start()
        self.lab.configure(self.model.url)
        self.lab.create()
        if self._with_gateway:
            self._gateway = self.lab.gateway()
            self._gateway.__enter__()
            self._address = f"http://127.0.0.1:{read_port(self.lab.folder / 'gateway.port')}"
        self._reader = Reader(self.lab)
        for _ in range(self._workers):
            self.fleet.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """End everything, mend the brokers, keep the logs."""
        self._mend()
        self.fleet.close()
        for process, name in ((self._gateway, "gateway"), (self.model.process, "model")):
            if process is not None:
                process.stop()
                (self.lab.folder / f"{name}.log").write_text(process.output, encoding="utf-8")
        # The leg is part of a reference cycle, in which the garbage collector would find their logs still open.
        self._gateway = None
        del self.model.process
        if self._reader is not None:
            self._reader.close()

    @property
    def reader(self) -> Reader:
        """Return the reader of the topics."""
        if self._reader is None:
            message = "use the leg as a context manager"
            raise RuntimeError(message)
        return self._reader

    def _gateway_address(self) -> str | None:
        return self._address

    def storm(self, backlog: int = 0) -> None:
        """Send events under the plan's faults, or so many before them, then wait until all have ended.

        With a backlog each fault also waits until some events have ended since the one before: it meets a worker that
        is at work.
        """
        self.source.send(backlog)
        start_s = self._moved_at_s = time.monotonic()
        if not backlog:
            self.source.start(self.plan.seconds)
        ended = 0
        for action in self.plan.actions:
            self._watch(lambda action=action: time.monotonic() >= start_s + action.at_s)  # type: ignore[misc]
            self._watch(lambda ended=ended: len(self.reader.outcomes) >= min(backlog, ended + SOME))  # type: ignore[misc]
            ended = len(self.reader.outcomes)
            self._say(f"{time.monotonic() - start_s:6.1f} s  {self._act(action)}")
        self._watch(lambda: time.monotonic() >= start_s + self.plan.seconds)
        self._watch(lambda: not self._due)
        self._mend()
        self.source.stop()
        self.drain(drain_limit_s(backlog, time.monotonic() - start_s))
        self._storm_end_ms = int(time.time() * 1000)

    def drain(self, limit_s: float = DRAIN_LIMIT_S) -> None:
        """Wait until everything on the log has ended.

        Raises:
            NoProgressError: it does not.
        """
        events = self.reader.events(self._incarnation)
        waiting = {event.place for event in events}
        end_s = time.monotonic() + limit_s
        wanted_from = {n: r for reset in self._resets[-1:] for n, r in reset.result_ends.items()}

        def is_done() -> bool:
            ended = {o.source for o in self.reader.outcomes if o.offset >= wanted_from.get(o.partition, 0)}
            if time.monotonic() > end_s:
                names = sorted(place for place in waiting - ended)[:5]
                message = f"{len(waiting - ended)} events have not ended in {limit_s:.0f} s: {names}"
                raise NoProgressError(message)
            return not (waiting - ended)

        self._watch(is_done)

    def recreate(self, count: int) -> None:
        """Recreate the event topics under the running workers, and send more."""
        self._keep_events()
        self._say("recreating the event topics under running workers")
        self.lab.recreate(*self.lab.sources)
        self._incarnation += 1
        self.source.send(count)
        self.drain()

    def reset(self, share: float) -> None:
        """Stop all workers, set the group back by this share of the log, start them again."""
        self.problems += self.fleet.stop_all()
        ends = self.reader.catch_up()
        starts: dict[tuple[str, int], int] = {}
        for event in self.reader.events(self._incarnation):
            place = (event.place.topic, event.place.partition)
            starts[place] = max(starts.get(place, 0), int(event.place.offset * (1 - share)))
        self._say(f"operator's reset: back by {share:.0%}")
        self.lab.reset(starts)
        self._resets.append(Reset(starts, ends))
        self.fleet.start()
        self.fleet.start()
        self._moved_at_s = time.monotonic()
        kept = [event.place for event in self.reader.events(self._incarnation)]
        replayed = {place for place in kept if self._resets[-1].covers(place)}

        def is_replayed() -> bool:
            ended = {o.source for o in self.reader.outcomes if o.offset >= ends.get(o.partition, 0)}
            return replayed <= ended

        self._watch(is_replayed)

    def close_books(self) -> Verdict:
        """Stop the workers and sum up."""
        self.problems += [*self._unmet(), *self.fleet.stop_all()]
        self.reader.catch_up()
        self._keep_events()
        ledger = Ledger(
            self._events,
            with_writers(self.reader.outcomes, self._data),
            self.source.accepted,
            self._resets,
            self._samples,
            self.fleet.freezes,
            until_ms=self._storm_end_ms,
            parked=self.reader.parked,
            fates=self.source.fates,
            letters=self.reader.letters(),
            # One answer refuses what one worker has sent of one partition.
            too_large=SLOTS * sum(kind == "produce_too_large" for _, kind in self._acts),
        )
        balance = ledger.close()
        balance.unlogged = [f"{name}, confirmed by {self.source.accepted[name]}" for name in balance.unlogged]
        stats = self.model.stats()
        billed = stats["billed_per_event"]
        if stats["events_forgotten"]:
            self.problems.append(
                "the model has forgotten events, so their further calls are not counted: a shorter run"
            )
        # A call for several events is billed under the name of the first and the number of the others.
        extra = sum(max(0, count - balance.expected_calls[name]) for name, count in billed.items() if "+" not in name)
        return Verdict(
            self.name,
            balance,
            len(self.source.sent),
            len(self.source.accepted),
            extra,
            self.fleet.floor,
            self.fleet.bound,
            MAX_WORKERS * sum(kind.startswith("broker_") for _, kind in self._acts),
            self._acts if self.plan.is_apart else [],
            self.source.silences(),
            self.problems,
            self.fleet.crashes,
        )

    def _keep_events(self) -> None:
        self._events += self.reader.events(self._incarnation)

    def _watch(self, is_done: Callable[[], bool]) -> None:
        """Tend everything until `is_done`.

        Raises:
            NoProgressError: nothing has ended for 30 s while something waits.
        """
        while not is_done():
            now_s = time.monotonic()
            self.fleet.tend()
            for at_s, act in list(self._due):
                if now_s >= at_s:
                    self._due.remove((at_s, act))
                    act()
            self.reader.poll(PAUSE_S)
            if len(self.reader.outcomes) != self._count or self._due:
                self._count, self._moved_at_s = len(self.reader.outcomes), now_s
            elif now_s > self._moved_at_s + NO_PROGRESS_S and self.fleet.workers and not is_done():
                where = self.fleet.explain()
                message = f"nothing has ended for {NO_PROGRESS_S:g} s; what the workers say is in {where}"
                raise NoProgressError(message)
            self._sample(now_s)

    def _sample(self, now_s: float) -> None:
        # Before the first outcome the group may have no coordinator, and the question would hold up the plan.
        if now_s < self._sampled_at_s + SAMPLE_EVERY_S or self._due or not self.reader.outcomes:
            return
        self._sampled_at_s = now_s
        with contextlib.suppress(KafkaException, LogUnavailable, NotReachedError):
            commits = self.lab.committed()
            self._samples.append(Sample(self._incarnation, commits, self.reader.ends()))

    def _later(self, seconds: float, act: Callable[[], object]) -> None:
        self._due.append((time.monotonic() + seconds, act))

    def _mend(self) -> None:
        self._due.clear()
        self.fleet.thaw_all()
        self.model.set_faults({})
        self._resume_gateway()
        for broker in self._brokers:
            broker.resume()
            broker.launch()

    def _resume_gateway(self) -> None:
        if self._gateway is not None:
            self._gateway.signal(signal.SIGCONT)

    def _act(self, action: Action) -> str:
        """Carry out one action and return what was done; one that does nothing is no act."""
        at_ms = int(time.time() * 1000)
        done = self._carry_out(action)
        if not isinstance(done, Nothing):
            self._acts.append((at_ms, action.kind))
        return done

    def _carry_out(self, action: Action) -> str:
        if action.kind in self._injected:
            return self._injected[action.kind]()
        if action.kind in FAULTS:
            self.model.set_faults(dict(FAULTS[action.kind]))
            self._later(action.lasts_s, lambda: self.model.set_faults({}))
            return f"{action.kind} for {action.lasts_s:g} s"
        if action.kind.startswith("broker_"):
            return self._disturb_broker(action)
        if action.kind == "gateway_freeze":
            return self._freeze_gateway(action)
        return disturb(self.fleet, action)

    def _freeze_gateway(self, action: Action) -> str:
        if self._gateway is None:
            return Nothing("gateway_freeze: there is none")
        self._gateway.signal(signal.SIGSTOP)
        self._later(action.lasts_s, self._resume_gateway)
        return f"gateway frozen for {action.lasts_s:g} s"

    def _disturb_broker(self, action: Action) -> str:
        if self._due and any(getattr(act, "is_broker", False) for _, act in self._due):
            return Nothing(f"{action.kind}: another broker is still out")
        number = min(int(action.victim * len(self._brokers)), len(self._brokers) - 1)
        broker = self._brokers[number]
        now_ms = int(time.time() * 1000)
        since_ms, until_ms = self.fleet.silence_ms
        back_ms = now_ms + int(1000 * (action.lasts_s + BACK_WITHIN_S))
        self.fleet.silence_ms = (since_ms if now_ms <= until_ms else now_ms), back_ms
        if action.kind == "broker_freeze":
            broker.pause()
            self._later(action.lasts_s, _Mend(broker.resume))
        else:
            (broker.kill if action.kind == "broker_kill" else broker.stop)()
            self._later(action.lasts_s / 4, _Mend(broker.launch))
        return f"{action.kind} of broker {number + 1}"


class _Mend:
    """Brings a broker back; known by its type, so that only one is out at a time."""

    is_broker = True

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __call__(self) -> None:
        self._act()


def drain_limit_s(backlog: int, gone_s: float) -> float:
    """Return how long the rest of a backlog may take, so long after its start."""
    return max(DRAIN_LIMIT_S, backlog / MODEST_RATE - gone_s)


def run_folder(seed: int, name: str, base: Path = Path("build/chaos")) -> Path:
    """Return where a leg keeps its logs."""
    return (base / str(seed) / name).resolve()
