"""Where a worker copies an outcome for the gateway instance that waits for it.

The copy lies on the replies topic, in the partition the address names. Any number of instances may share a partition:
a reader takes what carries its own instance and skips the rest. Which request an outcome answers is said by the
outcome's id, which the gateway derives before it produces the event (`contracts.envelope.result_id`).
"""

import re
from typing import NamedTuple

_ADDRESS = re.compile(r"([0-9]{1,6})\.([0-9a-f]{32})")


class ReplyAddress(NamedTuple):
    """A partition of the replies topic, and who reads it there.

    Attributes:
        instance: 32 hexadecimal digits, random per process, so that no two ever agree on one.
    """

    partition: int
    instance: str

    def __str__(self) -> str:
        """Return it as the event attribute `replyto` carries it."""
        return f"{self.partition}.{self.instance}"


def reply_address(text: str) -> ReplyAddress | None:
    """Read an address; None when it is none."""
    found = _ADDRESS.fullmatch(text)
    return None if found is None else ReplyAddress(int(found[1]), found[2])
