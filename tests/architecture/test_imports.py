"""Import rules hold: the contracts in pyproject.toml, checked by import-linter."""

import importlib
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from grimp import ImportGraph
from importlinter import configuration
from importlinter.application import use_cases

from tests.architecture.adapters import AdaptersContract
from tests.architecture.source import PRODUCT_PACKAGES
from tests.support import ROOT


def lint() -> bool:
    """Check the contracts as `lint-imports` does; that program's own entry sets up logging for the whole process."""
    configuration.configure()
    return use_cases.lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None, no_logo=True)


def test_every_import_contract_is_kept_and_no_other_test_loses_its_loggers(capsys: pytest.CaptureFixture[str]) -> None:
    somebody = logging.getLogger("somebody.else")

    assert lint(), capsys.readouterr().out
    assert not somebody.disabled


@pytest.mark.parametrize("package", PRODUCT_PACKAGES)
def test_packages_with_generic_names_load_from_this_project(package: str) -> None:
    origin = importlib.import_module(package).__file__

    assert origin is not None
    assert Path(origin).parent.parent == ROOT


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "absent"),
    [
        ("gateways.cli.main", {"aiohttp", "boto3", "confluent_kafka", "pydantic", "rich"}),
        # What one kind of source needs, the others start without: Amazon SNS's certificates come by aiohttp.
        ("gateways.app", {"aiohttp", "boto3", "faust", "jinja2"}),
        # aiohttp is Faust's.
        ("streams.worker", {"boto3", "cryptography", "granian"}),
        ("gateways.cli.egress", {"aiohttp", "boto3", "confluent_kafka"}),
    ],
)
def test_a_program_starts_without_what_it_may_never_need(program: str, absent: set[str]) -> None:
    code = f"import sys, {program}; print(*sys.modules)"
    run = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True, check=True)

    assert absent & set(run.stdout.split()) == set()


@pytest.mark.parametrize(
    ("importer", "imported", "is_kept"),
    [
        ("p.a", "p.b", False),
        ("p.a.inner", "p.b", False),
        ("p.a", "p.a_errors", True),
        ("p.a", "p.base", True),
        ("p.table", "p.a", True),
        ("p.base", "p.a", True),
    ],
)
def test_an_adapter_may_import_what_is_shared_and_its_own_helpers(importer: str, imported: str, is_kept: bool) -> None:
    graph = ImportGraph()
    for module in ("p", "p.a", "p.a.inner", "p.a_errors", "p.b", "p.base", "p.table"):
        graph.add_module(module)
    graph.add_import(importer=importer, imported=imported)
    options = {"package": "p", "shared": ["base"], "collectors": ["table"]}
    contract = AdaptersContract(name="adapters", session_options={}, contract_options=options)

    assert contract.check(graph, verbose=False).kept is is_kept
