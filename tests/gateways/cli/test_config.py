"""Tests of `penstock config`."""

import errno
import json
import os
import re
from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from contracts.settings import build, parse
from gateways.cli import config_check
from gateways.cli.config import json_schema
from gateways.cli.config_show import effective_yaml
from gateways.cli.main import run
from tests.architecture.source import relative
from tests.gateways.cli.settings import SMALL, write
from tests.support import ROOT


def check(file: Path, *options: str) -> int:
    return run(["config", "check", "--config", str(file), *options])


def test_the_working_example_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    code = check(ROOT / "penstock.yaml")

    captured = capsys.readouterr()
    assert (code, captured.out, captured.err) == (0, "OK: 4 sources, 5 routes, 1 model\n", "")


def test_counts_of_one_are_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(write(tmp_path))

    assert capsys.readouterr().out == "OK: 1 source, 1 route, 1 model\n"


def test_a_broken_inline_template_names_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SMALL.replace('"{{ data }}"', "|\n        Summarise:\n        {% if data %}"))

    assert check(file) == 2
    assert f"{file}:15: routes[0].prompt.user: not a valid template: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{% macro f(a, a) %}{% endmacro %}", "not a valid template: duplicate argument"),
        ("{{ " + "(" * 300 + "1" + ")" * 300 + " }}", "not a valid template: maximum recursion depth"),
        ("one {%- include 'header.j2' %}", "no other template can be taken in (line 1"),
    ],
)
def test_a_template_that_no_worker_would_begin_with_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], template: str, said: str
) -> None:
    file = write(tmp_path, SMALL.replace("{{ data }}", template))

    assert check(file) == 2
    assert f"{file}:15: routes[0].prompt.user: {said}" in capsys.readouterr().err


def test_a_broken_template_file_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = tmp_path / "user.j2"
    prompt.write_text("one\ntwo {{ data\n")
    file = write(tmp_path, SMALL.replace('user: "{{ data }}"', "user_file: user.j2"))

    assert check(file) == 2
    assert capsys.readouterr().err.startswith(f"{prompt}:")


def test_an_unknown_template_variable_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "user.j2"
    prompt.write_text("{{ event.type }}\n{{ dta.id }}\n")
    file = write(tmp_path, SMALL.replace('user: "{{ data }}"', "user_file: user.j2"))

    assert check(file) == 2
    assert capsys.readouterr().err == (
        f"{prompt}:2: routes[0].prompt.user: unknown variable 'dta'; there are: data, event, text\n"
    )


def test_a_schema_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SMALL.replace("{type: object}", "{type: objekt}"))

    assert check(file) == 2
    assert f"{file}:16: routes[0].output_schema: not a valid JSON Schema (2020-12): " in capsys.readouterr().err


def test_a_schema_is_never_fetched_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SMALL.replace("{type: object}", '{"$ref": "http://127.0.0.1:9/x.json"}'))

    assert check(file) == 2
    assert "Retrieval is disabled" in capsys.readouterr().err


def test_a_schema_file_that_is_not_json_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text("{")
    file = write(tmp_path, SMALL.replace("output_schema: {type: object}", "output_schema_file: schema.json"))

    assert check(file) == 2
    assert capsys.readouterr().err.startswith(f"{schema}: routes[0].output_schema_file: not JSON: ")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("true", 0, ""),
        ('"x"', 2, "not a JSON Schema"),
        ('{"not":' * 900 + "{}" + "}" * 900, 2, "nested too deeply"),
        ("[" * 100_000, 2, "not JSON: "),
    ],
)
def test_whatever_a_file_of_a_schema_holds_ends_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, said: str
) -> None:
    """`true` is a schema: any JSON."""
    (tmp_path / "schema.json").write_text(text, encoding="utf-8")
    file = write(tmp_path, SMALL.replace("output_schema: {type: object}", "output_schema_file: schema.json"))

    assert check(file) == code
    assert ("routes[0].output_schema_file: not " in capsys.readouterr().err) == bool(code)
    assert run(["config", "asyncapi", "--config", str(file)]) == code
    assert said in capsys.readouterr().err


