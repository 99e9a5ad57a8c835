"""Connections of aiokafka that are lost, under the event loop that workers have."""

import asyncio
import base64
import contextlib
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web
from aiohttp.test_utils import RawTestServer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.admin import SaslAuthenticateRequest
from aiokafka.protocol.metadata import MetadataRequest
from structlog.testing import capture_logs

from contracts.errors import ConfigError, LogUnavailable
from contracts.settings import KafkaSettings
from streams import connections, fetching
from streams.connections import Tokens, hear_lost_connections
from tests.support import FakeClock, eventually_async

# `struct linger`: closing resets.
AT_ONCE = struct.pack("ii", 1, 0)
BOOTSTRAP = ("bootstrap", ConnectionGroup.DEFAULT)


@contextlib.asynccontextmanager
async def lost(client: AIOKafkaClient) -> AsyncIterator[AIOKafkaConnection]:
    """Give a connection of a client in the turn of the loop in which it was reset: its reader has not heard of it."""
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda _reader, writer: accepted.set_result(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = AIOKafkaConnection("127.0.0.1", port, on_close=client._on_connection_closed)
    connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
    connection._read_task = asyncio.ensure_future(asyncio.Event().wait())
    connection._versions = {MetadataRequest.API_KEY: (0, 5)}
    client._conns[BOOTSTRAP] = connection
    broker = await accepted
    broker.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    broker.transport.abort()
    await eventually_async(lambda: connection._reader.exception() is not None, within_s=10)
    try:
        yield connection
    finally:
        server.close()


def test_a_request_on_a_connection_that_was_just_reset_is_to_be_made_again() -> None:
    async def send() -> None:
        fetching._mend_fetcher()
        async with lost(AIOKafkaClient()) as connection:
            with pytest.raises(KafkaConnectionError, match="broken: unable to perform operation"):
                await connection.send(MetadataRequest([]))
            assert not connection.connected()

    uvloop.run(send())


def test_whoever_learns_where_the_brokers_are_goes_on_behind_a_reset() -> None:
    """The task of aiokafka for it ended there, and a worker never found its group's coordinator again."""

    async def learn() -> None:
        fetching._mend_fetcher()
        client = AIOKafkaClient()
        async with lost(client):
            client._sync_task = asyncio.ensure_future(client._md_synchronizer())
            assert await asyncio.wait_for(client.force_metadata_update(), 10) is False
            assert not client._sync_task.done()
            client._sync_task.cancel()

    uvloop.run(learn())


def test_other_runtime_errors_stay_what_they_are() -> None:
    class Writer:
        transport = SimpleNamespace(is_closing=lambda: False)

        def write(self, _data: bytes) -> None:
            message = "another"
            raise RuntimeError(message)

    async def send() -> None:
        fetching._mend_fetcher()
        connection = AIOKafkaConnection("127.0.0.1", 1)
        connection._writer, connection._versions = Writer(), {MetadataRequest.API_KEY: (0, 5)}
        with pytest.raises(RuntimeError, match="another"):
            await connection.send(MetadataRequest([]))

    asyncio.run(send())


async def test_other_key_errors_stay_what_they_are() -> None:
    async def send(*_request: object, **_group: object) -> None:
        raise KeyError(1)

    client: Any = SimpleNamespace(send=send, _conns={})
    hear_lost_connections(client)
    with pytest.raises(KeyError):
        await client.send(1, MetadataRequest([]))


# --- connections that run out


@contextlib.asynccontextmanager
async def authenticated(life_ms: int | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Any, Any]]:
    """Give a client, and its connection, after the broker has said how long it takes requests."""
    monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=CLOCK))
    fetching._mend_fetcher()
    client, connection = AIOKafkaClient(), AIOKafkaConnection("127.0.0.1", 1)
    connection._on_close_cb = client._on_connection_closed
    connection._reader = SimpleNamespace(at_eof=lambda: False)
    connection._writer = SimpleNamespace(write=lambda _data: None, close=lambda: None)
    connection._read_task = asyncio.ensure_future(asyncio.Event().wait())
    connection._versions = {
        MetadataRequest.API_KEY: (0, 5),
        SaslAuthenticateRequest.API_KEY: (0, 0 if life_ms is None else 1),
    }
    client._conns[BOOTSTRAP] = connection
    asked = asyncio.ensure_future(connection.send(SaslAuthenticateRequest(b"token")))
    await eventually_async(lambda: connection._requests)
    fields = {} if life_ms is None else {"session_lifetime_ms": life_ms}
    connection._requests.popleft()[2].set_result(SimpleNamespace(error_code=0, **fields))
    await asked

    async def answer(*_request: object, **_group: object) -> Any:
        return connection.connected()

    client.send = answer
    hear_lost_connections(client)
    yield client, connection
    connection.close()


