"""Says, and counts, what brokers have lost of logs that were read, and what they have deleted before it was."""

from collections.abc import Iterable

from contracts.errors import LogUnavailable
from contracts.logs import logger
from contracts.metrics import DELETED, LOST
from streams.engine.item import TP, by_topic

# In so many looks in a row, a second apart, a log must lack what was read of it: its leader may still be settling.
_LOOKS = 3


class Losses:
    """Of one worker."""

    def __init__(self) -> None:
        # Of these, the offset behind what was read, which was told.
        self._counted: dict[TP, int] = {}
        self._looks: dict[TP, int] = {}
        self._log = logger("worker")

    def assigned(self) -> None:
        """Begin to look anew."""
        self._looks = {}

    def look(self, short: Iterable[TP]) -> None:
        """Have it looked again at logs that do not have what was read of them, as often as is sure.

        Raises:
            LogUnavailable: it is to be looked again.
        """
        self._looks = {tp: self._looks.get(tp, 0) + 1 for tp in short}
        if any(looks < _LOOKS for looks in self._looks.values()):
            message = f"logs end before what is committed of them: {by_topic(self._looks)}"
            raise LogUnavailable(message)

    def tell(self, event: str, tp: TP, read_to: int, end: int, *, is_exact: bool, is_same: bool) -> None:
        """Tell of a log that ends, or has ended, before what was read of it; count what its broker has lost.

        Args:
            event: the line's name.
            tp: the partition.
            read_to: the offset behind what was read. Found again, as while a claim is refused, a loss counts once.
            end: where what was read ends in the log now.
            is_exact: it is known from the epoch of a leader; else what was written since hides as many as are lost.
            is_same: its topic was not made anew, as far as ids are known.
        """
        told: dict[str, object] = {"topic": tp.topic, "partition": tp.partition, "offset": read_to, "end": end}
        again = "it is read from its beginning, and what is answered is not called again"
        if not is_same:
            found = "the log has lost its end, or is another one"
        else:
            lost = max(0, read_to - end)
            LOST.labels(tp.topic).inc(lost if self._counted.get(tp) != read_to else 0)
            self._counted[tp] = read_to
            told["lost"] = lost
            found = f"the broker has lost this many records{'' if is_exact else ', or more'}"
        self._log.warning(event, **told, detail=f"{found}: {again}")


def tell_deleted(tp: TP, offset: int, begin: int) -> None:
    """Tell of records that were deleted before anybody had read them, and count them.

    Args:
        tp: the partition.
        offset: of the first that was not read.
        begin: where the log begins now.
    """
    DELETED.labels(tp.topic).inc(begin - offset)
    told = {"offset": offset, "begin": begin, "records": begin - offset}
    detail = "deleted before they were read, after their retention say: what was not answered by then has no outcome"
    logger("worker").warning("log.deleted", **tp._asdict(), **told, detail=detail)


__all__ = ["Losses", "tell_deleted"]