def test_a_file_of_a_schema_that_cannot_be_read_is_located(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "schema.json").write_text("{}", encoding="utf-8")
    file = write(tmp_path, SMALL.replace("output_schema: {type: object}", "output_schema_file: schema.json"))

    def read(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", read)
    assert check(file) == 2
    assert "routes[0].output_schema_file: cannot be read: Permission denied" in capsys.readouterr().err


def test_secrets_are_read_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PENSTOCK_SECRET_GITHUB", raising=False)
    file = write(tmp_path)

    assert check(file) == 0
    assert check(file, "--secrets") == 2
    assert capsys.readouterr().err == (
        f"{file}:5: sources.github.secrets[0].value: secret env:PENSTOCK_SECRET_GITHUB is not set or empty\n"
    )
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", "0123456789abcdef")
    assert check(file, "--secrets") == 0


ALL_PROGRAMS = """\
version: 1
kafka: {security_protocol: SASL_SSL, sasl_mechanism: PLAIN, sasl_username: u, sasl_password: env:PENSTOCK_PART_KAFKA}
gateway:
  ticket_secret: env:PENSTOCK_PART_TICKETS
  former_ticket_secrets: [env:PENSTOCK_PART_FORMER_TICKETS]
  api_keys:
    - id: a
      key: env:PENSTOCK_PART_KEY
      former_keys: [{value: env:PENSTOCK_PART_FORMER_KEY}]
      callbacks: {hosts: [a.example], secrets: [{id: a, value: env:PENSTOCK_PART_CALLER}]}
sources:
  one: {scheme: github, type: t, secrets: [{id: a, value: env:PENSTOCK_PART_SOURCE}]}
providers:
  used: {kind: openai, base_url: "http://127.0.0.1/v1", api_key: env:PENSTOCK_PART_MODEL}
  unused: {kind: openai, base_url: "http://127.0.0.1/v1", api_key: env:PENSTOCK_PART_UNUSED}
models: {m: {provider: used, model: m}, n: {provider: unused, model: m}}
routes: [{name: r, prompt: {user: "{{ text }}"}, model: m}]
egress:
  crm: {kind: callback, url: "https://example.com/", secrets: [{id: a, value: env:PENSTOCK_PART_DOOR}]}
  callers: {kind: caller-callback}
"""
READ_BY = {
    "gateway": {"KAFKA", "TICKETS", "FORMER_TICKETS", "KEY", "FORMER_KEY", "SOURCE"},
    "lambda": {"KAFKA", "SOURCE"},
    "worker": {"KAFKA", "MODEL"},
    "egress": {"KAFKA", "DOOR", "CALLER"},
    "ingress": {"KAFKA"},
    "batch": {"KAFKA"},
    "hand-over": {"KAFKA"},
    "topics": {"KAFKA"},
}


def _missing(file: Path, capsys: pytest.CaptureFixture[str], *options: str) -> set[str]:
    assert check(file, *options) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert all(line.endswith("is not set or empty") for line in lines), lines
    return {line.partition("env:PENSTOCK_PART_")[2].partition(" ")[0] for line in lines}


@pytest.mark.parametrize("program", config_check.PROGRAMS)
def test_the_secrets_of_one_program_are_those_that_it_reads_and_no_others(
    program: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(ALL_PROGRAMS, encoding="utf-8")

    assert _missing(file, capsys, "--program", program) == READ_BY[program]
    for name in READ_BY[program]:
        monkeypatch.setenv(f"PENSTOCK_PART_{name}", name.lower().ljust(40, "x"))
    assert check(file, "--program", program) == 0


def test_secrets_of_several_programs_and_of_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(ALL_PROGRAMS, encoding="utf-8")
    both = ("--program", "worker", "--program", "egress")

    assert _missing(file, capsys, *both) == READ_BY["worker"] | READ_BY["egress"]
    assert _missing(file, capsys, "--secrets", "--program", "worker") == {"UNUSED"}.union(*READ_BY.values())


def test_a_program_that_is_started_misses_what_the_check_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "penstock.yaml"
    file.write_text(ALL_PROGRAMS, encoding="utf-8")

    for program in ("gateway", "egress"):
        assert run([program, "--config", str(file)]) == 2
        told = capsys.readouterr().err
        assert set(re.findall(r"env:PENSTOCK_PART_([A-Z_]+) is not", told)) == READ_BY[program]


def test_a_secret_of_tickets_that_is_too_short_is_found_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_PART_TICKETS", "short")
    file = tmp_path / "penstock.yaml"
    file.write_text("version: 1\ngateway:\n  ticket_secret: env:PENSTOCK_PART_TICKETS\n", encoding="utf-8")

    assert check(file, "--program", "gateway") == 2
    assert capsys.readouterr().err == f"{file}:3: gateway.ticket_secret: has 5 bytes, needs 32 or more\n"
    assert check(file, "--program", "worker") == 0


def test_templates_of_fields_are_checked_with_and_without_the_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", "0123456789abcdef")
    file = tmp_path / "penstock.yaml"
    file.write_text(
        "version: 1\nsources:\n  github:\n    scheme: github\n    type: '{action}'\n    id: delivery\n"
        "    secrets: [{id: a, value: env:PENSTOCK_SECRET_GITHUB}]\n"
        "  other:\n    scheme: github\n    type: t\n    secrets: [{id: a, value: env:PENSTOCK_PART_NONE}]\n"
        "ingress:\n  queue: {kind: sqs, queue_url: 'http://127.0.0.1/q', key: 'json:a'}\n",
        encoding="utf-8",
    )
    kinds = "header:NAME, json:/pointer or form:NAME"
    wrong = [
        f"{file}:5: sources.github.type: 'action' is neither header:NAME nor json:/pointer nor form:NAME",
        f"{file}:6: sources.github.id: 'delivery' is the same for every event; an id is read from {kinds}",
        f"{file}:13: ingress.queue.key: 'json:a' is neither header:NAME nor json:/pointer nor form:NAME",
    ]

    assert check(file) == 2
    assert [line for line in capsys.readouterr().err.splitlines() if "warning" not in line] == wrong
    assert check(file, "--secrets") == 2
    assert [line for line in capsys.readouterr().err.splitlines() if "warning" not in line] == [
        *wrong,
        f"{file}:11: sources.other.secrets[0].value: secret env:PENSTOCK_PART_NONE is not set or empty",
    ]


def test_a_secret_that_protects_nothing_is_found_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", "short")
    file = write(tmp_path)

    assert check(file, "--secrets") == 2
    assert capsys.readouterr().err == (f"{file}:5: sources.github: secret 'current': has 5 bytes, needs 16 to 4096\n")


def test_a_source_that_no_route_takes_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SMALL.replace("name: triage", "name: triage\n    match: {source: stripe}"))

    assert check(file) == 0
    assert "warning: sources.github: no route takes events of 'github'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("githb", "github"), ("local-tool", "local-tools"), ("github", ""), ("local-tools/one", ""), ("nightly", "")],
)
def test_a_route_for_a_source_that_nobody_sends_as_is_a_warning_where_another_is_near(
    pattern: str, meant: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMALL.replace("    prompt:\n", f"    match: {{source: [github, {pattern}]}}\n    prompt:\n")
    keys = "gateway: {api_keys: [{id: local-tools, key: env:PENSTOCK_API_KEY}]}\n"

    assert check(write(tmp_path, text + keys)) == 0
    said = f"warning: routes[0].match.source: no source sends as {pattern!r}; did you mean {meant!r}?\n"
    assert capsys.readouterr().err == (said if meant else "")


def _with_routes(*matches: str) -> str:
    """Return SMALL with routes of these matches; lines 13, 17 and so on have the matches."""
    one = "  - name: r{}\n    match: {}\n    prompt: {{user: x}}\n    model: default\n"
    return SMALL.partition("  - name:")[0] + "".join(one.format(at, match) for at, match in enumerate(matches))


def test_a_route_behind_one_that_takes_all_of_it_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, _with_routes("{source: stripe}", "{}", "{source: github, type: com.github.issues}"))

    assert check(file) == 0
    assert capsys.readouterr().err == (
        f"warning: {file}:21: routes[2].match: r2 is never used: routes[1] (r1, line 17) stands before it and takes "
        "all that it matches\n"
    )


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("{}", "{}"),
        ("{}", "{source: 'a[bc]', type: '?'}"),
        ("{source: 'g*'}", "{source: [github, 'gi*', 'g?t*']}"),
        ("{source: [stripe, github]}", "{source: [github, stripe]}"),
        ("{type: com.*}", "{type: [com.github.*, com.stripe.charge]}"),
        ("{source: 'a[bc]'}", "{source: [ab, ac]}"),
        ("{source: 'a[bc]'}", "{source: 'a[bc]'}"),
        ("{source: 'a?'}", "{source: ab}"),
    ],
)
def test_a_route_that_an_earlier_one_covers_is_found(
    earlier: str, later: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(write(tmp_path, _with_routes(earlier, later)))

    assert "routes[1].match: r1 is never used: routes[0] (r0, line 13)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("{source: github}", "{}"),
        ("{source: github}", "{type: com.github.issues}"),
        ("{source: github, type: a}", "{source: github}"),
        ("{source: github}", "{source: [github, stripe]}"),
        ("{source: GitHub}", "{source: github}"),
        ("{source: '?'}", "{source: '*'}"),
        ("{source: 'a?'}", "{source: 'a*'}"),
        # As text it fits; what it matches is `a`.
        ("{source: '*]'}", "{source: '[a]'}"),
        ("{source: '[[]*'}", "{source: '[a]'}"),
        ("{source: '[*]'}", "{source: '*'}"),
        ("{source: '[!a]'}", "{source: '?'}"),
        ("{source: 'a*b*c'}", "{source: 'a*c'}"),
    ],
)
def test_a_route_that_takes_what_the_earlier_one_leaves_is_no_warning(
    earlier: str, later: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(write(tmp_path, _with_routes(earlier, later)))

    assert "never used" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "file", [file for folder in ("examples", "deploy") for file in (ROOT / folder).rglob("penstock.yaml")], ids=relative
)
def test_the_configurations_to_start_from_have_no_route_and_no_address_in_vain(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(file) == 0

    said = capsys.readouterr().err
    assert ("never used" in said, "has no path" in said) == (False, False)


@pytest.mark.parametrize(
    ("base_url", "is_told"),
    [
        ("https://api.openai.com", True),
        ("http://me:hunter2@127.0.0.1:8000/", True),
        ("https://api.openai.com/v1", False),
        ("https://ours.openai.azure.com/openai/v1/", False),
    ],
)
def test_an_address_of_a_model_server_without_a_path_is_a_warning(
    base_url: str, is_told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SMALL.replace("  local: {kind: embedded}", f"  local:\n    kind: openai\n    base_url: {base_url}")
    file = write(tmp_path, text)

    assert check(file) == 0
    said = f"warning: {file}:10: providers.local.base_url: has no path; most servers answer under /v1, few without it\n"
    assert capsys.readouterr().err == (said if is_told else "")


def test_an_address_without_a_path_that_comes_from_the_environment_names_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PENSTOCK_PROVIDERS__LOCAL", "{kind: openai, base_url: https://api.openai.com}")

    assert check(write(tmp_path, SMALL)) == 0
    told = "warning: environment PENSTOCK_PROVIDERS__LOCAL: providers.local.base_url: has no path; "
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize("name", ["system_file", "user_file"])
def test_a_prompt_file_that_is_not_text_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "prompt.md"
    prompt.write_bytes(b"\xff")
    old = "system: Triage." if name == "system_file" else 'user: "{{ data }}"'
    file = write(tmp_path, SMALL.replace(old, f"{name}: prompt.md"))

    assert check(file) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"{file}:")
    assert said.endswith(f": routes[0].prompt.{name}: {prompt} cannot be read: not UTF-8 text\n")


def test_a_variable_that_wants_an_underscore_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")

    assert check(write(tmp_path)) == 0
    assert capsys.readouterr().err == (
        "warning: environment PENSTOCK_KAFKA_BOOTSTRAP_SERVERS is not read here; "
        "the setting is PENSTOCK_KAFKA__BOOTSTRAP_SERVERS\n"
    )


def test_a_variable_that_holds_a_secret_is_no_setting_gone_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_GATEWAY_TICKET_SECRET", "x")

    assert check(write(tmp_path, SMALL + "gateway: {ticket_secret: env:PENSTOCK_GATEWAY_TICKET_SECRET}\n")) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("session_s", "is_told"), [(5.9, True), (6, False), (1800, False), (1801, True)])
def test_a_session_that_a_broker_may_not_allow_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], session_s: float, is_told: bool
) -> None:
    assert check(write(tmp_path, f"{SMALL}worker: {{session_timeout_s: {session_s:g}}}\n")) == 0

    said = f"warning: worker.session_timeout_s: is {session_s:g}; brokers allow 6 to 1800 unless their settings"
    assert (said in capsys.readouterr().err) == is_told


