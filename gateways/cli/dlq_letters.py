"""What lies on the dead-letter topic: letters, what became of them, and records that are neither."""

from dataclasses import dataclass

from contracts.codec import dead_letter, resolution
from contracts.envelope import EXPIRY_TIME
from contracts.errors import Undecodable
from contracts.payloads import DeadLetter, Resolution
from gateways.cli.reading import Read
from gateways.cli.wording import attribute


@dataclass(frozen=True)
class Letter:
    """A record of the dead-letter topic that is not a resolution.

    Attributes:
        why: why it ended here; None when that is missing or not readable.
        fault: what is wrong with a record without `why`.
    """

    record: Read
    why: DeadLetter | None
    fault: str = ""

    @property
    def place(self) -> str:
        """Return what `penstock dlq show` wants to hear."""
        return f"{self.record.partition}/{self.record.offset}"

    @property
    def event_id(self) -> str:
        """Return the event's id, as far as it is readable."""
        return attribute(self.record, "id")

    @property
    def source(self) -> str:
        """Return the event's source, as far as it is readable."""
        return attribute(self.record, "source")

    @property
    def type(self) -> str:
        """Return the event's type, as far as it is readable."""
        return attribute(self.record, "type")

    @property
    def expiry_time(self) -> str:
        """Return the event's own deadline; empty when it has none."""
        return attribute(self.record, EXPIRY_TIME)

    @property
    def size_bytes(self) -> int:
        """Return bytes of key, value and headers."""
        headers = sum(len(name) + len(raw or b"") for name, raw in self.record.headers)
        return headers + len(self.record.key or b"") + len(self.record.value or b"")


def read_letter(record: Read) -> Letter | Resolution:
    """Return what a record of the dead-letter topic is; one that is not ours, or broken, is a letter with a fault."""
    try:
        resolved = resolution(record.headers)
        return resolved or Letter(record, dead_letter(record.headers))
    except Undecodable as error:
        return Letter(record, None, str(error))
