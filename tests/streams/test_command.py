"""The command of the worker, up to its start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.errors import ConfigError
from streams.__main__ import run, worker
from tests.support import ROOT

PROVIDER = "{{kind: openai, base_url: 'http://127.0.0.1:1/v1', api_key: env:PENSTOCK_TEST_{name}}}"


def test_all_secrets_of_the_providers_in_use_that_are_missing_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    providers = "".join(f"  {name.lower()}: {PROVIDER.format(name=name)}\n" for name in ("ONE", "TWO", "UNUSED"))
    file.write_text(
        f"version: 1\nproviders:\n{providers}"
        "models: {m: {provider: one, model: x}, n: {provider: two, model: x}}\n"
        "routes: [{name: a, prompt: {user: x}, model: m}, {name: b, prompt: {user: x}, model: n}]\n",
        encoding="utf-8",
    )

    with pytest.raises(ConfigError) as caught:
        worker.main(["--config", str(file)], standalone_mode=False)

    assert str(caught.value).splitlines() == [
        f"{file}:3: providers.one.api_key: secret env:PENSTOCK_TEST_ONE is not set or empty",
        f"{file}:4: providers.two.api_key: secret env:PENSTOCK_TEST_TWO is not set or empty",
    ]


def test_the_usage_names_the_command_that_was_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["streams", "worker", "--nope"])

    with pytest.raises(SystemExit, match="2"):
        run()

    assert capsys.readouterr().err.startswith(
        "Usage: penstock worker [OPTIONS]\nTry 'penstock worker --help' for help."
    )


@pytest.mark.parametrize("args", [["worker", "--help"], ["fm-stub", "--help"]])
def test_a_help_text_that_cannot_be_written_is_told_in_a_line(args: list[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-P", "-m", "streams", *args], stdout=full, stderr=subprocess.PIPE, check=False, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, b"the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("module", ["click", "faust"])
def test_ctrl_c_while_python_still_imports_a_program_is_no_traceback(module: str, tmp_path: Path) -> None:
    # Stands before the real one, and is interrupted in the middle.
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    (tmp_path / "penstock.yaml").write_text(
        "version: 1\nproviders: {p: {kind: embedded}}\nmodels: {m: {provider: p, model: embedded/extract-v1}}\n"
        "routes: [{name: a, prompt: {user: x}, model: m}]\n"
    )
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.path.insert(0, {str(tmp_path)!r}); "
        f"sys.argv = ['streams', 'worker', '--config', {str(tmp_path / 'penstock.yaml')!r}]; "
        "from streams.__main__ import run; run()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.parametrize("command", ["worker", "fm-stub", "hand-over"])
def test_every_program_shows_its_help_at_the_short_option_too(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["streams", command, "-h"])

    with pytest.raises(SystemExit) as ended:
        run()

    assert ended.value.code == 0
    assert f"Usage: penstock {command}" in capsys.readouterr().out
