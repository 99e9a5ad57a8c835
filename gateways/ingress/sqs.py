"""The door for Amazon SQS: long polls in, events on the log, deletions after the broker's ack.

Writes: events.*, dead-letters. Crash at any point: a message that is not deleted comes back after its visibility
timeout, so nothing is lost; one whose event was on the log makes a second event with the same id.
Source: Amazon SQS Developer Guide, visibility timeout, FIFO delivery logic (checked 2026-11).
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from contracts.envelope import format_time
from contracts.errors import ConfigurationFault, PenstockError
from contracts.logs import logger
from contracts.metrics import INGRESS_DURATION, INGRESS_IN_FLIGHT, INGRESS_MESSAGES
from contracts.settings.batch_jobs import BatchInput
from contracts.settings.ingress import SqsDoor
from contracts.topics import Topics
from gateways.ingress.base import HeaderLines, Message
from gateways.ingress.batch_notices import BatchNotices
from gateways.ingress.envelopes.table import ENVELOPES
from gateways.ingress.intake import Intake
from gateways.ingress.mapping import Mapping
from gateways.ingress.sqs_client import BATCH, SqsClient
from gateways.ingress.sqs_held import Held, Holdings, batches
from producers.base import Producer

_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 20.0
_GIVE_BACK_LIMIT_S = 5.0
# Deletions wait so long for company: ten cost as much as one.
_LINGER_S = 0.02
_STOP = None

T = TypeVar("T")

_log = logger("ingress")


class SqsQueue:
    """One queue as a door; `gateways.ingress.base.Door` states the contract.

    Args:
        name: of its section.
        settings: the section.
        topics: names of the topics.
        producer: started by the caller.
        inputs: S3 objects that become batch jobs, where the section says so.
    """

    def __init__(
        self, name: str, settings: SqsDoor, topics: Topics, producer: Producer, inputs: Sequence[BatchInput] = ()
    ) -> None:
        self.name = name
        self._settings = settings
        self._client = SqsClient(name, settings)
        self._intake = Intake(
            name,
            ENVELOPES[settings.envelope],
            Mapping(name, settings, topics),
            producer,
            topics.dead_letters if settings.poison == "dead_letter" else None,
            BatchNotices(inputs, topics) if settings.batch_jobs else None,
        )
        self._holdings = Holdings(settings.max_in_flight)
        self._is_fifo = settings.queue_url.endswith(".fifo")
        self._deletions: asyncio.Queue[Held | None] = asyncio.Queue()
        self._handlers: set[asyncio.Task[None]] = set()
        self._last_of_group: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._limit_s = 0.0
        self._faults: dict[str, str] = {}
        self._broken: asyncio.Future[None] | None = None

    async def start(self) -> None:
        """Load the client.

        Raises:
            ConfigError: no region, or the endpoint is none.
        """
        await self._client.start()

    async def aclose(self) -> None:
        """Let go of connections."""
        self._client.close()

    def stop(self, limit_s: float) -> None:
        """Take no more; what is in progress may take `limit_s`."""
        self._limit_s = limit_s
        self._stopping.set()

    def unready(self) -> list[str]:
        """Return why nothing is taken: the log is away, or the last call of a kind failed."""
        away = [] if self._intake.log_takes.is_set() else ["log_unavailable"]
        return sorted({*away, *self._faults.values()})

    async def run(self) -> None:
        """Work until `stop`."""
        self._broken = asyncio.get_running_loop().create_future()
        deleters = [asyncio.create_task(self._delete_all()) for _ in range(self._settings.receivers)]
        extender = asyncio.create_task(self._extend_all())
        receivers = [asyncio.create_task(self._receive_all()) for _ in range(self._settings.receivers)]
        try:
            await self._watch([*receivers, *deleters, extender])
            await self._drain(receivers, deleters)
        finally:
            for task in (*receivers, *deleters, extender, *self._handlers):
                task.cancel()
            INGRESS_IN_FLIGHT.labels(self.name).set(0)

    async def _watch(self, tasks: list[asyncio.Task[None]]) -> None:
        """Return when asked to stop; a task that ends before has failed, and the process with it."""
        stopping = asyncio.create_task(self._stopping.wait())
        watched: set[asyncio.Future[Any]] = {stopping, *tasks, *([self._broken] if self._broken else [])}
        done, _ = await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in done - {stopping}:
            await task

    async def _drain(self, receivers: list[asyncio.Task[None]], deleters: list[asyncio.Task[None]]) -> None:
        """Let polls, produces and deletions end, within the limit; then give back what is still held."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limit_s):
                # A poll that is cut off may have messages in its answer, which then stay hidden for nothing.
                await asyncio.wait(receivers)
                while self._handlers:
                    await asyncio.wait(set(self._handlers))
                for _ in deleters:
                    self._deletions.put_nowait(_STOP)
                await asyncio.wait(deleters)
        await self._give_back()

    async def _give_back(self) -> None:
        kept = [held for held in self._holdings if not held.is_deletable]
        if kept:
            _log.warning("ingress.given_back", door=self.name, messages=len(kept))
        # What SQS does not take back in time comes back by itself.
        with contextlib.suppress(PenstockError, TimeoutError):
            async with asyncio.timeout(_GIVE_BACK_LIMIT_S):
                for batch in batches(kept, BATCH):
                    await self._client.extend([held.receipt for held in batch], 0)

    async def _receive_all(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._stopping.is_set():
            await self._unless_stopped(self._intake.log_takes.wait())
            count = await self._unless_stopped(self._holdings.reserve(BATCH))
            if count is None:
                return
            try:
                self._take(await self._client.receive(count))
            except PenstockError as error:
                self._note("receive", error)
                await self._unless_stopped(asyncio.sleep(_jittered(wait_s)))
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            else:
                self._note("receive", None)
                wait_s = _FIRST_WAIT_S
            finally:
                self._holdings.release(count)

    async def _unless_stopped(self, waiting: Coroutine[Any, Any, T]) -> T | None:
        """Return what is waited for; None when `stop` comes first."""
        wanted, stopping = asyncio.create_task(waiting), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({wanted, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return None if self._stopping.is_set() else wanted.result()
        finally:
            wanted.cancel()
            stopping.cancel()

    def _take(self, found: list[dict[str, Any]]) -> None:
        """Begin work on received messages: those of a group one after the other, as they were received."""
        now_s = time.monotonic()
        groups: dict[str, list[Held]] = {}
        for raw in found:
            message = read_message(raw)
            held = self._holdings.add(message, raw["ReceiptHandle"], now_s)
            if held is None or held.is_deletable:
                INGRESS_MESSAGES.labels(self.name, "repeated").inc()
            if held is None:
                continue
            if held.is_deletable:
                self._deletions.put_nowait(held)
            else:
                groups.setdefault(message.group if self._is_fifo else message.id, []).append(held)
        for group, members in groups.items():
            self._begin(group, members)
        INGRESS_IN_FLIGHT.labels(self.name).set(len(self._holdings))

    def _begin(self, group: str, members: list[Held]) -> None:
        task = asyncio.create_task(self._handle(members, self._last_of_group.get(group)))
        self._handlers.add(task)
        self._last_of_group[group] = task

        def ended(_: asyncio.Task[None]) -> None:
            self._handlers.discard(task)
            if self._last_of_group.get(group) is task:
                del self._last_of_group[group]
            failed = not task.cancelled() and task.exception()
            if failed and self._broken is not None and not self._broken.done():
                # A fault of ours: the process ends, and nothing that is not settled has been deleted.
                self._broken.set_exception(failed)

        task.add_done_callback(ended)

    async def _handle(self, members: list[Held], before: asyncio.Task[None] | None) -> None:
        """Settle messages in order; behind one that stays in the queue, those of its group stay as well."""
        if before is not None:
            await asyncio.wait({before})
        is_blocked = False
        for held in members:
            settled = "left" if is_blocked else await self._intake.settle(held.message)
            if settled == "left":
                is_blocked = self._is_fifo
                # Not extended any more: it comes back by itself, or its redrive policy takes it.
                self._holdings.forget(held)
            else:
                self._holdings.note_settled(held)
                self._deletions.put_nowait(held)

    async def _delete_all(self) -> None:
        """Delete what is settled, until told to end."""
        while (first := await self._deletions.get()) is not _STOP:
            await asyncio.sleep(_LINGER_S)
            batch = [first]
            while len(batch) < BATCH and not self._deletions.empty():
                following = self._deletions.get_nowait()
                if following is _STOP:
                    self._deletions.put_nowait(_STOP)
                    break
                batch.append(following)
            await self._delete(batch)

    async def _delete(self, batch: list[Held]) -> None:
        """Delete a batch, as often as it takes; its messages stay hidden and held meanwhile."""
        wait_s = _FIRST_WAIT_S
        while batch:
            try:
                failed = await self._client.delete([held.receipt for held in batch])
            except PenstockError as error:
                self._note("delete", error)
            else:
                self._note("delete", None)
                for place, held in enumerate(batch):
                    if place not in failed or failed[place].is_final:
                        self._let_go(held, failed[place].code if place in failed else "")
                batch = [held for place, held in enumerate(batch) if place in failed and not failed[place].is_final]
            if batch:
                await asyncio.sleep(_jittered(wait_s))
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _let_go(self, held: Held, code: str) -> None:
        if code:
            # An outdated receipt: the message comes again, and is deleted then.
            _log.warning("ingress.not_deleted", door=self.name, message_id=held.message.id, code=code)
        self._holdings.forget(held)
        INGRESS_DURATION.labels(self.name).observe(time.monotonic() - held.received_s)
        INGRESS_IN_FLIGHT.labels(self.name).set(len(self._holdings))

    async def _extend_all(self) -> None:
        """Keep hidden what is held; looks twice as often as it extends."""
        timeout_s = self._settings.visibility_timeout_s
        while True:
            await asyncio.sleep(timeout_s / 6)
            for batch in batches(self._holdings.to_extend(time.monotonic(), timeout_s / 3), BATCH):
                now_s = time.monotonic()
                try:
                    failed = await self._client.extend([held.receipt for held in batch], timeout_s)
                except PenstockError as error:
                    # They may come again, here or elsewhere: a repeated event at worst.
                    self._note("extend", error)
                    break
                self._note("extend", None)
                for place, held in enumerate(batch):
                    if place not in failed:
                        held.extended_s = now_s

    def _note(self, call: str, error: PenstockError | None) -> None:
        """Log a fault when it begins, and when it is over."""
        before = self._faults.pop(call, None)
        if error is not None:
            self._faults[call] = error.reason
            if before != error.reason:
                write = _log.error if isinstance(error, ConfigurationFault) else _log.warning
                write("ingress.queue_fault", door=self.name, call=call, reason=error.reason, error=str(error))
        elif before is not None:
            _log.info("ingress.queue_back", door=self.name, call=call)


def read_message(raw: dict[str, Any]) -> Message:
    """Return a message of boto3 in our words; its attributes become header lines."""
    system: dict[str, str] = raw.get("Attributes", {})
    headers: HeaderLines = [
        (name.lower().encode("utf-8", "replace"), text.encode("utf-8", "replace"))
        for name, attribute in raw.get("MessageAttributes", {}).items()
        if isinstance(text := attribute.get("StringValue"), str)
    ]
    headers.append((b"x-amz-sqs-message-id", raw["MessageId"].encode()))
    group = system.get("MessageGroupId", "")
    if group:
        headers.append((b"x-amz-sqs-message-group-id", group.encode("utf-8", "replace")))
    sent_ms = system.get("SentTimestamp", "")
    sent_at = format_time(datetime.fromtimestamp(int(sent_ms) / 1000, UTC)) if sent_ms.isdecimal() else ""
    return Message(raw["MessageId"], headers, raw.get("Body", "").encode("utf-8", "replace"), group, sent_at)


def _jittered(wait_s: float) -> float:
    return random.uniform(wait_s / 2, wait_s)  # noqa: S311 - jitter
