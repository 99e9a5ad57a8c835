"""A gateway follows mounted ConfigMaps and Secrets through the links that the kubelet swaps."""

import asyncio
import functools
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import metrics
from contracts.settings import load
from gateways.reloading import ConfigFile, Reloader
from tests.gateways.driver import CONFIGURATION, Gateway, github_headers
from tests.gateways.mounted import Mount
from tests.support import eventually_async

OLD, NEW = b"an-old-secret-of-enough-bytes", b"a-new-secret-of-enough-bytes"
BODY = b'{"repository":{"full_name":"a/b"}}'
PROMPTS = "examples/routes/triage"

pytestmark = pytest.mark.usefixtures("secret_environment")


class Pod:
    """A gateway whose configuration, prompts included, and whose secret lie in two mounted volumes."""

    def __init__(self, folder: Path) -> None:
        self.secret = Mount(folder / "secrets")
        self.secret.write({"github": OLD})
        self.config = Mount(folder / "config")
        self.document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
        self.document["sources"]["github"]["secrets"] = [{"id": "a", "value": f"file:{folder}/secrets/github"}]
        self.document["gateway"]["ack_timeout_s"] = 20
        self.document["gateway"]["reload"] = {"interval_s": 0.05}
        self.document["providers"] = {"local": {"kind": "embedded"}}
        self.document["models"] = {"default": {"provider": "local", "model": "embedded/extract-v1"}}
        self.document["routes"] = [
            {"name": "triage", "model": "default", "prompt": {"user_file": f"{PROMPTS}/user.md.j2"}}
        ]
        self.write()
        file = folder / "config" / "penstock.yaml"
        settings = load(file)
        self.gateway = Gateway(settings)
        self.reloader = Reloader(settings, self.gateway.parts, ConfigFile(file, functools.partial(load, file)))

    def write(self) -> None:
        """Change the ConfigMap."""
        files = {"penstock.yaml": yaml.safe_dump(self.document), f"{PROMPTS}/user.md.j2": "{{ text }}"}
        self.config.write({name: text.encode() for name, text in files.items()})

    async def post(self, secret: bytes, source: str = "github") -> int:
        """Send a webhook signed with a secret."""
        answer = await self.gateway.call("POST", f"/webhooks/{source}", github_headers(BODY, secret), BODY)
        return answer.status


@pytest.fixture
async def pod(tmp_path: Path) -> Pod:
    pod = Pod(tmp_path)
    await pod.gateway.producer.start()
    for _ in range(3):
        await pod.reloader.tick()
    return pod


async def test_a_secret_that_the_kubelet_swaps_counts_without_a_restart(pod: Pod) -> None:
    pod.secret.write({"github": NEW, "another": b"file of the same Secret"})

    assert [await pod.reloader.tick() for _ in range(3)] == [None, "applied", None]
    assert (await pod.post(NEW), await pod.post(OLD)) == (202, 401)


async def test_a_running_reloader_finds_a_swap_by_itself(pod: Pod) -> None:
    following = asyncio.ensure_future(pod.reloader.run())
    try:
        pod.secret.write({"github": NEW})

        async def is_known() -> bool:
            return await pod.post(NEW) == 202

        await eventually_async(is_known)
    finally:
        following.cancel()


async def test_a_secret_that_changes_twice_between_two_looks_is_the_last_one(pod: Pod) -> None:
    pod.secret.write({"github": b"one-that-nobody-ever-reads-here"})
    pod.secret.write({"github": NEW})

    assert [await pod.reloader.tick() for _ in range(3)] == [None, "applied", None]
    assert await pod.post(NEW) == 202


async def test_a_source_in_a_swapped_configmap_is_taken_over_and_nothing_asks_for_a_restart(
    pod: Pod, capsys: pytest.CaptureFixture[str]
) -> None:
    pod.document["sources"]["hub"] = pod.document["sources"]["github"]
    pod.write()

    assert [await pod.reloader.tick() for _ in range(3)] == [None, "applied", None]
    assert await pod.post(OLD, "hub") == 202
    # The prompts have not changed, although the folder behind the links has another name now.
    assert "config.restart_needed" not in "".join(capsys.readouterr())
    assert metrics.REGISTRY.get_sample_value("penstock_config_restart_needed_settings") == 0


async def test_files_beside_a_mounted_configuration_stay_where_the_settings_say(pod: Pod, tmp_path: Path) -> None:
    before = load(tmp_path / "config" / "penstock.yaml")
    pod.write()

    prompt = before.routes[0].prompt.user_file
    assert prompt == tmp_path / "config" / PROMPTS / "user.md.j2"
    assert prompt.read_text("utf-8") == "{{ text }}"
