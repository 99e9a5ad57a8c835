"""The script with the permissions of each program says what docs/operations.md says, and the broker's tool gets it."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.kafka_acls import SCRIPT, Rule, rows, rules, script
from tests.deploy.kubernetes_files import COMPONENTS, OWN_USERS, ours

pytestmark = pytest.mark.process


def test_the_script_is_that_of_the_page() -> None:
    assert SCRIPT.read_text("utf-8") == script(), "write it anew: python -m tests.deploy.kafka_acls"


def _given(folder: Path, **environ: str) -> set[tuple[str, Rule]]:
    """Return what the script asks the broker's tool for, which is played here."""
    tool, calls = folder / "kafka-acls.sh", folder / "calls"
    tool.write_text('#!/bin/sh\n(for arg; do printf "%s\\t" "$arg"; done; echo) >> "$CALLS"\n')
    tool.chmod(0o755)
    environ |= {"PATH": f"{folder}:/usr/bin:/bin", "CALLS": str(calls), "BOOTSTRAP": "kafka:9092"}
    subprocess.run(["/bin/sh", str(SCRIPT)], env=environ, check=True, timeout=30)
    found = set()
    for line in calls.read_text("utf-8").splitlines():
        args = line.rstrip("\t").split("\t")
        assert args[:2] == ["--bootstrap-server", "kafka:9092"]
        start = args.index("--allow-principal")
        options = list(zip(args[start::2], args[start + 1 :: 2], strict=True))
        chosen = dict(options)
        end = "*" if chosen["--resource-pattern-type"] == "prefixed" else ""
        user = chosen["--allow-principal"].removeprefix("User:")
        named = [one for one in options if one[0] in {"--topic", "--group", "--transactional-id"}]
        found |= {(user, Rule(kind[2:], f"{name}{end}", chosen["--operation"])) for kind, name in named}
    return found


def test_each_user_gets_what_the_page_lists_and_nothing_else(tmp_path: Path) -> None:
    given = _given(tmp_path, PREFIX="shop", APP_ID="shop-workers", USERS="shop-", PEOPLE="shop-worker")
    wanted = {
        (f"shop-{'worker' if program == 'people' else program}", rule)
        for program, cells in rows().items()
        for rule in rules(cells, "shop", "shop-workers")
    }

    assert given == wanted
    assert ("shop-worker", Rule("group", "shop-workers", "Read")) in given
    assert not any("<" in rule.name or "$" in rule.name for _, rule in given)


def test_each_program_has_a_user_that_the_script_knows() -> None:
    patches = yaml.safe_load((COMPONENTS / OWN_USERS / "kustomization.yaml").read_text("utf-8"))["patches"]
    patched = {(one["target"]["kind"], one["target"]["name"]) for one in patches}

    assert patched == {(one.manifest["kind"], one.name) for one in ours().values()}
    assert set(ours()) | {"people"} == set(rows())
