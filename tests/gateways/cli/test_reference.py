"""Tests of gateways/cli/reference.py: generated pages say what the code says."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from contracts import errors
from contracts.settings import Settings
from gateways.cli import reference, reference_code, reference_commands, reference_settings
from gateways.cli.main import COMMANDS
from gateways.cli.reference_tables import table


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the page that starts programs."""
    monkeypatch.delitem(reference.PAGES, "cli.md")


@pytest.mark.usefixtures("quick")
def test_what_has_just_been_written_is_up_to_date(tmp_path: Path) -> None:
    written = CliRunner().invoke(reference.main, ["--folder", str(tmp_path)])
    checked = CliRunner().invoke(reference.main, ["--check", "--folder", str(tmp_path)])

    assert (written.exit_code, checked.exit_code, checked.output) == (0, 0, "")


@pytest.mark.usefixtures("quick")
def test_a_page_that_differs_is_named_with_the_difference(tmp_path: Path) -> None:
    CliRunner().invoke(reference.main, ["--folder", str(tmp_path)])
    (tmp_path / "topics.md").write_text("old")

    checked = CliRunner().invoke(reference.main, ["--check", "--folder", str(tmp_path)])

    assert checked.exit_code == 1
    assert f"{tmp_path}/topics.md is out of date; `make reference` writes it" in checked.output
    assert "-old" in checked.output


def test_every_setting_is_on_the_page() -> None:
    page = reference_settings.page()

    for section in ("kafka", "gateway", "worker", "producer", "logging"):
        for field in Settings.model_fields[section].annotation.model_fields:  # type: ignore[union-attr]
            assert f"| `{field}` |" in page


def test_nested_sections_have_their_path_as_title() -> None:
    page = reference_settings.page()

    for title in ("sources.<name>.secrets[]", "providers.<name> (kind: bedrock)", "routes[].prompt"):
        assert f"\n## {title}\n" in page


def test_the_page_of_commands_asks_every_program_of_the_workers_side_for_its_own_help() -> None:
    passed_on = {name for name, (where, _) in COMMANDS.items() if where.startswith("gateways.cli.passthrough:")}

    assert passed_on == reference_commands._ELSEWHERE


def test_the_state_of_endpoints_is_kept_for_ever() -> None:
    (row,) = [line for line in reference_code.topics().splitlines() if "penstock.endpoints.v1" in line]

    assert "| the last of each key, for ever |" in row


def test_every_error_is_on_the_page() -> None:
    page = reference_code.errors()

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [kind.__name__ for kind in kinds if f"| {kind.__name__} |" not in page] == []


def test_counters_stand_there_under_the_name_that_is_scraped() -> None:
    page = reference_code.metrics()

    assert "| `penstock_http_requests_total` | counter | `endpoint`, `status` |" in page


def test_pipes_in_cells_do_not_break_the_table() -> None:
    assert table(("a",), [("x|y\nz",)]).splitlines()[-1] == "| x\\|y z |"
