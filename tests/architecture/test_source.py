"""House rules that a linter does not know: docstrings, ASCII, one place for the environment, forbidden words."""

import ast
import re

from tests.architecture.source import CODE_PACKAGES, PRODUCT_PACKAGES, parsed, project_files, python_files, relative
from tests.support import ROOT

CONTRACTS_FILES = {
    "__init__.py",
    "batch_jobs.py",
    "codec.py",
    "deltas.py",
    "envelope.py",
    "errors.py",
    "kafka_config.py",
    "line_log.py",
    "logs.py",
    "metrics.py",
    "stuck.py",
    "payloads.py",
    "repetition.py",
    "signals.py",
    "tallies.py",
    "topics.py",
}
# Split, so that this file does not contain what it looks for.
FORBIDDEN = re.compile(
    "|".join(
        re.escape("".join(parts))
        for parts in (
            ("/wo", "rk/"),
            ("sha", "red/design"),
            ("sha", "red/reference"),
            (".lib", "rary/"),
            ("compose", "-lab"),
            ("py", "pi.org"),
            ("files.python", "hosted.org"),
            ("repo1.maven", ".org"),
            ("repo.maven", ".apache.org"),
            ("proxy.golang", ".org"),
            ("registry.npm", "js.org"),
        )
    ),
)
# The one place that may name the helper which starts a Docker engine where no image can be pulled.
ALLOWED_TO_NAME_THE_LAB = ".ci/run"
BINARY_SUFFIXES = frozenset({".png", ".jpg", ".gif", ".ico", ".woff2", ".gz", ".zip"})


def test_contracts_holds_exactly_the_agreed_files() -> None:
    assert {path.name for path in (ROOT / "contracts").glob("*.py")} == CONTRACTS_FILES


def test_every_module_says_what_it_is_for() -> None:
    silent = [relative(path) for path in python_files(CODE_PACKAGES) if not ast.get_docstring(parsed(path))]

    assert silent == []


def test_code_is_ascii() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in python_files(CODE_PACKAGES)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if not line.isascii()
    ]

    assert found == []


def test_signals_that_end_a_program_are_taken_by_one_rule() -> None:
    takers = {relative(path) for path in python_files(PRODUCT_PACKAGES) if _takes_signals(parsed(path))}

    assert takers == {"contracts/signals.py"}


def _takes_signals(tree: ast.Module) -> bool:
    """Tell whether handlers are set; that of SIGHUP asks for no end."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return any(
        (call.func.attr == "signal" and _is_name(call.func.value, "signal"))  # type: ignore[attr-defined]
        or (call.func.attr == "add_signal_handler" and ast.unparse(call.args[0]) != "signal.SIGHUP")  # type: ignore[attr-defined]
        for call in calls
    )


def test_the_environment_is_read_in_contracts_settings_only() -> None:
    readers = {relative(path) for path in python_files(PRODUCT_PACKAGES) if _reads_environment(parsed(path))}

    assert {name for name in readers if not name.startswith("contracts/settings/")} == set()


def _reads_environment(tree: ast.Module) -> bool:
    names = {"environ", "environb", "getenv", "getenvb"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names and _is_name(node.value, "os"))
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names})
        for node in ast.walk(tree)
    )


def _is_name(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def test_no_file_names_a_workplace_or_a_registry() -> None:
    found = {
        f"{relative(path)}: {match[0]}"
        for path in project_files()
        if path.suffix not in BINARY_SUFFIXES and relative(path) != ALLOWED_TO_NAME_THE_LAB
        for match in FORBIDDEN.finditer(path.read_text("utf-8", errors="replace"))
    }

    assert found == set()


def test_every_client_of_kafka_gets_its_connection_from_one_place() -> None:
    """Who took the settings alone would have no token for Amazon MSK."""
    takers = {
        relative(path) for path in python_files(PRODUCT_PACKAGES) if "librdkafka_config(" in path.read_text("utf-8")
    }

    assert takers == {"contracts/kafka_config.py", "producers/kafka_client.py"}
