"""YAML that is nothing a person would write still ends in a line that says where; and what is odd and right is read."""

import itertools
import json
import os
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.settings import build, load, parse

LONG = "a number has at most 300 characters"
HALF = "is half of a surrogate pair, and no character"
TOO_MANY = "more than 100,000 values, those of an alias counted wherever it stands"
# Python prints no integer of more digits than 4,300; not all of these are written with so many.
NUMBERS = (
    "0x" + "f" * 3600, "0b" + "1" * 15_000, "0" + "7" * 5000, "9" * 5000, "1" + ":59" * 3000, "1" + ":59" * 300 + ".5",
)  # fmt: skip


def bomb(inner: str) -> str:
    """Return aliases of aliases, four of the one before in each."""
    pairs = itertools.pairwise("abcdefghij")
    return "\n".join(["a: &a {x: 1}", *(f"{name}: &{name} {inner.format(f'*{before}')}" for before, name in pairs)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *((f"version: 1\na: {number}", f"2:4: not valid YAML: {LONG}, this one {len(number)}") for number in NUMBERS),
        (r'a: "x\ud800"', rf"1:4: not valid YAML: \ud800 {HALF}"),
        (r'"\udfff": 1', rf"1:1: not valid YAML: \udfff {HALF}"),
        (r'a: "\U00110000"', r"1:7: not valid YAML: no character has a number above \U0010ffff"),
        (r'a: "\Uffffffff"', r"1:7: not valid YAML: no character has a number above \U0010ffff"),
        ('a: 1\nb: "x\nc: 2\n', '4:1: not valid YAML: found unexpected end of stream; the " of line 2 is still open'),
        (
            "\ufeffa: [1, 2\nb: 3\n",
            "2:2: not valid YAML: expected ',' or ']', but got ':'; the [ of line 1 is still open",
        ),
        ("a: !!map [b]", "1:4: not valid YAML: expected a mapping node, but found sequence"),
        ("a: !!int ''", "1:4: not valid YAML: not a valid int: string index out of range"),
        ("a: !!float ''", "1:4: not valid YAML: not a valid float: string index out of range"),
        (bomb("[{0}, {0}, {0}, {0}]"), f"1:11: not valid YAML: {TOO_MANY}"),
        (bomb("{{<<: [{0}, {0}, {0}, {0}]}}"), f"10:4: not valid YAML: {TOO_MANY}"),
    ],
)
def test_what_nobody_could_use_is_located(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "f")

    assert str(caught.value) == f"f:{said}"


def test_the_longest_numbers_that_are_read_can_be_shown() -> None:
    for number in ("9" * 300, "0x" + "f" * 298, "1" + ":59" * 99, "1" + ":59" * 98 + ".5"):
        with pytest.raises(ConfigError, match=r"^f:1: kafka.partitions: must be "):
            build(parse(f"{{version: 1, kafka: {{partitions: {number}}}}}", "f"), {}, Path())


def test_two_halves_as_json_escapes_them_are_one_character() -> None:
    assert parse(json.dumps({"a": "\U0001f600"}), "f").data == {"a": "\U0001f600"}


def test_a_folder_whose_name_is_not_utf8_can_hold_the_file(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "penstock.yaml").write_text("version: 1\nkafka: {ssl_ca_file: ca.pem}", encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        load(folder / "penstock.yaml", {})
    assert str(caught.value).endswith(r"/caf\udce9/ca.pem; found 'ca.pem'")

    (folder / "ca.pem").touch()
    assert load(folder / "penstock.yaml", {}).kafka.ssl_ca_file == folder / "ca.pem"


def test_an_index_of_many_digits_is_no_setting() -> None:
    with pytest.raises(ConfigError, match=r"there is no setting routes\.999"):
        build(parse("version: 1\nroutes: []", "f"), {f"PENSTOCK_ROUTES__{'9' * 5000}__NAME": "a"}, Path())


def test_the_name_of_a_folder_has_no_nul() -> None:
    with pytest.raises(ConfigError) as caught:
        build(parse('version: 1\nbatch_jobs: {work_dir: "a\\0b"}', "f"), {}, Path())

    assert str(caught.value) == "f:2: batch_jobs.work_dir: must be the path of a folder; found 'a\\x00b'"
