"""Tests of gateways/cli/main.py: finding commands, and the one edge where failures become text and an exit code."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from contracts.errors import ConfigError, LogUnavailable
from gateways.cli import main as module
from gateways.cli.main import COMMANDS, cli, run
from gateways.cli.modules import command_of
from tests.support import ROOT, ChildProcess

pytestmark = pytest.mark.process
_START_LIMIT_S = 20.0
# A call to a broker may take 5 s and more.
_PROMPT_S = 3.0


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Give a list; the command `tail` raises what is in it."""
    raised: list[BaseException] = []

    @click.command()
    def command() -> None:
        raise raised[0]

    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: command)
    return raised


def test_every_command_of_the_table_can_be_loaded() -> None:
    with click.Context(cli) as ctx:
        loaded = {name: cli.get_command(ctx, name) for name in COMMANDS}

    assert all(isinstance(command, click.Command) for command in loaded.values())


def test_the_first_help_imports_neither_settings_nor_kafka() -> None:
    code = (
        "import sys; from gateways.cli.main import run; run(['--help']); "
        "print([name for name in ('pydantic', 'confluent_kafka', 'faust', 'granian', 'rich') if name in sys.modules])"
    )
    started_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.splitlines()[-1] == "[]"
    # Twice what was asked for, since the machine of a test may be busy.
    assert time.monotonic() - started_s < 3


def test_an_unknown_command_names_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["sedn"])

    assert code == 2
    assert "no such command 'sedn'; did you mean 'send'?" in capsys.readouterr().err


def test_an_unlike_command_lists_all(capsys: pytest.CaptureFixture[str]) -> None:
    run(["zzzzzz"])

    assert "there are: demo, up, send" in capsys.readouterr().err


def test_a_command_whose_import_fails_does_not_hurt_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(module.COMMANDS, "send", ("gateways.cli.not_there:send", "x"))

    assert run(["send"]) == 1
    assert "send cannot be loaded: No module named 'gateways.cli.not_there'" in capsys.readouterr().err
    assert run(["config", "--help"]) == 0


def test_a_configuration_problem_exits_with_2_and_its_lines_only(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(ConfigError("a.yaml:1: x\na.yaml:2: y"))

    assert run(["tail"]) == 2
    assert capsys.readouterr().err == "a.yaml:1: x\na.yaml:2: y\n"


def test_any_other_expected_failure_exits_with_1(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(LogUnavailable("no Kafka"))

    assert run(["tail"]) == 1
    assert capsys.readouterr().err == "no Kafka\n"


def test_ctrl_c_exits_with_130_and_says_nothing(
    failing: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    failing.append(KeyboardInterrupt())

    assert run(["tail"]) == 130
    assert capsys.readouterr().err.strip() == ""


def test_an_int_that_a_command_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: click.Command("x", callback=lambda: 7))

    assert run(["tail"]) == 7


def test_a_missing_configuration_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateways.cli", "config", "check", "--config", str(tmp_path / "no.yaml")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )

    assert done.returncode == 2
    assert done.stderr == f"{tmp_path}/no.yaml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("module", ["click", "yaml"])
def test_ctrl_c_while_python_still_imports_us_is_no_traceback(module: str, tmp_path: Path) -> None:
    # Stands before the real one, and is interrupted in the middle; what comes of it is lost, as with pydantic.
    (tmp_path / f"{module}.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    raise ValueError from None\n"
    )
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"sys.path.insert(0, {str(tmp_path)!r}); from gateways.cli.main import main; main(['config', 'schema'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == -signal.SIGINT
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command",
    [
        ["tail", "results"],
        ["topics", "create", "--wait", "60"],
        ["topics", "verify"],
        ["dlq", "list"],
        ["batch", "status"],
    ],
    ids=" ".join,
)
def test_ctrl_c_does_not_wait_for_a_broker_that_does_not_answer(command: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(_START_LIMIT_S)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environ = {"PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": address}
        with ChildProcess("gateways.cli", *command, env=environ) as child:
            # It connects by itself, and asks a moment later: by its third try, after two pauses, the question stands.
            for _ in range(3):
                connection, _ = silent.accept()
                connection.close()
            child.signal(signal.SIGINT)

            assert child.wait(_PROMPT_S) in {-signal.SIGINT, 130}
            assert "Traceback" not in child.output


def test_output_into_a_closed_pipe_is_no_traceback_and_has_a_code_of_its_own() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "gateways.cli", "config", "schema"]
    with open(writer, "wb") as unread:  # noqa: PTH123 - a descriptor has no path
        done = subprocess.run(command, stdout=unread, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)

    assert (done.returncode, done.stderr) == (141, "")


def test_what_a_terminals_encoding_does_not_have_is_escaped_and_json_stays_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = "P\u00fcmpe \u0645 \U0001f469"
    command = click.Command("x", callback=lambda: click.echo(json.dumps(text, ensure_ascii=False)))
    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: command)
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "latin-1", write_through=True))

    assert run(["tail"]) == 0
    shown = written.getvalue().decode("latin-1")
    assert shown == '"P\u00fcmpe \\u0645 \\ud83d\\udc69"\n'
    assert json.loads(shown) == text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/no/place"), "/no/place: No such file or directory\n"),
        (OSError(28, "No space left on device"), "the output cannot be written: No space left on device\n"),
    ],
)
def test_a_file_or_a_disk_that_cannot_be_used_is_no_traceback(
    error: OSError, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: click.Command("x", callback=fail))

    assert run(["tail"]) == 1
    assert capsys.readouterr().err == said


def test_a_current_folder_that_is_gone_is_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: click.Command("x", callback=Path.cwd))
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()

    assert run(["tail"]) == 1
    assert capsys.readouterr().err == "the current folder does not exist any more: change into another one\n"


def test_an_error_that_names_no_file_shows_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(cli, "get_command", lambda _ctx, _name: click.Command("x", callback=fail))

    with pytest.raises(FileNotFoundError):
        run(["tail"])


def test_worker_arguments_go_through_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.setattr("os.execv", lambda _program, args: called.append(args))

    run(["worker", "--config", "x.yaml", "--help"])

    assert called == [(sys.executable, "-m", "streams", "worker", "--config", "x.yaml", "--help")]


def test_a_users_own_folder_is_not_started_in_place_of_our_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "streams"
    theirs.mkdir()
    for name in ("__init__.py", "__main__.py"):
        (theirs / name).write_text("raise SystemExit('theirs')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    done = subprocess.run(command_of("streams", "--help"), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert "hand-over" in done.stdout
