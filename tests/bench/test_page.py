"""The page that states the figures is what the kept files say."""

import json
from pathlib import Path

import pytest

from bench import page as module
from bench.figures import Figure, publish
from bench.page import KEPT, keep, page
from tests.support import ROOT

FIGURES = [
    Figure("rate, penstock, N=64", 0.9, "ratio", ">= 0.97", holds=False),
    Figure("rate, faust, N=64", 0.8, "ratio"),
    Figure("lost, penstock, N=64", 0, "events", "= 0", holds=True, is_strict=True),
    Figure("ideal schedule", 12.5, "s"),
    Figure("not measured, N=64: bytewax did not finish within 150 s: 7 of 9 results", 7, "results"),
]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with the figures of one run."""
    monkeypatch.setattr("bench.figures.FOLDER", tmp_path / "build")
    publish("peers", "python -m bench peers", 5, FIGURES)
    keep(["peers"], tmp_path / "build", tmp_path / "docs")
    return tmp_path / "docs"


def test_the_page_in_the_tree_is_what_the_kept_figures_say() -> None:
    assert (ROOT / KEPT / "README.md").read_text("utf-8") == page(ROOT / KEPT), "run python -m bench.page"


def test_every_kept_figure_has_its_plot() -> None:
    names = {path.stem for path in (ROOT / KEPT).glob("*.json")}

    assert {path.stem for path in (ROOT / KEPT).glob("*.svg")} == names


def test_sides_stand_side_by_side_with_the_goal_and_whether_it_holds(kept: Path) -> None:
    text = (kept / "README.md").read_text("utf-8")

    assert "| figure | unit | goal | holds | penstock | faust |" in text
    assert "| rate, N=64 | ratio | >= 0.97 | **no** | 0.9 | 0.8 |" in text
    assert "| lost, N=64 | events | = 0 | yes | 0 |  |" in text
    assert "| ideal schedule | s |  |  | 12.5 |" in text


def test_missed_goals_and_missing_peers_are_named(kept: Path) -> None:
    text = (kept / "README.md").read_text("utf-8")

    assert "1 of 2 goals hold. Missed:\n\n- [peers](#peers): rate, penstock, N=64: 0.9 ratio, goal >= 0.97" in text
    assert "- not measured, N=64: bytewax did not finish within 150 s: 7 of 9 results (7 results)" in text


def test_command_commit_machine_and_runs_are_stated(kept: Path) -> None:
    document = json.loads((kept / "peers.json").read_text("utf-8"))
    line = f"`python -m bench peers` at {document['commit']}, medians of 5 runs, on {document['machine']}."

    assert line in (kept / "README.md").read_text("utf-8")


def test_figures_that_were_not_measured_anew_stay(kept: Path, tmp_path: Path) -> None:
    publish("kill", "python -m bench kill", 1, [Figure("lost, penstock", 0, "events")])
    keep(["kill"], tmp_path / "build", kept)

    assert "## peers" in page(kept)
    assert "## kill" in page(kept)


def test_a_name_without_figures_is_refused_with_those_that_have_some(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    monkeypatch.setattr(module, "FOLDER", tmp_path / "build")
    result = CliRunner().invoke(module.main, ["nothing"])

    assert kept.exists()
    assert result.exit_code == 2
    assert "not measured: nothing; there are: peers" in result.output
