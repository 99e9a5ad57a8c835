"""Reading an input."""

from pathlib import Path

import pytest

from gateways.batch.lines import Line, Lines, fingerprint

LIMIT = 64


def read(folder: Path, raw: bytes, record_id: str = "/recordId", key: str = "") -> list[Line]:
    path = folder / "in.jsonl"
    path.write_bytes(raw)
    return list(Lines(path, record_id, key, LIMIT))


def test_blank_lines_are_no_lines_but_keep_their_numbers(tmp_path: Path) -> None:
    lines = read(tmp_path, b'\n{"a": 1}\r\n   \n{"a": 2}')

    assert [(line.number, line.raw) for line in lines] == [(2, b'{"a": 1}'), (4, b'{"a": 2}')]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"recordId": "r"}', "r"),
        (b'{"recordId": 7}', "7"),
        (b'{"recordId": ""}', "1"),
        (b'{"recordId": true}', "1"),
        (b'{"recordId": {}}', "1"),
        (b"[1]", "1"),
        (b'"text"', "1"),
        (b'\xef\xbb\xbf{"recordId": "r"}', "r"),
    ],
)
def test_a_lines_own_id_is_a_text_or_number_else_its_place(tmp_path: Path, raw: bytes, expected: str) -> None:
    assert read(tmp_path, raw)[0].record_id == expected


def test_the_key_is_what_the_pointer_finds(tmp_path: Path) -> None:
    lines = read(tmp_path, b'{"c": {"id": 5}}\n{"c": {}}', key="/c/id")

    assert [line.key for line in lines] == [b"5", None]


@pytest.mark.parametrize("extra", [0, 1, 2, 500])
def test_a_line_is_rejected_from_the_first_byte_above_the_limit_on(tmp_path: Path, extra: int) -> None:
    long = b'"' + b"x" * (LIMIT - 2 + extra) + b'"'
    lines = read(tmp_path, long + b"\n1\n" + long)

    fault = "too_large" if extra else ""
    assert [(line.number, line.fault) for line in lines] == [(1, fault), (2, ""), (3, fault)]


def test_a_line_that_is_not_json_is_rejected_with_the_reason(tmp_path: Path) -> None:
    (line,) = read(tmp_path, b"{oops")

    assert (line.fault, line.record_id) == ("not_json", "1")
    assert "JSON" in line.message


def test_a_fingerprint_changes_with_the_content(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"1\n2\n")
    first = fingerprint(path)
    path.write_bytes(b"1\n3\n")

    assert first[1:] == (4, 3)
    assert fingerprint(path)[0] != first[0]
