"""What kustomize makes of the folders, where kubectl or kustomize is installed; nothing is sent to a cluster."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes_files import COMPONENTS, FOLDER, GRAFANA, OWN_USERS, SASL, SECRET, Workload, settings
from tests.deploy.kubernetes_schema import problems
from tests.support import ROOT

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
    last = (SASL, OWN_USERS)
    first = [folder for folder in sorted(COMPONENTS.iterdir()) if folder.name not in last]
    return _with(here, [*first, *(COMPONENTS / name for name in last), GRAFANA])


def _with(here: Path, components: list[Path]) -> list[dict[str, Any]]:
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


def test_the_first_step_of_an_upgrade_leaves_out_all_programs_but_topics_and_workers(
    everything: list[dict[str, Any]],
) -> None:
    label = "app.kubernetes.io/component"
    found = re.search(rf"-l '{label} notin \(([a-z,-]+)\)'", (ROOT / "docs/kubernetes.md").read_text("utf-8"))
    assert found is not None
    kept = [one for one in everything if one["metadata"].get("labels", {}).get(label) not in found[1].split(",")]

    assert _workloads(kept).keys() == {"penstock-topics", "penstock-worker"}
    assert [one["kind"] for one in kept if one["metadata"]["name"].startswith("penstock-config")] == ["ConfigMap"]


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


def _kafka_secrets(workload: Workload) -> set[str]:
    """Return the Secrets from which a program has its name and its password for Kafka."""
    (user,) = [one for one in workload.container["env"] if one["name"] == "PENSTOCK_KAFKA__SASL_USERNAME"]
    (volume,) = [one for one in workload.pod["volumes"] if one["name"] == "kafka"]
    return {user["valueFrom"]["secretKeyRef"]["name"], volume["secret"]["secretName"]}


def test_every_program_has_a_kafka_user_of_its_own_where_that_is_wanted(
    everything: list[dict[str, Any]], tmp_path: Path
) -> None:
    own = {name: _kafka_secrets(workload) for name, workload in _workloads(everything).items()}
    (tmp_path / "few").mkdir()
    few = _workloads(_with(tmp_path.resolve() / "few", [COMPONENTS / SASL, COMPONENTS / OWN_USERS]))
    one_for_all = _workloads(_with(tmp_path.resolve() / "few", [COMPONENTS / SASL]))

    assert own == {name: {f"penstock-kafka-{name.removeprefix('penstock-')}"} for name in own}
    # Of programs that are not deployed there is nothing to change.
    assert {name: _kafka_secrets(workload) for name, workload in few.items()} == {name: own[name] for name in few}
    assert [_kafka_secrets(workload) for workload in one_for_all.values()] == [{"penstock-kafka"}] * len(few)


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
