"""Delivers results as signed callbacks to the URL that the event's caller named in its attribute `callbackurl`.

A caller is an API key with a section `callbacks`: host names it may name, and the keys that sign for it. The rule is
checked when the event is accepted, and again here, for records that came otherwise or before the rule was changed.
URLs name hosts, never addresses; where the name leads is judged when it is dialled, as for every callback.

See: docs/callbacks.md.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from aiohttp.abc import AbstractResolver

from contracts.envelope import CALLBACK_URL
from contracts.errors import Undecodable
from contracts.settings import ApiKey
from contracts.settings.callback_url import UrlRefused, UrlRule, read_url
from contracts.settings.egress import CallerCallbackDoor
from gateways.egress.addresses import AddressPolicy
from gateways.egress.base import Item, PlainDoor, Refused, Shape, Verdict
from gateways.egress.notify_body import body_of
from gateways.egress.notify_posting import Poster, as_dialled
from gateways.egress.notify_signing import SigningKey, resolve_keys


class _Caller(NamedTuple):
    rule: UrlRule
    keys: tuple[SigningKey, ...]


class NotifyCallers(PlainDoor):
    """The door `caller-callback`.

    Args:
        name: of its section.
        settings: its section.
        api_keys: the callers.
        resolver: in place of the system's, for tests; its answers are judged all the same.
        now: aware clock.

    Raises:
        ConfigError: a key of a caller cannot be used.
    """

    def __init__(
        self,
        name: str,
        settings: CallerCallbackDoor,
        api_keys: Sequence[ApiKey],
        *,
        resolver: AbstractResolver | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._callers = {
            key.id: _Caller(
                UrlRule(key.callbacks.hosts, settings.ports, settings.allow_http),
                resolve_keys(f"gateway.api_keys ({key.id}).callbacks", key.callbacks.secrets),
            )
            for key in api_keys
            if key.callbacks is not None
        }
        policy = AddressPolicy(settings.allow_networks, settings.refuse_networks)
        self._poster = Poster(name, settings, policy, resolver, now)

    @property
    def shape(self) -> Shape:
        """One callback at a time, to many places."""
        return Shape(max_batch=1, order="none", many_destinations=True)

    async def start(self) -> None:
        """Prepare the client; dials nothing.

        Raises:
            ConfigError: `ca_file` has no certificates.
        """
        await self._poster.start()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._poster.aclose()

    def takes(self, item: Item) -> bool:
        """Take what names a URL."""
        return bool(item.attribute(CALLBACK_URL))

    def destination(self, item: Item) -> str:
        """Return caller and origin: callers share no breaker."""
        try:
            target = read_url(item.attribute(CALLBACK_URL))
        except UrlRefused:
            return f"{item.outcome.owner} (refused)"
        return f"{item.outcome.owner} {target.scheme}://{target.host}:{target.port}"

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Send one callback each."""
        return [await self._deliver(item) for item in items]

    async def _deliver(self, item: Item) -> Verdict:
        caller = self._callers.get(item.outcome.owner)
        if caller is None:
            return Refused("callback_not_allowed", f"API key {item.outcome.owner!r} may not ask for callbacks")
        try:
            target = caller.rule.check(item.attribute(CALLBACK_URL))
            body = body_of(item)
        except UrlRefused as error:
            return Refused("url_refused", f"{error.reason}: {error}")
        except Undecodable as error:
            return Refused(error.reason, str(error))
        url = as_dialled(target)
        if url is None:
            return Refused("url_refused", "the URL can be read in two ways")
        verdict, _ = await self._poster.attempt(item, body, url, caller.keys)
        return verdict
