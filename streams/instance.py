"""One worker per instance id: refuses a second one, and ends a worker whose place a second one has taken.

Kafka lets the later of two members with one `group.instance.id` in, and both rejoin for ever. A restarted worker, on
the other hand, must get its place back at once. What tells them apart: a lock file on this host (the kernel frees it
when the process ends); from elsewhere the client id of the member, which Kafka keeps from the first joiner on.

Blocking: a worker from another host may wait for the end of the earlier one's session.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

import confluent_kafka
from confluent_kafka.admin import AdminClient, ConsumerGroupDescription, MemberDescription

from contracts.errors import ConfigError, LogUnavailable
from contracts.logs import logger
from contracts.settings import KafkaSettings, WorkerSettings
from producers.kafka_client import client_config, in_thread

_REQUEST_TIMEOUT_S = 10.0
_POLL_S = 1.0
# The broker's clock of a session starts with its answer to the last heartbeat, and it looks from time to time only.
_MARGIN_S = 5.0


class Instance:
    """The place of a static member in its group.

    Args:
        kafka: connection.
        worker: with an instance_id.
        on_twin: told, on the thread that found it, that another process has the place: this one must end.
    """

    def __init__(self, kafka: KafkaSettings, worker: WorkerSettings, on_twin: Callable[[ConfigError], object]) -> None:
        self._kafka = kafka
        self._worker = worker
        self._on_twin = on_twin
        self._lock: int | None = None
        self._log = logger("worker")

    async def take(self) -> None:
        """Return when no other process has the place; waits for a session that may still end.

        Raises:
            ConfigError: another live process has it.
        """
        self._lock_host()
        if (error := await self._occupied(frozenset(), is_patient=True, is_start=True)) is not None:
            raise error

    async def before_join(self, member_ids: frozenset[str], *, is_unsure: bool) -> None:
        """See streams.fetching.JoinGuard; the first join was looked at by `take`."""
        if not member_ids and not is_unsure:
            return
        error = await self._occupied(member_ids, is_patient=is_unsure, is_start=False)
        if error is not None:
            self._on_twin(error)
            await asyncio.Event().wait()

    async def _occupied(self, ours: frozenset[str], *, is_patient: bool, is_start: bool) -> ConfigError | None:
        """Return what to say when another process has the place, after the time that a dead one would keep it."""
        waited_s, limit_s = 0.0, self._worker.session_timeout_s + _MARGIN_S if is_patient else 0.0
        while True:
            holder = await self._holder()
            if holder is None or holder.member_id in ours:
                return None
            if is_start and holder.client_id == client_id(self._worker.app_id):
                # This host's, and the lock is ours: it is what is left of an earlier process.
                return None
            if waited_s >= limit_s:
                return self._refusal(f"a worker on {holder.host.lstrip('/')} (client id {holder.client_id}) has it")
            if waited_s == 0:
                self._log.warning("instance.waiting", instance_id=self._worker.instance_id, host=holder.host)
            await asyncio.sleep(_POLL_S)
            waited_s += _POLL_S

    async def _holder(self) -> MemberDescription | None:
        while True:
            try:
                return await in_thread(self._find)
            except LogUnavailable as error:
                self._log.warning("instance.unknown", error=str(error), wait_s=_POLL_S)
                await asyncio.sleep(_POLL_S)

    def _find(self) -> MemberDescription | None:
        app_id = self._worker.app_id
        try:
            admin = AdminClient({**client_config(self._kafka)}, logger=logging.getLogger("penstock.instance"))
            asked = admin.describe_consumer_groups([app_id], request_timeout=_REQUEST_TIMEOUT_S)[app_id]
            group = cast("ConsumerGroupDescription", asked.result(_REQUEST_TIMEOUT_S + 1))
        except (confluent_kafka.KafkaException, TimeoutError) as error:
            if _is_unknown_group(error):
                return None
            message = f"the members of consumer group {app_id} cannot be read: {error}"
            raise LogUnavailable(message) from error
        mine = (member for member in group.members if member.group_instance_id == self._worker.instance_id)
        return next(mine, None)

    def _lock_host(self) -> None:
        """Keep a lock for the life of this process."""
        servers = ",".join(sorted(self._kafka.bootstrap_servers))
        name = f"{servers} {self._worker.app_id} {self._worker.instance_id}"
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"penstock-{os.getuid()}-{digest}.lock"
        try:
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(cast("int", self._lock), 20, 0).decode(errors="replace") or "unknown"
            who = f"process {pid} on this host has it"
            raise self._refusal(who) from error
        except OSError as error:
            self._log.warning("instance.not_locked", path=str(path), error=str(error))
        else:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def _refusal(self, who: str) -> ConfigError:
        return ConfigError(
            f"worker.instance_id {self._worker.instance_id} is taken in group {self._worker.app_id}: {who}. "
            "Give each worker an id of its own, or none"
        )

    def release(self) -> None:
        """Give the lock up; the end of the process does the same."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.close(self._lock)
            self._lock = None


def client_id(app_id: str) -> str:
    """Return a client id that names this host: equal for every process on it, until it boots again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        boot = "host"
    return f"{app_id}.{socket.gethostname()}.{boot}"


def _is_unknown_group(error: Exception) -> bool:
    code = error.args[0].code() if isinstance(error, confluent_kafka.KafkaException) else None
    return code == confluent_kafka.KafkaError.GROUP_ID_NOT_FOUND


__all__ = ["Instance", "client_id"]
