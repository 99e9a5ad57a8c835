"""The own client keeps the protocol."""

from streams.providers.transport.lean import Lean
from tests.suites.transport import TransportSuite


class TestLean(TransportSuite):
    """Lean."""

    kind = Lean
