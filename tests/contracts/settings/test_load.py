"""Every mistake a user can make in penstock.yaml or the environment ends in a line that says where and what to do."""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import ConfigError
from contracts.settings import Settings, build, load, parse
from tests.support import ROOT

SECRET = "whsec_c2VjcmV0IG9mIHRoZSB0ZXN0"
SECTION = "must be a section: indented lines of `key: value`"
INTEGER = "must be a whole number"
LANE = "must be interactive, standard or bulk"
LIVELOCK = "drain_timeout_s (80) must be at most 0.6 of rebalance_timeout_s (90): a longer drain can livelock the group"
FEBRUARY = "not a valid timestamp: day is out of range for month"
OS_SYSTEM = "'tag:yaml.org,2002:python/object/apply:os.system'"
ROUTE = "routes:\n  - name: a\n    prompt: {user: x}\n    model: m\n"
SOURCE = "sources:\n  shop:\n    scheme: github\n    type: t\n    secrets:\n"


def complaint(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Return what is said about a file named penstock.yaml."""
    with pytest.raises(ConfigError) as caught:
        build(parse(text, "penstock.yaml"), environ or {}, Path())
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "penstock.yaml:1: version: is required"),
        ("version: 2", "penstock.yaml:1: version: must be 1; found 2"),
        ("version: 1\nkafak: {}", "penstock.yaml:2: kafak: unknown key; did you mean 'kafka'?"),
        (
            "version: 1\nkafka:\n  bootstrap_server: x",
            "penstock.yaml:3: kafka.bootstrap_server: unknown key; did you mean 'bootstrap_servers'?",
        ),
        (
            "version: 1\nlogging:\n  colour: red",
            "penstock.yaml:3: logging.colour: unknown key; allowed: level, format",
        ),
        (
            "version: 1\nmodels: {m: {provider: p, model: x}}\nproviders: {p: {kind: fake}}\n" + ROUTE + "    modle: m",
            "penstock.yaml:8: routes[0].modle: unknown key; did you mean 'model'?",
        ),
        (
            "version: 1\nkafka:\n  partitions: many",
            f"penstock.yaml:3: kafka.partitions: {INTEGER}; found 'many'",
        ),
        ("version: 1\nkafka: 7", f"penstock.yaml:2: kafka: {SECTION}; found 7"),
        ("version: 1\nsources: [a]", f"penstock.yaml:2: sources: {SECTION}"),
        ("version: 1\nroutes: {a: b}", "penstock.yaml:2: routes: must be a list"),
        ("- a\n- b", "penstock.yaml:1: expected a mapping of sections, found ['a', 'b']"),
        ("just text", "penstock.yaml:1: expected a mapping of sections, found 'just text'"),
        (
            "version: 1\nproviders:\n  p: {kind: nope}",
            "penstock.yaml:3: providers.p.kind: found 'nope', allowed: 'embedded', 'bedrock', 'openai', 'fake'",
        ),
        ("version: 1\nproviders:\n  p:\n    region: x", "penstock.yaml:3: providers.p.kind: is required"),
        (
            "version: 1\nproviders:\n  p:\n    kind: bedrock",
            "penstock.yaml:3: providers.p.region: is required",
        ),
        (
            "version: 1\nworker:\n  drain_timeout_s: 80",
            f"penstock.yaml:2: worker: {LIVELOCK}",
        ),
        (
            "version: 1\ngateway:\n  sync_budget_s: 1",
            "penstock.yaml:2: gateway: sync_margin_s (1.5) must be below sync_budget_s (1)",
        ),
        (
            "version: 1\nworker: {lanes: [fast]}",
            f"penstock.yaml:2: worker.lanes[0]: {LANE}; found 'fast'",
        ),
        ("version: 1\nkafka:\n  partitions: yes", "penstock.yaml:3: kafka.partitions: must be a number; found true"),
        (
            "version: 1\nproviders: {p: {kind: fake}}\nmodels: {m: {provider: p, model: x}}\n"
            + ROUTE + "    deadline_s: true",
            "penstock.yaml:8: routes[0].deadline_s: must be a number; found true",
        ),
        (
            SOURCE.replace("github", "hmac") + "      - {id: a, value: env:B}\n"
            "    hmac: {signature_header: s, signed: '{tme}.{body}'}\nversion: 1",
            ("penstock.yaml:7: sources.shop.hmac.signed: unknown {tme}; there are: {body}, {id}, {timestamp}, {url}; "
            "found '{tme}.{body}'"),
        ),
        ("version: 1\nworker: {commit_interval_s: .nan}",
         "penstock.yaml:2: worker.commit_interval_s: must be a finite number; found nan"),
    ],
)  # fmt: skip
def test_a_mistake_is_located_and_explained(text: str, said: str) -> None:
    assert complaint(text) == said


def test_every_mistake_of_a_file_is_told_at_once_in_the_order_of_its_lines() -> None:
    text = "version: 1\nkafka:\n  partitions: 0\nlogging: {level: loud}\nproducer: {linger_s: 9}\n"

    assert [line.split(": ")[0] for line in complaint(text).splitlines()] == [
        "penstock.yaml:3", "penstock.yaml:4", "penstock.yaml:5",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nversion: 1", "penstock.yaml:2:1: not valid YAML: duplicate key 'version', first on line 1"),
        (
            "version: 1\nkafka:\n  partitions: 1\n  partitions: 2",
            "penstock.yaml:4:3: not valid YAML: duplicate key 'partitions', first on line 3",
        ),
        (
            "version: 1\nkafka:\n\tpartitions: 1",
            "penstock.yaml:3:1: not valid YAML: found character '\\t' that cannot start any token",
        ),
        ("version: 1\nkafka: [1, 2", "penstock.yaml:2:13: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 'x", "penstock.yaml:1:6: not valid YAML: found unexpected end of stream"),
        ("a: *b", "penstock.yaml:1:4: not valid YAML: found undefined alias 'b'"),
        (
            "a: 1\n--- \nb: 2",
            "penstock.yaml:2:1: not valid YAML: expected a single document in the stream, but found another document",
        ),
        ("a: 2026-02-30", f"penstock.yaml:1:4: not valid YAML: {FEBRUARY}"),
        (
            "a: !!int abc",
            "penstock.yaml:1:4: not valid YAML: not a valid int: invalid literal for int() with base 10: 'abc'",
        ),
        ("version: 1\n7: x", "penstock.yaml:2:1: not valid YAML: a key must be text; 7 is text in quotes only"),
        (
            "version: 1\nsources:\n  shop: {}\n  no: {}",
            "penstock.yaml:4:3: not valid YAML: a key must be text; no is text in quotes only",
        ),
        ("a:\n- b\x07", "penstock.yaml:2: not valid YAML: the character U+0007 must not stand there as it is"),
        ("? [a, b]\n: c", "penstock.yaml:1:3: not valid YAML: a key must be plain text"),
        ("{{ a }}: 1", "penstock.yaml:1:1: not valid YAML: a key must be plain text"),
        ("a: 1\nb: &a [*a]", "penstock.yaml:2:4: not valid YAML: an alias within it names the whole of it"),
        ("a: &a {b: 1,\n <<: *a}", "penstock.yaml:1:4: not valid YAML: an alias within it names the whole of it"),
        ("!!str &a {=: *a}", "penstock.yaml:1:1: not valid YAML: an alias within it names the whole of it"),
        (
            "a: !!python/object/apply:os.system [x]",
            f"penstock.yaml:1:4: not valid YAML: could not determine a constructor for the tag {OS_SYSTEM}",
        ),
    ],
)
def test_bad_yaml_is_located(text: str, said: str) -> None:
    assert complaint(text) == said


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: 1\nb: " + "[" * 1000, r"2:([1-9][0-9]{2})"),
        ("a: 1\n" + "\n".join("  " * depth + "a:" for depth in range(1000)), r"([1-9][0-9]{2}):[0-9]+"),
    ],
    ids=["in a line", "in lines"],
)
def test_what_is_nested_too_deeply_is_located(text: str, place: str) -> None:
    assert re.fullmatch(f"penstock.yaml:{place}: not valid YAML: nested too deeply", complaint(text))


@pytest.mark.parametrize("text", ["a: !!bool maybe", "a: !!timestamp foo", "a: !!float x", "a: !!binary \u00e9"])
def test_a_value_that_is_not_of_its_yaml_type_is_located(text: str) -> None:
    assert complaint(text).startswith("penstock.yaml:1:4: not valid YAML: ")


@given(st.text(max_size=60))
def test_no_text_makes_anything_but_a_complaint(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert build(parse(text, "f"), {}, Path()).version == 1


def test_the_file_named_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "none.yaml"

    with pytest.raises(ConfigError) as caught:
        load(path, {})

    assert str(caught.value) == f"{path}: cannot be read: No such file or directory"


def test_the_default_file_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ConfigError) as caught:
        load(None, {})

    assert str(caught.value) == (
        "penstock.yaml: cannot be read: No such file or directory (name one with --config or PENSTOCK_CONFIG)"
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("version: 1\n# \u00e9 ".encode() + b"caf\xe9\n")

    with pytest.raises(ConfigError) as caught:
        load(path, {})

    assert str(caught.value) == f"{path}:2:8: not UTF-8 text: byte 0xe9"


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")

    assert load(path, {}) == Settings(version=1)


def test_the_environment_may_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text("version: 1\nkafka: {topic_prefix: other}\n", encoding="utf-8")

    assert load(None, {"PENSTOCK_CONFIG": str(path)}).kafka.topic_prefix == "other"


def test_files_are_found_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "prompt.j2").write_text("x", encoding="utf-8")
    path = tmp_path / "penstock.yaml"
    path.write_text(
        "version: 1\nproviders: {p: {kind: fake}}\nmodels: {m: {provider: p, model: embedded/extract-v1}}\n"
        "routes: [{name: a, prompt: {user_file: prompt.j2}, model: m}]\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(ROOT)

    assert load(path, {}).routes[0].prompt.user_file == tmp_path / "prompt.j2"


def test_files_are_found_beside_the_target_of_a_linked_configuration(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "user.j2").write_text("x")
    (real / "penstock.yaml").write_text(
        "version: 1\nproviders: {p: {kind: embedded}}\nmodels: {m: {provider: p, model: embedded/extract-v1}}\n"
        "routes: [{name: a, model: m, prompt: {user_file: user.j2}}]\n"
    )
    (tmp_path / "penstock.yaml").symlink_to(real / "penstock.yaml")

    assert load(tmp_path / "penstock.yaml", {}).routes[0].prompt.user_file == real / "user.j2"


def test_a_file_that_the_configuration_names_and_that_is_missing_is_told() -> None:
    text = "version: 1\nroutes:\n  - name: a\n    prompt:\n      user_file: none.j2\n    model: m\n"

    assert complaint(text) == ("penstock.yaml:5: routes[0].prompt.user_file: no such file: none.j2; found 'none.j2'")


# --- what must fit together


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "version: 1\nmodels: {m: {provider: p, model: x}}",
            "penstock.yaml:2: models.m.provider: found 'p', allowed: a provider; none is configured",
        ),
        (
            "version: 1\nproviders: {one: {kind: fake}, two: {kind: fake}}\nmodels:\n  m: {provider: p, model: x}",
            "penstock.yaml:4: models.m.provider: found 'p', allowed: a provider: one, two",
        ),
        (
            "version: 1\n" + ROUTE,
            "penstock.yaml:5: routes[0].model: found 'm', allowed: a model alias; none is configured",
        ),
        (
            "version: 1\nproviders: {p: {kind: fake}}\nmodels: {m: {provider: p, model: embedded/extract-v1}}\n"
            + ROUTE + "  - name: a\n    prompt: {user: y}\n    model: m\n",
            "penstock.yaml:8: routes[1].name: found 'a', allowed: a name no other route has",
        ),
        (
            "version: 1\ngateway:\n  api_keys:\n    - {id: a, key: env:A}\n    - {id: a, key: env:B}",
            "penstock.yaml:5: gateway.api_keys[1].id: found 'a', allowed: an id no other key has",
        ),
    ],
)  # fmt: skip
def test_sections_that_do_not_fit_together_are_told(text: str, said: str) -> None:
    assert complaint(text) == said


# --- the environment


def settings_with(text: str, **environ: str) -> Settings:
    return build(parse(text, "penstock.yaml"), {f"PENSTOCK_{name}": value for name, value in environ.items()}, Path())


def test_a_variable_overrides_the_file() -> None:
    text = "version: 1\nkafka: {partitions: 3}"

    assert settings_with(text, KAFKA__PARTITIONS="5").kafka.partitions == 5


@pytest.mark.parametrize("text", ["version: 1", "version: 1\nkafka:"])
def test_a_variable_makes_the_section_it_needs(text: str) -> None:
    assert settings_with(text, KAFKA__TOPIC_PREFIX="p").kafka.topic_prefix == "p"


def test_a_variable_overrides_an_item_of_a_list() -> None:
    text = (
        "version: 1\nproviders: {p: {kind: fake}}\nmodels: {m: {provider: p, model: x}, n: {provider: p, model: y}}\n"
    )

    assert settings_with(text + ROUTE, ROUTES__0__MODEL="n").routes[0].model == "n"


def test_a_variable_may_hold_a_list() -> None:
    assert settings_with("version: 1", WORKER__LANES="[bulk]").worker.lanes == ("bulk",)


def test_brokers_may_be_separated_by_commas() -> None:
    servers = settings_with("version: 1", KAFKA__BOOTSTRAP_SERVERS="a:1, b:2").kafka.bootstrap_servers

    assert servers == ("a:1", "b:2")


def test_variables_without_a_double_underscore_are_no_settings() -> None:
    assert settings_with("version: 1", TEST_KAFKA="x", CONFIG="y") == Settings(version=1)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("KAFKA__PARTITIONS", "zero", f"kafka.partitions: {INTEGER}; found 'zero'"),
        ("KAFAK__X", "1", "kafak: unknown key; did you mean 'kafka'?"),
        ("LOGGING__COLOUR", "1", "logging.colour: unknown key; allowed: level, format"),
        ("ROUTES__7__MODEL", "x", "there is no setting routes[7].model"),
        ("ROUTES__\u00b2__MODEL", "x", "there is no setting routes.\u00b2.model"),
        ("VERSION__X", "x", "there is no setting version.x"),
        ("ROUTES__0__MODEL", "x", "routes[0].model: found 'x', allowed: a model alias; none is configured"),
        ("KAFKA__PARTITIONS", "[1", "value:1:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("KAFKA__TOPIC_PREFIX", "2026-02-30", f"value:1:1: not valid YAML: {FEBRUARY}"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, said: str) -> None:
    text = "version: 1\n" + ROUTE.replace("model: m", "model: n")
    told = complaint(text, {f"PENSTOCK_{name}": value}).splitlines()

    assert f"environment PENSTOCK_{name}: {said}" in told


def test_what_is_missing_in_a_section_that_a_variable_has_made_is_told_of_the_variable() -> None:
    text = "version: 1\nproviders: {p: {kind: fake}}\nmodels: {m: {provider: p, model: x}}\n"
    told = complaint(text, {"PENSTOCK_MODELS__M__PRICE__INPUT_USD": "1"})

    assert told == "environment PENSTOCK_MODELS__M__PRICE__INPUT_USD: models.m.price.output_usd: is required"


def test_a_list_that_the_file_does_not_have_cannot_get_an_item_from_the_environment() -> None:
    told = complaint("version: 1", {"PENSTOCK_ROUTES__0__MODEL": "x"})

    assert told == "environment PENSTOCK_ROUTES__0__MODEL: routes: must be a list"


# --- secrets


@pytest.mark.parametrize(
    "text",
    [
        f"{SOURCE}      - id: a\n        value: {SECRET}",
        f"{SOURCE}      - {SECRET}",
        f"{SOURCE}      - id: a\n        value: [{SECRET}]",
        f"{SOURCE}      - id: a\n        value: {{x: {SECRET}}}",
        SOURCE.rstrip("\n") + f" {SECRET}",
        f"gateway:\n  api_keys: [{SECRET}]",
        f"gateway:\n  api_keys: {SECRET}",
        f"gateway:\n  api_keys:\n    - id: a\n      key: {SECRET}",
        f"gateway:\n  ticket_secret: {SECRET}",
        f"kafka:\n  sasl_password: {SECRET}",
        f"providers:\n  p:\n    kind: openai\n    base_url: http://x/v1\n    api_key: {SECRET}",
        f"providers:\n  p:\n    kind: bedrock\n    region: x\n    bearer_token: {SECRET}",
    ],
)
def test_a_secret_in_the_file_is_refused_and_never_repeated(text: str) -> None:
    told = complaint("version: 1\n" + text)

    assert SECRET not in told
    assert told.startswith("penstock.yaml:")
    assert "at least 1 item" not in told


@pytest.mark.parametrize("value", [SECRET, "{" + SECRET, "[" + SECRET, "'" + SECRET, f"!!int {SECRET}"])
def test_a_secret_in_the_environment_is_refused_and_never_repeated(value: str) -> None:
    told = complaint("version: 1", {"PENSTOCK_KAFKA__SASL_PASSWORD": value})

    assert SECRET.removeprefix("whsec_") not in told
    assert told.startswith("environment PENSTOCK_KAFKA__SASL_PASSWORD: ")


def test_the_working_example_is_right() -> None:
    assert len(load(ROOT / "penstock.yaml", {}).routes) >= 4
