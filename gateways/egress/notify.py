"""Delivers terminal records as signed HTTP callbacks to one endpoint.

A callback is signed anew for each attempt (fresh timestamp, every valid key) under the result's id, always the same.
Only a 2xx is success, and it is one as soon as the head of the answer is there: what the body says is not read.
What answers mean: notify_answers.py. Where it may go: addresses.py, dialling.py. When it stops: notify_endpoint.py.

Blocking: nothing; names are resolved in the loop's default executor.

See: docs/callbacks.md.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from contracts.errors import ConfigError, Undecodable
from contracts.logs import logger
from contracts.metrics import CALLBACK_DISABLED, CALLBACK_DURATION, CALLBACKS, Children
from contracts.payloads import EndpointState
from contracts.settings.callback_url import read_url
from contracts.settings.egress import CallbackDoor
from gateways.egress.addresses import AddressPolicy
from gateways.egress.base import DELIVERED, Board, Delivered, Item, Later, PlainDoor, Refused, Shape, Verdict
from gateways.egress.dialling import AddressRefused, guarded_session
from gateways.egress.notify_answers import meaning_of, wait_asked_for
from gateways.egress.notify_body import body_of, headers_of
from gateways.egress.notify_endpoint import Endpoint, MemoryBoard
from gateways.egress.notify_pace import Pace
from gateways.egress.notify_signing import resolve_keys, signed_headers

# Read so that the connection can be used again; an answer that is longer or slower costs the connection.
_DRAINED_BYTES = 64 * 1024
_DRAIN_LIMIT_S = 1.0

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


class Notify(PlainDoor):
    """The door `callback`.

    Args:
        name: of its section: the endpoint's name in logs, metrics and on the board.
        settings: its section.
        board: where it is kept whether the endpoint is disabled.
        resolver: in place of the system's, for tests; its answers are judged all the same.
        now: aware clock.

    Raises:
        ConfigError: a key cannot be used, or the URL's host is an address that is refused.
    """

    def __init__(
        self,
        name: str,
        settings: CallbackDoor,
        board: Board | None = None,
        *,
        resolver: AbstractResolver | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._name = name
        self._settings = settings
        self._resolver = resolver
        self._now = now
        self._keys = resolve_keys(f"egress.{name}", settings.secrets)
        self._policy = AddressPolicy(settings.allow_networks, settings.refuse_networks)
        self._url = _checked_url(name, settings.url, self._policy)
        self._endpoint = Endpoint(name, board or MemoryBoard(), settings.disable_after_s, now)
        self._pace = Pace(settings.max_per_s)
        self._user_agent = f"Penstock/{_version()}"
        self._session: aiohttp.ClientSession | None = None

    @property
    def shape(self) -> Shape:
        """One callback at a time: receivers know no batches."""
        return Shape(max_batch=1, order=self._settings.order)

    async def start(self) -> None:
        """Prepare the client; dials nothing.

        Raises:
            ConfigError: `ca_file` has no certificates.
        """
        tls = self._tls()
        self._look_at_board()
        if self._settings.allow_networks:
            networks = ", ".join(str(network) for network in self._settings.allow_networks)
            _log.warning("callback.internal_networks_allowed", door=self._name, detail=networks)
        self._session = guarded_session(
            self._policy,
            limit=self._settings.max_in_flight,
            timeout_s=self._settings.attempt_timeout_s,
            tls=tls,
            resolver=self._resolver,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    def destination(self, item: Item) -> str:  # noqa: ARG002 - the protocol's
        """Return the endpoint's origin."""
        return str(self._url.origin())

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Send one callback each."""
        return [await self._deliver(item) for item in items]

    async def _deliver(self, item: Item) -> Verdict:
        disabled = self._look_at_board()
        if disabled is not None:
            message = f"disabled since {disabled.since} ({disabled.reason}); penstock callbacks enable {self._name}"
            return Refused("endpoint_disabled", message)
        try:
            body = body_of(item)
        except Undecodable as error:
            return Refused(error.reason, str(error))
        await self._pace.turn()
        return await self._attempt(item, body)

    def _look_at_board(self) -> EndpointState | None:
        disabled = self._endpoint.disabled
        CALLBACK_DISABLED.labels(self._name).set(disabled is not None)
        return disabled

    async def _attempt(self, item: Item, body: bytes) -> Verdict:
        begun_s = time.monotonic()
        status, detail, key_ids = 0, "", tuple[str, ...]()
        try:
            signature, key_ids = signed_headers(self._keys, item.outcome.result_id, body, self._now())
            status, waits = await self._post(
                body, headers_of(item, self._settings.content_type, self._user_agent) | signature
            )
            verdict = self._verdict(status, waits)
        except ConfigError as error:
            verdict = Later("no_valid_key", str(error), scope="operator")
        except (AddressRefused, aiohttp.ClientError, TimeoutError) as error:
            verdict, detail = _failure(error), _detail(error)
        await self._note(verdict, status)
        self._record(item, verdict, status, detail, key_ids, time.monotonic() - begun_s)
        return verdict

    async def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, list[str]]:
        """Return (status, the values of Retry-After)."""
        if self._session is None:
            message = "the door is not started"
            raise RuntimeError(message)
        async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
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

    async def _note(self, verdict: Verdict, status: int) -> None:
        if verdict == DELIVERED:
            await self._endpoint.succeeded()
        elif meaning_of(status, ()) == "gone":
            await self._endpoint.gone()
        elif isinstance(verdict, Later) and verdict.scope == "destination":
            await self._endpoint.failed(verdict.reason)

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


def _checked_url(name: str, text: str, policy: AddressPolicy) -> URL:
    """Return the URL as the HTTP client takes it, when it reads it as we do and its literal address may be dialled."""
    target = read_url(text)
    url = URL(text, encoded=True)
    if (url.scheme, url.host, url.port) != (target.scheme, target.host, target.port):
        message = f"egress.{name}.url: can be read in two ways"
        raise ConfigError(message)
    reason = policy.refusal(target.host) if target.is_literal else None
    if reason is not None:
        message = f"egress.{name}.url: {target.host} must not be dialled ({reason}); allow_networks can allow it"
        raise ConfigError(message)
    return url


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
