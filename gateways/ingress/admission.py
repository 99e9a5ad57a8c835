"""Lets only so many bytes in at a time: bodies between their first byte and the broker's ack."""

from contracts.errors import Busy


class Admission:
    """Counts bytes in flight against a limit; not thread-safe, one event loop uses it.

    Args:
        limit_bytes: of all requests together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def is_full(self) -> bool:
        """Tell whether less than a fifth is left: readiness flips before requests are refused."""
        return self.held_bytes > 0.8 * self._limit_bytes

    def reserve(self, size_bytes: int) -> None:
        """Count bytes in.

        Raises:
            Busy: they do not fit; nothing was counted.
        """
        if self.held_bytes + size_bytes > self._limit_bytes:
            message = "too many bytes in flight"
            raise Busy(message)
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count bytes out."""
        self.held_bytes -= size_bytes
