"""Chooses the route of an event: the first whose patterns match."""

import fnmatch
import re
from collections.abc import Iterable

from contracts.envelope import Event
from contracts.errors import NoRoute
from contracts.settings import RouteSettings

# Sources and types are few in practice; a sender that makes up new ones must not fill the memory.
_MAX_KNOWN = 4096


def _compile(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


class Router:
    """Matches events against the routes, in their order.

    Args:
        routes: from the configuration.
    """

    def __init__(self, routes: tuple[RouteSettings, ...]) -> None:
        self._routes = [(_compile(route.match.source), _compile(route.match.type), route) for route in routes]
        self._known: dict[tuple[str, str], RouteSettings] = {}

    def route(self, event: Event) -> RouteSettings:
        """Return the event's route.

        Raises:
            NoRoute: none matches.
        """
        known = self._known.get((event.source, event.type))
        if known is not None:
            return known
        for source, kind, route in self._routes:
            if source.match(event.source) and kind.match(event.type):
                if len(self._known) < _MAX_KNOWN:
                    self._known[event.source, event.type] = route
                return route
        message = f"no route matches source {event.source!r} and type {event.type!r}"
        raise NoRoute(message)
