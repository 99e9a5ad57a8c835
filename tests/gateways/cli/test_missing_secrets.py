"""A program names all secrets that it misses before it starts anything."""

from pathlib import Path

import pytest

from gateways.cli.main import run
from tests.support import ROOT

CONFIG = """\
version: 1
sources:
  one: {scheme: github, type: t, secrets: [{id: a, value: env:PENSTOCK_TEST_ONE}]}
  two: {scheme: github, type: t, secrets: [{id: a, value: env:PENSTOCK_TEST_TWO}]}
gateway:
  api_keys: [{id: a, key: env:PENSTOCK_TEST_KEY}]
egress:
  first: {kind: callback, url: "https://example.com/", secrets: [{id: a, value: env:PENSTOCK_TEST_FIRST}]}
  second: {kind: callback, url: "https://example.com/", secrets: [{id: a, value: env:PENSTOCK_TEST_SECOND}]}
"""


NEEDS = "needs at least 16 printable ASCII characters without spaces"
UNUSABLE = """\
version: 1
sources:
  one: {scheme: github, type: t, secrets: [
      {id: a, value: env:PENSTOCK_TEST_ONE},
      {id: b,
       value: env:PENSTOCK_TEST_TWO}]}
gateway:
  api_keys:
    - {id: a, key: env:PENSTOCK_TEST_KEY_A}
    - {id: b, key: env:PENSTOCK_TEST_KEY_B}
    - id: c
      key: env:PENSTOCK_TEST_KEY_C
"""


@pytest.mark.parametrize(
    ("args", "variables"),
    [
        (("gateway",), ("ONE", "TWO", "KEY")),
        (("gateway", "--processes", "2"), ("ONE", "TWO", "KEY")),
        (("egress",), ("FIRST", "SECOND")),
        (("egress", "second"), ("SECOND",)),
    ],
)
def test_all_that_are_missing_are_told_at_once(
    args: tuple[str, ...], variables: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(CONFIG, encoding="utf-8")

    code = run([*args, "--config", str(file)])

    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert [line.rpartition("secret env:PENSTOCK_TEST_")[2] for line in lines] == [
        f"{variable} is not set or empty" for variable in variables
    ]


@pytest.mark.parametrize("args", [("gateway",), ("config", "check", "--secrets")])
@pytest.mark.parametrize("missing", [(), ("ONE",), ("KEY_B",)])
def test_secrets_that_cannot_be_used_are_told_at_once_with_those_that_are_missing(
    args: tuple[str, ...],
    missing: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(UNUSABLE, encoding="utf-8")
    for name in ("ONE", "TWO", "KEY_A", "KEY_B", "KEY_C"):
        if name not in missing:
            monkeypatch.setenv(f"PENSTOCK_TEST_{name}", "a long key with spaces" if name == "KEY_C" else "short")

    code = run([*args, "--config", str(file)])

    expected = {
        "ONE": "4: sources.one: secret 'a': has 5 bytes, needs 16 to 4096",
        "TWO": "6: sources.one: secret 'b': has 5 bytes, needs 16 to 4096",
        "KEY_A": f"9: gateway.api_keys[0] (a): {NEEDS}",
        "KEY_B": f"10: gateway.api_keys[1] (b): {NEEDS}",
        "KEY_C": f"12: gateway.api_keys[2] (c): {NEEDS}",
    }
    places = {"ONE": "4: sources.one.secrets[0].value", "KEY_B": "10: gateway.api_keys[1].key"}
    expected |= {name: f"{places[name]}: secret env:PENSTOCK_TEST_{name} is not set or empty" for name in missing}
    assert code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert sorted(lines) == sorted(f"{file}:{line}" for line in expected.values())


def test_the_working_example_names_every_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("API_KEY", "SECRET_SALESFORCE", "SECRET_GITHUB", "SECRET_STRIPE", "SECRET_SUPPORT"):
        monkeypatch.delenv(f"PENSTOCK_{name}", raising=False)

    assert run(["gateway"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5
