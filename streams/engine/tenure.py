"""The right to work on a set of partitions: from assignment to hand-over, and only under a valid lease."""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet

_LEASE_POLL_S = 0.05


class TenureLostError(Exception):
    """Raised inside the engine when an item's partitions are no longer ours: nothing is produced, nothing committed."""


class Tenure:
    """One generation's right to work.

    Args:
        generation: of the consumer group.
        is_valid: tells whether the generation is still current and the last heartbeat young enough.
    """

    def __init__(self, generation: int, is_valid: Callable[[], bool] = lambda: True) -> None:
        self.generation = generation
        self._is_valid = is_valid
        self._is_over = False

    def end(self) -> None:
        """Give up: whoever waits for permission gets TenureLostError."""
        self._is_over = True

    @property
    def is_over(self) -> bool:
        """Tell whether it was given up."""
        return self._is_over

    @property
    def may_work(self) -> bool:
        """Tell whether work may start and records may be produced now."""
        return not self._is_over and self._is_valid()

    async def permission(self, generation: int | None = None) -> None:
        """Return when records may be produced; at once in the ordinary case.

        Args:
            generation: in which the event was taken, where that is not known to be this one.

        Raises:
            TenureLostError: the partitions were given up meanwhile.
        """
        if generation not in {None, self.generation}:
            raise TenureLostError
        while not self.may_work:
            if self._is_over:
                raise TenureLostError
            # A stale lease becomes valid again with the next good heartbeat, or the tenure ends.
            await asyncio.sleep(_LEASE_POLL_S)


def without_right(tenures: AbstractSet[Tenure]) -> frozenset[Tenure]:
    """Return which of these give no right to work now: asked once for all that come together."""
    return frozenset(tenure for tenure in tenures if not tenure.may_work)
