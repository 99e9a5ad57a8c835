"""One attempt: signs a body, posts it through the guarded client, and says what the answer means.

Only a 2xx is success, and it is one as soon as the head of the answer is there: what the body says is not read.

Blocking: nothing; names are looked up in threads of the door's own.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.metrics import CALLBACK_DURATION, CALLBACKS, Children
from contracts.settings.callback_url import Target
from contracts.settings.egress import CallbackSection
from gateways.egress.addresses import AddressPolicy
from gateways.egress.base import DELIVERED, Delivered, Item, Later, Refused, Verdict
from gateways.egress.dialling import AddressRefused, SystemResolver, guarded_session
from gateways.egress.notify_answers import meaning_of, wait_asked_for
from gateways.egress.notify_body import headers_of
from gateways.egress.notify_pace import Pace
from gateways.egress.notify_signing import SigningKey, signed_headers

# Read so that the connection can be used again; an answer that is longer or slower costs the connection.
_DRAINED_BYTES = 64 * 1024
_DRAIN_LIMIT_S = 1.0
# Names that may be looked up at a time for each attempt. An attempt ends before the system's look-up of a name whose
# server does not answer, which takes 5 s for each try, server and search domain: a minute of them are to be borne.
_LOOK_UPS = 4
# Each is a thread: so many more than attempts at most.
_MORE_LOOK_UPS = 128

# First match counts. Reason: bounded slug.
_FAILURES: tuple[tuple[type[BaseException], str], ...] = (
    (AddressRefused, "address_refused"),
    (aiohttp.ClientConnectorCertificateError, "tls_invalid"),
    (aiohttp.ClientConnectorSSLError, "tls_failed"),
    (aiohttp.ClientConnectorDNSError, "name_not_resolved"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorError, "unreachable"),
    (aiohttp.ServerDisconnectedError, "connection_lost"),
    (aiohttp.ClientOSError, "connection_lost"),
    (aiohttp.ClientError, "bad_answer"),
)

_log = logger("egress")
_durations = Children(CALLBACK_DURATION)
_counts = Children(CALLBACKS)


class Poster:
    """Makes a door's attempts.

    Args:
        name: of the door's section.
        settings: its section.
        policy: which addresses may be dialled.
        resolver: in place of the system's, for tests; its answers are judged all the same.
        now: aware clock.
    """

    def __init__(
        self,
        name: str,
        settings: CallbackSection,
        policy: AddressPolicy,
        resolver: AbstractResolver | None,
        now: Callable[[], datetime],
    ) -> None:
        self._name = name
        self._settings = settings
        self._policy = policy
        self._resolver = resolver
        self._now = now
        self._pace = Pace(settings.max_per_s)
        self._user_agent = f"Penstock/{_version()}"
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Prepare the client; dials nothing.

        Raises:
            ConfigError: `ca_file` has no certificates.
        """
        tls, limit = self._tls(), self._settings.max_in_flight
        if self._settings.allow_networks:
            networks = ", ".join(str(network) for network in self._settings.allow_networks)
            _log.warning("callback.internal_networks_allowed", door=self._name, detail=networks)
        self._resolver = self._resolver or SystemResolver(min(_LOOK_UPS * limit, limit + _MORE_LOOK_UPS))
        self._session = guarded_session(
            self._policy,
            self._resolver,
            limit=limit,
            timeout_s=self._settings.attempt_timeout_s,
            tls=tls,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def attempt(self, item: Item, body: bytes, url: URL, keys: Sequence[SigningKey]) -> tuple[Verdict, int]:
        """Wait for a turn, then post once; return (verdict, status), 0 when there was no answer."""
        await self._pace.turn()
        begun_s = time.monotonic()
        status, detail, key_ids = 0, "", tuple[str, ...]()
        verdict: Verdict
        try:
            signature, key_ids = signed_headers(keys, item.delivery_id, body, self._now())
            headers = headers_of(item, self._settings.content_type, self._user_agent) | signature
            status, waits = await self._post(url, body, headers)
            verdict = self._verdict(status, waits)
        except ConfigError as error:
            verdict = Later("no_valid_key", str(error), scope="operator")
        except (AddressRefused, aiohttp.ClientError, TimeoutError) as error:
            verdict, detail = _failure(error), _detail(error)
        self._record(item, verdict, status, detail, key_ids, time.monotonic() - begun_s)
        return verdict, status

    async def _post(self, url: URL, body: bytes, headers: dict[str, str]) -> tuple[int, list[str]]:
        """Return (status, the values of Retry-After)."""
        if self._session is None:
            message = "the door is not started"
            raise RuntimeError(message)
        async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
            await _drain(response)
            return response.status, response.headers.getall("Retry-After", [])

    def _verdict(self, status: int, waits: list[str]) -> Verdict:
        meaning = meaning_of(status, self._settings.permanent_statuses)
        if meaning == "delivered":
            return DELIVERED
        if meaning == "later":
            wait_s = wait_asked_for(waits, self._now(), self._settings.retry_after_max_s)
            return Later(_slug(status), f"answered {status}", wait_s)
        reason = "endpoint_gone" if meaning == "gone" else _slug(status)
        return Refused(reason, f"answered {status}")

    def _record(
        self, item: Item, verdict: Verdict, status: int, detail: str, key_ids: tuple[str, ...], duration_s: float
    ) -> None:
        outcome = type(verdict).__name__.lower()
        reason = "" if isinstance(verdict, Delivered) else verdict.reason
        _durations[self._name,].observe(duration_s)
        _counts[self._name, reason or "delivered"].inc()
        _log.info(
            "callback.attempted",
            door=self._name,
            result_id=item.outcome.result_id,
            event_id=item.outcome.event_id,
            attempt=item.attempt,
            status=status,
            outcome=outcome,
            reason=reason,
            detail=detail,
            key_id=",".join(key_ids),
            duration_s=round(duration_s, 4),
        )

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            message = f"egress.{self._name}.ca_file: cannot be used: {error}"
            raise ConfigError(message) from error


def as_dialled(target: Target) -> URL | None:
    """Return a URL as the HTTP client takes it; None when that reads it in another way than we do."""
    url = URL(target.url, encoded=True)
    # The raw host is what is looked up and dialled. yarl's `host` is decoded: it is no `xn--` name any more, and where
    # such a label cannot be decoded it raises.
    host = (url.raw_host or "").lower()
    return url if (url.scheme, host, url.port) == (target.scheme, target.host, target.port) else None


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read a short answer, so that its connection can be used again; give up on any other."""
    left = _DRAINED_BYTES
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout(_DRAIN_LIMIT_S):
            while left > 0:
                chunk = await response.content.read(left)
                if not chunk:
                    return
                left -= len(chunk)
    response.close()


def _failure(error: BaseException) -> Later:
    reason = next(reason for kind, reason in _FAILURES if isinstance(error, kind))
    return Later(reason, _detail(error) or reason)


def _detail(error: BaseException) -> str:
    """Return what may be said about a failure: the policy's reason, or the kind of error; never what a server sent."""
    return error.reason if isinstance(error, AddressRefused) else type(error).__name__


def _slug(status: int) -> str:
    """Return the bounded reason of a status: the ones that say something by themselves, else their class."""
    named = {400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 500, 502, 503, 504}
    return f"status_{status}" if status in named else f"status_{min(max(status // 100, 1), 9)}xx"


def _version() -> str:
    try:
        return version("penstock")
    except PackageNotFoundError:
        return "0"
