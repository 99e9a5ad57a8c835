"""Answers against output schemas."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ConfigError, OutputInvalid
from contracts.settings import RouteSettings
from streams.steps.validate import OutputContract

SCHEMA = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "integer"}}},
    "required": ["items"],
    "additionalProperties": False,
}


def contract(**fields: Any) -> OutputContract:
    return OutputContract(RouteSettings.model_validate({"name": "r", "prompt": {"user": "x"}, "model": "m", **fields}))


def refused(answer: str) -> OutputInvalid:
    with pytest.raises(OutputInvalid) as caught:
        contract(output_schema=SCHEMA).check(answer)
    return caught.value


def test_without_a_schema_the_text_is_the_output() -> None:
    assert contract().check("```json\nany text") == "```json\nany text"


@pytest.mark.parametrize(
    "answer",
    [
        '{"items": [1]}',
        ' {"items": [1]}\n',
        '```json\n{"items": [1]}\n```',
        '```\n{"items": [1]}\n```\n',
        '\n```json \n{"items": [1]}```',
        '```json\r\n\xa0\r\n{"items": [1]}\r\n \r\n```\r\n',
    ],
)
def test_json_is_read_with_or_without_a_fence(answer: str) -> None:
    assert contract(output_schema=SCHEMA).check(answer) == {"items": [1]}


@pytest.mark.parametrize(
    ("answer", "pointer"),
    [('{"items": [1, "x"]}', "/items/1: "), ("{}", "/: "), ('{"items": [], "more": 1}', "/: "), ("[]", "/: ")],
)
def test_a_violation_names_its_place(answer: str, pointer: str) -> None:
    assert str(refused(answer)).startswith(pointer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sure! Here it is: {}",
        '{"items": [1]',
        "```json\n{}\n``` and more",
        "```",
        "```\n",
        "```json\n```",
        "```yaml\n{}\n```",
        '{"items": [NaN]}',
        "[" * 10_000,
    ],
)
def test_what_is_not_json_is_refused(answer: str) -> None:
    assert "not JSON" in str(refused(answer))


@pytest.mark.parametrize("space", ["\n", " ", "\n \t"])
@pytest.mark.parametrize("opening", ["", "```json", '```json\n{"items": [1]'])
def test_an_answer_that_ends_in_nothing_but_space_is_refused_at_once(opening: str, space: str) -> None:
    # Some would take days where the time grows with the third power of their length.
    assert "not JSON" in str(refused(opening + space * 100_000 + "x"))


def test_a_refused_answer_is_kept_because_it_is_paid_for() -> None:
    assert refused('{"items": 7}').answer == '{"items": 7}'


def test_a_deep_answer_is_refused_or_taken_but_no_fault() -> None:
    deep = "[" * 900 + "]" * 900

    assert contract(output_schema={"type": "array"}).check(deep)[0]
    assert refused(deep).answer == deep


@given(st.text())
def test_any_text_is_refused_or_valid(answer: str) -> None:
    try:
        output = contract(output_schema=SCHEMA).check(answer)
    except OutputInvalid:
        return
    assert set(output) == {"items"}


def test_an_empty_schema_is_any_json() -> None:
    assert contract(output_schema={}).check('```json\n{"a": 1}\n```') == {"a": 1}
    with pytest.raises(OutputInvalid):
        contract(output_schema={}).check("no JSON")


def test_a_schema_is_never_fetched_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"route r: output schema: .*Retrieval is disabled"):
        contract(output_schema={"$ref": (tmp_path / "part.json").as_uri()})


def test_a_schema_comes_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(SCHEMA), encoding="utf-8")

    assert contract(output_schema_file=path).schema == SCHEMA


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "route r: .*schema.json: not JSON"),
        ("[]", "route r: .*schema.json: a schema is an object, found list"),
        ('{"type": "strin"}', "route r: output schema: "),
        ('{"type": "string", "pattern": "("}', "route r: output schema: "),
        ('{"$ref": "#/nowhere"}', "route r: output schema: "),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_at_the_start(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        contract(output_schema_file=path)
