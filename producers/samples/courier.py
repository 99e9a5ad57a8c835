"""Posts signed samples to a gateway at a given rate, and measures its answers.

Blocking: nothing; at most `concurrency` requests are open, and a late answer never moves the schedule of the others.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from contracts.codec import decode_any_json
from contracts.errors import ConfigError, Undecodable
from contracts.settings import SourceSettings
from producers.samples.base import Sample
from producers.samples.signing import forge, query_of, sign

NO_ANSWER = 0
_ANSWER_LIMIT_BYTES = 65_536
_OK = range(200, 300)
_UNAUTHORIZED = 401


@dataclass(frozen=True)
class Answer:
    """What became of one request.

    Attributes:
        status: HTTP status, NO_ANSWER when there was none.
        latency_s: from sending to the whole answer.
        is_forged: whether its signature was wrong on purpose.
        event_id: as the gateway calls the event; empty when it was not accepted or not told.
        status_url: where its result can be asked for, absolute.
        error: why there was no answer.
    """

    status: int
    latency_s: float
    is_forged: bool = False
    event_id: str = ""
    status_url: str = ""
    error: str = ""

    @property
    def is_expected(self) -> bool:
        """Tell whether it is what a sound gateway says: 2xx, or 401 to a forgery."""
        return self.status == _UNAUTHORIZED if self.is_forged else self.status in _OK


@dataclass(frozen=True)
class Plan:
    """What is to be sent.

    Attributes:
        count: events in all.
        forged: how many of them, the last ones, get a wrong signature.
        rate_per_s: starts per second; None for as fast as answers come.
        concurrency: open requests at most.
        timeout_s: for one answer.
        seed: same seed, same events.
        redelivery_secret: sent with each, so that events which the gateway knows are done again; empty = not sent.
    """

    count: int
    forged: int = 0
    rate_per_s: float | None = None
    concurrency: int = 20
    timeout_s: float = 15.0
    seed: int = 0
    redelivery_secret: bytes = b""


class Courier:
    """Sends one plan to one source.

    Args:
        url: of the source's webhook.
        source: how it signs.
        key: what it signs with: the id of a secret, and its text or the private key that belongs to it.
        make: makes its events.
        plan: how many and how fast.
        on_answer: called with every answer.

    Attributes:
        unreachable: why nothing was sent at all: the first connection failed.
    """

    def __init__(
        self,
        url: str,
        source: SourceSettings,
        key: tuple[str, bytes],
        make: Callable[[random.Random], Sample],
        plan: Plan,
        on_answer: Callable[[Answer], None],
    ) -> None:
        self._url = url
        self._source = source
        self._key_id, self._secret = key
        self._make = make
        self._plan = plan
        self._on_answer = on_answer
        self._rng = random.Random(plan.seed)  # noqa: S311 - sample data
        self._taken = 0
        self._answered = 0
        self._stop = asyncio.Event()
        self.unreachable = ""

    def stop(self) -> None:
        """Start no further request; those that are open go on."""
        self._stop.set()

    async def run(self) -> None:
        """Send until the plan is done, `stop`, or the first connection fails.

        Raises:
            ConfigError: the secret cannot sign.
        """
        timeout = aiohttp.ClientTimeout(total=self._plan.timeout_s)
        connector = aiohttp.TCPConnector(limit=self._plan.concurrency)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, trust_env=False) as session:
            started_s = asyncio.get_running_loop().time()
            lines = min(self._plan.concurrency, self._plan.count)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(lines):
                        group.create_task(self._work(session, started_s))
            except ExceptionGroup as failures:
                # All of them meet the same one.
                mistake = next((one for one in failures.exceptions if isinstance(one, ConfigError)), failures)
                raise mistake from None

    async def _work(self, session: aiohttp.ClientSession, started_s: float) -> None:
        while self._taken < self._plan.count:
            number = self._taken
            self._taken += 1
            # Made in the order of the numbers, before any wait: the seed alone decides which event is which.
            sample = self._make(self._rng)
            if not await self._is_due(number, started_s):
                return
            answer = await self._post(session, sample, is_forged=number >= self._plan.count - self._plan.forged)
            if answer.status == NO_ANSWER and not self._answered:
                self.unreachable = self.unreachable or answer.error
                self.stop()
                return
            self._answered += 1
            self._on_answer(answer)

    async def _is_due(self, number: int, started_s: float) -> bool:
        """Wait for a number's turn; False when it was stopped meanwhile."""
        wait_s = 0.0
        if self._plan.rate_per_s is not None:
            wait_s = started_s + number / self._plan.rate_per_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)
        return not self._stop.is_set()

    async def _post(self, session: aiohttp.ClientSession, sample: Sample, *, is_forged: bool) -> Answer:
        headers = {"content-type": "application/json", "user-agent": "penstock-send", **sample.headers}
        if self._plan.redelivery_secret:
            headers["penstock-redelivery"] = self._plan.redelivery_secret.decode("latin-1")
        stamp_s = int(time.time())
        make = partial(forge, self._source) if is_forged else partial(sign, self._source, self._secret)
        headers |= make(
            sample.body, event_id=sample.id, timestamp_s=stamp_s, key_id=self._key_id, headers=dict(headers)
        )
        query = query_of(self._source, sample.body)
        # As it is: a URL that is signed must not be written anew.
        url = URL(f"{self._url}?{query}" if query else self._url, encoded=True)
        started_s = time.monotonic()
        try:
            async with session.post(url, data=sample.body, headers=headers, allow_redirects=False) as response:
                body = await response.content.read(_ANSWER_LIMIT_BYTES)
                latency_s = time.monotonic() - started_s
                event_id, status_url = self._read_receipt(response.status, body)
                return Answer(response.status, latency_s, is_forged, event_id, status_url)
        except TimeoutError:
            error = f"no answer within {self._plan.timeout_s:g} s"
        except aiohttp.ClientConnectorError as failure:
            # Its own text tells of TLS where there is none.
            number = failure.errno or 0
            error = os.strerror(number) if number > 0 else str(failure.os_error)
        except aiohttp.ClientError as failure:
            error = str(failure) or type(failure).__name__
        return Answer(NO_ANSWER, time.monotonic() - started_s, is_forged, error=error)

    def _read_receipt(self, status: int, body: bytes) -> tuple[str, str]:
        if status not in _OK or not body:
            return "", ""
        try:
            receipt = decode_any_json(body)
        except Undecodable:
            return "", ""
        if not isinstance(receipt, dict):
            return "", ""
        status_url = receipt.get("status_url")
        return str(receipt.get("id", "")), urljoin(self._url, status_url) if isinstance(status_url, str) else ""
