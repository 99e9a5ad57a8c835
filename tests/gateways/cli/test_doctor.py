"""Tests of `penstock doctor`."""

import sys
from pathlib import Path

import pytest

from contracts.errors import LogUnavailable
from contracts.settings import build, load, parse
from gateways.cli import doctor_checks
from gateways.cli.doctor_checks import Finding
from gateways.cli.main import run
from tests.gateways.cli.settings import SMALL
from tests.support import ROOT

EXAMPLE = load(ROOT / "penstock.yaml", {})


def findings(monkeypatch: pytest.MonkeyPatch, *found: Finding) -> None:
    monkeypatch.setattr(doctor_checks, "all_checks", lambda *_: iter([lambda f=f: f for f in found]))


def test_hints_are_no_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    findings(monkeypatch, Finding("java", "hint", "not found", "install a JRE"))

    assert run(["doctor"]) == 0
    assert "-> install a JRE" in capsys.readouterr().out


def test_something_needed_that_is_missing_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings(monkeypatch, Finding("python", "ok", "3.11"), Finding("packages", "missing", "not installed: msgspec"))

    assert run(["doctor"]) == 1
    assert "missing: packages" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("configured", "mapped", "slow"),
    [
        ("'--enable-shared'", "7f00-7f01 r-xp /opt/lib/libpython3.11.so.1.0", True),
        ("'--enable-shared' '--enable-optimizations'", "7f00-7f01 r-xp /opt/lib/libpython3.12.so.1.0", False),
        ("'--enable-shared'", "7f00-7f01 r-xp /usr/bin/python3.11", False),
        ("'--prefix=/opt'", "", False),
    ],
)
def test_an_interpreter_that_nobody_let_optimise_is_named(configured: str, mapped: str, slow: bool) -> None:
    assert doctor_checks.is_slow(configured, mapped) is slow


def test_a_slow_interpreter_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "is_slow", lambda *_: True)

    finding = doctor_checks.python()

    assert (finding.state, "without optimisation" in finding.text) == ("hint", True)
    assert "--enable-optimizations" in finding.advice


def test_the_dependencies_are_there() -> None:
    assert doctor_checks.packages().state == "ok"


def test_a_missing_dependency_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_checks, "requires", lambda _name: ["not-there-at-all>=1", 'x; extra == "dev"'])

    finding = doctor_checks.packages()

    assert (finding.state, finding.text) == ("missing", "not installed: not-there-at-all")


def test_a_broken_configuration_is_missing_and_shows_its_problems(tmp_path: Path) -> None:
    (tmp_path / "penstock.yaml").write_text("version: 2\n")

    checks = {check().name: check() for check in list(doctor_checks.all_checks(tmp_path / "penstock.yaml", {}))[2:3]}

    assert checks["configuration"].state == "missing"
    assert "version" in checks["configuration"].text


def test_a_kafka_that_does_not_answer_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateways.cli.reading.METADATA_LIMIT_S", 0.2)
    settings = build(parse(SMALL, "x"), {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}, Path())

    finding = doctor_checks.kafka(settings)

    assert finding.state == "hint"
    assert "no Kafka broker answers at 127.0.0.1:1" in finding.text
    # Where compose publishes its broker, nobody looks by default.
    assert "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS=localhost:29092" in finding.advice


def test_a_program_that_is_not_there_says_what_it_is_for() -> None:
    finding = doctor_checks.command("java", ("no-such-java", "-version"), "make kafka", "install a JRE")

    assert finding == Finding("java", "hint", "not found; needed for make kafka", "install a JRE")


def test_a_program_that_fails_is_not_ok() -> None:
    args = (sys.executable, "-c", "raise SystemExit('no daemon\\nsee --help')")

    finding = doctor_checks.command("docker", args, "compose", "install Docker")

    assert finding.state == "hint"
    assert "no daemon; needed for compose" in finding.text


def test_a_program_that_runs_shows_its_version() -> None:
    assert doctor_checks.command("x", (sys.executable, "-c", "print('v 17')"), "a", "b") == Finding("x", "ok", "v 17")


def test_aws_credentials_are_found_without_asking_anybody(tmp_path: Path) -> None:
    assert "AWS_PROFILE" in doctor_checks.aws(EXAMPLE, {"AWS_PROFILE": "blue", "HOME": str(tmp_path)}).text
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("")
    assert str(tmp_path / ".aws/credentials") in doctor_checks.aws(EXAMPLE, {"HOME": str(tmp_path)}).text


def test_without_bedrock_missing_aws_credentials_need_no_advice(tmp_path: Path) -> None:
    assert doctor_checks.aws(EXAMPLE, {"HOME": str(tmp_path)}).advice == ""
    bedrock = build(parse(SMALL.replace("{kind: embedded}", "{kind: bedrock, region: eu-west-1}"), "x"), {}, Path())
    assert "aws configure" in doctor_checks.aws(bedrock, {"HOME": str(tmp_path)}).advice


@pytest.mark.parametrize(
    "more",
    [
        "egress: {out: {kind: sqs, region: eu-west-1, queue_url: 'https://sqs.eu-west-1.amazonaws.com/1/q'}}\n",
        "ingress: {in: {kind: sqs, queue_url: 'https://sqs.eu-west-1.amazonaws.com/1/q', type: com.example.x}}\n",
        "gateway: {api_keys: [{id: tools, key: 'aws-sm:tools'}]}\n",
    ],
)
def test_doors_and_secrets_of_aws_need_credentials_too(tmp_path: Path, more: str) -> None:
    found = doctor_checks.aws(build(parse(SMALL + more, "x"), {}, Path()), {"HOME": str(tmp_path)})

    assert (found.text, found.advice[:13]) == ("no credentials visible", "aws configure")


def test_topics_that_may_not_be_looked_at_are_not_blamed_on_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        message = "configurations: Authorization failed"
        raise LogUnavailable(message)

    monkeypatch.setattr("producers.admin.TopicAdmin.find", refuse)

    assert doctor_checks.topics(EXAMPLE).text == "not looked at: configurations: Authorization failed"


def test_a_user_without_a_home_has_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_path: Path) -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "expanduser", unknown)

    assert doctor_checks.aws(None, {}).text.startswith("no credentials visible")
