"""`penstock batch` before it touches Kafka."""

import os
from pathlib import Path

import pytest

from gateways.batch.jobs import Jobs
from gateways.batch.run import JobRun
from gateways.cli import batch
from gateways.cli.batch_show import listing
from gateways.cli.main import run
from tests.gateways.cli.settings import write
from tests.support import free_port

ROUTES = """\
version: 1
providers: {p: {kind: fake}}
models: {m: {provider: p, model: m-1}}
routes:
  - {name: tickets, match: {type: "com.example.*"}, prompt: {user: "{{ text }}"}, model: m}
  - {name: rest, match: {source: other}, prompt: {user: "{{ text }}"}, model: m}
"""


def submit(folder: Path, *args: str) -> int:
    config = write(folder, ROUTES)
    (folder / "in.jsonl").write_text("{}\n", encoding="utf-8")
    return run(["batch", "submit", str(folder / "in.jsonl"), "--config", str(config), *args])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--type", "org.other"), "no route takes events of source 'batch' and type 'org.other'"),
        (("--type", "com.example.t", "--route", "rest"), "route tickets takes events"),
        (("--type", "com.example.t", "--route", "rest"), "; rest takes --source other with --type *"),
        (("--type", "com.example.t", "--route", "rset"), "; there is no route 'rset', but: tickets, rest"),
        (("--type", "com.example.t", "-o", "x"), "--output goes with --wait"),
        (("--type", "com.example.t", "--record-id", "id"), "expected a JSON pointer"),
        (("--type", "com.example.t", "--record-id", "/a~2"), "expected a JSON pointer"),
        (("--type", "com.example.t", "--wait", "-o", "."), "'.': is a folder"),
        (("--type", "com.example.t", "--wait", "-o", ""), "'': is a folder"),
        (("--type", "com.example.t", "--wait", "-o", "lost/out.jsonl"), "there is no folder lost"),
        (("--type", "com.example.t", "--wait", "-o", "s3:///key"), "expected s3://bucket/prefix"),
        (("--type", "com.example.t", "--wait", "-o", "s3:/bucket"), "expected s3://bucket/prefix"),
        (("--type", "com.example.t", "--job", "no/slash"), "letters, digits"),
        (("--type", "com.example.\udcff"), "expected UTF-8 text"),
        (("--type", "com.example.t", "--source", "\udcff"), "expected UTF-8 text"),
        (("--type", "com.example.t", "--key", "/\udcff"), "expected UTF-8 text"),
        (("--type", "com.example.t", "--wait", "-o", "\udcff"), "expected UTF-8 text"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    assert submit(tmp_path, *args) == 2
    assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("input_name", "output"),
    [("in.jsonl", "in.jsonl"), ("out.errors.jsonl", "out.jsonl"), ("in.jsonl", "linked.jsonl")],
)
def test_results_never_take_the_place_of_the_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], input_name: str, output: str
) -> None:
    """As when the error file of a job is mended, sent again, and answered beside the first answers."""
    config = write(tmp_path, ROUTES)
    lines = tmp_path / input_name
    lines.write_text("{}\n", encoding="utf-8")
    (tmp_path / "linked.jsonl").hardlink_to(lines)
    where = ("--type", "com.example.t", "--wait", "-o", str(tmp_path / output))

    assert run(["batch", "submit", str(lines), "--config", str(config), *where]) == 2
    assert "would replace the input" in " ".join(capsys.readouterr().err.split())


def test_a_folder_that_nothing_can_be_written_in_is_refused_before_lines_are_paid_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who runs the tests may be allowed to write everywhere.
    monkeypatch.setattr("os.access", lambda _folder, mode: not mode & os.W_OK)

    assert submit(tmp_path, "--type", "com.example.t", "--wait", "-o", str(tmp_path / "out.jsonl")) == 2
    assert "nothing can be written in" in " ".join(capsys.readouterr().err.split())


def test_brokers_that_are_away_are_told_before_half_a_minute_is_spent_on_a_transaction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def submitted(*_args: object, **_more: object) -> None:
        pytest.fail("nothing is begun without a broker")

    monkeypatch.setenv("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", f"127.0.0.1:{free_port()}")
    monkeypatch.setattr(batch, "_REACH_LIMIT_S", 0.2)
    monkeypatch.setattr(JobRun, "submit", submitted)
    monkeypatch.chdir(tmp_path)

    assert submit(tmp_path, "--type", "com.example.t") == 1
    assert "no Kafka broker answers at 127.0.0.1:" in capsys.readouterr().err


def test_no_jobs_are_no_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    listing(Jobs(), in_json=False)

    assert capsys.readouterr().out == "no jobs\n"


def test_an_input_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(tmp_path, ROUTES)

    assert run(["batch", "submit", "nowhere.jsonl", "--type", "com.example.t", "--config", str(config)]) == 1
    assert "there is no such file" in capsys.readouterr().err


def test_a_folder_whose_name_is_not_utf8_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    config = write(folder, ROUTES)
    (folder / "in.jsonl").write_text("{}\n", encoding="utf-8")
    monkeypatch.chdir(folder)

    assert run(["batch", "submit", "in.jsonl", "--type", "com.example.t", "--config", str(config)]) == 1
    assert "the path of an input must be UTF-8 text" in capsys.readouterr().err


@pytest.mark.parametrize("uri", ["s3://", "s3:///key", "s3://bucket", "s3://bucket/"])
def test_an_input_on_s3_has_bucket_and_key(tmp_path: Path, capsys: pytest.CaptureFixture[str], uri: str) -> None:
    config = write(tmp_path, ROUTES)

    assert run(["batch", "submit", uri, "--type", "com.example.t", "--config", str(config)]) == 1
    assert f"{uri}: expected s3://bucket/key" in capsys.readouterr().err
