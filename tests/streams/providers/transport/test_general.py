"""The aiohttp client keeps the protocol."""

from streams.providers.transport.general import General
from tests.suites.transport import TransportSuite


class TestGeneral(TransportSuite):
    """General, on aiohttp."""

    kind = General
