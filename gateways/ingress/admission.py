"""Lets only so many bytes in at a time: bodies between their first byte and the broker's ack."""

from contracts.errors import Busy, RateLimited


class Admission:
    """Counts bytes in flight against a limit; not thread-safe, one event loop uses it.

    Args:
        limit_bytes: of all requests together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    @property
    def is_full(self) -> bool:
        """Tell whether less than a fifth is left: readiness flips before requests are refused."""
        return self.held_bytes > 0.8 * self.limit_bytes

    def reserve(self, size_bytes: int) -> None:
        """Count bytes in.

        Raises:
            Busy: they do not fit; nothing was counted.
        """
        if self.held_bytes + size_bytes > self.limit_bytes:
            message = "too many bytes in flight"
            raise Busy(message)
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count bytes out."""
        self.held_bytes -= size_bytes


class PartOf(Admission):
    """A part of another admission, for requests that must not fill the whole.

    Args:
        whole: counts these bytes as well.
        limit_bytes: of the part.
    """

    def __init__(self, whole: Admission, limit_bytes: int) -> None:
        super().__init__(limit_bytes)
        self._whole = whole

    def reserve(self, size_bytes: int) -> None:
        """Count bytes in, here and in the whole.

        Raises:
            RateLimited: they do not fit into the part; nothing was counted.
            Busy: they do not fit into the whole; nothing was counted.
        """
        if self.held_bytes + size_bytes > self.limit_bytes:
            message = "too many bytes in flight of this kind"
            raise RateLimited(message)
        self._whole.reserve(size_bytes)
        self.held_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Count bytes out, here and in the whole."""
        super().release(size_bytes)
        self._whole.release(size_bytes)
