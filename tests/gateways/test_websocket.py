"""Streams over a WebSocket, on a real listener with a third party's client, without Kafka."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from contracts import tallies
from contracts.errors import LogUnavailable
from contracts.metrics import REGISTRY
from contracts.settings import ApiKey
from gateways.ingress.callers import Callers
from tests.gateways.driver import API_KEY, Gateway
from tests.gateways.live_lab import EPOCH
from tests.gateways.test_streams import KEY, Door, door, narrow_connection, watchers
from tests.stream_client import Frame, Shown
from tests.support import eventually_async

__all__ = ["door"]


class Socket:
    """One connection, and what it has said."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send_str(json.dumps(message))

    async def submit(self, event_id: str = "e1", **more: Any) -> None:
        event = {"specversion": "1.0", "id": event_id, "source": "crm", "type": "t", "data": {"n": 1}, **more}
        await self.say(type="submit", event=event)

    async def next(self, *kinds: str) -> Frame:
        """Return the next frame of these kinds; signs of life are left out."""
        while True:
            message = await self.connection.receive(timeout=10)
            assert message.type is aiohttp.WSMsgType.TEXT, message
            frame: Frame = json.loads(message.data)
            if frame["type"] in kinds or (not kinds and frame["type"] != "ping"):
                return frame

    async def closed(self) -> int:
        """Return the close code, once the server has closed."""
        while (message := await self.connection.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert message.type in {aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED}, message
        return self.connection.close_code or 0


def connect(door: Door, path: str = "/v1/stream", **more: Any) -> Any:
    return door.client.ws_connect(door.url + path, **more)


@pytest.fixture
async def ws(door: Door) -> AsyncIterator[Socket]:
    async with connect(door, headers=KEY) as connection:
        yield Socket(connection)


async def test_an_event_is_submitted_and_its_answer_grows(door: Door, ws: Socket) -> None:
    await ws.submit()
    shown = Shown()
    shown.take(await ws.next())
    (record,) = door.gateway.records
    door.lab.say("e1", "Good ", "day", "", ending="succeeded")
    door.lab.finish("e1", "Good day")
    while shown.last is None:
        shown.take(await ws.next())

    assert (record.topic, record.value) == ("penstock.events.interactive.v1", b'{"n": 1}')
    assert (shown.text, shown.gaps, shown.last["result"]["output"]) == ("Good day", 0, "Good day")
    await eventually_async(lambda: watchers() == 0)


async def test_an_event_that_is_submitted_again_is_the_first_one(door: Door, ws: Socket) -> None:
    await ws.submit()
    await ws.next("accepted")
    door.lab.say("e1", "Good day", ending="succeeded")
    door.lab.finish("e1", "Good day")
    await ws.next("result")
    await eventually_async(lambda: watchers() == 0)

    await ws.submit()
    frames = [await ws.next() for _ in range(3)]

    assert [frame["type"] for frame in frames] == ["accepted", "delta", "result"]
    assert frames[0]["duplicate"] is True
    assert len(door.gateway.records) == 1


async def test_an_id_that_is_known_with_another_body_is_no_event(door: Door, ws: Socket) -> None:
    await ws.submit()
    await ws.next("accepted")

    await ws.submit(data={"n": 2})
    refused = await ws.next("error")

    assert (refused["reason"], refused["status"]) == ("id_reused", "refused")
    assert len(door.gateway.records) == 1


async def test_a_key_over_its_limit_is_told_so_and_the_connection_stays(door: Door) -> None:
    section = {"id": "crm", "key": "env:TEST_API_KEY", "limit": {"events": {"events_per_s": 0.05, "burst": 1}}}
    door.gateway.parts.callers.adopt(Callers([ApiKey.model_validate(section)]))
    async with connect(door, headers=KEY) as connection:
        limited = Socket(connection)
        await limited.submit("e1")
        assert (await limited.next())["type"] == "accepted"
        await limited.submit("e2")

        refusal = await limited.next("error")
        await limited.say(type="ping")

        assert (refusal["reason"], refusal["status"]) == ("rate_limited", "refused")
        assert refusal["retry_after_s"] > 15
        assert (await limited.next("pong"))["type"] == "pong"


async def test_a_stream_goes_on_at_either_door_from_where_it_was(door: Door, ws: Socket) -> None:
    accepted = await door.accepted()
    door.lab.say("e1", "a", "b", "c")
    ticket = accepted["stream_url"].partition("ticket=")[2]
    await ws.say(type="watch", id="e1", ticket=ticket, after=f"{EPOCH}.2")

    assert (await ws.next())["text"] == "c"


async def test_a_ticket_in_the_url_needs_no_key(door: Door) -> None:
    accepted = await door.accepted()
    door.lab.say("e1", "a", "b")
    async with connect(door, f"{accepted['stream_url']}&last_event_id={EPOCH}.1") as connection:
        ws = Socket(connection)
        assert (await ws.next())["text"] == "b"
        await ws.submit("e2")
        refused = await ws.next()

    assert (refused["type"], refused["reason"]) == ("error", "unauthenticated")


async def test_a_browser_brings_its_key_as_a_subprotocol(door: Door) -> None:
    key = base64.urlsafe_b64encode(API_KEY.encode()).decode().rstrip("=")
    async with connect(door, protocols=("penstock.v1", f"penstock.key.{key}")) as connection:
        assert connection.protocol == "penstock.v1"
        ws = Socket(connection)
        await ws.submit()
        assert (await ws.next())["type"] == "accepted"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/stream", {}, 401),
        ("/v1/stream", {"Authorization": "Bearer wrong-key-of-some-length"}, 401),
        ("/v1/stream", {"Sec-WebSocket-Protocol": "penstock.v1, penstock.key.!"}, 401),
        ("/v1/stream", KEY | {"Origin": "https://evil.example"}, 403),
        ("/v1/stream/e1?ticket=forged", {}, 404),
        ("/v1/streams", KEY, 404),
    ],
)
async def test_who_may_not_connect_is_refused_with_the_status_of_http(
    door: Door, path: str, headers: dict[str, str], status: int
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with connect(door, path, headers=headers):
            pass

    assert refused.value.status == status


async def test_pages_of_our_own_and_of_allowed_origins_may_connect(door: Door) -> None:
    for origin in (door.url, "https://app.example.com"):
        async with connect(door, headers=KEY, origin=origin):
            pass


async def test_ping_is_answered_and_signs_of_life_come(ws: Socket) -> None:
    await ws.say(type="ping")

    assert (await ws.next("pong"))["type"] == "pong"
    assert (await ws.next("ping"))["type"] == "ping"


@pytest.mark.parametrize(
    "message",
    ["{", "[]", '{"type": "dance"}', '{"type": "watch", "id": "e1"}', '{"type": "submit", "event": {"id": "x"}}',
     '{"type": "watch", "id": "e1", "ticket": "forged"}', "\u0000"],
)  # fmt: skip
async def test_a_message_that_is_none_is_answered_and_the_connection_stays(ws: Socket, message: str) -> None:
    await ws.connection.send_str(message)
    assert (await ws.next())["type"] == "error"

    await ws.submit()

    assert (await ws.next())["type"] == "accepted"


async def test_an_event_is_watched_once_per_connection_and_can_be_let_go(door: Door, ws: Socket) -> None:
    await ws.submit()
    accepted = await ws.next()
    ticket = accepted["stream_url"].partition("ticket=")[2]
    await ws.say(type="watch", id="e1", ticket=ticket)
    assert (await ws.next())["reason"] == "invalid_payload"

    await ws.say(type="unwatch", id="e1")
    await eventually_async(lambda: watchers() == 0)
    door.lab.say("e1", "unheard")
    await ws.say(type="ping")

    assert (await ws.next())["type"] == "pong"


async def test_a_connection_has_its_share_of_the_places(ws: Socket) -> None:
    for number in range(3):
        await ws.submit(f"e{number}")
        assert (await ws.next())["type"] == "accepted"
    await ws.submit("e4")
    refused = await ws.next()

    assert (refused["reason"], refused["retry_after_s"]) == ("busy", 5.0)


async def test_a_message_that_is_too_large_ends_the_connection(ws: Socket) -> None:
    await ws.connection.send_str("x" * 2000)

    assert await ws.closed() == 1009


async def test_who_is_refused_is_not_listened_to(door: Door) -> None:
    host, _, port = door.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    key = base64.b64encode(bytes(16)).decode()
    writer.write(
        b"GET /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
    )
    assert (await reader.readline()).split()[1] == b"401"
    # The beginning of a message, in frames of 64 KiB, of which the server would hold 64 MiB.
    frame = b"\xff" + (2**16).to_bytes(8, "big") + bytes(4 + 2**16)

    async def send() -> None:
        for number in range(2**10):
            writer.write((b"\x00" if number else b"\x01") + frame)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await send()
    writer.close()


async def test_a_gateway_that_ends_says_so(door: Door, ws: Socket) -> None:
    await ws.submit()
    door.gateway.parts.live.end()

    assert await ws.closed() == 1001


async def test_places_are_given_back_when_the_client_leaves(door: Door, ws: Socket) -> None:
    await ws.submit()
    await ws.next()
    assert watchers() == 1

    await ws.connection.close()

    await eventually_async(lambda: watchers() == 0)
    await eventually_async(lambda: not door.gateway.api.in_progress)


async def test_a_client_that_does_not_read_is_let_go(door: Door) -> None:
    accepted = await door.accepted()
    _, writer = await narrow_connection(door)
    key = base64.b64encode(b"0123456789abcdef").decode()
    lines = ("Host: a", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    head = "\r\n".join((f"GET {accepted['stream_url']} HTTP/1.1", *lines, f"Sec-WebSocket-Key: {key}"))
    labels = {"protocol": "websocket", "outcome": "slow"}
    before = REGISTRY.get_sample_value("penstock_stream_watchers_ended_total", labels) or 0.0
    writer.write(f"{head}\r\n\r\n".encode())
    for number in range(1, 201):
        door.lab.say("e1", "x" * 60_000, first=number)

    await eventually_async(
        lambda: REGISTRY.get_sample_value("penstock_stream_watchers_ended_total", labels) == before + 1
    )
    await eventually_async(lambda: watchers() == 0)
    writer.close()
    await asyncio.sleep(0)


async def test_a_message_that_is_nested_too_deep_is_refused_and_the_connection_stays(ws: Socket) -> None:
    # As deep as the limit of this gateway's messages lets it be; below these frames it is too deep for the decoder.
    await ws.connection.send_str('{"type":"submit","event":' + "[" * 970)
    refusal = await ws.next("error")
    await ws.say(type="ping")

    assert (refusal["reason"], refusal["status"]) == ("invalid_payload", "refused")
    assert (await ws.next("pong"))["type"] == "pong"


async def test_an_origin_that_is_none_is_refused_like_any_other(door: Door) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
        await connect(door, headers=KEY | {"Origin": "http://["})

    assert caught.value.status == 403


async def test_a_key_that_was_taken_away_submits_nothing_more_and_what_is_watched_goes_on(
    door: Door, ws: Socket
) -> None:
    await ws.submit("e1")
    await ws.next("accepted")
    section = {"id": "billing", "key": "env:TEST_OTHER_API_KEY"}
    door.gateway.parts.callers.adopt(Callers([ApiKey.model_validate(section)]))
    await ws.submit("e2")
    refusal = await ws.next("error")
    door.lab.say("e1", "Good day")

    assert (refusal["reason"], refusal["status"]) == ("unauthenticated", "refused")
    assert (await ws.next("delta"))["text"] == "Good day"
    assert len(door.gateway.records) == 1


async def test_the_length_of_a_message_is_that_of_its_bytes(ws: Socket) -> None:
    await ws.connection.send_str("\u00e9" * 600)

    assert await ws.closed() == 1009


async def test_nothing_of_a_message_is_kept_while_the_next_one_is_waited_for(gateway: Gateway) -> None:
    text = json.dumps({"type": "ping", "more": "x" * 500})
    before = sys.getrefcount(text)
    incoming: list[dict[str, Any]] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": text}]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    lines = [(b"host", b"a"), (b"authorization", b"Bearer " + API_KEY.encode())]
    scope = {"type": "websocket", "path": "/v1/stream", "headers": lines, "client": ("127.0.0.1", 50_000)}
    serving = asyncio.ensure_future(gateway.api(scope, receive, send))
    await eventually_async(lambda: any("pong" in message.get("text", "") for message in sent))

    # The reader has come back to where it waits.
    await eventually_async(lambda: sys.getrefcount(text) == before)
    gateway.parts.live.end()
    await serving


async def test_of_kafkas_troubles_a_watcher_hears_no_more_than_that_they_are_there(door: Door, ws: Socket) -> None:
    accepted = await door.accepted()
    ticket = accepted["stream_url"].partition("ticket=")[2]
    door.gateway.results.error = LogUnavailable("Kafka cannot be read: broker-1.internal:9092 refuses")
    await ws.say(type="watch", id="e1", ticket=ticket)
    refusal = await ws.next("error")
    door.gateway.results.error = None

    assert refusal["reason"] == "log_unavailable"
    assert "broker-1" not in json.dumps(refusal)


async def test_a_refused_handshake_is_counted_and_logged_as_any_other_request(door: Door) -> None:
    labels = {"endpoint": "websocket", "status": "401"}
    before = REGISTRY.get_sample_value("penstock_http_requests_total", labels) or 0.0
    with capture_logs() as lines:
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await connect(door, headers={"Authorization": "Bearer wrong-key-of-some-length"})
        door.gateway.api.log.flush()
    tallies.flush()

    assert REGISTRY.get_sample_value("penstock_http_requests_total", labels) == before + 1
    (line,) = [line for line in lines if line["event"] == "request.refused"]
    assert (line["path"], line["status"], line["reason"]) == ("/v1/stream", 401, "unauthenticated")
