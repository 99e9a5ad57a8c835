"""Old outcomes by id, through the index on disk: the place from the index, the record from Kafka.

Reads: result topics, events.*. The methods belong to one event loop; the disk and Kafka are read by few threads.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from contracts.errors import Busy
from contracts.kafka_config import headers_of
from contracts.settings import ResultsViewSettings
from gateways.egress.fetch import Fetcher
from gateways.egress.index import ResultIndex
from gateways.egress.indexing import Indexing
from gateways.egress.outcomes import Accepted, Outcome, read_outcome
from gateways.egress.reading import in_thread

# Each holds a consumer: some 2 MB and three threads of the client.
THREADS = 4
MAX_LOOKUPS = 200
_FETCH_LIMIT_S = 3.0
# The outcome is stamped after its event, but perhaps by a clock that is behind.
_CLOCK_MARGIN_MS = 60_000

T = TypeVar("T")


class Archive:
    """The index, what feeds it, and what fetches by it.

    Args:
        settings: with a path.
        config: of a consumer.
        result_topics: every topic with terminal records.
        event_topics: where events of API callers lie.
        retention_s: older outcomes are dropped.

    Raises:
        ConfigError: the file cannot be used, or another process uses it.
    """

    def __init__(
        self,
        settings: ResultsViewSettings,
        config: dict[str, Any],
        result_topics: Sequence[str],
        event_topics: Sequence[str],
        retention_s: float,
    ) -> None:
        assert settings.path is not None  # noqa: S101 - for the type checker
        self._index = ResultIndex(settings.path, settings.max_bytes)
        self._indexing = Indexing(config, result_topics, event_topics, self._index, retention_s)
        self._fetcher = Fetcher(config)
        self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="results-archive")
        self._lookups = 0

    def start(self) -> None:
        """Begin to read; returns at once also while the brokers are away."""
        self._indexing.start()

    def close(self) -> None:
        """End the threads and close the file; blocking."""
        self._indexing.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._fetcher.close()
        self._index.close()

    @property
    def is_caught_up(self) -> bool:
        """Tell whether everything up to the present has been read once, and can be looked up."""
        return self._indexing.is_caught_up and not self._index.is_damaged

    @property
    def log_ids(self) -> Mapping[str, str]:
        """Return which logs are read, as far as it is known; by topic."""
        return self._indexing.log_ids

    @property
    def read_to(self) -> Mapping[tuple[str, int], int]:
        """Return by topic and partition the offset behind what is in the index."""
        return self._indexing.read_to

    def hurry(self) -> None:
        """Let what has been read be found at once."""
        self._indexing.hurry()

    def knows_since(self, timestamp_ms: int) -> bool:
        """Tell whether every outcome since an instant is in the index, so that one that is not there does not exist."""
        return self.is_caught_up and timestamp_ms - _CLOCK_MARGIN_MS > self._index.lost_before_ms

    async def outcome(self, result_id: str) -> Outcome | None:
        """Return an outcome; None when the index has none, or its record is gone.

        Raises:
            LogUnavailable: Kafka cannot be read.
            IndexUnreadable: the index cannot.
            Busy: too many look-ups at a time.
        """
        return await self._ask(lambda: self._fetch(result_id))

    async def accepted(self, owner: str, event_id: str, source: str | None) -> Accepted | None:
        """Return the newest event of a caller with this id.

        Raises:
            IndexUnreadable: the index cannot be read.
            LogUnavailable: no thread can be started to read it.
            Busy: too many look-ups at a time.
        """
        return await self._ask(lambda: self._index.accepted(owner, event_id, source))

    def _fetch(self, result_id: str) -> Outcome | None:
        place = self._index.place_of(result_id)
        message = self._fetcher.fetch(place, _FETCH_LIMIT_S) if place else None
        if message is None:
            return None
        outcome = read_outcome(headers_of(message), message.value(), message.timestamp()[1])
        # A topic that was made anew has other records at the places we know.
        return outcome if outcome is not None and outcome.result_id == result_id else None

    async def _ask(self, question: Callable[[], T]) -> T:
        if self._lookups >= MAX_LOOKUPS:
            message = "too many look-ups of old results"
            raise Busy(message)
        self._lookups += 1
        try:
            return await in_thread(self._executor, question)
        finally:
            self._lookups -= 1