def test_a_template_in_a_system_prompt_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, SMALL.replace("system: Triage.", 'system: "Triage {{ data }}"'))

    assert check(file) == 0
    assert "warning: routes[0].prompt.system: is sent as it stands" in capsys.readouterr().err


def test_show_says_which_values_come_from_the_environment() -> None:
    environ = {"PENSTOCK_KAFKA__TOPIC_PREFIX": "blue", "PENSTOCK_ROUTES__0__DEADLINE_S": "7"}
    settings = build(parse(SMALL, "x"), environ, Path())

    lines = effective_yaml(settings, environ).splitlines()

    assert "  topic_prefix: blue  # from PENSTOCK_KAFKA__TOPIC_PREFIX" in lines
    assert "  deadline_s: 7.0  # from PENSTOCK_ROUTES__0__DEADLINE_S" in lines


def test_show_prints_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.pem")).touch()
    environ = {"PENSTOCK_KAFKA__TOPIC_PREFIX": "blue"}
    settings = build(parse("version: 1", "x"), environ, Path())
    kafka = settings.kafka.model_copy(update={"ssl_ca_file": tmp_path / os.fsdecode(b"caf\xe9.pem")})

    text = effective_yaml(settings.model_copy(update={"kafka": kafka}), environ)

    assert r"caf\uDCE9.pem" in text
    assert "  topic_prefix: blue  # from PENSTOCK_KAFKA__TOPIC_PREFIX" in text


