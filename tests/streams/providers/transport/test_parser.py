"""What lean's parser refuses beyond the suite: answers that two parsers could read differently."""

import pytest

from streams.providers.transport.base import Limits, Unusable
from streams.providers.transport.parser import Parser


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 2\r\nContent-Length: 3\r\n",
        b"Content-Length: +2\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"X: a\r\n folded\r\n",
        b"X : a\r\n",
        b"X: a\x00\r\n",
    ],
)
def test_ambiguous_heads_are_refused(head: bytes) -> None:
    with pytest.raises(Unusable):
        Parser(Limits()).feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok")


@pytest.mark.parametrize("answer", [b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 102 x\r\n\r\n" * 9])
def test_interim_answers_have_a_bound(answer: bytes) -> None:
    with pytest.raises(Unusable):
        Parser(Limits()).feed(answer)


def test_http_1_0_closes_unless_it_says_otherwise() -> None:
    parser = Parser(Limits())
    parser.feed(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")

    assert parser.keeps_alive
