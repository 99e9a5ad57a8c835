"""The options of `penstock dlq` commands."""

import time

import click
import pytest
from click.testing import CliRunner

from gateways.cli.dlq_filters import Filter, Instant, filtered
from gateways.cli.main import run


@click.command()
@filtered
def shown(chosen: Filter) -> None:
    """Show what was chosen."""
    click.echo(",".join(chosen.reason))


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("output_invalid", ""),
        ("output-invalid", "no reason of this version is called 'output-invalid'; did you mean output_invalid?\n"),
        ("xyz", "no reason of this version is called 'xyz'; `penstock dlq stats` shows those there are\n"),
    ],
)
def test_a_reason_that_does_not_exist_is_told_and_looked_for_all_the_same(reason: str, said: str) -> None:
    result = CliRunner().invoke(shown, ["--reason", reason])

    assert (result.exit_code, result.stderr, result.stdout) == (0, said, f"{reason}\n")


def test_an_age_beyond_the_calendar_means_everything() -> None:
    assert Instant().convert("999999d", None, None).timestamp() == 0
    assert 3590 < time.time() - Instant().convert("1h", None, None).timestamp() < 3610


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["topics", "create"], "--wait"),
        (["why-stuck"], "--older-than"),
        (["send", "--source", "x"], "--timeout"),
        (["send", "--source", "x"], "--rate"),
        (["dlq", "redrive"], "--rate"),
    ],
)
@pytest.mark.parametrize("number", ["inf", "nan"])
def test_what_is_no_finite_number_is_refused(
    command: list[str], option: str, number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, option, number]) == 2
    assert f"'{option}': '{number}': expected a finite number" in capsys.readouterr().err
