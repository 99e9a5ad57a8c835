"""Server-sent events over a real listener, without Kafka: admission, limits, clients that leave or do not read."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from contracts.codec import Position
from contracts.deltas import read_cancel
from contracts.metrics import REGISTRY
from contracts.settings import Settings
from gateways import listening
from gateways.listening import listen
from gateways.server import Room, Server, serve
from tests.gateways.driver import API_KEY, CONFIGURATION, OTHER_API_KEY, Gateway
from tests.gateways.live_lab import EPOCH, LiveLab
from tests.stream_client import Frame, Shown, events_of
from tests.support import eventually_async

STREAMS = {
    "max_watchers": 3,
    "heartbeat_s": 0.1,
    "send_timeout_s": 1.0,
    "max_answer_bytes": 40_000_000,
    "allowed_origins": ["https://app.example.com"],
}
KEY = {"Authorization": f"Bearer {API_KEY}"}


class Door:
    """A gateway behind a listener, its log by hand, and a client.

    Attributes:
        url: of the gateway.
        client: of aiohttp.
        lab: the log.
    """

    def __init__(self, url: str, client: aiohttp.ClientSession, lab: LiveLab) -> None:
        self.url = url
        self.client = client
        self.lab = lab
        self.gateway = lab.gateway

    def post(self, event_id: str = "e1", **more: str) -> Any:
        headers = KEY | {"ce-type": "t", "ce-id": event_id} | {name.replace("_", "-"): v for name, v in more.items()}
        return self.client.post(f"{self.url}/v1/stream", headers=headers, data=b"go")

    def get(self, accepted: Frame, at: str = "", **headers: str) -> Any:
        if at:
            headers["Last-Event-ID"] = at
        return self.client.get(self.url + accepted["stream_url"], headers=headers)

    async def accepted(self, event_id: str = "e1") -> Frame:
        """Post an event, and hang up as soon as it is accepted."""
        async with self.post(event_id) as response:
            return await anext(events_of(response))


ROOM = Room(4096, 1000)


@contextlib.asynccontextmanager
async def opened(room: Room = ROOM, **settings: Any) -> AsyncIterator[Door]:
    """Serve a gateway with further settings of the gateway's section."""
    own = CONFIGURATION["gateway"] | {"streams": STREAMS} | settings
    gateway = Gateway(Settings.model_validate(CONFIGURATION | {"gateway": own}))
    await gateway.producer.start()
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(Server(gateway.api, listener, 5.0, room), stop))
    try:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as client:
            yield Door(url, client, LiveLab(gateway))
    finally:
        gateway.parts.live.end()
        stop.set()
        async with asyncio.timeout(5):
            await serving
        await asyncio.to_thread(gateway.parts.live.close)


@pytest.fixture
async def door(secret_environment: None) -> AsyncIterator[Door]:  # noqa: ARG001 - a fixture cannot use usefixtures
    async with opened() as door:
        yield door


async def read(response: aiohttp.ClientResponse, shown: Shown | None = None) -> Shown:
    shown = shown or Shown()
    async for frame in events_of(response):
        shown.take(frame)
    return shown


def watchers() -> float:
    return sum(
        REGISTRY.get_sample_value("penstock_stream_watchers", {"protocol": p}) or 0 for p in ("sse", "websocket")
    )


def ended(outcome: str) -> float:
    labels = {"protocol": "sse", "outcome": outcome}
    return REGISTRY.get_sample_value("penstock_stream_watchers_ended_total", labels) or 0.0


async def test_an_event_is_accepted_streamed_and_ends_with_its_result(door: Door) -> None:
    async with door.post() as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        reading = asyncio.ensure_future(read(response))
        await eventually_async(lambda: door.gateway.records)
        door.lab.say("e1", "Good ", "day", "", ending="succeeded")
        door.lab.finish("e1", "Good day")
        shown = await reading

    (record,) = door.gateway.records
    assert (record.topic, dict(record.headers)["ce_delivery"]) == ("penstock.events.interactive.v1", b"stream")
    assert (shown.accepted["id"], shown.text, shown.gaps, shown.ending) == ("e1", "Good day", 0, "succeeded")
    assert shown.last == {
        "type": "result", "at": "end", "id": "e1", "source": "crm", "status": "succeeded",
        "result": {"event_id": "e1", "output": "Good day"},
    }  # fmt: skip


async def test_what_cannot_be_accepted_is_refused_as_on_any_other_door(door: Door) -> None:
    async with door.client.post(f"{door.url}/v1/stream", data=b"go") as response:
        assert response.status == 401
    async with door.post(ce_delivery="notify") as response:
        assert response.status == 400
    door.gateway.producer.set_unreachable()
    async with door.post() as response:
        assert (response.status, "retry-after" in response.headers) == (503, True)
    assert watchers() == 0


