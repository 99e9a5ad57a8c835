"""Text from outside."""

import pytest

from gateways.ingress.text import bounded_key, is_clean, single_header


@pytest.mark.parametrize("text", ["a", "a b", "\u00fc\u65e5", "x" * 256])
def test_printable_text_of_up_to_256_characters_is_clean(text: str) -> None:
    assert is_clean(text)


@pytest.mark.parametrize("text", ["", "x" * 257, "a\nb", "a\x00", "\x7f", "a\u200b", "\u2028", "\ud800", "\u202e"])
def test_control_characters_and_invisible_ones_are_not(text: str) -> None:
    assert not is_clean(text)


@pytest.mark.parametrize("text", ["a%0d%0ab", "%00", "a%7Fb", "%1f"])
def test_encoded_control_characters_are_not_either(text: str) -> None:
    assert not is_clean(text)
    assert is_clean(text.replace("%", "%25"))


def test_a_key_that_is_not_clean_becomes_its_digest_the_same_each_time() -> None:
    assert bounded_key("customer 7") == "customer 7"
    assert bounded_key("x" * 300) == bounded_key("x" * 300)
    assert bounded_key("x" * 300) != bounded_key("x" * 301)
    assert len(bounded_key("\ud800" * 300)) == 47


def test_a_header_counts_only_when_it_stands_there_once_and_is_text() -> None:
    lines = [(b"a", b"1"), (b"b", b"1"), (b"b", b"2"), (b"c", b"\xff"), (b"d", b"")]

    assert [single_header(lines, name) for name in (b"a", b"b", b"c", b"d", b"e")] == ["1", None, None, "", None]
