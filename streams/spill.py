"""Decides which events of a bulk backlog go to the provider's batch API by themselves.

Reads: nothing. Writes: nothing; the settler parks the event on the hand-over topic, which is a part of the journal.
See: docs/adr/0012.
"""

from collections.abc import Callable

from contracts.codec import Position
from contracts.settings import BedrockProvider, Settings
from contracts.settings.batch_api import BatchApi
from streams.engine.item import Item
from streams.job import Job, left_s

_LANE = "bulk"


class Spill:
    """The rule, by route.

    Args:
        settings: the whole configuration.
        behind: how many events lie behind a position in its partition, as far as is known.
    """

    def __init__(self, settings: Settings, behind: Callable[[Position], int]) -> None:
        self._behind = behind
        self._batches: dict[str, tuple[BatchApi, int]] = {}
        for route in settings.routes:
            model = settings.models[route.model]
            batch = batch_api(settings, model.provider)
            if batch is not None and batch.spill_behind is not None and model.task == "chat":
                self._batches[route.name] = batch, batch.spill_behind

    def wants(self, item: Item, job: Job) -> bool:
        """Tell whether an event is to be handed over: of the bulk lane, free of order, patient, with many behind it.

        One that was tried before stays: what it has been through belongs to its attempts here.
        """
        if item.lane != _LANE or item.chain is not None or job.attempts or job.fault is not None:
            return False
        found = self._batches.get(job.route_name)
        if found is None:
            return False
        batch, limit = found
        return left_s(job) >= batch.min_time_left_s and self._behind(item.position) >= limit


def batch_api(settings: Settings, provider: str) -> BatchApi | None:
    """Return the batch API of a provider's section; None when it has none."""
    section = settings.providers[provider]
    return section.batch_api if isinstance(section, BedrockProvider) else None


def hands_over(settings: Settings) -> bool:
    """Tell whether the hand-over topic is a part of this installation's journal."""
    return any(batch_api(settings, name) is not None for name in settings.providers)
