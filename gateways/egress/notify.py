"""Delivers terminal records as signed HTTP callbacks to one endpoint.

A callback is signed anew for each attempt (fresh timestamp, every valid key) under the item's `delivery_id`.
What answers mean: notify_answers.py. Where it may go: addresses.py, dialling.py. When it stops: notify_endpoint.py.

See: docs/callbacks.md.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from aiohttp.abc import AbstractResolver
from yarl import URL

from contracts.errors import ConfigError, Undecodable
from contracts.metrics import CALLBACK_DISABLED
from contracts.payloads import EndpointState
from contracts.settings.callback_url import read_url
from contracts.settings.egress import CallbackDoor
from gateways.egress.addresses import AddressPolicy
from gateways.egress.base import DELIVERED, Board, Item, Later, PlainDoor, Refused, Shape, Verdict
from gateways.egress.notify_answers import meaning_of
from gateways.egress.notify_body import body_of
from gateways.egress.notify_endpoint import Endpoint, MemoryBoard
from gateways.egress.notify_posting import Poster, as_dialled
from gateways.egress.notify_signing import resolve_keys


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
        self._keys = resolve_keys(f"egress.{name}", settings.secrets)
        policy = AddressPolicy(settings.allow_networks, settings.refuse_networks)
        self._url = _checked_url(name, settings.url, policy)
        self._poster = Poster(name, settings, policy, resolver, now)
        self._endpoint = Endpoint(name, board or MemoryBoard(), settings.disable_after_s, now)

    @property
    def shape(self) -> Shape:
        """One callback at a time: receivers know no batches."""
        return Shape(max_batch=1, order=self._settings.order)

    async def start(self) -> None:
        """Prepare the client; dials nothing.

        Raises:
            ConfigError: `ca_file` has no certificates.
        """
        await self._poster.start()
        self._look_at_board()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._poster.aclose()

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
        verdict, status = await self._poster.attempt(item, body, self._url, self._keys)
        await self._note(verdict, status)
        return verdict

    def _look_at_board(self) -> EndpointState | None:
        disabled = self._endpoint.disabled
        CALLBACK_DISABLED.labels(self._name).set(disabled is not None)
        return disabled

    async def _note(self, verdict: Verdict, status: int) -> None:
        if verdict == DELIVERED:
            await self._endpoint.succeeded()
        elif meaning_of(status, ()) == "gone":
            await self._endpoint.gone()
        elif isinstance(verdict, Later) and verdict.scope == "destination":
            await self._endpoint.failed(verdict.reason)


def _checked_url(name: str, text: str, policy: AddressPolicy) -> URL:
    """Return the URL as the HTTP client takes it, when it reads it as we do and its literal address may be dialled."""
    target = read_url(text)
    url = as_dialled(target)
    if url is None:
        message = f"egress.{name}.url: can be read in two ways"
        raise ConfigError(message)
    reason = policy.refusal(target.host) if target.is_literal else None
    if reason is not None:
        message = f"egress.{name}.url: {target.host} must not be dialled ({reason}); allow_networks can allow it"
        raise ConfigError(message)
    return url
