"""Prompts: strict, sandboxed, and event data stays data."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.envelope import Event
from contracts.errors import ConfigError, ContextTooLong, PromptFailed, Undecodable
from contracts.settings import Prompt
from streams.steps.prompt import PromptTemplate


def event(data: bytes | str = b"{}", **fields: str) -> Event:
    raw = data.encode() if isinstance(data, str) else data
    return Event(**{"id": "e1", "source": "s", "type": "t", "subject": "sub", **fields}, data=raw)  # type: ignore[arg-type]


def render(template: str, data: bytes | str = b"{}", max_chars: int = 100_000) -> str:
    (message,) = PromptTemplate(Prompt(user=template, max_chars=max_chars), "r").render(event(data))
    assert message.role == "user"
    return message.content


def test_a_template_sees_event_data_and_text() -> None:
    data = '{"name": "Ada", "tags": ["x", "y"]}'

    assert render("{{ event.id }} {{ event.subject }} {{ data.name }} {{ data.tags[1] }}", data) == "e1 sub Ada y"
    assert render("{{ text }}", data) == data


def test_text_does_not_need_json() -> None:
    assert render("<{{ text }}>", b"no json \xff") == "<no json \ufffd>"


def test_instructions_go_to_the_system_prompt_and_data_does_not() -> None:
    template = PromptTemplate(Prompt(system="Obey {{ data.x }}", user="{{ data.x }}"), "r")
    template.render(event('{"x": "secret"}'))

    assert template.system == "Obey {{ data.x }}"


@pytest.mark.parametrize("template", ["{{ data.missing }}", "{{ missing }}", "{{ data.a.b.c }}", "{{ data.items[9] }}"])
def test_a_field_that_is_not_there_is_an_error_and_not_an_empty_text(template: str) -> None:
    with pytest.raises(PromptFailed):
        render(template, '{"a": {}}')


@pytest.mark.parametrize(
    "data",
    ["{{ 7*7 }}", "{% for x in range(10**10) %}a{% endfor %}", "{{ 'a'*10**10 }}", "{{ ''.__class__ }}", "{# x #}"],
)
def test_template_code_in_data_is_text(data: str) -> None:
    body = '{"x": "%s"}' % data  # noqa: UP031 - braces

    assert render("{{ data.x }}", body) == data
    assert render("{{ text }}", body) == body


@pytest.mark.parametrize(
    "template",
    ["{{ ''.__class__.__mro__ }}", "{{ event.__class__ }}", "{{ data.update({'x': 1}) }}", "{{ range(10**7) | list }}"],
)
def test_the_sandbox_holds(template: str) -> None:
    with pytest.raises(PromptFailed):
        render(template)


HIDDEN = ["\x00", "\x1b", "\x7f", "\x85", "\u200b", "\u200e", "\u202e", "\u2063", "\u2066", "\ufeff"]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_characters_that_hide_instructions_are_taken_out(hidden: str) -> None:
    assert render("{{ text }}", f"a{hidden}b") == "ab"


@pytest.mark.parametrize("hidden", HIDDEN[4:])
def test_they_are_taken_out_of_parsed_data_keys_included(hidden: str) -> None:
    body = f'{{"k{hidden}": ["v{hidden}", {{"n": "w{hidden}"}}]}}'

    assert render("{{ data | tojson }}", body) == '{"k": ["v", {"n": "w"}]}'


def test_tabs_and_line_ends_stay() -> None:
    assert render("{{ text }}", "a\tb\r\nc") == "a\tb\r\nc"


def test_the_same_data_in_another_order_gives_the_same_prompt() -> None:
    assert render("{{ data | tojson }}", '{"b": 1, "a": 2}') == render("{{ data | tojson }}", '{"a": 2, "b": 1}')


def test_text_is_not_escaped() -> None:
    assert render("{{ data.x }}", '{"x": "<b> & \u00e9"}') == "<b> & \u00e9"


def test_a_prompt_above_the_limit_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextTooLong, match="rendered prompt has 11 characters, the route allows 10"):
        render("{{ text }}", "x" * 11, max_chars=10)


def test_data_that_is_not_json_is_undecodable_where_the_template_needs_it() -> None:
    with pytest.raises(Undecodable):
        render("{{ data.x }}", "no json")


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SHAPES = ("{{ data | tojson }}", "{{ data.x }}", "{{ data | dictsort }}", "{{ data | sum }}", "{{ data[0] + 1 }}")
TEMPLATES = [PromptTemplate(Prompt(user=shape), "r") for shape in SHAPES]


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_no_json_makes_anything_but_a_prompt_or_our_error(value: object) -> None:
    for template in TEMPLATES:
        with contextlib.suppress(PromptFailed, Undecodable):
            template.render(event(json.dumps(value)))


@pytest.mark.parametrize("depth", [600, 2000, 100_000])
def test_deep_data_makes_a_prompt_or_our_error(depth: int) -> None:
    with contextlib.suppress(PromptFailed, Undecodable):
        render("{{ data }}", '{"a":' * depth + '"\\u200b"' + "}" * depth)


@pytest.mark.parametrize(
    "body",
    [
        r'{"a": {"b": "x\u200by"}}',
        '{"a": {"b": "x\u200by"}}',
        '{"a": {"b": "x\u0085y"}}',
        '{"a":\n {"b": "x\\u202ey"}}',
    ],
)
def test_hidden_characters_are_taken_out_however_they_are_written(body: str) -> None:
    assert render("{{ data.a.b }}", body) == "xy"


def test_a_field_named_as_a_method_of_dictionaries_stays_the_method() -> None:
    assert (
        render("{% for k, v in data.items() %}{{ k }}={{ v }};{% endfor %}", '{"items": 1, "b": 2}') == "items=1;b=2;"
    )


def test_a_template_that_cannot_be_parsed_names_route_and_line() -> None:
    with pytest.raises(ConfigError, match="route r: prompt template, line 2: "):
        PromptTemplate(Prompt(user="fine\n{{ broken"), "r")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% macro f(a, a) %}{% endmacro %}", "duplicate argument"),
        ("{% for a in [] %}" * 25 + "{% endfor %}" * 25, "too many statically nested blocks"),
        ("{{ " + "(" * 300 + "1" + ")" * 300 + " }}", "recursion"),
        ("{% include 'header.j2' %}", "no other template can be taken in"),
        ("{% extends data.base %}", "no other template can be taken in"),
    ],
)
def test_a_template_that_every_event_would_fail_on_is_refused_at_the_start(template: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"route r: prompt template: .*{said}"):
        PromptTemplate(Prompt(user=template), "r")


def test_a_prompt_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "system.md"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=rf"route r: prompt file {file} cannot be read: not UTF-8 text"):
        PromptTemplate(Prompt(system_file=file, user="x"), "r")


def test_a_template_file_that_cannot_be_parsed_is_named(tmp_path: Path) -> None:
    file = tmp_path / "user.j2"
    file.write_text("{{ broken")
    with pytest.raises(ConfigError, match=rf"route r: prompt template {file}, line 1: "):
        PromptTemplate(Prompt(user_file=file), "r")


def test_the_digest_names_the_prompt() -> None:
    def digest(system: str, user: str) -> str:
        return PromptTemplate(Prompt(system=system, user=user), "r").digest

    assert digest("a", "b") == digest("a", "b")
    assert len({digest("a", "b"), digest("b", "a"), digest("ab", ""), digest("", "ab"), digest("a", "b ")}) == 5


def test_prompts_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "system.md").write_text("S\u00e9", encoding="utf-8")
    (tmp_path / "user.j2").write_text("{{ event.type }}", encoding="utf-8")
    prompt = Prompt(system_file=tmp_path / "system.md", user_file=tmp_path / "user.j2")
    template = PromptTemplate(prompt, "r")

    assert (template.system, template.render(event())[0].content) == ("S\u00e9", "t")
