"""Tests of gateways/cli/running.py: how other terminals find a running `penstock up`."""

import os
import stat
from pathlib import Path

import click
import pytest

from contracts.settings import environment
from gateways.cli import running
from gateways.cli.main import cli


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return running.STATE_FILE


def test_what_up_publishes_is_found_while_it_runs(file: Path) -> None:
    with running.claimed() as state:
        running.publish(state, {"A": "1"}, "http://127.0.0.1:9")

        assert running.current() == {"url": "http://127.0.0.1:9", "environment": {"A": "1"}}
    assert running.current() is None
    assert file.read_text() == ""


def test_a_file_that_nobody_holds_is_stale(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"url": "http://127.0.0.1:9", "environment": {"A": "1"}}')

    assert running.current() is None


def test_before_it_is_up_nothing_is_published(file: Path) -> None:
    with running.claimed():
        assert file.exists()
        assert running.current() is None


def test_a_second_up_in_one_folder_is_refused(file: Path) -> None:
    with running.claimed(), pytest.raises(click.ClickException, match="is running already"), running.claimed():
        pass
    assert file.exists()


def test_only_its_owner_may_read_the_secrets_in_it(file: Path) -> None:
    with running.claimed():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_client_commands_borrow_variables_and_own_ones_win(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "mine")
    # Set and removed again, so that what `lend` sets is undone at the end of the test.
    monkeypatch.setenv("BORROWED", "")
    monkeypatch.delenv("BORROWED")
    with running.claimed() as state, click.Context(cli) as ctx:
        running.publish(state, {"OWN": "theirs", "BORROWED": "yes"}, "http://127.0.0.1:9")
        ctx.invoked_subcommand = "send"
        running.lend(ctx)

    assert (environment()["OWN"], environment()["BORROWED"]) == ("mine", "yes")
    assert ctx.default_map == {"send": {"url": "http://127.0.0.1:9"}}
    assert file.exists()
    os.environ.pop("BORROWED")


@pytest.mark.parametrize("name", ["verify", "undelivered", "why-stuck"])
def test_what_needs_the_secrets_or_the_topics_of_up_is_a_client(file: Path, name: str) -> None:
    with running.claimed() as state, click.Context(cli) as ctx:
        running.publish(state, {}, "http://127.0.0.1:9")
        ctx.invoked_subcommand = name
        running.lend(ctx)

    assert ctx.default_map
    assert file.exists()


def test_servers_never_take_over_the_environment_of_up(file: Path) -> None:
    with running.claimed() as state, click.Context(cli) as ctx:
        running.publish(state, {"NOT_BORROWED": "yes"}, "http://127.0.0.1:9")
        ctx.invoked_subcommand = "gateway"
        running.lend(ctx)

    assert "NOT_BORROWED" not in environment()
    assert file.exists()
