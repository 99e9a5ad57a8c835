"""Takes over changed sources, API keys and secrets while the gateway runs: as a whole, or not at all.

Everything is read and made beside what runs, in a thread, and then takes its place in one step; a request keeps the
source it began with. What cannot be used is refused: what runs stays, an error is logged, and a gauge says so until a
later reload is good. Other settings that have changed are named, and wait for a restart.
Blocking: nothing on the event loop. See: docs/adr/0020-reload.md.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from contracts import metrics
from contracts.errors import ConfigError
from contracts.logs import logger
from contracts.settings import Settings
from contracts.settings.secrets import references
from gateways.ingress.callers import Callers
from gateways.ingress.secrets import SecretStore, Value
from gateways.ingress.sources import Source, Sources
from gateways.member import Refusals
from gateways.metrics_page import drop_series
from gateways.parts import Parts, build_senders, caller_door

# A configuration has some 10 KB, a secret less than one.
_MAX_FILE_BYTES = 4 * 2**20
# A request that began before a reload may still note the use of its key; longer than any body takes.
_FORGET_AFTER_S = 120.0

# The sections whose secrets a reload reads.
RELOADED = (("sources",), ("gateway", "api_keys"))

Result = Literal["applied", "unchanged", "refused"]
Look = tuple[tuple[str, str], ...]

_log = logger("gateway")


class ConfigFile(NamedTuple):
    """Where the settings come from: the file to look at, and how it is read, environment included."""

    path: Path
    load: Callable[[], Settings]


class _Made(NamedTuple):
    settings: Settings
    sources: dict[str, Source]
    callers: Callers
    seen: dict[str, tuple[Value, ...]]


class Reloader:
    """Follows the configuration of one gateway.

    Args:
        settings: with which the process started.
        parts: of the gateway; `sources` and `callers` are changed.
        config: None = the settings stay, only secrets are read again.
        refusals: of all processes of this gateway; None = there is one.
        clock: monotonic seconds.
        now: aware UTC.
    """

    def __init__(
        self,
        settings: Settings,
        parts: Parts,
        config: ConfigFile | None = None,
        refusals: Refusals | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._started_with = self._running = settings
        self._sources: Sources = parts.sources
        self._callers = parts.callers
        self._topics = parts.topics
        self._store: SecretStore = parts.secrets
        self._health = parts.health
        self._config = config
        self._refusals = refusals
        self._clock = clock
        self._now = now
        self._asked = asyncio.Event()
        self._seen = parts.secrets.latest.seen
        self._files = _files_of(settings)
        # None at first: the start read the files earlier than the first look does, so that one leads to a reload.
        self._judged: Look | None = None
        self._last_look: Look | None = None
        self._retired: dict[tuple[str, str], float] = {}
        metrics.CONFIG_RELOADED_AT.set(now().timestamp())
        _warn_of_silent(self._sources, now())

    def ask(self) -> None:
        """Reload soon; for a signal handler of the event loop."""
        self._asked.set()

    async def run(self) -> None:
        """Reload when asked to, and when something has changed; until cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._started_with.gateway.reload.interval_s):
                    await self._asked.wait()
            await self.tick()

    async def tick(self) -> Result | None:
        """Look once; reload if there is a reason to, and return the result."""
        is_asked = self._asked.is_set()
        self._asked.clear()
        self._forget_retired()
        look = await self._looked() if self._started_with.gateway.reload.watch else None
        # What has just changed may be half-written: it counts when it stands still.
        has_changed = look is not None and look != self._judged and look == self._last_look
        self._last_look = look
        if not (is_asked or has_changed or self._store.is_due):
            return None
        if is_asked:
            self._store.expire()
        result = await self.reload()
        self._judged = look
        if result == "unchanged" and is_asked:
            _log.info("config.unchanged")
        return result

    async def _looked(self) -> Look | None:
        try:
            return await asyncio.to_thread(_look, self._watched())
        except RuntimeError:
            # No thread can be started for it, as in a container at its limit; the next look comes soon.
            return None

    async def reload(self) -> Result:
        """Read everything anew and let it count if all of it is good."""
        try:
            made = await asyncio.to_thread(self._make)
        except ConfigError as error:
            return self._refuse(str(error))
        except Exception as error:  # noqa: BLE001 - the edge: whatever is wrong, what runs goes on
            _log.exception("config.reload_failed")
            return self._refuse(f"{type(error).__name__}")
        self._report_pending(made.settings)
        self._store.keep(made.seen.keys())
        metrics.CONFIG_REFUSED.set(0)
        if self._refusals is not None:
            self._refusals.forget()
        self._health.is_config_refused = False
        metrics.CONFIG_RELOADED_AT.set(self._now().timestamp())
        is_same = _reloadable(made.settings) == _reloadable(self._running) and made.seen == self._seen
        result: Result = "unchanged" if is_same else "applied"
        if not is_same:
            self._apply(made)
        self._running = made.settings
        metrics.CONFIG_RELOADS.labels(result).inc()
        return result

    def _make(self) -> _Made:
        settings = self._config.load() if self._config is not None else self._running
        # Also of a configuration that is refused: mending one of its files is a reason to look again.
        self._files = _files_of(settings)
        reading = self._store.reading()
        sources, callers = build_senders(settings, self._topics, reading)
        if self._sources and not sources:
            message = "sources: none is left; stop the gateway if that is meant"
            raise ConfigError(message)
        _refuse_silent(self._sources, sources, self._now())
        return _Made(settings, sources, callers, reading.seen)

    def _apply(self, made: _Made) -> None:
        before, after = _key_ids(self._sources), _key_ids(made.sources)
        self._sources.swap(made.sources)
        if _are_keys_adoptable(self._started_with, made.settings):
            self._callers.adopt(made.callers)
        _log.warning(
            "config.reloaded",
            **_changes(self._running, made.settings),
            **_keys_moved(before, after),
            secrets_changed=sorted(name for name, values in made.seen.items() if values != self._seen.get(name)),
        )
        self._seen = made.seen
        self._retired |= dict.fromkeys(before - after, self._clock())
        self._forget_retired()
        _warn_of_silent(self._sources, self._now())

    def _refuse(self, reason: str) -> Result:
        metrics.CONFIG_RELOADS.labels("refused").inc()
        metrics.CONFIG_REFUSED.set(1)
        self._health.is_config_refused = True
        if self._refusals is None or self._refusals.is_ours_to_say(reason):
            consequence = "sources, API keys and secrets stay as they were"
            _log.error("config.reload_refused", error=reason, consequence=consequence)
        return "refused"

    def _report_pending(self, settings: Settings) -> None:
        pending = needs_restart(self._started_with, settings)
        metrics.CONFIG_PENDING.set(len(pending))
        if pending and pending != needs_restart(self._started_with, self._running):
            _log.warning("config.restart_needed", settings=pending)

    def _watched(self) -> list[Path]:
        return [*([self._config.path] if self._config is not None else []), *self._files]

    def _forget_retired(self) -> None:
        """Drop the labels of keys that are gone, also when a late request has brought them back."""
        current = _key_ids(self._sources)
        for source, key_id in self._retired.keys() - current:
            drop_series(metrics.KEY_LAST_USED, source, key_id)
        end = self._clock() - _FORGET_AFTER_S
        self._retired = {key: at_s for key, at_s in self._retired.items() if at_s > end and key not in current}


