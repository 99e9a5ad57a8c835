"""The aiohttp client keeps the protocol."""

import asyncio

import pytest

from streams.providers.transport import general
from streams.providers.transport.general import General
from tests.suites.transport import OK, TransportSuite, always, serving
from tests.support import eventually_async


class TestGeneral(TransportSuite):
    """General, on aiohttp."""

    kind = General


async def test_a_connection_keeps_nothing_of_the_calls_that_it_has_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the interest of each call in its end, one that lives for days grew by some 200 bytes a call."""
    looked: list[asyncio.Future[None]] = []
    monkeypatch.setattr(general, "_seen", looked.append)
    test = TestGeneral()
    async with serving(always(OK)) as server, test.to(server.port) as transport:
        for _ in range(20):
            await transport.post("/x", b"{}", {}, 5.0)
        assert server.connections == 1
        await server.end()
        await eventually_async(lambda: bool(looked))

    assert len(looked) == 1
