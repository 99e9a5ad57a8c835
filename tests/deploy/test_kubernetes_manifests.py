"""The manifests are what an API server takes, fit together, and give their pods no right that they do not need."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.kubernetes_files import (
    COMPONENTS,
    FOLDER,
    Workload,
    kustomization,
    kustomizations,
    objects,
    of_kind,
    ours,
    workloads,
)
from tests.deploy.kubernetes_schema import problems
from tests.deploy.prometheus_rule import MANIFEST, RULES, manifest
from tests.support import ROOT

WORKLOADS = sorted(workloads())
OURS = sorted(ours())
KUSTOMIZATIONS = [str(file.parent.relative_to(ROOT)) for file in kustomizations()]
# The broker of the trial writes beside its programs.
WRITABLE = {"kafka"}
TMP = "/tmp"  # noqa: S108 - of a pod


def test_every_object_is_one_that_the_api_server_knows_in_every_field() -> None:
    wrong = {
        f"{path.name}: {document['kind']} {document['metadata']['name']}: {problem}"
        for path, document in objects()
        for problem in problems(document)
    }

    assert wrong == set()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"replica": 2}, "spec: "),
        ({"replicas": "two"}, "spec/replicas: "),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": []}}}, "spec/strategy/rollingUpdate/maxUnavailable: "),
    ],
)
def test_the_schema_finds_mistakes(spoil: dict[str, Any], said: str) -> None:
    deployment = ours()["gateway"].manifest

    found = problems({**deployment, "spec": {**deployment["spec"], **spoil}})

    assert [problem.startswith(said) for problem in found] == [True]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS)
def test_a_kustomization_names_every_file_beside_it_and_only_files_that_are_there(folder: str) -> None:
    document = kustomization(ROOT / folder)
    named = set(document.get("resources", ())) | set(document.get("components", ()))
    named |= {patch["path"] for patch in document.get("patches", ()) if "path" in patch}
    named |= {file for generator in document.get("configMapGenerator", ()) for file in generator.get("files", ())}
    beside = {file.name for file in (ROOT / folder).glob("*.yaml")} - {"kustomization.yaml"}

    assert beside - named == set()
    assert [name for name in sorted(named) if not (ROOT / folder / name).exists()] == []
    # kustomize reads other folders as a whole only, each by its own kustomization.
    outside = [ROOT / folder / name for name in named if name.startswith("..")]
    assert [path for path in outside if not (path / "kustomization.yaml").is_file()] == []


def test_every_component_is_offered_by_the_overlay_to_copy() -> None:
    text = (FOLDER / "overlays/production/kustomization.yaml").read_text("utf-8")

    assert set(re.findall(r"- \.\./\.\./components/([a-z-]+)$", text, re.MULTILINE)) == {
        folder.name for folder in COMPONENTS.iterdir()
    }


def test_names_are_given_once() -> None:
    names = [(document["kind"], document["metadata"]["name"]) for _, document in objects()]

    assert sorted(name for name in set(names) if names.count(name) > 1) == []


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_pod_runs_as_nobody_and_gains_nothing(name: str) -> None:
    workload = workloads()[name]
    security, container = workload.pod["securityContext"], workload.container["securityContext"]

    assert (security["runAsNonRoot"], security["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert security["runAsUser"] > 0
    assert (container["allowPrivilegeEscalation"], container["capabilities"]) == (False, {"drop": ["ALL"]})
    assert container.get("readOnlyRootFilesystem", False) == (name not in WRITABLE)
    assert workload.pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", sorted(set(WORKLOADS) - WRITABLE))
def test_a_program_of_ours_runs_as_the_user_of_the_image_with_a_folder_to_write_to(name: str) -> None:
    workload = workloads()[name]
    (user,) = re.findall(r"^USER (\d+):\d+$", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    mounts = {mount["name"]: mount["mountPath"] for mount in workload.container["volumeMounts"]}
    writable = [volume["name"] for volume in workload.pod["volumes"] if "emptyDir" in volume]

    assert workload.pod["securityContext"]["runAsUser"] == int(user)
    assert workload.container["image"] == "penstock"
    assert [mounts[name] for name in writable] == [TMP]
    assert all(volume["emptyDir"]["sizeLimit"] for volume in workload.pod["volumes"] if "emptyDir" in volume)


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_service_puts_variables_into_a_pod_that_could_be_taken_for_settings(name: str) -> None:
    assert workloads()[name].pod["enableServiceLinks"] is False


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_container_asks_for_what_it_may_use_of_memory_and_is_not_throttled(name: str) -> None:
    resources = workloads()[name].container["resources"]

    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert resources["requests"]["cpu"]
    assert "cpu" not in resources["limits"]


@pytest.mark.parametrize("component", OURS)
def test_a_mount_of_files_that_change_is_a_whole_folder(component: str) -> None:
    workload = ours()[component]
    volumes = {volume["name"] for volume in workload.pod["volumes"]}
    paths = [Path(mount["mountPath"]) for mount in workload.container["volumeMounts"]]

    assert [mount["name"] for mount in workload.container["volumeMounts"] if "subPath" in mount] == []
    assert {mount["name"] for mount in workload.container["volumeMounts"]} == volumes
    # A mount point inside of a read-only volume cannot be made.
    assert [path for path in paths if any(other in path.parents for other in paths)] == []


@pytest.mark.parametrize("component", sorted(set(OURS) - {"topics"}))
def test_pods_of_a_program_are_spread_and_one_goes_at_a_time(component: str) -> None:
    workload = ours()[component]
    labels = workload.template["metadata"]["labels"]
    spread = workload.pod["topologySpreadConstraints"]
    budgets = [one for one in of_kind("PodDisruptionBudget") if one["spec"]["selector"]["matchLabels"] == labels]

    assert [one["topologyKey"] for one in spread] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert [one["labelSelector"]["matchLabels"] for one in spread] == [labels, labels]
    assert [one["spec"]["maxUnavailable"] for one in budgets] == [1]


@pytest.mark.parametrize("component", OURS)
def test_a_program_has_a_service_account_of_its_own(component: str) -> None:
    names = [account["metadata"]["name"] for account in of_kind("ServiceAccount")]

    assert ours()[component].pod["serviceAccountName"] == f"penstock-{component}"
    assert names.count(f"penstock-{component}") == 1


def _selected(labels: dict[str, str]) -> list[Workload]:
    found = workloads().values()
    return [one for one in found if labels.items() <= one.template["metadata"]["labels"].items()]


def _ports(workload: Workload) -> set[str]:
    return {port["name"] for port in workload.container.get("ports", ())}


def test_every_service_leads_to_a_port_of_one_program() -> None:
    for service in of_kind("Service"):
        (workload,) = _selected(service["spec"]["selector"])
        targets = {port["targetPort"] for port in service["spec"]["ports"]}

        assert targets <= _ports(workload)
        assert service["metadata"]["name"] == workload.name


def test_every_stateful_set_has_its_headless_service() -> None:
    headless = {one["metadata"]["name"] for one in of_kind("Service") if one["spec"].get("clusterIP") == "None"}

    assert {one["spec"]["serviceName"] for one in of_kind("StatefulSet")} == headless


def test_every_program_with_metrics_is_scraped_under_the_job_that_rules_and_dashboard_name() -> None:
    jobs = {}
    for monitor in of_kind("PodMonitor"):
        (workload,) = _selected(monitor["spec"]["selector"]["matchLabels"])
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert endpoint["port"] in _ports(workload)
        jobs[workload.component] = endpoint["relabelings"][0]
        # The operator names every target's port so, and the gateway's metrics have a label of that name.
        assert {"action": "labeldrop", "regex": "endpoint"} in endpoint["relabelings"]
    expressions = "".join(file.read_text("utf-8") for file in RULES.glob("*.yml"))
    scraped = {job["replacement"] for job in jobs.values() if job["targetLabel"] == "job"}

    assert jobs.keys() == set(OURS) - {"topics"}
    assert scraped == {f"penstock-{component}" for component in jobs}
    assert set(re.findall(r'job="([a-z-]+)"', expressions)) <= scraped


def test_a_policy_lets_in_what_the_pods_listen_for() -> None:
    for policy in of_kind("NetworkPolicy"):
        spec = policy["spec"]["podSelector"]
        named = [value for one in spec.get("matchExpressions", ()) for value in one["values"]]
        pods = [ours()[name] for name in named] or _selected(spec["matchLabels"])
        allowed = {port["port"] for rule in policy["spec"].get("ingress", ()) for port in rule.get("ports", ())}

        assert [pod.name for pod in pods if _ports(pod) != allowed] == []


def test_the_rules_of_the_operator_are_those_of_prometheus() -> None:
    assert MANIFEST.read_text("utf-8") == manifest(), "write them anew: python -m tests.deploy.prometheus_rule"


def test_no_manifest_sets_a_number_that_an_autoscaler_owns() -> None:
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    gateway = ours()["gateway"]
    removed = yaml.safe_load(kustomization(COMPONENTS / "keda")["patches"][0]["patch"])

    assert autoscaler["spec"]["scaleTargetRef"]["name"] == gateway.name
    assert autoscaler["spec"]["minReplicas"] >= 2
    assert "replicas" not in gateway.manifest["spec"]
    assert removed == [{"op": "remove", "path": "/spec/replicas"}]
