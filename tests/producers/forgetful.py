"""A front for the mock cluster that answers as a broker does which is the last of its cluster to stop.

First its partitions have no leaders, then there are no brokers, and the connection ends. Kafka 4.1 was seen to say both
within 30 ms. Whether librdkafka 2.16 then forgets them all for good is a race between two threads of its; most often
it does.
"""

import contextlib
import ctypes
import socket
import struct
import threading
from typing import Self

from confluent_kafka import cimpl

from producers.mock_cluster import METADATA, PRODUCE, MockCluster

# Not "not leader": brokers name the new one with that.
_NO_LEADER = 5
_FETCH = 1
_OF_LEADERS = (PRODUCE, _FETCH)
_INT32 = struct.Struct(">i")
_HEADER = struct.Struct(">hhi")
_NO_BROKERS = b"\x01"
_POINTER = ctypes.c_void_p
# What the mock cluster calls its only one.
_BROKER = 1


class ForgetfulFront:
    """Passes on what a cluster of one broker and its clients say; a context manager."""

    def __init__(self, cluster: MockCluster) -> None:
        self._cluster = cluster
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self.bootstrap = f"127.0.0.1:{self._port}"
        self._is_forgetful = self._has_told = self._is_gone = False
        self._open: list[socket.socket] = [self._listener]
        library = ctypes.CDLL(cimpl.__file__)
        library.rd_kafka_mock_broker_set_host_port.argtypes = (_POINTER, ctypes.c_int32, ctypes.c_char_p, ctypes.c_int)
        library.rd_kafka_mock_clear_request_errors.argtypes = (_POINTER, ctypes.c_int16)
        self._library, self._pointer = library, cluster._cluster
        library.rd_kafka_mock_broker_set_host_port(self._pointer, _BROKER, b"127.0.0.1", self._port)

    def forget(self) -> None:
        """Refuse records and fetches, and say from then on that there are no leaders, and then no brokers."""
        self._has_told, self._is_forgetful = False, True
        for request in _OF_LEADERS:
            self._cluster.fail_requests(request, [_NO_LEADER] * 20)

    def remember(self) -> None:
        """Say again what the cluster says."""
        for request in _OF_LEADERS:
            self._library.rd_kafka_mock_clear_request_errors(self._pointer, request)
        self._is_forgetful = self._is_gone = False

    def __enter__(self) -> Self:
        """Listen."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close every connection."""
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                host, _, port = self._cluster.bootstrap.partition(":")
                broker = socket.create_connection((host, int(port)))
                self._open += [client, broker]
                asked: set[int] = set()
                threading.Thread(target=self._ask, args=(client, broker, asked), daemon=True).start()
                threading.Thread(target=self._answer, args=(broker, client, asked), daemon=True).start()

    def _ask(self, client: socket.socket, broker: socket.socket, asked: set[int]) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = _read(client)
                kind, _, number = _HEADER.unpack_from(frame)
                if kind == METADATA:
                    asked.add(number)
                broker.sendall(_INT32.pack(len(frame)) + frame)
        _end(broker)

    def _answer(self, broker: socket.socket, client: socket.socket, asked: set[int]) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                frame = _read(broker)
                (number,) = _INT32.unpack_from(frame)
                if number in asked:
                    asked.discard(number)
                    frame = self._told(frame, is_last=not asked)
                client.sendall(_INT32.pack(len(frame)) + frame)
                if self._is_gone:
                    break
        _end(client)

    def _told(self, frame: bytes, *, is_last: bool) -> bytes:
        if not self._is_forgetful:
            return frame
        # While another question is open, its answer would still hold on to the broker.
        has_brokers = not (self._has_told and is_last)
        self._is_gone = not has_brokers
        self._has_told = True
        return _without(frame, has_brokers=has_brokers)


def _read(peer: socket.socket) -> bytes:
    (size,) = _INT32.unpack(_exactly(peer, 4))
    return _exactly(peer, size)


def _exactly(peer: socket.socket, size: int) -> bytes:
    parts = b""
    while len(parts) < size:
        part = peer.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


def _end(peer: socket.socket) -> None:
    with contextlib.suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)


class _Walk:
    """Goes through a MetadataResponse of version 13 (Apache Kafka 4.1, MetadataResponse.json)."""

    def __init__(self, frame: bytes) -> None:
        self.frame = bytearray(frame)
        # Behind the request's number, the header's tags and the throttle time.
        self.at = 9

    def count(self) -> int:
        """Pass the length of a compact array or text, and return it."""
        value = shift = 0
        while True:
            byte = self.frame[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return max(0, value - 1)

    def text(self) -> None:
        """Pass a text."""
        size = self.count()
        self.at += size

    def tags(self) -> None:
        """Pass tags, of which there are none."""
        assert self.count() == 0

    def brokers(self) -> None:
        """Pass them."""
        for _ in range(self.count()):
            self.at += 4
            self.text()
            self.at += 4
            self.text()
            self.tags()

    def partitions(self) -> None:
        """Pass those of a topic, and take their leaders away."""
        for _ in range(self.count()):
            self.at += 6
            self.frame[self.at : self.at + 4] = _INT32.pack(-1)
            self.at += 8
            for _ in range(3):
                size = self.count()
                self.at += 4 * size
            self.tags()


def _without(frame: bytes, *, has_brokers: bool) -> bytes:
    walk = _Walk(frame)
    brokers_at = walk.at
    walk.brokers()
    behind = walk.at
    walk.text()
    walk.at += 4
    for _ in range(walk.count()):
        walk.at += 2
        walk.text()
        walk.at += 17
        walk.partitions()
        walk.at += 4
        walk.tags()
    if has_brokers:
        return bytes(walk.frame)
    return bytes(walk.frame[:brokers_at] + _NO_BROKERS + walk.frame[behind:])
