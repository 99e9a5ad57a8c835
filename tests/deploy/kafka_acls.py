"""Reads from docs/operations.md what each program may do on Kafka, and writes it as the script of deploy/kubernetes.

    python -m tests.deploy.kafka_acls

`tests/kafka/test_permissions.py` gives a real broker the same, and nothing else.
Reads: docs/operations.md. Writes: deploy/kubernetes/components/kafka-users/acls.sh.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.support import ROOT

PAGE = ROOT / "docs/operations.md"
SCRIPT = ROOT / "deploy/kubernetes/components/kafka-users/acls.sh"
_ROW = re.compile(r"^\| `([a-z-]+)` \|(.*)\|$", re.MULTILINE)
_NAMES = re.compile(r"`([^`]+)`")
_GROUPS = re.compile(r"(Read|Describe) ((?:`[^`]+`(?:, )?)+)")
_HEAD = """\
#!/bin/sh
# Written by `python -m tests.deploy.kafka_acls` from docs/operations.md, "What each program may do".
#
#   BOOTSTRAP=host:port COMMAND_CONFIG=admin.properties sh acls.sh
#
# PREFIX is kafka.topic_prefix, APP_ID worker.app_id; USERS stands before each user's name. The users themselves are
# made with Kafka's own tools. PEOPLE is who types the other commands: USERS and the name of a program, such as
# PEOPLE=penstock-worker, where people work in its pods. Each output_topic of a route is to be allowed as results.v1.
set -eu
prefix=${PREFIX:-penstock} app_id=${APP_ID:-penstock} users=${USERS:-penstock-}
acl() {
  user=$1
  shift
  kafka-acls.sh --bootstrap-server "$BOOTSTRAP" ${COMMAND_CONFIG:+--command-config "$COMMAND_CONFIG"} \\
    --add --force --allow-principal "User:$user" "$@"
}
"""


class Rule(NamedTuple):
    """What somebody may do with one thing.

    Attributes:
        kind: topic, group or transactional-id.
        name: of it; a star at the end is a prefix, a star alone is all.
        operation: as Kafka's tools name it.
    """

    kind: str
    name: str
    operation: str


def rows() -> dict[str, list[str]]:
    """Return the cells of the page's table by program."""
    text = PAGE.read_text("utf-8").partition("### What each program may do")[2].partition("\n## ")[0]
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in _ROW.findall(text)}


def rules(cells: list[str], prefix: str, app_id: str) -> Iterator[Rule]:
    """Yield what one row of the table allows."""
    reads, writes, groups, transactions, others = cells
    for cell, operation in ((reads, "Read"), (writes, "Write")):
        yield from (Rule("topic", f"{prefix}.{name}", operation) for name in _NAMES.findall(cell))
    for operation, names in _GROUPS.findall(groups):
        yield from (Rule("group", name.replace("<app_id>", app_id), operation) for name in _NAMES.findall(names))
    for name in _NAMES.findall(transactions):
        full = name if name == "*" else f"{prefix}.{name}"
        yield from (Rule("transactional-id", full, operation) for operation in ("Write", "Describe"))
    yield from (Rule("topic", f"{prefix}.*", operation) for operation in re.findall(r"[A-Z]\w+", others))


def script() -> str:
    """Return the text of the script: one call for all names of a program with one operation and one kind of pattern."""
    lines = [_HEAD]
    for program, cells in rows().items():
        user = "${PEOPLE:-${users}people}" if program == "people" else f"${{users}}{program}"
        calls: dict[tuple[str, str, str], list[str]] = {}
        for kind, name, operation in rules(cells, "$prefix", "$app_id"):
            is_prefix = name.endswith("*") and name != "*"
            pattern, stem = ("prefixed", name[:-1]) if is_prefix else ("literal", name)
            calls.setdefault((kind, pattern, operation), []).append(f'--{kind} "{stem}"')
        lines.append(f"\n# {program}\n")
        lines += [
            f'acl "{user}" --operation {operation} --resource-pattern-type {pattern} \\\n  {" ".join(names)}\n'
            for (_, pattern, operation), names in calls.items()
        ]
    return "".join(lines)


if __name__ == "__main__":
    SCRIPT.write_text(script(), "utf-8")
