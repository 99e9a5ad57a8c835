"""The real process under load: reloads by signal and by watching drop no request, and a bad one changes nothing."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.gateways.driver import API_KEY, CONFIGURATION, OTHER_API_KEY, SECRET, TICKET_SECRET, github_headers
from tests.support import ChildProcess, eventually_async, read_port

pytestmark = pytest.mark.process

BODY = b'{"repository":{"full_name":"a/b"}}'
SENDERS = 16
RELOADS = 8


class Traffic:
    """Senders on connections that are kept, with the one secret that always counts."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: Counter[int | str] = Counter()
        self.is_over = False

    async def send(self, client: aiohttp.ClientSession, secret: bytes) -> int:
        """Send one webhook and return the answer's status."""
        async with client.post(self.url, data=BODY, headers=github_headers(BODY, secret)) as response:
            return response.status

    async def run(self, client: aiohttp.ClientSession) -> None:
        """Send one after the other until it is over."""
        while not self.is_over:
            try:
                self.answers[await self.send(client, SECRET)] += 1
            except aiohttp.ClientError as error:
                self.answers[type(error).__name__] += 1


def _configuration(folder: Path) -> Path:
    document = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
    document["gateway"] |= {"port": 0, "ack_timeout_s": 20, "body_timeout_s": 10, "reload": {"interval_s": 0.1}}
    document["sources"]["github"]["secrets"].append({"id": "rotated", "value": f"file:{folder}/rotated"})
    file = folder / "penstock.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


async def _rotate(child: ChildProcess, traffic: Traffic, client: aiohttp.ClientSession, secret: Path) -> None:
    for number in range(RELOADS):
        new = f"rotated-secret-number-{number:04}"
        secret.write_text(new)  # noqa: ASYNC240 - some bytes
        if number % 2:
            child.signal(signal.SIGHUP)

        async def counts(new: str = new) -> bool:
            return await traffic.send(client, new.encode()) == 202

        await eventually_async(counts)


async def test_reloads_under_load_drop_no_request_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "rotated"
    secret.write_text("rotated-secret-number-none")
    port_file = tmp_path / "port"
    env = {
        "TEST_SECRET": SECRET.decode(),
        "TEST_API_KEY": API_KEY,
        "TEST_OTHER_API_KEY": OTHER_API_KEY,
        "TEST_TICKET_SECRET": TICKET_SECRET,
    }
    arguments = ("tests.gateways.memory_gateway", str(port_file), str(_configuration(tmp_path)))
    with ChildProcess(*arguments, env=env) as child:
        child.wait_for(r"listening on http://127\.0\.0\.1:\d+")
        port = read_port(port_file)
        traffic = Traffic(f"http://127.0.0.1:{port}/webhooks/github")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=SENDERS + 1)) as client:
            senders = [asyncio.ensure_future(traffic.run(client)) for _ in range(SENDERS)]
            await _rotate(child, traffic, client, secret)
            secret.write_text("")
            child.signal(signal.SIGHUP)
            await eventually_async(lambda: "config.reload_refused" in child.output)
            last_good = await traffic.send(client, f"rotated-secret-number-{RELOADS - 1:04}".encode())
            traffic.is_over = True
            await asyncio.gather(*senders)

        assert last_good == 202
        assert set(traffic.answers) == {202}
        assert traffic.answers[202] > 10 * RELOADS
        assert child.output.count("config.reloaded") == RELOADS
