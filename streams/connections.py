"""What aiokafka makes of a connection that is lost, put right; part of streams/fetching.py.

Verified, like streams/shell.py, against its TESTED_VERSIONS; a test touches every name.

    AIOKafkaConnection.send   wrapped: uvloop refuses bytes for a connection that is gone with a RuntimeError
    client.send               wrapped: KeyError when two requests on one connection go unanswered at one time
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError


def mend_connections() -> None:
    """Raise what everybody tries again after when a request is written to a connection that is gone, in the process.

    A reset connection is closed in one turn of the loop, and aiokafka's reader hears of it in the next. What is written
    in between asyncio's own loop drops; uvloop raises a RuntimeError, which nobody expects. It ended the task that
    learns where the brokers are, without a word, and with it every search for the group's coordinator.
    """
    if not hasattr(AIOKafkaConnection.send, "__wrapped__"):
        AIOKafkaConnection.send = _telling(AIOKafkaConnection.send)


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(connection: Any, request: Any, expect_response: bool = True) -> Any:
        writer = connection._writer  # noqa: SLF001
        try:
            return original(connection, request, expect_response)
        except RuntimeError as error:
            if writer is None or not writer.transport.is_closing():
                raise
            connection.close(reason=CloseReason.CONNECTION_BROKEN)
            message = f"connection at {connection.host}:{connection.port} broken: {error}"
            raise KafkaConnectionError(message) from error

    send.__wrapped__ = original  # type: ignore[attr-defined]
    return send


def hear_lost_connections(client: Any) -> None:
    """Raise what everybody tries again after when a connection was closed for another request.

    1. Two requests on one connection run out of time in the same turn of the loop; the first closes it.
    2. Whoever asks next finds it closed, and takes it off aiokafka's list.
    3. The second looks it up there to close it: a KeyError, which would end the fetches or the place in the group.
    """
    original: Callable[..., Awaitable[Any]] = client.send

    async def send(node_id: Any, request: Any, *, group: Any = ConnectionGroup.DEFAULT) -> Any:
        try:
            return await original(node_id, request, group=group)
        except KeyError as error:
            if error.args != ((node_id, group),):
                raise
            message = f"the connection to broker {node_id} was closed for another request"
            raise KafkaConnectionError(message) from error

    client.send = send


__all__ = ["hear_lost_connections", "mend_connections"]
