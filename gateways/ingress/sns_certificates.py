"""The certificates that Amazon SNS signs with: fetched once, kept for a day, bounded in every way.

Anybody may post a message that names a certificate nobody has. So what is here already never waits for a fetch, one
fetch runs at a time, a failed one is not repeated at once, and failures never push out what is good.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from cryptography import x509

from contracts.errors import BadSignature, Busy, InvalidPayload, Retryable
from contracts.logs import logger
from gateways.ingress.sns import read_certificate
from gateways.ingress.sns_fetch import Fetch

_VALID_S = 86_400.0
_FAILURE_VALID_S = 10.0
_MAX_KEPT = 16
_MAX_FAILURES = 256
_MAX_WAITING = 64

T = TypeVar("T")

_log = logger("gateway")


class Certificates:
    """Certificates by URL; used by one event loop.

    Args:
        fetch: what gets them; takes URLs that have been checked.
        timeout_s: limit of one fetch.
        clock: monotonic seconds.
    """

    def __init__(self, fetch: Fetch, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch
        self._timeout_s = timeout_s
        self._clock = clock
        self._kept: OrderedDict[str, tuple[x509.Certificate, float]] = OrderedDict()
        # Whether SNS has said that there is none, and until when that is remembered.
        self._failed: OrderedDict[str, tuple[bool, float]] = OrderedDict()
        self._lock = asyncio.Lock()
        self._waiting = 0

    async def get(self, url: str) -> x509.Certificate:
        """Return the certificate of a URL that has been checked.

        Raises:
            BadSignature: SNS has no such certificate.
            Retryable: it cannot be fetched now.
            Busy: too many messages wait for a fetch.
        """
        found = self._known(url)
        if found is not None:
            return found
        if self._waiting >= _MAX_WAITING:
            message = "too many messages wait for a certificate of Amazon SNS"
            raise Busy(message)
        self._waiting += 1
        try:
            async with self._lock:
                return self._known(url) or await self._renew(url)
        finally:
            self._waiting -= 1

    def _known(self, url: str) -> x509.Certificate | None:
        kept = self._kept.get(url)
        if kept is not None and kept[1] > self._clock():
            return kept[0]
        is_none, until_s = self._failed.get(url, (False, 0.0))
        if until_s > self._clock():
            if is_none:
                raise _no_certificate()
            message = "the certificate of Amazon SNS could not be fetched a moment ago"
            raise Retryable(message, retry_after_s=_FAILURE_VALID_S)
        return None

    async def _renew(self, url: str) -> x509.Certificate:
        try:
            certificate = read_certificate(await self._fetch(url, self._timeout_s))
        except (Retryable, InvalidPayload, BadSignature) as error:
            is_none = not isinstance(error, Retryable)
            _log.warning("sns.certificate_missing", reason=error.reason, error=str(error))
            _put(self._failed, url, (is_none, self._clock() + _FAILURE_VALID_S), _MAX_FAILURES)
            if is_none:
                raise _no_certificate() from error
            raise
        _put(self._kept, url, (certificate, self._clock() + _VALID_S), _MAX_KEPT)
        return certificate


def _no_certificate() -> BadSignature:
    return BadSignature("certificate")


def _put(store: OrderedDict[str, T], url: str, value: T, limit: int) -> None:
    store[url] = value
    store.move_to_end(url)
    while len(store) > limit:
        store.popitem(last=False)
