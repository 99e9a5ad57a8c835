"""What kustomize makes of the folders, where kubectl or kustomize is installed; nothing is sent to a cluster."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes_files import COMPONENTS, FOLDER, GRAFANA, SECRET, Workload, settings
from tests.deploy.kubernetes_schema import problems

BUILD = ["kustomize", "build"] if shutil.which("kustomize") else ["kubectl", "kustomize"]
# Made by kustomize itself, of files and literals.
GENERATED = {"ConfigMap", "Secret"}

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which(BUILD[0]) is None, reason="neither kustomize nor kubectl is installed"),
]


def _built(folder: Path) -> list[dict[str, Any]]:
    run = subprocess.run([*BUILD, str(folder)], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stderr
    return list(yaml.safe_load_all(run.stdout))


def _workloads(built: list[dict[str, Any]]) -> dict[str, Workload]:
    found = [Workload(one) for one in built if one["kind"] in {"Deployment", "StatefulSet", "Job"}]
    return {workload.name: workload for workload in found}


@pytest.fixture
def everything(tmp_path: Path) -> list[dict[str, Any]]:
    """Return the base with every component."""
    # kustomize resolves links before it compares paths.
    here = tmp_path.resolve()
    components = [*sorted(COMPONENTS.iterdir(), key=lambda folder: folder.name == "kafka-sasl"), GRAFANA]
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [os.path.relpath(FOLDER / "base", here)],
        "components": [os.path.relpath(folder, here) for folder in components],
    }
    (here / "kustomization.yaml").write_text(yaml.safe_dump(document), "utf-8")
    return _built(here)


@pytest.mark.parametrize("name", ["base", "overlays/trial", "overlays/production"])
def test_a_folder_is_built_and_every_object_is_one_that_the_api_server_knows(name: str) -> None:
    built = _built(FOLDER / name)

    assert [problem for one in built if one["kind"] not in GENERATED for problem in problems(one)] == []


def test_all_components_go_together(everything: list[dict[str, Any]]) -> None:
    workloads = _workloads(everything)

    assert [problem for one in everything if one["kind"] not in GENERATED for problem in problems(one)] == []
    assert workloads.keys() == {
        f"penstock-{name}" for name in ("gateway", "worker", "egress", "ingress", "batch", "hand-over", "topics")
    }
    assert "replicas" not in workloads["penstock-worker"].manifest["spec"]


def _production(tmp_path: Path, *, has_replicas: bool) -> list[dict[str, Any]]:
    """Return what the overlay to copy makes with every component that it offers."""
    shutil.copytree(FOLDER.parent, tmp_path / "deploy")
    overlay = tmp_path.resolve() / "deploy/kubernetes/overlays/production"
    text = (overlay / "kustomization.yaml").read_text("utf-8")
    document = yaml.safe_load(re.sub(r"^  # - (?=\.\./\.\./components/)", "  - ", text, flags=re.MULTILINE))
    if not has_replicas:
        del document["replicas"]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(document), "utf-8")
    return _built(overlay)


def test_the_overlay_to_copy_reaches_the_objects_of_every_component_that_it_offers(tmp_path: Path) -> None:
    built = _production(tmp_path, has_replicas=False)
    workloads = _workloads(built)

    assert [problem for one in built if one["kind"] not in GENERATED for problem in problems(one)] == []
    assert {one["metadata"].get("namespace") for one in built if one["kind"] != "Namespace"} == {"penstock"}
    assert {workload.container["image"] for workload in workloads.values()} == {"registry.example.com/penstock:0.1.0"}
    assert {workload.environment["PENSTOCK_KAFKA__SASL_USERNAME"] for workload in workloads.values()} == {SECRET}
    assert "replicas" not in workloads["penstock-worker"].manifest["spec"]


def test_a_number_of_workers_in_the_overlay_goes_before_the_autoscaler_as_its_comment_says(tmp_path: Path) -> None:
    worker = _workloads(_production(tmp_path, has_replicas=True))["penstock-worker"]
    text = (FOLDER / "overlays/production/kustomization.yaml").read_text("utf-8")

    assert worker.manifest["spec"]["replicas"] == 3
    assert re.search(r"^# Not together with the component keda.*\nreplicas:$", text, re.MULTILINE)


def test_every_program_gets_the_settings_of_kafka(everything: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "ca.crt").touch()
    for workload in _workloads(everything).values():
        environ = workload.environment | {"PENSTOCK_KAFKA__SSL_CA_FILE": f"{tmp_path}/ca.crt"}
        kafka = settings(FOLDER / "base", environ).kafka

        assert (kafka.security_protocol, kafka.sasl_username) == ("SASL_SSL", SECRET)
        assert "kafka" in {mount["name"] for mount in workload.container["volumeMounts"]}


def test_pods_follow_a_changed_configuration_by_its_name() -> None:
    built = _built(FOLDER / "overlays/trial")
    (config,) = [one["metadata"]["name"] for one in built if one["kind"] == "ConfigMap"]
    mounted = {
        volume["configMap"]["name"]
        for workload in _workloads(built).values()
        for volume in workload.pod["volumes"]
        if "configMap" in volume
    }

    assert config.startswith("penstock-config-")
    assert mounted == {config}


def test_the_broker_and_the_model_of_the_trial_are_not_ours_to_patch() -> None:
    images = {name: one.container["image"] for name, one in _workloads(_built(FOLDER / "overlays/trial")).items()}

    assert images.pop("kafka").startswith("apache/kafka:")
    assert set(images.values()) == {"penstock:local"}
