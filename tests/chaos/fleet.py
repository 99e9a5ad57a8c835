"""The workers of a run: started, killed, frozen, and started again as a supervisor would."""

import contextlib
import re
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.chaos.lab import SESSION_S, Lab
from tests.chaos.ledger import Freeze
from tests.chaos.plan import Action
from tests.support import ChildProcess, ask

MAX_WORKERS = 4
_IN_FLIGHT = re.compile(r"^penstock_fm_inflight\{.*\} (\S+)$", re.MULTILINE)
STOP_LIMIT_S = 40.0


@dataclass
class Worker:
    """One worker process; `name` is new for every process, `slot` is not; `freeze` is the one it is in."""

    slot: int
    name: str
    process: ChildProcess
    thaw_at_s: float = 0.0
    freeze: Freeze | None = None
    is_expected_to_end: bool = False

    @property
    def is_frozen(self) -> bool:
        """Tell whether it is stopped now."""
        return self.freeze is not None

    def address(self) -> str:
        """Return its health page; empty before it has one."""
        found = re.search(r"worker health on (\S+)", self.process.output)
        return found[1] if found else ""


class Nothing(str):
    """Why an action did nothing, in place of what it did."""

    __slots__ = ()


@dataclass
class Fleet:
    """All workers of a leg.

    Attributes:
        floor: calls that were in flight when a worker was killed or frozen, as its metrics said just before.
        bound: the most that may have been: slots, for every one of these; twice as many for one that ended by itself.
        crashes: workers that ended by themselves.
        silence_ms: since when a broker was out the last time, and until when at most, Unix milliseconds.
    """

    lab: Lab
    is_static: bool
    slots: int
    folder: Path
    workers: list[Worker] = field(default_factory=list)
    freezes: list[Freeze] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    floor: float = 0.0
    bound: int = 0
    silence_ms: tuple[int, int] = (0, 0)
    _restarts: list[tuple[float, int]] = field(default_factory=list)
    _number: int = 0

    def start(self, slot: int | None = None) -> None:
        """Start a worker in a slot, the lowest free one unless told."""
        taken = {worker.slot for worker in self.workers} | {number for _, number in self._restarts}
        place = slot if slot is not None else min(set(range(MAX_WORKERS + 1)) - taken)
        self._number += 1
        name = f"w{self._number}"
        process = self.lab.worker(name, f"{self.lab.prefix}-{place}" if self.is_static else None)
        process.__enter__()
        self.workers.append(Worker(place, name, process))

    def pick(self, victim: float) -> Worker | None:
        """Return who is hit; None when nobody can be."""
        awake = sorted((worker for worker in self.workers if not worker.is_frozen), key=lambda worker: worker.slot)
        return awake[min(int(victim * len(awake)), len(awake) - 1)] if awake else None

    def kill(self, worker: Worker) -> None:
        """SIGKILL; it is started again soon."""
        self._count(worker)
        worker.process.signal(signal.SIGKILL)
        self._gone(worker, restart_in_s=1.0)

    def stop(self, worker: Worker, *, restart: bool) -> None:
        """SIGTERM; it hands over and ends by itself."""
        worker.is_expected_to_end = True
        worker.process.signal(signal.SIGTERM)
        if not restart:
            worker.slot += 100

    def freeze(self, worker: Worker, seconds: float) -> None:
        """SIGSTOP, SIGCONT after so long."""
        self._count(worker)
        worker.process.signal(signal.SIGSTOP)
        now_ms = int(time.time() * 1000)
        worker.freeze = Freeze(worker.name, now_ms, 0, self._silent_since(now_ms))
        worker.thaw_at_s = time.monotonic() + seconds

    def _thaw(self, worker: Worker) -> None:
        if worker.freeze is not None:
            now_ms = int(time.time() * 1000)
            self.freezes.append(replace(worker.freeze, until_ms=self._silent_since(now_ms) or now_ms))
        worker.freeze = None
        worker.process.signal(signal.SIGCONT)

    def _silent_since(self, now_ms: int) -> int:
        since_ms, until_ms = self.silence_ms
        return since_ms if now_ms <= until_ms else 0

    def _count(self, worker: Worker) -> None:
        self.bound += self.lab_slots
        with contextlib.suppress(OSError):
            page = ask(f"{worker.address()}/metrics", timeout_s=2).decode() if worker.address() else ""
            self.floor += sum(map(float, _IN_FLIGHT.findall(page)))

    @property
    def lab_slots(self) -> int:
        """Return the calls in flight that one worker may have."""
        return self.slots

    def tend(self) -> None:
        """Do what is due: thaw, start again; call it often."""
        now_s = time.monotonic()
        for worker in list(self.workers):
            if worker.is_frozen and now_s >= worker.thaw_at_s:
                self._thaw(worker)
            code = worker.process.process.poll()
            if code is not None:
                if not worker.is_expected_to_end or code != 0:
                    self.crashes.append(f"{worker.name} ended with {code}: {last_line(worker.process.output)}")
                    # An answer that could not be confirmed is called for again, like those in flight.
                    self.bound += 2 * self.slots
                self._gone(worker, restart_in_s=0.5 if worker.slot <= MAX_WORKERS else None)
        for at_s, slot in list(self._restarts):
            if now_s >= at_s:
                self._restarts.remove((at_s, slot))
                self.start(slot)

    def _gone(self, worker: Worker, restart_in_s: float | None) -> None:
        self.workers.remove(worker)
        worker.process.stop()
        self._keep_log(worker)
        if restart_in_s is not None:
            self._restarts.append((time.monotonic() + restart_in_s, worker.slot))

    def _keep_log(self, worker: Worker) -> None:
        (self.folder / f"{worker.name}.log").write_text(worker.process.output, encoding="utf-8")

    def thaw_all(self) -> None:
        """End all freezes."""
        for worker in self.workers:
            self._thaw(worker)

    def stop_all(self) -> list[str]:
        """SIGTERM to all and wait; return who did not end well."""
        self._restarts.clear()
        self.thaw_all()
        for worker in self.workers:
            worker.process.signal(signal.SIGTERM)
        end_s = time.monotonic() + STOP_LIMIT_S
        while time.monotonic() < end_s and any(worker.process.process.poll() is None for worker in self.workers):
            time.sleep(0.05)
        bad = [
            f"{worker.name} ended with {worker.process.process.poll()} on SIGTERM: {last_line(worker.process.output)}"
            for worker in self.workers
            if worker.process.process.poll() != 0
        ]
        for worker in list(self.workers):
            self._gone(worker, None)
        return bad

    def explain(self) -> str:
        """Write down what every worker says about itself, and return where."""
        for worker in self.workers:
            for page in ("stuck", "healthz", "metrics"):
                with contextlib.suppress(OSError):
                    text = ask(f"{worker.address()}/{page}", timeout_s=3)
                    (self.folder / f"{worker.name}.{page}.txt").write_bytes(text)
        return str(self.folder)

    def close(self) -> None:
        """End all of them at once, and keep their logs."""
        self._restarts.clear()
        for worker in list(self.workers):
            worker.process.signal(signal.SIGKILL)
            self._gone(worker, None)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def disturb(fleet: Fleet, action: Action) -> str:
    """Carry out an action on the workers and return what was done."""
    if action.kind == "join":
        if len(fleet.workers) >= MAX_WORKERS:
            return Nothing("join: there are enough")
        fleet.start()
        return f"{fleet.workers[-1].name} joins"
    worker = fleet.pick(action.victim)
    if worker is None:
        return Nothing(f"{action.kind}: nobody is there")
    match action.kind:
        case "kill":
            fleet.kill(worker)
        case "freeze":
            fleet.freeze(worker, SESSION_S + action.lasts_s / 2)
        case "leave" if len(fleet.workers) <= 1:
            return Nothing("leave: the last one stays")
        case _:
            fleet.stop(worker, restart=action.kind == "term")
    return f"{action.kind} of {worker.name}"
