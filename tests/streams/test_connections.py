"""Connections of aiokafka that are lost, under the event loop that workers have."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from streams import fetching
from streams.connections import hear_lost_connections
from tests.support import eventually_async

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

    client: Any = SimpleNamespace(send=send)
    hear_lost_connections(client)
    with pytest.raises(KeyError):
        await client.send(1, MetadataRequest([]))