async def test_who_comes_back_goes_on_where_it_was(door: Door) -> None:
    accepted = await door.accepted()
    door.lab.say("e1", "a", "b", "c")
    async with door.get(accepted, f"{EPOCH}.2") as response:
        first = await anext(events_of(response))

    assert (first["at"], first["text"]) == (f"{EPOCH}.3", "c")


async def test_the_answer_that_nothing_more_comes_is_kept_by_no_cache(door: Door) -> None:
    accepted = await door.accepted()
    async with door.get(accepted, "end") as response:
        assert (response.status, response.headers["cache-control"]) == (204, "no-store")


async def test_a_repeated_post_is_no_new_event_and_shows_the_stream_of_the_first(door: Door) -> None:
    await door.accepted()
    door.lab.say("e1", "a", "b", ending="succeeded")
    door.lab.finish("e1", "ab")
    async with door.post() as response:
        assert response.headers["penstock-duplicate"] == "true"
        shown = await read(response)

    assert len(door.gateway.records) == 1
    assert (shown.accepted["duplicate"], shown.text, shown.gaps) == (True, "ab", 0)
    assert shown.last


async def test_an_id_that_is_known_with_another_body_is_refused_since_watchers_are_known_by_id(door: Door) -> None:
    await door.accepted()
    headers = KEY | {"ce-type": "t", "ce-id": "e1"}
    async with door.client.post(f"{door.url}/v1/stream", headers=headers, data=b"another") as response:
        assert (response.status, (await response.json())["reason"]) == (422, "id_reused")

    assert len(door.gateway.records) == 1
    assert watchers() == 0


async def test_what_is_asked_for_again_is_a_new_event(door: Door) -> None:
    await door.accepted()
    async with door.post(penstock_redelivery="true") as response:
        frame = await anext(events_of(response))

    assert "duplicate" not in frame
    assert len(door.gateway.records) == 2


async def test_several_watch_one_event_each_from_where_it_is(door: Door) -> None:
    accepted = await door.accepted()
    door.lab.say("e1", "a", "b", "c", ending="succeeded")
    door.lab.finish("e1", "abc")
    shown = []
    for at in ("", f"{EPOCH}.1", f"{EPOCH}.3", "1.7"):
        async with door.get(accepted, at) as response:
            shown.append(await read(response))

    assert [(one.text, one.restarts) for one in shown[:1] + shown[3:]] == [("abc", 0), ("abc", 1)]
    assert [one.deltas for one in shown] == [3, 2, 0, 3]
    assert all(one.last for one in shown)


async def test_an_event_without_a_result_ends_in_an_error(door: Door) -> None:
    accepted = await door.accepted()
    door.lab.finish("e1")
    async with door.get(accepted) as response:
        shown = await read(response)

    assert shown.last
    assert (shown.last["type"], shown.last["status"], shown.last["reason"]) == ("error", "expired", "deadline_exceeded")


async def test_who_has_everything_gets_204_so_that_an_event_source_stays_away(door: Door) -> None:
    async with door.get(await door.accepted(), "end") as response:
        assert response.status == 204


@pytest.mark.parametrize(("change", "status"), [("?ticket=forged", 404), ("", 404)])
async def test_a_stream_needs_its_ticket(door: Door, change: str, status: int) -> None:
    async with door.client.get(f"{door.url}/v1/stream/e1{change}", headers=KEY) as response:
        assert response.status == status


async def test_an_id_of_another_kind_is_400(door: Door) -> None:
    async with door.get(await door.accepted(), "17") as response:
        assert response.status == 400


async def test_there_are_signs_of_life_while_nothing_happens(door: Door) -> None:
    async with door.get(await door.accepted()) as response:
        lines = [await response.content.readline() for _ in range(6)]

    assert lines.count(b": alive\n") == 2


async def test_there_are_as_many_watchers_as_may_be_and_a_place_is_given_back(door: Door) -> None:
    accepted = await door.accepted()
    await eventually_async(lambda: watchers() == 0)
    async with door.get(accepted), door.get(accepted), door.get(accepted):
        async with door.post("e2") as refused:
            assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert len(door.gateway.records) == 1, "nothing is accepted that nobody could watch"
    await eventually_async(lambda: watchers() == 0)

    async with door.post("e2") as response:
        assert response.status == 200


