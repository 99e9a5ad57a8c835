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


def test_the_working_example_names_every_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    for name in ("API_KEY", "SECRET_SALESFORCE", "SECRET_GITHUB", "SECRET_STRIPE", "SECRET_SUPPORT"):
        monkeypatch.delenv(f"PENSTOCK_{name}", raising=False)

    assert run(["gateway"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 5
