"""Which media types a source may send."""

import pytest

from contracts.errors import InvalidPayload, UnsupportedMedia
from gateways.ingress.media_types import check_media_type

JSON = ("application/json",)


@pytest.mark.parametrize("value", [b"application/json", b"Application/JSON ; charset=utf-8"])
def test_a_listed_type_passes_whatever_its_case_and_parameters(value: bytes) -> None:
    check_media_type(JSON, [(b"content-type", value)])


@pytest.mark.parametrize(
    "headers", [[], [(b"content-type", b"text/plain")], [(b"content-type", b"application/json, a/b")]]
)
def test_another_type_and_none_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(UnsupportedMedia):
        check_media_type(JSON, headers)


def test_two_types_are_ambiguous() -> None:
    with pytest.raises(InvalidPayload):
        check_media_type(JSON, [(b"content-type", b"application/json")] * 2)


def test_without_a_list_everything_passes() -> None:
    check_media_type((), [])
    check_media_type((), [(b"content-type", b"\xff")] * 2)
