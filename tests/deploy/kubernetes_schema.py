"""The part of Kubernetes' schema that our manifests use, and how it is cut out.

The released API description has 3 MB, and packages that bundle it some 70, so a part of it lies here.
Ours are those of Kubernetes 1.30, the oldest version that the manifests are for: what is in it stays in later ones.

    python -m tests.deploy.kubernetes_schema SWAGGER CRD...

SWAGGER: api/openapi-spec/swagger.json of github.com/kubernetes/kubernetes at the tag v1.30.0.
CRD: monitoring.coreos.com_podmonitors.yaml and _prometheusrules.yaml of github.com/prometheus-operator (0.93), folder
example/prometheus-operator-crd, and keda.sh_scaledobjects.yaml of github.com/kedacore/keda (2.20.2), config/crd/bases.
Reads, writes: tests/deploy/kubernetes_schema.json.
"""

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

from tests.support import ROOT

FILE = ROOT / "tests/deploy/kubernetes_schema.json"
KINDS = {
    "v1/Namespace": "io.k8s.api.core.v1.Namespace",
    "v1/Service": "io.k8s.api.core.v1.Service",
    "v1/ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "apps/v1/Deployment": "io.k8s.api.apps.v1.Deployment",
    "apps/v1/StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
    "autoscaling/v2/HorizontalPodAutoscaler": "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "batch/v1/Job": "io.k8s.api.batch.v1.Job",
    "networking.k8s.io/v1/NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "policy/v1/PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
}
_PREFIX = "#/definitions/"
# Strings in the description, and more than that to the API server.
_LOOSE: Mapping[str, list[str]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": ["string", "integer"],
    "io.k8s.apimachinery.pkg.api.resource.Quantity": ["string", "number"],
}
_KEPT = frozenset(
    {"$ref", "type", "properties", "items", "required", "additionalProperties", "enum", "pattern"}
    | {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
)


def problems(manifest: Mapping[str, Any]) -> list[str]:
    """Return what of a manifest the API server would not know or not take, each with its place."""
    kind = f"{manifest['apiVersion']}/{manifest['kind']}"
    if kind not in _schema()["kinds"]:
        return [f"{kind}: not in {FILE.name}"]
    found = _validator(kind).iter_errors(manifest)
    return [f"{'/'.join(map(str, error.instance_path))}: {error.message}" for error in found]


@functools.cache
def _schema() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return document


@functools.cache
def _validator(kind: str) -> jsonschema_rs.Draft4Validator:
    schema = _schema()
    return jsonschema_rs.Draft4Validator(
        {"$ref": _PREFIX + schema["kinds"][kind], "definitions": schema["definitions"]}
    )


def _strict(value: Any) -> Any:
    """Return a schema without descriptions, in which unknown fields are wrong."""
    if not isinstance(value, dict):
        return value
    kept: dict[str, Any] = {}
    for key in sorted(_KEPT & value.keys()):
        found = value[key]
        if key == "properties":
            found = {name: _strict(one) for name, one in found.items() if name != "status"}
        elif key in {"items", "additionalProperties"}:
            found = _strict(found)
        # Flags in the middle of a pattern are of Go's dialect.
        if key != "pattern" or "(?" not in found:
            kept[key] = found
    if value.get("x-kubernetes-int-or-string"):
        kept = {"type": ["string", "integer"]}
    if "properties" in kept and not value.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    return kept


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item.removeprefix(_PREFIX)
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def _cut(swagger: Mapping[str, Any]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    wanted = set(KINDS.values())
    while wanted:
        name = wanted.pop()
        definitions[name] = {"type": _LOOSE[name]} if name in _LOOSE else _strict(swagger["definitions"][name])
        wanted |= set(_references(definitions[name])) - definitions.keys()
    return definitions


def _custom(crd: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    spec = crd["spec"]
    for version in spec["versions"]:
        if version["storage"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"$ref": f"{_PREFIX}io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
            yield f"{spec['group']}/{version['name']}/{spec['names']['kind']}", schema


def main(swagger: Path, *crds: Path) -> None:
    """Write the file; one definition a line, so that a change can be read."""
    definitions, kinds = _cut(json.loads(swagger.read_text("utf-8"))), dict(KINDS)
    for crd in crds:
        for name, schema in _custom(yaml.safe_load(crd.read_text("utf-8"))):
            definitions[name.replace("/", ".")] = schema
            kinds[name] = name.replace("/", ".")
    lines = [
        f'"{name}": {json.dumps(definitions[name], separators=(",", ":"), sort_keys=True)}'
        for name in sorted(definitions)
    ]
    head = json.dumps({"kinds": kinds}, indent=1)
    body = ",\n".join(lines)
    FILE.write_text(f'{head[:-2]},\n "definitions": {{\n{body}\n}}}}\n', "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
