"""Keeps several gateway processes on one port: starts them, starts dead ones again, and ends them in order.

The processes accept from one socket, which stays open here: connections that nobody has accepted yet are never reset
by the end of a process, and the others take them.
Blocking: `supervise` for the life of the gateway. Starts: processes.
See: docs/adr/0023-several-processes.md.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.multiprocess import mark_process_dead

from contracts import logs
from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.settings import Settings, environment
from contracts.signals import ENDING, StopSignals
from gateways.listening import announce, listen
from gateways.member import Member
from gateways.metrics_page import FOLDER_VARIABLE, PIDS, reserve

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
# Who has lived so long did not die of its start.
_STEADY_S = 60.0
_CONFIG_EXIT = 2
_TICKETS_VARIABLE = "PENSTOCK_TICKETS_OF_THIS_RUN"

_log = logger("gateway")


class Backoff:
    """How long to wait before a process is started again: doubling, bounded, from the start after a steady life."""

    def __init__(self) -> None:
        self._next_s = _FIRST_WAIT_S

    def wait_s(self, lived_s: float) -> float:
        """Return the wait behind a process that lived so long."""
        if lived_s >= _STEADY_S:
            self._next_s = _FIRST_WAIT_S
        chosen_s = self._next_s
        self._next_s = min(2 * chosen_s, _LONGEST_WAIT_S)
        return chosen_s


def supervise(settings: Settings, processes: int, command: Sequence[str], port_file: Path | None = None) -> int:
    """Keep so many processes until SIGTERM or SIGINT, and return the exit code.

    Args:
        settings: the whole configuration, which every process reads again.
        processes: how many.
        command: what starts one; the option --member is put behind it.
        port_file: gets the port once the first of them serves.

    Raises:
        ConfigError: the address, the port file or the folder for the metrics cannot be used.
    """
    logs.configure(settings.logging)
    listener = listen(settings.gateway.host, settings.gateway.port)
    try:
        folder = tempfile.TemporaryDirectory(prefix="penstock-gateway-metrics-")
    except OSError as error:
        message = f"no folder for the metrics of several processes: {error.strerror}; set TMPDIR"
        raise ConfigError(message) from error
    with listener, folder as metrics:
        return asyncio.run(Supervisor(settings, listener, tuple(command), Path(metrics)).run(processes, port_file))


class Supervisor:
    """The parent of the processes.

    Args:
        settings: the whole configuration.
        listener: what they accept from.
        command: what starts one.
        metrics: folder for the files of their metrics, empty.
    """

    def __init__(self, settings: Settings, listener: socket.socket, command: tuple[str, ...], metrics: Path) -> None:
        self._settings = settings
        self._listener = listener
        self._command = command
        self._metrics = metrics
        self._environment = {**environment(), FOLDER_VARIABLE: str(metrics), **_tickets(settings)}
        self._life = os.pipe()
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._serves = asyncio.Event()
        self._was_tried = asyncio.Event()
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self, processes: int, port_file: Path | None) -> int:
        """Start them, and return the exit code when all have ended.

        Raises:
            ConfigError: the port file cannot be written.
        """
        loop = asyncio.get_running_loop()
        StopSignals(self._begin, self._cut_short).follow(loop.add_signal_handler, ENDING)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        keeping = [asyncio.ensure_future(self._keep(index)) for index in range(processes)]
        try:
            await self._until_any(self._serves, keeping)
            if self._serves.is_set():
                announce(self._settings.gateway.host, self._listener.getsockname()[1], port_file)
            await self._until_any(self._stopping, keeping)
        finally:
            if not self._stopping.is_set():
                self._end(signal.SIGTERM)
            await self._reap(keeping)
            for fd in self._life:
                os.close(fd)
        await asyncio.gather(*keeping)
        return self._code

    async def _until_any(self, event: asyncio.Event, keeping: Sequence["asyncio.Future[None]"]) -> None:
        """Return at an event, when all are to end, or when one could not be kept."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(one.wait()) for one in (event, self._stopping)]
        await asyncio.wait((*waits, *keeping), return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _keep(self, index: int) -> None:
        """Keep one process, until all are to end."""
        if index > 0:
            # The first one tells what is wrong with the configuration or a secret; all at once would all tell it.
            await self._until_any(self._was_tried, ())
        backoff, starts = Backoff(), 0
        while not self._stopping.is_set():
            began_s = time.monotonic()
            code = await self._run_one(index, starts)
            starts += 1
            if self._stopping.is_set():
                # Who was stopped before it could listen to signals was stopped all the same.
                self._code = self._code or (code if code >= 0 else int(code != -signal.SIGTERM))
            elif code == _CONFIG_EXIT and starts == 1:
                # It has said what is wrong; it would be as wrong again. Behind the first start it is a change that the
                # others have refused, and go on without: one that has died waits for it to be mended.
                self._code = code
                self._end(signal.SIGTERM)
            else:
                self._was_tried.set()
                wait_s = backoff.wait_s(time.monotonic() - began_s)
                _log.error("gateway.process_ended", process=index, status=code, wait_s=wait_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), wait_s)

    async def _run_one(self, index: int, starts: int) -> int:
        try:
            reserve(self._metrics, index)
        except OSError as error:
            _log.error("gateway.no_room", process=index, path=str(self._metrics), error=error.strerror)
            return 1
        ready, says_ready = os.pipe()
        member = Member(index, self._listener.fileno(), self._life[0], says_ready, starts)
        loop = asyncio.get_running_loop()
        loop.add_reader(ready, self._on_ready, ready)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--member",
                member.option,
                env=self._environment,
                pass_fds=(member.listener_fd, member.life_fd, member.ready_fd),
                # Ctrl-C reaches the whole foreground group: once by the terminal and once by us would be twice.
                process_group=0,
            )
        finally:
            os.close(says_ready)
        self._running[index] = process
        self._note_pids()
        if self._stopping.is_set():
            process.send_signal(signal.SIGTERM)
        code = await process.wait()
        del self._running[index]
        self._note_pids()
        loop.remove_reader(ready)
        os.close(ready)
        # Its gauges are nobody's now; its counters go on in the next process of this number.
        mark_process_dead(index, str(self._metrics))  # type: ignore[no-untyped-call]
        return code

    def _on_ready(self, ready: int) -> None:
        if os.read(ready, 1):
            self._serves.set()
            self._was_tried.set()
        asyncio.get_running_loop().remove_reader(ready)

    def _note_pids(self) -> None:
        text = "\n".join(str(process.pid) for process in self._running.values())
        # On a full disk the metrics of the processes' memory and CPU are missing, and nothing else.
        with contextlib.suppress(OSError):
            (self._metrics / PIDS).write_text(text, encoding="ascii")

    def _begin(self, number: signal.Signals) -> None:
        _log.info("gateway.stopping", processes=len(self._running))
        self._end(number)

    def _cut_short(self, number: signal.Signals) -> None:
        self._code = 128 + number
        self._end(number)

    def _end(self, number: signal.Signals) -> None:
        self._stopping.set()
        self._pass_on(number)

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _reap(self, keeping: Sequence["asyncio.Future[None]"]) -> None:
        """Wait as long as an orderly end may take; who is not through then is killed."""
        _, late = await asyncio.wait(keeping, timeout=self._settings.gateway.stop_limit_s)
        if late:
            self._code = 1
            _log.error("gateway.processes_killed", processes=len(self._running))
            self._pass_on(signal.SIGKILL)
            await asyncio.wait(late)


def _tickets(settings: Settings) -> dict[str, str]:
    """Return variables with which every process signs its tickets with one key."""
    if settings.gateway.ticket_secret is not None:
        return {}
    _log.warning(
        "tickets.key_is_random",
        consequence="poll URLs work on this instance only, and not after a restart: set gateway.ticket_secret",
    )
    return {"PENSTOCK_GATEWAY__TICKET_SECRET": f"env:{_TICKETS_VARIABLE}", _TICKETS_VARIABLE: secrets.token_hex(32)}
