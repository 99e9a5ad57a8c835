"""References to secrets."""

import os
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import ConfigError
from contracts.settings import SecretRef, build, load, require_secrets
from contracts.settings.marks import Document
from contracts.settings.secrets import references


def test_a_variable_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = SecretRef("env:PENSTOCK_TEST_SECRET")
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "s3cret")

    assert secret.resolve() == b"s3cret"


def test_a_variable_may_hold_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they come out of a random generator."""
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", os.fsdecode(b"\xff\xfe s3cret"))

    assert SecretRef("env:PENSTOCK_TEST_SECRET").resolve() == b"\xff\xfe s3cret"


def test_the_line_end_of_a_file_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b" s3cret \r\n")

    assert SecretRef(f"file:{tmp_path}/key").resolve() == b" s3cret "


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_missing_or_empty_is_refused(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("PENSTOCK_TEST_SECRET", value)

    with pytest.raises(ConfigError, match="secret env:PENSTOCK_TEST_SECRET is not set or empty"):
        SecretRef("env:PENSTOCK_TEST_SECRET").resolve()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: embedded null byte"):
        SecretRef("file:a\0b").resolve()
    with pytest.raises(ConfigError, match=r"secret file:.*/none cannot be read: No such file or directory"):
        SecretRef(f"file:{tmp_path}/none").resolve()


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\n")

    with pytest.raises(ConfigError, match="is not set or empty"):
        SecretRef(f"file:{tmp_path}/key").resolve()


@pytest.mark.parametrize("blank", [" ", " \t \n", " " * 32])
def test_blanks_are_no_secret(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", blank)

    with pytest.raises(ConfigError, match="is not set or empty"):
        SecretRef("env:PENSTOCK_TEST_SECRET").resolve()


@pytest.mark.parametrize(
    "text",
    [
        "s3cret", "env:", "env:1A", "env:s3 cret", "file:", "ENV:s3cret", "env:s3cret\n",
        "aws-sm:", "aws-sm:s3 cret", "aws-sm:a#", "aws-sm:a#s3#cret", "aws-sm:#s3",
    ],
)  # fmt: skip
def test_what_is_no_reference_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must be a reference, env:NAME, file:PATH or aws-sm:NAME") as caught:
        SecretRef(text)

    assert "s3" not in str(caught.value)


def test_its_text_shows_the_reference_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_SECRET", "s3cret")
    secret = SecretRef("env:PENSTOCK_TEST_SECRET")
    secret.resolve()

    assert repr(secret) == "SecretRef('env:PENSTOCK_TEST_SECRET')"
    assert not hasattr(secret, "__dict__")


@pytest.mark.parametrize(
    "name", ["penstock/shop", "shop#current", "arn:aws:secretsmanager:eu-central-1:123456789012:secret:shop-AbCdEf#k"]
)
def test_a_secret_of_aws_is_read_by_the_gateway_alone(name: str) -> None:
    secret = SecretRef(f"aws-sm:{name}")

    assert (secret.kind, secret.name) == ("aws-sm", name)
    with pytest.raises(ConfigError, match="can only be used by the gateway"):
        secret.resolve()


def _settings(**sections: Any) -> Any:
    return build(Document("penstock.yaml", {"version": 1} | sections), {}, Path())


def test_a_secret_of_aws_may_stand_where_the_gateway_looks_for_it() -> None:
    source = {"scheme": "github", "type": "t", "secrets": [{"id": "k", "value": "aws-sm:shop"}]}
    gateway = {"api_keys": [{"id": "crm", "key": "aws-sm:crm#key"}]}

    settings = _settings(sources={"shop": source}, gateway=gateway)

    assert [secret.name for _, secret in references(settings)] == ["crm#key", "shop"]


@pytest.mark.parametrize(
    ("section", "body"),
    [
        ("gateway", {"ticket_secret": "aws-sm:tickets"}),
        ("kafka", {"sasl_password": "aws-sm:kafka"}),
        (
            "gateway",
            {
                "api_keys": [
                    {
                        "id": "a",
                        "key": "env:A",
                        "callbacks": {"hosts": ["h"], "secrets": [{"id": "k", "value": "aws-sm:s"}]},
                    }
                ]
            },
        ),
    ],
)
def test_a_secret_of_aws_elsewhere_is_refused_and_its_place_named(section: str, body: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{section}\..*aws-sm: is for sources and the keys"):
        _settings(**{section: body})


MISSING = """\
version: 1
sources:
  shop:
    scheme: github
    type: t
    secrets:
      - {id: current, value: env:PENSTOCK_TEST_A}
      - {id: next, value: file:/no/such/file}
