"""Writes the rules of deploy/prometheus/rules as the PrometheusRule of deploy/kubernetes; a test holds them together.

    python -m tests.deploy.prometheus_rule

kustomize reads no file outside of its folder, and cannot put one file's lists into another.
Reads: deploy/prometheus/rules. Writes: deploy/kubernetes/components/prometheus-operator/rules.yaml.
"""

from typing import Any

import yaml

from tests.support import ROOT

RULES = ROOT / "deploy/prometheus/rules"
MANIFEST = ROOT / "deploy/kubernetes/components/prometheus-operator/rules.yaml"
_HEAD = """\
# Written by `python -m tests.deploy.prometheus_rule` from deploy/prometheus/rules; changes belong there.
"""


def manifest() -> str:
    """Return the text of the manifest."""
    groups: list[Any] = []
    for file in sorted(RULES.glob("*.yml")):
        groups += yaml.safe_load(file.read_text("utf-8"))["groups"]
    document = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "penstock", "labels": {"app.kubernetes.io/name": "penstock"}},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(document, sort_keys=False, width=10**6, allow_unicode=True)


if __name__ == "__main__":
    MANIFEST.write_text(manifest(), "utf-8")
