"""Chooses the transport of a provider, and says what a choice cannot reach."""

import math
import resource
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from contracts.errors import ConfigError
from contracts.settings.models import BedrockProvider, OpenAIProvider, ProviderSettings
from streams.providers.base import Arrivals
from streams.providers.transport.base import Limits, Transport
from streams.providers.transport.general import General
from streams.providers.transport.lean import Lean
from streams.providers.transport.request import Address

# Measured: with 1,024 calls in flight aiohttp takes 70 % of a worker's CPU and reaches .7 of the throughput, with 256
# .91 (docs/adr/0010-own-http-client.md).
_AIOHTTP_GOOD_FOR = 256
# What a worker opens besides: brokers, log files, health checks, libraries.
_OTHER_FILES = 128


def create_transport(
    settings: OpenAIProvider, headers: Mapping[str, str], limits: Limits, arrivals: Arrivals | None = None
) -> Transport:
    """Return the transport that a provider's section asks for.

    Args:
        settings: the section.
        headers: sent with every call.
        limits: what the server may send.
        arrivals: where answers are counted that have come and are given to their calls a little later.

    Raises:
        ConfigError: the base URL cannot be used with it.
    """
    if chosen(settings) == "lean":
        return Lean(
            settings.base_url,
            headers,
            settings.max_in_flight,
            settings.connect_timeout_s,
            limits,
            settings.ca_file,
            arrivals,
        )
    return General(
        settings.base_url,
        headers,
        settings.max_in_flight,
        settings.connect_timeout_s,
        limits,
        settings.ca_file,
        settings.proxy,
    )


def chosen(settings: OpenAIProvider) -> str:
    """Return `lean` or `aiohttp`."""
    if settings.transport != "auto":
        return settings.transport
    if settings.proxy:
        return "aiohttp"
    try:
        Address(settings.base_url)
    except ConfigError:
        # A user name, a query, letters beyond ASCII: aiohttp's to judge.
        return "aiohttp"
    return "lean"


def shortfalls(
    providers: Iterable[tuple[str, ProviderSettings]],
    max_in_flight: int,
    max_files: int | None = None,
    events: Mapping[str, int] = MappingProxyType({}),
) -> list[str]:
    """Return, in plain words, why the worker's calls in flight cannot be reached.

    Args:
        providers: those that the worker uses, by name.
        max_in_flight: the worker's.
        max_files: open files that the process may have; asked of the system when None.
        events: of one call, by provider; 1 where none are named.
    """
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    max_files = (soft if soft != resource.RLIM_INFINITY else 2**31) if max_files is None else max_files
    found, connections = [], 0
    for name, settings in providers:
        if not isinstance(settings, OpenAIProvider | BedrockProvider):
            continue
        wanted = math.ceil(max_in_flight / events.get(name, 1))
        calls = min(settings.max_in_flight, wanted)
        connections += calls
        if settings.max_in_flight < wanted:
            found.append(
                f"providers.{name}.max_in_flight is {settings.max_in_flight}, worker.max_in_flight {max_in_flight}: "
                f"at most {settings.max_in_flight} calls will be in flight there"
            )
        if isinstance(settings, OpenAIProvider) and chosen(settings) == "aiohttp" and calls > _AIOHTTP_GOOD_FOR:
            found.append(
                f"providers.{name} uses aiohttp, which is good for some {_AIOHTTP_GOOD_FOR} calls in flight, "
                f"not {calls}: use transport lean, or more workers"
            )
    if connections + _OTHER_FILES > max_files:
        found.append(
            f"the process may have {max_files} files open, and {connections} connections to models with "
            f"{_OTHER_FILES} other files do not fit: raise the limit (ulimit -n, LimitNOFILE)"
        )
    return found
