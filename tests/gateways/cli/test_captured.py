"""Captured requests: what is read with goodwill, and what is refused in words."""

import click
import pytest

from gateways.cli.captured import read_request

HEAD = b"POST /webhooks/github?a=1 HTTP/1.1\r\nHost: gateway\r\nX-Signature: abc\r\nContent-Length: 7\r\n\r\n"
BODY = b'{"a":1}'


def test_a_raw_request_is_read_byte_for_byte() -> None:
    found = read_request(HEAD + BODY)

    assert (found.method, found.target, found.query) == ("POST", b"/webhooks/github?a=1", b"a=1")
    assert (b"x-signature", b"abc") in found.headers
    assert (found.body, found.remarks) == (BODY, ())


def test_headers_that_end_in_lf_are_read_and_told() -> None:
    found = read_request(HEAD.replace(b"\r\n", b"\n") + BODY)

    assert found.body == BODY
    assert "end in LF" in found.remarks[0]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_the_line_end_of_an_editor_is_not_part_of_the_body(end: bytes) -> None:
    found = read_request(HEAD + BODY + end)

    assert found.body == BODY
    assert "line end behind the body" in found.remarks[0]


def test_what_follows_the_body_is_told() -> None:
    found = read_request(HEAD + BODY + b"HTTP/1.1 202 Accepted\r\n\r\n")

    assert found.body == BODY
    assert "25 bytes behind the body" in found.remarks[0]


def test_a_chunked_body_is_put_together() -> None:
    head = HEAD.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked")

    assert read_request(head + b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n').body == BODY


def test_a_body_of_its_own_file_counts_whatever_the_headers_say() -> None:
    found = read_request(HEAD, b"another body\n")

    assert found.body == b"another body\n"


def test_without_a_length_everything_behind_the_headers_is_the_body() -> None:
    found = read_request(HEAD.replace(b"Content-Length: 7\r\n", b"") + BODY + b"\n")

    assert found.body == BODY + b"\n"
    assert "no Content-Length" in found.remarks[0]


def test_a_request_of_http_2_is_read_without_its_host() -> None:
    found = read_request(HEAD.replace(b"HTTP/1.1\r\nHost: gateway", b"HTTP/2") + BODY)

    assert found.body == BODY
    assert "HTTP/2" in found.remarks[0]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "does not begin with a request line"),
        (BODY, "does not begin with a request line"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "does not begin with a request line"),
        (HEAD + BODY[:3], "the body is not whole"),
        (HEAD.replace(b"7", b"seven") + BODY, "no HTTP"),
        (HEAD.replace(b"X-Signature: abc", b"X Signature") + BODY, "no HTTP"),
        (HEAD.replace(b"Host: gateway\r\n", b"") + BODY, "no HTTP"),
        (HEAD.replace(b"Content-Length: 7", b"Transfer-Encoding: chunked") + b"xyz\r\n", "the body is not whole"),
    ],
)
def test_what_is_no_request_is_said(raw: bytes, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        read_request(raw)
