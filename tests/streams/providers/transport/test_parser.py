"""What lean's parser refuses beyond the suite: answers that two parsers could read differently."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.providers.transport.base import Limits, Unusable
from streams.providers.transport.parser import Parser, read_headers

LINES = st.lists(
    st.sampled_from(
        [
            b"Content-Length: 2\r\n",
            b"content-length:2\r\n",
            b"CONTENT-LENGTH: \t 2 \r\n",
            b"Content-Length: 1\r\n",
            b"Content-Length: +2\r\n",
            b"Content-Length: 2, 2\r\n",
            b"Content-Length:\r\n",
            b"Content-Length: 0000000000000002\r\n",
            b"X-Content-Length: 9\r\n",
            b"X: content-length: 9\r\n",
            b"Content-Type: application/json\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"CONTENT-ENCODING: gzip\r\n",
            b"Content-Encoding: identity\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"X-Connection: close\r\n",
        ]
    ),
    max_size=4,
)


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


def outcome(head: bytes, *, is_short_way_closed: bool, monkeypatch: pytest.MonkeyPatch) -> object:
    """Return what becomes of an answer with these header lines, read at once."""
    parser = Parser(Limits())
    with monkeypatch.context() as patch:
        if is_short_way_closed:
            patch.setattr("streams.providers.transport.parser._usual_length", lambda _block: None)
        try:
            is_whole = parser.feed(b"HTTP/1.1 200 OK\r\n" + head + b"\r\nok")
        except Unusable as error:
            return str(error)
        return is_whole, parser.keeps_alive, parser.pieces, parser.headers


@given(LINES)
def test_the_short_way_of_the_usual_answer_reads_it_as_the_long_one(lines: list[bytes]) -> None:
    head = b"".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        short = outcome(head, is_short_way_closed=False, monkeypatch=patch)
        long = outcome(head, is_short_way_closed=True, monkeypatch=patch)

    assert short == long


def test_two_headers_of_a_name_are_joined() -> None:
    assert read_headers(b"A: 1\r\nB: 2\r\na:  3 \r\n") == {"a": "1, 3", "b": "2"}