def needs_restart(started_with: Settings, now: Settings) -> list[str]:
    """Return the settings that differ and that a reload does not take over, for any of the programs."""
    found = []
    for section in Settings.model_fields:
        before, after = getattr(started_with, section), getattr(now, section)
        if section == "sources" or before == after:
            continue
        fields = getattr(type(before), "model_fields", None)
        if not fields:
            found.append(section)
            continue
        found += [f"{section}.{name}" for name in fields if getattr(before, name) != getattr(after, name)]
    if _are_keys_adoptable(started_with, now):
        found = [name for name in found if name != "gateway.api_keys"]
    return found


def _reloadable(settings: Settings) -> tuple[object, ...]:
    return settings.sources, settings.gateway.api_keys, caller_door(settings)


def _are_keys_adoptable(started_with: Settings, now: Settings) -> bool:
    # With the first key come parts that nobody needed before, with the last one they go: both at a start only.
    return bool(started_with.gateway.api_keys) == bool(now.gateway.api_keys)


def _files_of(settings: Settings) -> tuple[Path, ...]:
    """Return the files whose secrets a reload reads."""
    found = [secret for _, secret in references(settings.sources)]
    for key in settings.gateway.api_keys:
        found += [key.key, *(former.value for former in key.former_keys)]
    return tuple(sorted({Path(secret.name) for secret in found if secret.kind == "file"}))


def _look(files: Iterable[Path]) -> Look:
    """Return what stands in files, as digests: a time stamp is too coarse, and is kept by some tools."""
    return tuple((str(file), _digest(file)) for file in files)


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return hashlib.sha256(opened.read(_MAX_FILE_BYTES)).hexdigest()
    except OSError as error:
        return f"errno {error.errno}"


def _key_ids(sources: Mapping[str, Source]) -> set[tuple[str, str]]:
    return {(name, key.id) for name, source in sources.items() for key in source.keys}


def _silent(sources: Mapping[str, Source], now: datetime) -> set[str]:
    """Return the sources of which no key is valid now: everything they send is refused."""
    return {
        name for name, source in sources.items() if source.keys and not any(key.is_valid_at(now) for key in source.keys)
    }


def _refuse_silent(before: Mapping[str, Source], after: Mapping[str, Source], now: datetime) -> None:
    lost = sorted(_silent(after, now) - _silent(before, now))
    if lost:
        message = "\n".join(f"sources.{name}.secrets: none is valid now (not_before, not_after)" for name in lost)
        raise ConfigError(message)


def _warn_of_silent(sources: Mapping[str, Source], now: datetime) -> None:
    for name in sorted(_silent(sources, now)):
        _log.warning("source.no_valid_key", source=name, consequence="every request of it is answered 401")


def _changes(before: Settings, after: Settings) -> dict[str, list[str]]:
    """Return which sources came, went and changed, by name; no values."""
    old, new = before.sources, after.sources
    return {
        "sources_added": sorted(new.keys() - old.keys()),
        "sources_removed": sorted(old.keys() - new.keys()),
        "sources_changed": sorted(name for name in old.keys() & new.keys() if old[name] != new[name]),
    }


def _keys_moved(before: set[tuple[str, str]], after: set[tuple[str, str]]) -> dict[str, list[str]]:
    return {
        "keys_added": sorted(f"{source}/{key}" for source, key in after - before),
        "keys_dropped": sorted(f"{source}/{key}" for source, key in before - after),
    }
