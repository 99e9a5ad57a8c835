"""The options of `penstock dlq` commands."""

import time

import click
import pytest
from click.testing import CliRunner

from gateways.cli.dlq_filters import Filter, Instant, filtered


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
