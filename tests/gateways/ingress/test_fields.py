"""Field templates."""

import pytest

from contracts.errors import ConfigError
from gateways.ingress.fields import Request, compile_field, compile_id

HEADERS = [(b"x-event", b"push"), (b"x-two", b"a"), (b"x-two", b"b"), (b"x-binary", b"\xff")]
BODY = b'{"s":"text","i":7,"f":1.5,"t":true,"n":null,"e":"","o":{"a/b":[10,20]},"big":123456789012345678901234567890}'


def _expand(template: str, body: bytes = BODY) -> str | None:
    return compile_field(template, "here").expand(Request(HEADERS, body))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("literal", "literal"),
        ("header:X-Event", "push"),
        ("com.x.{header:x-event}", "com.x.push"),
        ("json:/s", "text"),
        ("json:/i", "7"),
        ("json:/f", "1.5"),
        ("json:/t", "true"),
        ("json:/o/a~1b/1", "20"),
        ("{json:/s}-{json:/i}", "text-7"),
    ],
)
def test_a_field_is_read_from_headers_and_body(template: str, text: str) -> None:
    assert _expand(template) == text


@pytest.mark.parametrize(
    "template",
    [
        "header:missing", "header:x-two", "header:x-binary", "json:/missing", "json:/n", "json:/e", "json:/o",
        "json:/o/a~1b", "json:/o/a~1b/-", "json:/o/a~1b/9", "json:/o/a~1b/x", "json:/s/0", "json:/i/0",
        "a.{header:missing}.b",
    ],
)  # fmt: skip
def test_what_is_missing_repeated_or_no_scalar_is_none(template: str) -> None:
    assert _expand(template) is None


@pytest.mark.parametrize("body", [b"", b"no", b"\xff", b"[1]", b"null", b"7", b"[" * 100_000])
def test_a_body_that_is_no_json_object_has_no_fields(body: bytes) -> None:
    assert _expand("json:/s", body) is None


@pytest.mark.parametrize(
    "template",
    ["{", "a}b", "{{header:x}}", "{x}", "{json:s}", "{header:}", "json:", "json:s", "header:a b", "json:/a~2"],
)
def test_a_broken_template_is_refused_at_start(template: str) -> None:
    with pytest.raises(ConfigError, match="here"):
        compile_field(template, "here")


def _form(body: bytes, name: str = "From") -> str | None:
    return compile_field(f"form:{name}", "x").expand(Request([], body))


def test_a_field_of_a_form_is_decoded() -> None:
    assert _form(b"To=1&From=%2B15550100") == "+15550100"
    assert _form(b"From=a+b%C3%BC") == "a b\u00fc"
    assert compile_field("sms/{form:From}", "x").expand(Request([], b"From=7")) == "sms/7"


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"From=", b"From=1&From=2", b"To=1", b"From=%ff", b"From=\xff", b"&".join([b"From=1"] * 501)]
)
def test_a_field_that_is_missing_empty_repeated_or_not_text_is_none(body: bytes) -> None:
    assert _form(body) is None


@pytest.mark.parametrize("template", ["delivery", "json/id", "a b", "event-1"])
def test_an_id_that_is_the_same_for_every_event_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="is the same for every event"):
        compile_id(template, "sources.a.id")


@pytest.mark.parametrize("template", ["json:/s", "crm-{json:/i}", "header:x-event"])
def test_an_id_that_is_read_from_the_request_is_compiled(template: str) -> None:
    request = Request(HEADERS, BODY)

    assert compile_id(template, "here").expand(request) == compile_field(template, "here").expand(request) != template
