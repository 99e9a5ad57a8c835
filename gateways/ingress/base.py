"""The protocol of a door in: something that fetches events from elsewhere and puts them on the log."""

from typing import NamedTuple, Protocol, runtime_checkable

HeaderLines = list[tuple[bytes, bytes]]


class Message(NamedTuple):
    """What a queue gave out, in no queue's own words.

    Attributes:
        id: the queue's id of the message; the same at every delivery.
        headers: what field templates read, names in lower case.
        group: unit of order of the queue; empty when it keeps none.
        sent_at: when the sender queued it, RFC 3339.
    """

    id: str
    headers: HeaderLines
    body: bytes
    group: str = ""
    sent_at: str = ""


@runtime_checkable
class Door(Protocol):
    """One configured door; used by one event loop. The constructor does no network.

    What every door must do is in tests/suites/ingress.py: a message leaves its queue only after the broker's ack;
    what cannot be read is never dropped; while the broker is away nothing more is taken; nothing ends it but `stop`.
    """

    name: str

    async def start(self) -> None:
        """Prepare; an unreachable queue is no error.

        Raises:
            ConfigError: a setting, template or credential cannot be used.
        """
        ...

    async def run(self) -> None:
        """Fetch and produce until `stop`, then return within its limit; faults of queue and broker are waited out."""
        ...

    def stop(self, limit_s: float) -> None:
        """Take no more; what is in progress may take `limit_s`, then it is given back to the queue."""
        ...

    async def aclose(self) -> None:
        """Let go of connections and threads; after `run`."""
        ...

    def unready(self) -> list[str]:
        """Return why nothing is taken at the moment, as slugs; empty when all is well."""
        ...