CLOCK = FakeClock()


@pytest.mark.parametrize(
    ("life_ms", "after_s", "is_kept"), [(10_000, 7.9, True), (10_000, 8.1, False), (0, 1e9, True), (None, 1e9, True)]
)
async def test_a_connection_is_made_anew_before_the_broker_ends_it(
    life_ms: int | None, after_s: float, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authenticated(life_ms, monkeypatch) as (client, _):
        CLOCK.advance(after_s)
        assert await client.send("bootstrap", MetadataRequest([])) is is_kept


async def test_a_connection_on_which_somebody_waits_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async with authenticated(10_000, monkeypatch) as (client, connection):
        CLOCK.advance(9)
        waiting = asyncio.ensure_future(connection.send(MetadataRequest([])))
        await eventually_async(lambda: connection._requests)
        assert await client.send("bootstrap", MetadataRequest([])) is True
        connection._requests.popleft()[2].set_result(None)
        await waiting
        assert await client.send("bootstrap", MetadataRequest([])) is False


# --- tokens


class Endpoint:
    """Gives tokens, or what it is told to raise."""

    def __init__(self, life_s: float) -> None:
        self.life_s = life_s
        self.asked = 0
        self.fault: Exception | None = None

    async def __call__(self) -> tuple[str, float]:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return f"token-{self.asked}", self.life_s


async def test_a_token_is_shown_until_the_next_one_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LEAST_PAUSE_S", 0.0)
    clock, endpoint = FakeClock(), Endpoint(0.05)
    tokens = Tokens(endpoint, {}, clock)

    assert [await tokens.token() for _ in range(3)] == ["token-1"] * 3
    # Nobody asks meanwhile.
    await eventually_async(lambda: endpoint.asked >= 2)
    assert (await tokens.token()) in {"token-2", "token-3"}


async def test_a_valid_token_outlives_an_endpoint_that_is_away_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "_LEAST_PAUSE_S", 0.0)
    clock, endpoint = FakeClock(), Endpoint(0.05)
    tokens = Tokens(endpoint, {}, clock)
    assert await tokens.token() == "token-1"
    endpoint.fault = ValueError("the token endpoint answers 503")
    with capture_logs() as told:
        await eventually_async(lambda: told)

    assert await tokens.token() == "token-1"
    assert [line["event"] for line in told] == ["kafka.token_refused"]
    clock.advance(10)
    with pytest.raises(KafkaConnectionError, match="no token for Kafka: the token endpoint answers 503"):
        await tokens.token()
    endpoint.fault = None
    asked = endpoint.asked
    with pytest.raises(KafkaConnectionError):
        await tokens.token()
    assert endpoint.asked == asked
    clock.advance(5)
    assert (await tokens.token()).startswith("token-")