async def test_a_client_that_does_not_read_is_let_go_and_can_come_back(door: Door) -> None:
    accepted, before = await door.accepted(), ended("slow")
    reader, writer = await narrow_connection(door)
    writer.write(f"GET {accepted['stream_url']} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
    pieces = 200
    for number in range(1, pieces + 1):
        door.lab.say("e1", "x" * 60_000, first=number)
    await eventually_async(lambda: ended("slow") == before + 1)
    received = await reader.read()
    writer.close()
    shown = Shown()
    for event in received.split(b"\n\n"):
        if b"\ndata: " in event:
            shown.take(json.loads(event.partition(b"\ndata: ")[2]))
    assert 0 < shown.deltas < pieces

    door.lab.say("e1", "", first=pieces + 1, ending="succeeded")
    door.lab.finish("e1", "x")
    async with door.get(accepted, shown.at) as response:
        await read(response, shown)

    assert (len(shown.text), shown.gaps, shown.repeats) == (pieces * 60_000, 0, 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the connections of listeners made from now on go soon."""
    monkeypatch.setattr(listening, "UNREAD_LIMIT_S", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux can tell a socket to give up")
async def test_a_client_that_never_reads_loses_its_connection(door: Door) -> None:
    accepted, before = await door.accepted(), ended("slow")
    _, writer = await narrow_connection(door)
    writer.write(f"GET {accepted['stream_url']} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    for number in range(1, 201):
        door.lab.say("e1", "x" * 60_000, first=number)
    await eventually_async(lambda: ended("slow") == before + 1)

    def is_reset() -> bool:
        # Who gave a connection up says so to the next byte.
        writer.write(b"x")
        return writer.transport.is_closing()

    assert await eventually_async(is_reset, within_s=20)


async def narrow_connection(door: Door) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with a small window, so that what is not read soon fills it; the reader stops at little."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.setblocking(False)
    await asyncio.get_running_loop().sock_connect(narrow, ("127.0.0.1", int(door.url.rpartition(":")[2])))
    return await asyncio.open_connection(sock=narrow, limit=1024)


async def test_a_gateway_that_ends_lets_its_watchers_go(door: Door) -> None:
    async with door.get(await door.accepted()) as response:
        door.gateway.parts.live.end()
        shown = await read(response)

    assert shown.last is None
    assert ended("stopping") >= 1


@pytest.mark.parametrize(("origin", "allowed"), [("https://app.example.com", True), ("https://evil.example", False)])
async def test_pages_of_allowed_origins_may_read_a_stream(door: Door, origin: str, *, allowed: bool) -> None:
    async with door.get(await door.accepted(), Origin=origin) as response:
        assert (response.headers.get("access-control-allow-origin") == origin) is allowed
        assert response.headers["vary"].lower() == "origin"


async def test_a_head_request_holds_no_place(door: Door) -> None:
    accepted = await door.accepted()
    async with door.client.head(door.url + accepted["stream_url"]) as response:
        assert response.status == 200
    await eventually_async(lambda: watchers() == 0)


async def test_a_cancel_goes_to_the_log_beside_its_event(door: Door) -> None:
    accepted = await door.accepted()
    async with door.client.delete(door.url + accepted["stream_url"], headers=KEY) as response:
        assert (response.status, await response.json()) == (202, {"id": "e1", "source": "crm", "status": "cancelling"})

    event, cancel = door.gateway.producer.stored
    assert (cancel.record.topic, cancel.position.partition) == ("penstock.cancels.v1", event.position.partition)
    assert read_cancel(cancel.record.value) == Position(*event.position)


async def test_what_has_its_outcome_cannot_be_cancelled(door: Door) -> None:
    accepted = await door.accepted()
    door.lab.finish("e1", "Good day")
    async with door.client.delete(door.url + accepted["stream_url"], headers=KEY) as response:
        assert (response.status, (await response.json())["status"]) == (200, "succeeded")
    assert len(door.gateway.records) == 1


@pytest.mark.parametrize(("headers", "status"), [({}, 401), ({"Authorization": f"Bearer {OTHER_API_KEY}"}, 403)])
async def test_a_ticket_may_watch_and_not_cancel(door: Door, headers: dict[str, str], status: int) -> None:
    accepted = await door.accepted()
    async with door.client.delete(door.url + accepted["stream_url"], headers=headers) as response:
        assert response.status == status
    assert len(door.gateway.records) == 1


async def test_a_path_names_all_its_methods(door: Door) -> None:
    async with door.client.put(f"{door.url}/v1/stream/e1") as response:
        assert (response.status, response.headers["allow"]) == (405, "GET, HEAD, DELETE")
