"""How much may be open at a time: WebSockets in all and of a key, requests of one address; on a real listener."""

import asyncio
import base64
import json
from typing import Any

import aiohttp
import pytest

from contracts.metrics import REGISTRY
from contracts.settings import ApiKey
from gateways.ingress.callers import Callers
from gateways.server import Room
from tests.gateways.test_streams import KEY, STREAMS, Door, door, opened
from tests.support import eventually_async

__all__ = ["door"]

pytestmark = pytest.mark.usefixtures("secret_environment")


async def connect(door: Door, path: str = "/v1/stream", **headers: str) -> aiohttp.ClientWebSocketResponse:
    wanted = KEY if path == "/v1/stream" else {}
    return await door.client.ws_connect(door.url + path, headers=wanted | headers)


async def refused(door: Door, path: str = "/v1/stream", **headers: str) -> tuple[int, bool]:
    """Return the status of a handshake, and whether it says when to come again."""
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(door, path, **headers)
    return caught.value.status, "retry-after" in (caught.value.headers or {})


async def watch(door: Door, accepted: dict[str, Any], **headers: str) -> aiohttp.ClientResponse:
    """Return a stream that stays open."""
    response: aiohttp.ClientResponse = await door.get(accepted, **headers)
    return response


async def nothing_open(door: Door) -> None:
    await eventually_async(lambda: door.gateway.parts.limits.open.taken == 0)


async def test_so_many_websockets_are_open_at_a_time_and_one_that_closes_makes_room() -> None:
    async with opened(streams=STREAMS | {"max_websockets": 2}) as door:
        first, second = await connect(door), await connect(door)
        assert await refused(door) == (503, True)

        await first.close()
        await eventually_async(lambda: door.gateway.parts.caller_limits.websockets.taken == 1)
        third = await connect(door)

        for socket in (second, third):
            await socket.close()


async def test_websockets_take_no_place_of_other_connections() -> None:
    # That is why they need a limit of their own: the server lets go of a connection's place when it is upgraded.
    async with opened(Room(connections=2, websockets=8)) as door:
        sockets = [await connect(door) for _ in range(5)]
        async with door.client.get(f"{door.url}/healthz") as response:
            assert response.status == 200

        for socket in sockets:
            await socket.close()


async def test_without_room_for_websockets_there_are_none() -> None:
    async with opened(Room(connections=64, websockets=0)) as door:
        assert await refused(door) == (405, False)


async def test_a_key_has_so_many_websockets_and_others_are_not_affected(door: Door) -> None:
    accepted = await door.accepted()
    section = {"id": "crm", "key": "env:TEST_API_KEY", "limit": {"websockets": 1}}
    door.gateway.parts.callers.adopt(Callers([ApiKey.model_validate(section)]))
    labels = {"key_id": "crm", "limit": "websockets"}
    before = REGISTRY.get_sample_value("penstock_caller_rate_limited_total", labels) or 0.0
    socket = await connect(door)

    assert await refused(door) == (429, True)
    assert REGISTRY.get_sample_value("penstock_caller_rate_limited_total", labels) == before + 1
    with_ticket = await connect(door, accepted["stream_url"])
    for one in (socket, with_ticket):
        await one.close()


async def test_an_address_has_so_many_requests_open_and_probes_are_none_of_them() -> None:
    async with opened(overload={"max_open_per_peer": 2}) as door:
        accepted = await door.accepted()
        await nothing_open(door)
        stream, socket = await watch(door, accepted), await connect(door)

        async with door.get(accepted) as response:
            assert (response.status, response.headers["connection"]) == (429, "close")
            assert "retry-after" in response.headers
            assert json.loads(await response.read())["reason"] == "rate_limited"
        assert await refused(door) == (429, True)
        async with door.client.get(f"{door.url}/healthz") as response:
            assert response.status == 200

        stream.close()
        await eventually_async(lambda: door.gateway.parts.limits.open.taken == 1)
        async with door.get(accepted) as response:
            assert response.status == 200
        await socket.close()
        await nothing_open(door)


async def test_a_body_that_comes_slowly_is_a_request_that_is_open() -> None:
    async with opened(overload={"max_open_per_peer": 1}, body_timeout_s=20) as door:
        host, _, port = door.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"POST /webhooks/github HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n1")
        await eventually_async(lambda: door.gateway.parts.limits.open.taken == 1)

        async with door.client.post(f"{door.url}/webhooks/github", data=b"{}") as response:
            assert response.status == 429
        writer.close()
        await nothing_open(door)


async def test_the_address_is_the_one_that_a_trusted_proxy_names() -> None:
    async with opened(overload={"max_open_per_peer": 1, "trusted_proxies": ["127.0.0.1/32"]}) as door:
        accepted = await door.accepted()
        await nothing_open(door)
        one, other = {"X-Forwarded-For": "203.0.113.1"}, {"X-Forwarded-For": "203.0.113.2"}
        streams = [await watch(door, accepted, **one), await watch(door, accepted, **other)]

        assert [stream.status for stream in streams] == [200, 200]
        async with door.get(accepted, **one) as response:
            assert response.status == 429
        for stream in streams:
            stream.close()


async def test_the_connection_of_a_handshake_that_is_one_too_many_is_closed() -> None:
    async with opened(overload={"max_open_per_peer": 1}) as door:
        socket = await connect(door)
        host, _, port = door.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        lines = (b"Host: a", b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13")
        key = b"Sec-WebSocket-Key: " + base64.b64encode(bytes(16))
        writer.write(b"\r\n".join((b"GET /v1/stream HTTP/1.1", *lines, key, b"", b"")))

        async with asyncio.timeout(2):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 429 ")
        writer.close()
        await socket.close()
