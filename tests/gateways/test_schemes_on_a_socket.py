"""Every scheme through a real listener: what `penstock send` signs is accepted, what it forges is not."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from contracts.settings import Settings
from gateways.listening import listen
from gateways.server import Server, serve
from producers.samples.courier import Answer, Courier, Plan
from producers.samples.table import sampler
from tests.gateways.driver import CONFIGURATION, Gateway
from tests.suites.schemes import CASES

NAMES = {name.replace(" ", "-"): case for name, case in CASES.items()}


@pytest.fixture
async def port(secret_environment: None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:  # noqa: ARG001 - a fixture cannot use usefixtures
    """A gateway with a source for every scheme."""
    sources = {}
    for number, (name, case) in enumerate(NAMES.items()):
        monkeypatch.setenv(f"TEST_HELD_{number}", case.held)
        secrets = [{"id": "current", "value": f"env:TEST_HELD_{number}"}]
        sources[name] = {"type": "t"} | case.section | {"secrets": secrets}
    # No deadline or limit is tested here, and the machine may be busy.
    patience = CONFIGURATION["gateway"] | {"ack_timeout_s": 10, "body_timeout_s": 10, "max_body_bytes": 10_000}
    gateway = Gateway(Settings.model_validate(CONFIGURATION | {"sources": sources, "gateway": patience}))
    await gateway.producer.start()
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    stop = asyncio.Event()
    serving = asyncio.ensure_future(serve(Server(gateway.api, listener, 10), stop))
    yield port
    stop.set()
    async with asyncio.timeout(5):
        await serving


async def test_what_is_signed_is_accepted_and_what_is_forged_is_not(port: int) -> None:
    answers: dict[str, list[Answer]] = {name: [] for name in NAMES}
    for name, case in NAMES.items():
        source, key = case.source, ("current", case.signing.encode())
        url = f"http://127.0.0.1:{port}/webhooks/{name}"
        plan = Plan(count=2, forged=1, concurrency=1)
        await Courier(url, source, key, sampler(name, source), plan, answers[name].append).run()

    statuses = {name: [answer.status for answer in found] for name, found in answers.items()}
    assert statuses == {name: [202, 401] for name in NAMES}