def test_show_prints_yaml_that_means_the_same() -> None:
    settings = build(parse(SMALL, "x"), {}, Path())

    again = build(parse(effective_yaml(settings, {}), "again"), {}, Path())

    assert again == settings


def test_show_never_prints_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_SECRET_GITHUB", "do-not-print-me-0123")

    run(["config", "show", "--config", str(write(tmp_path))])

    printed = capsys.readouterr().out
    assert "value: env:PENSTOCK_SECRET_GITHUB" in printed
    assert "do-not-print-me" not in printed


def test_the_json_schema_accepts_the_working_example_and_refuses_a_typo() -> None:
    validator = jsonschema_rs.Draft202012Validator(json_schema())
    example = yaml.safe_load((ROOT / "penstock.yaml").read_text())

    assert validator.is_valid(example)
    assert not validator.is_valid(example | {"kafak": {}})


def test_schema_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    run(["config", "schema"])

    assert json.loads(capsys.readouterr().out)["title"] == "penstock.yaml"


def test_a_callback_to_an_internal_address_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    door = "egress:\n  crm:\n    kind: callback\n    url: https://10.0.0.1/\n    secrets: [{id: a, value: env:A}]\n"
    file = write(tmp_path, SMALL + door)

    assert check(file) == 2
    assert "egress.crm.url: 10.0.0.1 must not be dialled (private)" in capsys.readouterr().err
    assert check(write(tmp_path, SMALL + door + "    allow_networks: [10.0.0.0/24]\n")) == 0
    assert "warning: egress.crm.allow_networks: 10.0.0.0/24 may be dialled although internal" in capsys.readouterr().err


def test_a_token_endpoint_without_tls_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    oauth = "  oauth: {token_url: 'http://x/t', client_id: me, client_secret: env:A}\n"
    kafka = "kafka:\n  security_protocol: SASL_SSL\n  sasl_mechanism: OAUTHBEARER\n" + oauth

    assert check(write(tmp_path, SMALL + kafka)) == 0
    assert "warning: kafka.oauth.token_url: the client's secret goes there in the clear" in capsys.readouterr().err
    assert check(write(tmp_path, SMALL + kafka.replace("http:", "https:"))) == 0
    assert "token_url" not in capsys.readouterr().err
