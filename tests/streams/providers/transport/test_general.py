"""The aiohttp client keeps the protocol."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import aiohttp
import pytest

from streams.providers.transport import general
from streams.providers.transport.general import General
from tests.suites.transport import OK, Address, TransportSuite, always, serving
from tests.support import eventually_async


class TestGeneral(TransportSuite):
    """General, on aiohttp."""

    kind = General

    @staticmethod
    def resolve(patch: pytest.MonkeyPatch, addresses: Sequence[Address]) -> None:
        async def found(*_: Any, **__: Any) -> list[dict[str, Any]]:
            rest = {"hostname": "models.test", "family": socket.AF_INET, "proto": 0, "flags": socket.AI_NUMERICHOST}
            return [{"host": host, "port": port, **rest} for host, port in addresses]

        patch.setattr(aiohttp.DefaultResolver, "resolve", found)


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