@pytest.mark.parametrize(
    "fault",
    [
        LogUnavailable("x"),
        ConfigError("x"),
        TimeoutError("x"),
        aiohttp.ClientError("x"),
        ValueError("x"),
        RuntimeError("x"),
        AttributeError("x"),
    ],
)
async def test_whatever_goes_wrong_is_a_broker_that_cannot_be_reached_and_is_tried_again(
    fault: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_ASK_AGAIN_S", 0.02)
    endpoint = Endpoint(60)
    endpoint.fault = fault
    tokens = Tokens(endpoint, {}, FakeClock())

    with pytest.raises(KafkaConnectionError, match="there is no token for Kafka: x"):
        await tokens.token()
    # In the background, too.
    await eventually_async(lambda: endpoint.asked >= 3)
    endpoint.fault = None
    await eventually_async(lambda: tokens._text)
    assert (await tokens.token()).startswith("token-")


async def test_a_token_that_ends_at_once_is_not_asked_for_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, endpoint = FakeClock(), Endpoint(0.25)
    tokens = Tokens(endpoint, {}, clock)
    assert await tokens.token() == "token-1"
    assert tokens._timer is not None
    assert tokens._timer.when() - asyncio.get_running_loop().time() > 0.9
    monkeypatch.setattr(connections, "_NO_TOKEN_S", 0.0)
    clock.advance(0.9)
    for _ in range(5):
        with pytest.raises(KafkaConnectionError, match=r"the last one was valid for 0\.25 s only"):
            await tokens.token()

    assert endpoint.asked == 1
    clock.advance(0.2)
    assert await tokens.token() == "token-2"


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"error": "invalid_client", "error_description": "unknown"}', "answers 400: invalid_client: unknown"),
        (200, b'{"access_token": "t"}', "answers 200: the answer has no access_token and expires_in"),
        (200, b'{"error": "slow_down", "access_token": "t", "expires_in": 5}', "answers 200: slow_down"),
        (200, b"<html>", "answers 200: the answer has no access_token and expires_in"),
        (200, b"[]", "answers 200: the answer has no access_token and expires_in"),
        (200, b'{"access_token": null, "expires_in": 5}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "", "expires_in": 5}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "t", "expires_in": 0}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "t", "expires_in": -5}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "t", "expires_in": NaN}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "t", "expires_in": 1e999}', "the answer's access_token or expires_in cannot be used"),
        (200, b'{"access_token": "t", "expires_in": null}', "the answer has no access_token and expires_in"),
        (503, b'{"a": 1}', "answers 503: nothing of a token"),
        (302, b"", "answers 302: the answer has no access_token and expires_in"),
    ],
)
def test_what_is_no_token_is_told(status: int, body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connections._token_in(status, body)


def test_a_token_and_its_life_are_read() -> None:
    assert connections._token_in(200, b'{"access_token": "t", "expires_in": "3600"}') == ("t", 3600.0)


def kafka_with(token_url: str) -> KafkaSettings:
    oauth: Any = {"token_url": token_url, "client_id": "me", "client_secret": "env:PENSTOCK_TEST_OAUTH"}
    return KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth=oauth)


@pytest.mark.parametrize("scheme", ["http://", "", "//"])
async def test_the_token_endpoint_is_asked_through_the_proxy_of_the_environment(
    scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a scheme it is one of HTTP, as of curl and librdkafka."""
    monkeypatch.setenv("PENSTOCK_TEST_OAUTH", "secret")
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request.host)
        return web.json_response({"access_token": "t", "expires_in": 60})

    async with RawTestServer(answer, host="127.0.0.1") as proxy:
        monkeypatch.setenv("http_proxy", f"{scheme}me:word@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("no_proxy", "inside.invalid")
        monkeypatch.setattr(connections, "_NO_TOKEN_S", 0.0)
        assert await connections.tokens(kafka_with("http://idp.invalid/t")).token() == "t"
        with pytest.raises(KafkaConnectionError, match=r"inside\.invalid"):
            await connections.tokens(kafka_with("http://inside.invalid/t")).token()

    assert seen == ["idp.invalid"]


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("me:w#4711@127.0.0.1:1", "is no URL"),
        ("http://me:w/4711@127.0.0.1:1", "is no URL"),
        ("http://me:w4711@127.0.0.1:31x", "is no URL"),
        ("http://me:w4711@{there}", "the proxy of the environment answers 407"),
    ],
)
async def test_what_is_wrong_with_the_proxy_is_told_without_its_password(
    proxy: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    monkeypatch.setenv("PENSTOCK_TEST_OAUTH", "secret")
    monkeypatch.setattr(connections, "_NO_TOKEN_S", 0.0)
    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    there = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    monkeypatch.setenv("https_proxy", proxy.format(there=there))
    monkeypatch.delenv("no_proxy", raising=False)
    with capture_logs() as told, pytest.raises(KafkaConnectionError, match=said) as raised:
        await connections.tokens(kafka_with("https://idp.invalid/t")).token()
    server.close()

    assert [line["event"] for line in told] == ["kafka.token_refused"]
    assert "4711" not in f"{told} {raised.value}"


async def test_a_netrc_does_not_come_beside_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password theirs\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("PENSTOCK_TEST_OAUTH", "s\u00e4cret")
    seen: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.extend(request.headers.getall("Authorization"))
        return web.json_response({"access_token": "t", "expires_in": 60})

    async with RawTestServer(answer, host="127.0.0.1") as server:
        assert await connections.tokens(kafka_with(str(server.make_url("/t")))).token() == "t"

    assert [base64.b64decode(one.removeprefix("Basic ")).decode() for one in seen] == ["me:s\u00e4cret"]


async def test_tokens_for_amazon_msk_are_signed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def token(region: str) -> tuple[str, float]:
        names.append(threading.current_thread().name)
        return region, time.time() + 900

    monkeypatch.setattr(connections, "msk_token", token)
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="AWS_MSK_IAM", aws_region="eu-central-1")

    assert await connections.tokens(kafka).token() == "eu-central-1"
    assert names != [threading.main_thread().name]
