"""The manifests of deploy/kubernetes as data, and the settings that their containers start with.

Reads: deploy/kubernetes.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from contracts.settings import Settings, build, parse
from tests.support import ROOT

FOLDER = ROOT / "deploy/kubernetes"
BASE = FOLDER / "base"
COMPONENTS = FOLDER / "components"
TRIAL = FOLDER / "overlays/trial"
GRAFANA = ROOT / "deploy/grafana"
# What a container gets for a reference to a Secret or to its pod.
POD_NAME, SECRET = "penstock-worker-0", "a-secret"
SASL = "kafka-sasl"
# Changes what the former adds, so it comes after it.
OWN_USERS = "kafka-users"

Object = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """One of the kinds that make pods."""

    manifest: Object

    @property
    def name(self) -> str:
        """Return its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def component(self) -> str:
        """Return which program of ours it runs; empty for others."""
        labels = self.manifest["metadata"]["labels"]
        return str(labels.get("app.kubernetes.io/component", ""))

    @property
    def template(self) -> Object:
        """Return the template of its pods."""
        return dict(self.manifest["spec"]["template"])

    @property
    def pod(self) -> Object:
        """Return their spec."""
        return dict(self.template["spec"])

    @property
    def container(self) -> Object:
        """Return the one container."""
        (container,) = self.pod["containers"]
        return dict(container)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that it starts with."""
        return environment(self.container["env"])


def environment(variables: list[Object]) -> dict[str, str]:
    """Return what Kubernetes makes of a container's `env`."""
    return {one["name"]: str(one["value"]) if "value" in one else _value_from(one["valueFrom"]) for one in variables}


def _value_from(source: Object) -> str:
    if "secretKeyRef" in source:
        return SECRET
    return {"metadata.name": POD_NAME}[source["fieldRef"]["fieldPath"]]


def kustomizations() -> list[Path]:
    """Return every file kustomization.yaml."""
    return sorted([*FOLDER.rglob("kustomization.yaml"), GRAFANA / "kustomization.yaml"])


def kustomization(folder: Path) -> Object:
    """Return one of them."""
    document: Object = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    return document


@functools.cache
def objects() -> tuple[tuple[Path, Object], ...]:
    """Return every object that the kustomizations name as a resource, with its file; read once, nobody changes them."""
    return tuple(_objects())


def _objects() -> Iterator[tuple[Path, Object]]:
    for file in kustomizations():
        for resource in kustomization(file.parent).get("resources", ()):
            path = file.parent / resource
            if path.is_file():
                for document in yaml.safe_load_all(path.read_text("utf-8")):
                    yield path, document


def of_kind(*kinds: str) -> list[Object]:
    """Return the objects of some kinds."""
    return [document for _, document in objects() if document["kind"] in kinds]


def workloads() -> dict[str, Workload]:
    """Return everything that makes pods, by name."""
    found = [Workload(document) for document in of_kind("Deployment", "StatefulSet", "Job")]
    return {workload.name: workload for workload in found}


def ours() -> dict[str, Workload]:
    """Return those that run a program of ours with the configuration."""
    return {workload.component: workload for workload in workloads().values() if workload.component}


def sasl_patch() -> list[Object]:
    """Return the operations that let a program reach Kafka with TLS and SASL."""
    document: list[Object] = yaml.safe_load((COMPONENTS / SASL / "kafka-sasl.yaml").read_text("utf-8"))
    return document


def settings(config: Path, environ: dict[str, str], base: Path | None = None) -> Settings:
    """Return the settings of a container."""
    return build(parse((config / "penstock.yaml").read_text("utf-8"), "penstock.yaml"), environ, base=base or config)
