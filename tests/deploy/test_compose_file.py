"""The compose file starts what the configuration can run, and nothing listens beyond this machine."""

import re
from collections.abc import Mapping

import pytest
import yaml

from contracts.settings import SecretRef, Settings, build, parse
from contracts.settings.batch_api import HandOverProcess
from contracts.settings.batch_jobs import BatchProcess
from tests.deploy.stack_file import example_environment, services, stack, variables
from tests.support import ROOT

pytestmark = pytest.mark.process

OURS = sorted(name for name, service in services().items() if service["image"].startswith("penstock:"))
ONE_SHOT = {"topics"}
# Between the last deadline of a clean stop and the kill, seconds.
MARGIN_S = 5


def _environ_of(service: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return a service's variables; files that are not there, as a person's own, count as empty."""
    one = stack(environ)["services"][service]
    files = [ROOT / name for name in one.get("env_file", ()) if isinstance(name, str)]
    found = [variables(file) for file in files if file.exists()]
    return {name: text for part in (*found, one["environment"]) for name, text in part.items()}


def _settings_of(service: str, environ: Mapping[str, str] | None = None) -> Settings:
    text = (ROOT / "penstock.yaml").read_text("utf-8")
    return build(parse(text, "penstock.yaml"), _environ_of(service, environ), base=ROOT)


@pytest.mark.parametrize("service", ["topics", "gateway", "worker-1", "worker-2"])
def test_the_settings_of_a_service_are_a_valid_configuration_on_the_stacks_kafka(service: str) -> None:
    assert _settings_of(service).kafka.bootstrap_servers == ("kafka:9092",)


def test_every_secret_that_the_gateway_needs_is_in_the_example_environment() -> None:
    settings = _settings_of("gateway")
    references = [secret.value for source in settings.sources.values() for secret in source.secrets]
    references += [key.key for key in settings.gateway.api_keys]
    references += [settings.gateway.ticket_secret or SecretRef("env:NONE")]
    needed = {reference.reference.removeprefix("env:") for reference in references}

    assert needed == example_environment().keys()


def test_workers_ask_the_stand_in_until_a_file_of_ones_own_takes_the_place_of_its_settings() -> None:
    file = build(parse((ROOT / "penstock.yaml").read_text("utf-8"), "penstock.yaml"), {}, base=ROOT)
    own = _settings_of("worker-1", {"PENSTOCK_MODEL_ENV": ".env.model"})

    assert _settings_of("worker-1").models["default"].model == "stub.extract-v1"
    assert (own.models, own.providers) == (file.models, file.providers)
    assert "AWS_ACCESS_KEY_ID" not in _environ_of("worker-1", {"PENSTOCK_MODEL_ENV": ".env.model"})


def test_the_two_workers_have_names_of_their_own_in_the_consumer_group() -> None:
    assert [_settings_of(name).worker.instance_id for name in ("worker-1", "worker-2")] == ["worker-1", "worker-2"]


def test_a_stopped_worker_gets_the_time_its_drain_may_take() -> None:
    grace_s = int(services()["worker-1"]["stop_grace_period"].removesuffix("s"))

    assert grace_s >= _settings_of("worker-1").worker.stop_limit_s + MARGIN_S


def test_the_doors_out_of_the_comment_reach_the_stacks_kafka_and_get_the_time_their_end_may_take() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    found = re.search(r"(?m)^  # egress:\n(  #   .*\n)+", text)
    assert found is not None
    taken_in = text.replace(found[0], re.sub(r"(?m)^  # ", "  ", found[0]))
    egress = yaml.safe_load(taken_in)["services"]["egress"]
    settings = build(
        parse((ROOT / "examples/callbacks/penstock.yaml").read_text("utf-8"), "x"), egress["environment"], base=ROOT
    )
    longest_s = max(door.timeout_s for door in settings.egress.values())

    assert settings.kafka.bootstrap_servers == ("kafka:9092",)
    assert int(egress["stop_grace_period"].removesuffix("s")) >= (
        settings.egress_process.drain_timeout_s + longest_s + MARGIN_S
    )


def test_a_stopped_gateway_gets_the_time_its_requests_may_take() -> None:
    grace_s = int(services()["gateway"]["stop_grace_period"].removesuffix("s"))

    assert grace_s >= _settings_of("gateway").gateway.shutdown_timeout_s + MARGIN_S


def test_ports_are_published_on_this_machine_only_and_can_be_moved() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    published = re.findall(r'ports: \["([^"]+)"\]', text)

    assert len(published) == text.count("ports:")
    assert [
        port for port in published if not re.match(r"127\.0\.0\.1:\$\{PENSTOCK_[A-Z_]+_PORT:-\d+\}:\d+$", port)
    ] == []


def test_no_two_services_want_the_same_port_of_this_machine() -> None:
    ports = [port.split(":")[1] for service in services().values() for port in service.get("ports", ())]

    assert len(ports) == len(set(ports))


@pytest.mark.parametrize("name", sorted(services()))
def test_a_service_has_a_memory_limit_a_bounded_log_and_a_health_check(name: str) -> None:
    service = services()[name]

    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["logging"]["options"]["max-size"]
    assert ("healthcheck" in service) != (name in ONE_SHOT)


@pytest.mark.parametrize("name", OURS)
def test_our_containers_can_write_nothing_and_gain_nothing(name: str) -> None:
    service = services()[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(volume.endswith(":ro") for volume in service["volumes"])


@pytest.mark.parametrize("name", sorted(services()))
def test_what_a_service_mounts_exists(name: str) -> None:
    mounts = [volume.split(":")[0] for volume in services()[name].get("volumes", ())]

    assert [path for path in mounts if path.startswith("./") and not (ROOT / path).exists()] == []
    assert [volume for volume in mounts if not volume.startswith("./") and volume not in stack()["volumes"]] == []


def test_prometheus_scrapes_services_of_the_stack() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8"))
    targets = {
        target for job in config["scrape_configs"] for group in job["static_configs"] for target in group["targets"]
    }

    assert targets - {"localhost:9090"} == {"gateway:8080", "worker-1:8081", "worker-2:8081"}
    assert {target.split(":")[0] for target in targets} - {"localhost"} <= services().keys()


def test_the_jobs_for_programs_that_the_stack_does_not_run_are_right_when_they_are_taken_in() -> None:
    text = (ROOT / "deploy/prometheus/prometheus.yml").read_text("utf-8")
    taken_in = re.sub(r"(?m)^  #(?: (?=- |  )|$)", "  ", text)
    found = {job["job_name"]: job["static_configs"][0]["targets"] for job in yaml.safe_load(taken_in)["scrape_configs"]}
    rules = (ROOT / "deploy/prometheus/rules/batch.yml").read_text("utf-8")

    assert found["penstock-batch"] == [f"batch:{BatchProcess().health_port}"]
    assert found["penstock-hand-over"] == [f"hand-over:{HandOverProcess().health_port}"]
    assert 'job=~"penstock-batch|penstock-hand-over"' in rules
