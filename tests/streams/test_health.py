"""The worker's own health page."""

import asyncio
import json
import socket
import urllib.error
import urllib.request

import pytest

from contracts.errors import ConfigError
from contracts.stuck import StuckReport
from streams.health import HealthServer


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own server
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def asked(server: HealthServer, path: str) -> tuple[int, str]:
    await server.start()
    try:
        return await asyncio.to_thread(get, f"{server.address}{path}")
    finally:
        await server.aclose()


def make(problems: list[str], unready: list[str], warnings: list[str] | None = None) -> HealthServer:
    return HealthServer("worker", "127.0.0.1", 0, lambda: problems, lambda: unready, lambda: warnings or [], report)


def report() -> StuckReport:
    return StuckReport(app_id="app", instance_id=None, state="starting", max_in_flight=1, waits_for=("Kafka",))


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_a_sound_worker_is_alive_and_ready(path: str) -> None:
    status, body = await asked(make([], []), path)

    assert (status, json.loads(body)) == (200, {"status": "ok", "problems": []})


async def test_a_worker_that_is_not_ready_is_alive() -> None:
    assert (await asked(make([], ["not in the consumer group yet"]), "/healthz"))[0] == 200


@pytest.mark.parametrize(("problems", "unready"), [([], ["stopping"]), (["crashed"], [])])
async def test_what_keeps_it_from_work_is_said(problems: list[str], unready: list[str]) -> None:
    status, body = await asked(make(problems, unready), "/readyz")

    assert (status, json.loads(body)["problems"]) == (503, problems + unready)


async def test_a_warning_stands_beside_readiness_and_takes_none() -> None:
    status, body = await asked(make([], [], ["kafka_unreachable: no broker"]), "/readyz")

    assert (status, json.loads(body)["warnings"]) == (200, ["kafka_unreachable: no broker"])


async def test_a_program_without_a_report_has_no_page_for_it() -> None:
    server = HealthServer("hand_over", "127.0.0.1", 0, list, list)

    assert (await asked(server, "/stuck"))[0] == 404


async def test_a_crashed_worker_is_not_alive() -> None:
    assert (await asked(make(["crashed"], []), "/healthz"))[0] == 503


async def test_what_explains_a_standstill_is_served() -> None:
    status, body = await asked(make([], []), "/stuck")

    assert (status, json.loads(body)["waits_for"]) == (200, ["Kafka"])


async def test_metrics_are_served() -> None:
    status, body = await asked(make([], []), "/metrics")

    assert status == 200
    assert "penstock_engine_held_events" in body


async def test_the_address_of_an_ipv6_host_is_a_url(ipv6_loopback: str) -> None:
    server = HealthServer("worker", ipv6_loopback, 0, list, list)
    status, _ = await asked(server, "/healthz")

    assert status == 200
    assert server.address == f"http://[::1]:{server.port}"


async def test_a_taken_port_is_refused_with_what_to_do() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = HealthServer("worker", "127.0.0.1", taken.getsockname()[1], list, list)
        with pytest.raises(ConfigError, match=r"worker\.health_port: cannot listen on .*choose another, or 0"):
            await server.start()
        await server.aclose()


@pytest.mark.parametrize("host", ["192.0.2.1", "a..b"])
async def test_a_host_that_is_none_of_this_machine_is_refused(host: str) -> None:
    server = HealthServer("worker", host, 0, list, list)
    with pytest.raises(ConfigError, match=rf"worker\.health_host: cannot listen on {host}:0: .*; choose an address"):
        await server.start()
    await server.aclose()
