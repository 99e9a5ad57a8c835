"""The manifests run programs that there are, with settings that load, on ports that are served, and let them finish."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import pytest
import yaml

from contracts.settings import Settings, load
from contracts.settings.egress import DoorSection
from contracts.settings.environ import overrides
from contracts.settings.secrets import references
from contracts.topics import LANES, Topics
from gateways.app import _FLUSH_TIMEOUT_S
from gateways.cli.egress import _FLUSH_TIMEOUT_S as _EGRESS_FLUSH_TIMEOUT_S
from gateways.cli.main import cli
from gateways.egress.page import HealthPage
from gateways.health import _PROBE_TIMEOUT_S
from gateways.ingress.door_health import DoorHealth
from streams.__main__ import main as streams
from streams.fmstub.call import Backend
from streams.fmstub.control import check_knobs
from streams.fmstub.server import Server
from streams.health import HealthServer
from tests.deploy.kubernetes_files import (
    BASE,
    COMPONENTS,
    POD_NAME,
    SECRET,
    TRIAL,
    Workload,
    environment,
    kustomization,
    of_kind,
    ours,
    sasl_patch,
    settings,
    workloads,
)
from tests.deploy.stack_file import example_environment, services
from tests.gateways.driver import CONFIGURATION, Gateway
from tests.gateways.mounted import Mount

CONFIGS = [BASE, TRIAL]
OURS = sorted(ours())
MIB = 2**20
# Between the last deadline of a clean stop and the kill, seconds.
MARGIN_S = 5
# What Python, the libraries and a bounded amount of garbage take: 95 MB measured of an idle worker.
IDLE_BYTES = 160 * MIB


def _parsed(args: list[str]) -> list[str]:
    """Return the names of the commands on a command line.

    Raises:
        click.UsageError: as the program would say it.
    """
    # These become a program of streams/, arguments untouched.
    command: click.Command = streams if args[0] in {"worker", "fm-stub", "hand-over"} else cli
    context, rest, names = click.Context(command), args, []
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert name is not None
        assert found is not None
        command = found
        names.append(name)
    command.make_context(names[-1], list(rest), parent=context)
    return names


@pytest.mark.parametrize("name", sorted(set(workloads()) - {"kafka"}))
def test_a_container_runs_a_command_that_there_is(name: str) -> None:
    args = workloads()[name].container["args"]

    wanted = {"penstock-topics": ["topics", "create"], "penstock-batch": ["batch", "serve"]}
    assert _parsed(args) == wanted.get(name, args[:1])


def test_a_command_line_that_is_wrong_is_found() -> None:
    with pytest.raises(click.UsageError):
        _parsed(["topics", "create", "--wait", "soon"])
    with pytest.raises(click.UsageError):
        _parsed(["workers"])


def _environ(component: str) -> dict[str, str]:
    """Return the variables of a program that are settings."""
    return ours()[component].environment


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
@pytest.mark.parametrize("component", OURS)
def test_a_program_starts_with_a_valid_configuration(component: str, config: Path) -> None:
    found = settings(config, _environ(component))

    assert found.kafka.bootstrap_servers
    assert found.routes


@pytest.mark.parametrize("component", OURS)
def test_a_program_reads_the_mounted_configuration(component: str) -> None:
    workload = ours()[component]
    (generator,) = kustomization(BASE)["configMapGenerator"]
    (mounted,) = [volume for volume in workload.pod["volumes"] if "configMap" in volume]
    (mount,) = [one for one in workload.container["volumeMounts"] if one["name"] == mounted["name"]]

    assert mounted["configMap"]["name"] == generator["name"]
    assert [f"{mount['mountPath']}/{file}" for file in generator["files"]] == [_environ(component)["PENSTOCK_CONFIG"]]


def test_the_overlays_replace_the_configuration_of_the_base() -> None:
    (of_base,) = kustomization(BASE)["configMapGenerator"]
    (of_trial,) = kustomization(TRIAL)["configMapGenerator"]

    assert of_trial == {**of_base, "behavior": "replace"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_the_product_loads_the_configuration_out_of_a_mounted_configmap(config: Path, tmp_path: Path) -> None:
    mount = Mount(tmp_path / "config")
    mount.write({"penstock.yaml": (config / "penstock.yaml").read_bytes()})

    assert load(tmp_path / "config/penstock.yaml", {}).version == 1


@pytest.mark.parametrize("component", OURS)
def test_every_variable_of_a_program_is_a_setting_or_a_secret_that_the_configuration_names(component: str) -> None:
    environ = _environ(component)
    named = {secret.name for _, secret in references(settings(BASE, environ)) if secret.kind == "env"}
    names = {name for path, (name, _) in overrides(environ).items()}

    refs = {one["name"]: one.get("valueFrom", {}).get("secretKeyRef", {}) for one in ours()[component].container["env"]}
    # Those of a rotation, which the configuration names while it lasts.
    optional = {name for name, ref in refs.items() if ref.get("optional")}

    assert environ.keys() - names - named - optional == {"PENSTOCK_CONFIG"}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_secret_of_the_gateway_is_there_where_the_configuration_looks(config: Path) -> None:
    gateway = ours()["gateway"]
    found = settings(config, gateway.environment)
    wanted = [secret for path, secret in references(found) if path[0] in {"gateway", "sources"}]
    folder = next(mount["mountPath"] for mount in gateway.container["volumeMounts"] if mount["name"] == "secrets")

    assert {secret.name for secret in wanted if secret.kind == "env"} <= gateway.environment.keys()
    assert {Path(secret.name).parent for secret in wanted if secret.kind == "file"} == {Path(folder)}
    # What a running gateway can follow lies in files, for only these can change under it.
    assert {secret.kind for path, secret in references(found) if path[0] == "sources"} == {"file"}


def test_the_trial_has_every_secret_and_they_are_those_of_the_example_environment() -> None:
    gateway = ours()["gateway"]
    generated = {
        generator["name"]: dict(literal.split("=", 1) for literal in generator["literals"])
        for generator in kustomization(TRIAL)["secretGenerator"]
    }
    wanted = {
        Path(secret.name).name
        for _, secret in references(settings(TRIAL, gateway.environment))
        if secret.kind == "file"
    }
    (mounted,) = [volume["secret"]["secretName"] for volume in gateway.pod["volumes"] if "secret" in volume]
    keys = [one["valueFrom"]["secretKeyRef"] for one in gateway.container["env"] if "valueFrom" in one]

    assert generated[mounted].keys() == wanted
    needed = [key for key in keys if not key.get("optional")]
    assert [(key["name"], key["key"]) for key in needed if key["key"] not in generated[key["name"]]] == []
    values = {value for secrets in generated.values() for value in secrets.values()}
    assert values <= set(example_environment().values())


def test_the_trial_reaches_its_broker_and_its_model_by_their_services() -> None:
    found = settings(TRIAL, ours()["worker"].environment)
    services = {
        f"{one['metadata']['name']}:{port['port']}" for one in of_kind("Service") for port in one["spec"]["ports"]
    }
    (provider,) = found.providers.values()

    assert set(found.kafka.bootstrap_servers) <= services
    assert str(provider.base_url).removeprefix("http://").removesuffix("/v1") in services  # type: ignore[union-attr]
    assert workloads()["kafka"].environment["KAFKA_ADVERTISED_LISTENERS"] == "PLAINTEXT://kafka:9092"


@pytest.mark.parametrize("component", OURS)
def test_a_program_reaches_kafka_with_tls_and_sasl_after_the_patch(component: str, tmp_path: Path) -> None:
    added: dict[str, list[Any]] = {}
    for operation in sasl_patch():
        added.setdefault(operation["path"], []).append(operation["value"])
    variables = added["/spec/template/spec/containers/0/env/-"]
    (mount,) = added["/spec/template/spec/containers/0/volumeMounts/-"]
    (volume,) = added["/spec/template/spec/volumes/-"]
    environ = _environ(component) | environment(variables)
    authority = environ["PENSTOCK_KAFKA__SSL_CA_FILE"]
    (tmp_path / "ca.crt").touch()
    kafka = settings(BASE, environ | {"PENSTOCK_KAFKA__SSL_CA_FILE": f"{tmp_path}/ca.crt"}).kafka

    assert (kafka.security_protocol, kafka.sasl_mechanism) == ("SASL_SSL", "SCRAM-SHA-512")
    assert kafka.sasl_username == SECRET
    assert kafka.sasl_password is not None
    assert (volume["name"], volume["secret"]["secretName"]) == (mount["name"], "penstock-kafka")
    assert {str(Path(path).parent) for path in (authority, kafka.sasl_password.name)} == {mount["mountPath"]}
    # A patch can only add to a list that is there.
    workload = ours()[component]
    assert all((workload.container["env"], workload.container["volumeMounts"], workload.pod["volumes"]))


def test_each_worker_has_the_name_of_its_pod_in_the_consumer_group() -> None:
    assert settings(BASE, _environ("worker")).worker.instance_id == POD_NAME
    assert settings(BASE, _environ("egress")).egress_process.instance_id == POD_NAME


@pytest.mark.parametrize("component", OURS)
def test_a_program_that_is_probed_listens_on_every_address_at_the_port_of_its_container(component: str) -> None:
    found = settings(BASE, _environ(component))
    listens = {
        "topics": None,
        "gateway": (found.gateway.host, found.gateway.port),
        "worker": (found.worker.health_host, found.worker.health_port),
        "egress": (found.egress_process.health_host, found.egress_process.health_port),
        "ingress": (found.ingress_process.health_host, found.ingress_process.health_port),
        "batch": (found.batch_process.health_host, found.batch_process.health_port),
        "hand-over": (found.hand_over_process.health_host, found.hand_over_process.health_port),
    }[component]
    ports = [port["containerPort"] for port in ours()[component].container.get("ports", ())]

    assert ports == ([] if listens is None else [listens[1]])
    assert listens is None or listens[0] == "0.0.0.0"  # noqa: S104 - it is the pod's own


def _probes(workload: Workload) -> dict[str, Any]:
    return {name: probe for name, probe in workload.container.items() if name.endswith("Probe")}


@asynccontextmanager
async def _served(component: str) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """Run the page of a program that can be asked by path, as the program serves it."""
    if component == "gateway":
        gateway = Gateway(Settings.model_validate(CONFIGURATION))
        await gateway.producer.start()

        async def ask(path: str) -> int:
            return (await gateway.call("GET", path)).status

        yield ask
        return
    page: HealthServer | HealthPage | DoorHealth
    if component in {"worker", "hand-over"}:
        page = server = HealthServer(component, "127.0.0.1", 0, list, list)
        await server.start()
        address = server.address
    else:
        page = doors = (
            DoorHealth("127.0.0.1", 0, list)
            if component == "ingress"
            else HealthPage(component, "127.0.0.1", 0, list, list)
        )
        address = await doors.start()

    async def fetch(path: str) -> int:
        async with aiohttp.ClientSession() as session, session.get(address + path) as answer:
            return answer.status

    try:
        yield fetch
    finally:
        await page.aclose()


@pytest.mark.usefixtures("secret_environment")
@pytest.mark.parametrize("component", sorted(set(OURS) - {"topics"}))
async def test_probes_ask_for_pages_that_the_program_serves(component: str) -> None:
    probes = _probes(ours()[component])

    assert {name: probe["httpGet"]["path"] for name, probe in probes.items()} == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    (port,) = ours()[component].container["ports"]
    assert {probe["httpGet"]["port"] for probe in probes.values()} == {port["name"]}
    async with _served(component) as ask:
        answers = {path: await ask(path) for path in ("/healthz", "/readyz", "/metrics", "/nowhere")}
    assert answers == {"/healthz": 200, "/readyz": 200, "/metrics": 200, "/nowhere": 404}


async def test_the_probe_of_the_model_stand_in_asks_for_a_page_that_it_serves() -> None:
    stub = workloads()["penstock-fm-stub"].container
    server = Server(Backend(check_knobs({})), shutdown_s=0.02)
    port = await server.start()
    try:
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"http://127.0.0.1:{port}{stub['readinessProbe']['httpGet']['path']}")
            assert answer.status == 200
    finally:
        await server.aclose()

    assert [str(one["containerPort"]) for one in stub["ports"]] == [stub["args"][-1]]


def test_a_probe_of_readiness_waits_longer_than_the_gateway_asks_kafka() -> None:
    assert _probes(ours()["gateway"])["readinessProbe"]["timeoutSeconds"] > _PROBE_TIMEOUT_S


def test_a_flood_of_connections_does_not_end_gateways_before_the_slowest_are_closed() -> None:
    probe = _probes(ours()["gateway"])["livenessProbe"]
    found = settings(BASE, _environ("gateway")).gateway

    assert probe["periodSeconds"] * probe["failureThreshold"] >= 2 * (found.header_timeout_s + found.body_timeout_s)


def _grace_s(component: str) -> float:
    return float(ours()[component].pod["terminationGracePeriodSeconds"])


def test_a_stopped_gateway_gets_the_pause_and_the_time_its_requests_may_take() -> None:
    pause_s = ours()["gateway"].container["lifecycle"]["preStop"]["sleep"]["seconds"]
    found = settings(BASE, _environ("gateway")).gateway

    assert pause_s >= 5
    assert _grace_s("gateway") >= pause_s + found.shutdown_timeout_s + _FLUSH_TIMEOUT_S + MARGIN_S


def test_a_stopped_worker_gets_the_time_its_drain_may_take() -> None:
    found = settings(BASE, _environ("worker")).worker

    assert _grace_s("worker") >= found.stop_limit_s + MARGIN_S


def test_stopped_doors_out_get_the_time_their_deliveries_may_take() -> None:
    found = settings(BASE, _environ("egress")).egress_process
    longest_s = DoorSection.model_fields["timeout_s"].default

    assert _grace_s("egress") >= found.drain_timeout_s + longest_s + _EGRESS_FLUSH_TIMEOUT_S + MARGIN_S


def test_stopped_doors_in_get_the_time_their_messages_may_take() -> None:
    found = settings(BASE, _environ("ingress")).ingress_process

    # The 10 s are those of docs/operations.md, "Stopping".
    assert _grace_s("ingress") >= found.drain_timeout_s + 10 + MARGIN_S


@pytest.mark.parametrize("component", ["batch", "hand-over"])
def test_of_what_takes_over_from_another_there_is_one_and_it_has_a_disk_for_its_files(component: str) -> None:
    spec = ours()[component].manifest["spec"]
    (tmp,) = [volume for volume in ours()[component].pod["volumes"] if "emptyDir" in volume]

    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert settings(BASE, _environ(component)).batch_jobs.work_dir is None
    assert tmp["emptyDir"]["sizeLimit"].endswith("Gi")


def test_a_gateway_is_replaced_before_it_goes_and_a_worker_when_its_neighbour_is_ready() -> None:
    gateway, worker = ours()["gateway"].manifest["spec"], ours()["worker"].manifest["spec"]

    assert gateway["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    assert (worker["podManagementPolicy"], worker["updateStrategy"]) == ("Parallel", {"type": "RollingUpdate"})
    assert worker["minReadySeconds"] > 0


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_there_are_not_more_workers_than_partitions(config: Path) -> None:
    worker = ours()["worker"].manifest["spec"]

    assert worker["replicas"] <= settings(config, _environ("worker")).kafka.partitions


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Mi")) * MIB


def test_the_memory_of_a_gateway_is_enough_for_all_that_its_settings_let_in() -> None:
    found = settings(BASE, _environ("gateway"))
    cache = found.gateway.results_cache_bytes
    most = 2 * found.producer.max_buffer_bytes + cache + min(cache, 26 * MIB)

    assert _bytes(ours()["gateway"].container["resources"]["limits"]["memory"]) >= IDLE_BYTES + most


def test_the_memory_of_a_worker_is_enough_for_all_that_its_settings_let_in() -> None:
    found = settings(BASE, _environ("worker"))
    worker = found.worker
    share = len(worker.lanes) * found.kafka.partitions / ours()["worker"].manifest["spec"]["replicas"]
    # 130 bytes, 290 and 22: contracts/settings/worker.py. Two producers, of outcomes and of deltas.
    most = worker.max_held_bytes + 2 * found.producer.max_buffer_bytes + 290 * worker.max_remembered
    most += int(share * 130 * worker.max_uncommitted + 22 * max(worker.max_answers, share * worker.max_uncommitted))

    assert _bytes(ours()["worker"].container["resources"]["limits"]["memory"]) >= IDLE_BYTES + most


def test_the_lag_that_scales_workers_is_that_of_their_group_on_topics_that_there_are() -> None:
    scaled = yaml.safe_load((COMPONENTS / "keda/scaled-object.yaml").read_text("utf-8"))["spec"]
    found = settings(BASE, _environ("worker"))
    topics = Topics(found.kafka.topic_prefix)
    asked = [trigger["metadata"] for trigger in scaled["triggers"]]

    assert scaled["scaleTargetRef"]["name"] == ours()["worker"].name
    assert scaled["maxReplicaCount"] <= found.kafka.partitions
    assert {one["consumerGroup"] for one in asked} == {found.worker.app_id}
    assert {one["bootstrapServers"] for one in asked} == {",".join(found.kafka.bootstrap_servers)}
    assert {one["topic"] for one in asked} <= {topics.events(lane) for lane in LANES}


def test_the_image_of_the_trials_broker_is_that_of_the_stack() -> None:
    image = workloads()["kafka"].container["image"]

    assert image == services()["kafka"]["image"]