gateway:
  ticket_secret: env:PENSTOCK_TEST_B
kafka:
  sasl_password: env:PENSTOCK_TEST_C
"""


def missing(tmp_path: Path, *sections: tuple[str, ...], text: str = MISSING, **environ: str) -> list[str]:
    """Return what is said of the secrets below some sections, without the file's name."""
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    settings = load(file, environ)
    try:
        require_secrets(settings, sections, file, environ)
    except ConfigError as error:
        return [line.removeprefix(str(file)) for line in str(error).splitlines()]
    return []


def test_all_secrets_that_are_missing_are_told_at_once_with_line_and_key(tmp_path: Path) -> None:
    assert missing(tmp_path, ("sources",), ("gateway",)) == [
        ":7: sources.shop.secrets[0].value: secret env:PENSTOCK_TEST_A is not set or empty",
        ":8: sources.shop.secrets[1].value: secret file:/no/such/file cannot be read: No such file or directory",
        ":10: gateway.ticket_secret: secret env:PENSTOCK_TEST_B is not set or empty",
    ]


def test_only_what_a_program_reads_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TEST_B", "set")

    assert missing(tmp_path, ("gateway",)) == []


def test_the_password_of_kafka_is_needed_where_sasl_is_chosen(tmp_path: Path) -> None:
    text = MISSING + "  security_protocol: SASL_SSL\n  sasl_mechanism: PLAIN\n  sasl_username: me\n"

    assert missing(tmp_path, text=text) == [":12: kafka.sasl_password: secret env:PENSTOCK_TEST_C is not set or empty"]


@pytest.mark.parametrize(
    "more",
    [
        "  sasl_mechanism: AWS_MSK_IAM\n  aws_region: eusc-de-east-1\n",
        (
            "  sasl_mechanism: OAUTHBEARER\n"
            "  oauth: {token_url: https://x/t, client_id: me, client_secret: env:PENSTOCK_TEST_E}\n"
        ),
    ],
)
def test_a_password_that_is_left_over_is_not_needed_where_the_brokers_are_shown_a_token(
    more: str, tmp_path: Path
) -> None:
    oauth = ":15: kafka.oauth.client_secret: secret env:PENSTOCK_TEST_E is not set or empty"
    said = missing(tmp_path, text=f"{MISSING}  security_protocol: SASL_SSL\n{more}")

    assert said == ([oauth] if "oauth" in more else [])


def test_a_reference_from_the_environment_names_its_variable(tmp_path: Path) -> None:
    [said] = missing(tmp_path, ("gateway",), PENSTOCK_GATEWAY__TICKET_SECRET="env:PENSTOCK_TEST_D")

    assert said == (
        "environment PENSTOCK_GATEWAY__TICKET_SECRET: gateway.ticket_secret: "
        "secret env:PENSTOCK_TEST_D is not set or empty"
    )


def test_secrets_manager_is_not_asked(tmp_path: Path) -> None:
    text = MISSING.replace("env:PENSTOCK_TEST_A", "aws-sm:a").replace("file:/no/such/file", "aws-sm:b")

    assert missing(tmp_path, ("sources",), text=text) == []
