"""`penstock callbacks`."""

import base64
import pwd
from pathlib import Path

import pytest
import standardwebhooks
from click.testing import CliRunner

from contracts.payloads import EndpointState
from contracts.settings import Settings
from gateways.cli import callbacks as module
from gateways.cli.main import run
from tests.gateways.cli.settings import write
from tests.kafkalab.fixtures import KafkaLab

CONFIG = """\
version: 1
kafka: {{bootstrap_servers: "{bootstrap}", topic_prefix: {prefix}}}
egress:
  crm:
    kind: callback
    url: https://crm.example/hooks
    secrets:
      - {{id: "2026", value: "file:{secret}"}}
      - {{id: "2025", value: "file:{folder}/lost"}}
"""


def _config(folder: Path, bootstrap: str = "127.0.0.1:1", prefix: str = "penstock") -> str:
    secret = folder / "crm.secret"
    secret.write_text(CliRunner().invoke(module.callbacks, ["keygen", "--kind", "v1a"]).stdout, encoding="ascii")
    file = folder / "penstock.yaml"
    file.write_text(CONFIG.format(bootstrap=bootstrap, prefix=prefix, secret=secret, folder=folder), encoding="ascii")
    return str(file)


def test_keygen_prints_a_secret_that_receivers_libraries_take() -> None:
    made = CliRunner().invoke(module.callbacks, ["keygen"])

    assert made.exit_code == 0
    assert made.stdout.count("\n") == 1
    standardwebhooks.Webhook(made.stdout.strip())
    assert len(base64.b64decode(made.stdout.strip().removeprefix("whsec_"))) == 32


def test_keygen_tells_the_public_half_of_a_pair_apart_from_the_secret() -> None:
    made = CliRunner().invoke(module.callbacks, ["keygen", "--kind", "v1a"])

    secret, _, public = base64.b64decode(made.stdout.strip().removeprefix("whsk_")), None, made.stderr.split()[-1]
    assert made.stdout.count("\n") == 1
    assert base64.b64decode(public.removeprefix("whpk_")) == secret[32:]


def test_an_endpoint_that_is_not_configured_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["callbacks", "enable", "crn", "--config", _config(tmp_path)]) == 1

    assert "no callback endpoint 'crn'; there are: crm" in capsys.readouterr().err


def test_without_endpoints_the_list_says_so_and_asks_no_kafka(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["callbacks", "list", "--config", str(write(tmp_path))]) == 0
    assert capsys.readouterr().err.startswith("no callback endpoints in the configuration")


def test_an_endpoint_can_be_disabled_by_a_user_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user id is drawn, and has no entry in /etc/passwd."""
    written: list[EndpointState] = []

    async def put(_settings: Settings, state: EndpointState) -> None:
        written.append(state)

    def nobody(_user_id: int) -> object:
        message = "getpwuid(): uid not found: 1000700000"
        raise KeyError(message)

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(module, "_put", put)

    assert run(["callbacks", "disable", "crm", "--config", _config(tmp_path)]) == 0
    assert [(state.status, state.by.partition("@")[0]) for state in written] == [("disabled", "unknown")]


@pytest.mark.kafka
def test_disable_and_enable_are_seen_by_list(
    tmp_path: Path, kafka: KafkaLab, capsys: pytest.CaptureFixture[str]
) -> None:
    config = _config(tmp_path, kafka.bootstrap, kafka.prefix)
    kafka.create_named(f"{kafka.prefix}.endpoints.v1", config={"cleanup.policy": "compact"})

    def listed() -> str:
        assert run(["callbacks", "list", "--config", config]) == 0
        return capsys.readouterr().out

    before = listed()
    assert run(["callbacks", "disable", "crm", "--why", "moving house", "--config", config]) == 0
    disabled = listed()
    assert run(["callbacks", "enable", "crm", "--config", config]) == 0
    enabled = listed()

    assert "crm  active\n  url  https://crm.example/hooks\n  key  2026  v1a  whpk_" in before
    assert "  key  2025  not readable here\n" in before
    assert "crm  disabled since 20" in disabled
    assert ": moving house (" in disabled
    assert "crm  active since 20" in enabled
