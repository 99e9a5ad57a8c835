"""What a running gateway takes over, what it refuses as a whole, and what waits for a restart."""

import asyncio
import functools
import os
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts import metrics
from contracts.settings import load
from gateways.ingress.secrets import SecretStore, Value
from gateways.reloading import ConfigFile, Reloader, needs_restart
from tests.gateways.driver import CONFIGURATION, Answer, Gateway, as_caller, github_headers
from tests.support import FakeClock, eventually_async, no_threads

OLD, NEW = b"an-old-secret-of-enough-bytes", b"a-new-secret-of-enough-bytes"
# Longer than a reload takes on a busy machine.
ACK_TIMEOUT_S = 20
BODY = b'{"repository":{"full_name":"a/b"}}'

pytestmark = pytest.mark.usefixtures("secret_environment")


def _sample(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(f"penstock_{name}", labels)


class Lab:
    """A gateway on a configuration file whose source `github` has its secret in a file, and its reloader."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_bytes(OLD)
        self.document: dict[str, Any] = yaml.safe_load(yaml.safe_dump(CONFIGURATION))
        self.document["sources"]["github"]["secrets"] = [{"id": "a", "value": f"file:{self.secret}"}]
        self.document["gateway"]["ack_timeout_s"] = ACK_TIMEOUT_S
        self.file = folder / "penstock.yaml"
        self.write()
        self.clock = FakeClock(datetime.now(UTC))
        settings = load(self.file)
        self.gateway = Gateway(settings)
        config = ConfigFile(self.file, functools.partial(load, self.file))
        self.reloader = Reloader(settings, self.gateway.parts, config, clock=self.clock, now=self.clock.now)

    def write(self) -> None:
        """Write the document."""
        self.file.write_text(yaml.safe_dump(self.document))

    async def settle(self) -> list[str]:
        """Let two looks pass, and a third that must find nothing; return what they led to."""
        return [str(await self.reloader.tick()) for _ in range(3)]

    async def ask(self) -> str | None:
        """Send a SIGHUP, as it were."""
        self.reloader.ask()
        return await self.reloader.tick()

    async def post(self, secret: bytes, source: str = "github") -> int:
        """Send a webhook signed with a secret."""
        answer: Answer = await self.gateway.call("POST", f"/webhooks/{source}", github_headers(BODY, secret), BODY)
        return answer.status


@pytest.fixture
async def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    await lab.gateway.producer.start()
    assert await lab.settle() == ["None", "unchanged", "None"]
    return lab


async def test_a_secret_that_changes_in_its_file_counts_without_a_restart(lab: Lab) -> None:
    lab.secret.write_bytes(NEW)

    assert await lab.settle() == ["None", "applied", "None"]
    assert (await lab.post(NEW), await lab.post(OLD)) == (202, 401)


async def test_a_former_key_of_a_caller_is_taken_over_and_its_file_is_followed(tmp_path: Path) -> None:
    former = tmp_path / "former"
    former.write_text("x" * 20)
    lab = Lab(tmp_path)
    lab.document["gateway"]["api_keys"][0]["former_keys"] = [{"value": f"file:{former}"}]
    lab.write()
    await lab.gateway.producer.start()
    assert await lab.ask() == "applied"

    async def status(key: str) -> int:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "idempotency-key": "e1"}
        return (await lab.gateway.call("POST", "/v1/events", headers, b"{}")).status

    assert await status("x" * 20) != 401
    former.write_text("y" * 20)
    assert await lab.settle() == ["None", "applied", "None"]
    assert (await status("x" * 20), await status("y" * 20) != 401) == (401, True)


async def test_a_reload_says_what_it_changed_and_no_secret(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.secret.write_bytes(NEW)
    lab.document["sources"]["hub"] = lab.document["sources"]["github"]
    lab.write()

    await lab.ask()

    printed = "".join(capsys.readouterr())
    assert "sources_added=['hub']" in printed
    assert f"secrets_changed=['file:{lab.secret}']" in printed
    assert NEW.decode() not in printed
    assert OLD.decode() not in printed


async def test_a_file_that_still_changes_is_left_alone_until_it_stands_still(lab: Lab) -> None:
    results = []
    for end in (8, 16, len(NEW)):
        lab.secret.write_bytes(NEW[:end])
        results.append(await lab.reloader.tick())

    assert results == [None, None, None]
    assert await lab.reloader.tick() == "applied"
    assert await lab.post(NEW) == 202


async def test_a_change_that_leaves_time_and_size_as_they_were_is_found(lab: Lab) -> None:
    stat = lab.secret.stat()
    lab.secret.write_bytes(OLD[::-1])
    os.utime(lab.secret, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert "applied" in await lab.settle()


async def test_sighup_reloads_at_once(lab: Lab) -> None:
    lab.secret.write_bytes(NEW)

    assert await lab.ask() == "applied"
    assert await lab.post(NEW) == 202


async def test_old_and_new_secrets_both_count_while_both_are_configured(lab: Lab) -> None:
    new = lab.folder / "new"
    new.write_bytes(NEW)
    lab.document["sources"]["github"]["secrets"].append({"id": "b", "value": f"file:{new}"})
    lab.write()
    await lab.ask()
    inside = (await lab.post(OLD), await lab.post(NEW))
    lab.document["sources"]["github"]["secrets"].pop(0)
    lab.write()
    await lab.ask()

    assert inside == (202, 202)
    assert (await lab.post(OLD), await lab.post(NEW)) == (401, 202)


@pytest.mark.parametrize(
    "bad", [b"", b"\n", b" " * 40, b"short", None], ids=["empty", "line end", "blank", "short", "gone"]
)
async def test_a_secret_that_protects_nothing_is_refused_and_the_old_one_stays(lab: Lab, bad: bytes | None) -> None:
    before = _sample("config_reloads_total", outcome="refused") or 0
    if bad is None:
        lab.secret.unlink()
    else:
        lab.secret.write_bytes(bad)

    assert "refused" in await lab.settle()
    assert await lab.post(OLD) == 202
    assert _sample("config_reload_refused") == 1
    assert (await lab.gateway.call("GET", "/readyz")).json() == {"status": "ready", "warnings": ["config_refused"]}
    assert _sample("config_reloads_total", outcome="refused") == before + 1
    lab.secret.write_bytes(NEW)
    assert "applied" in await lab.settle()
    assert _sample("config_reload_refused") == 0
    assert (await lab.gateway.call("GET", "/readyz")).json() == {"status": "ready"}


async def test_a_secret_that_is_not_base64_is_refused_and_the_log_does_not_repeat_it(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    (lab.folder / "sw").write_text("whsec_not!base64!at!all")
    lab.document["sources"]["sw"] = {
        "scheme": "standard-webhooks",
        "type": "t",
        "secrets": [{"id": "k", "value": f"file:{lab.folder}/sw"}],
    }
    lab.write()

    assert await lab.ask() == "refused"
    printed = "".join(capsys.readouterr())
    assert "config.reload_refused" in printed
    assert "sources.sw: secret 'k': is not base64" in printed
    assert "whsec_not!base64" not in printed


def _without_secrets(document: dict[str, Any]) -> None:
    document["sources"]["github"]["secrets"] = []


def _all_expired(document: dict[str, Any]) -> None:
    document["sources"]["github"]["secrets"][0]["not_after"] = "2020-01-01T00:00:00Z"


def _all_future(document: dict[str, Any]) -> None:
    document["sources"]["github"]["secrets"][0]["not_before"] = "2120-01-01T00:00:00Z"


def _no_source(document: dict[str, Any]) -> None:
    document["sources"] = {}


def _unknown_scheme(document: dict[str, Any]) -> None:
    document["sources"]["github"]["scheme"] = "none"


def _bad_template(document: dict[str, Any]) -> None:
    document["sources"]["github"]["id"] = "json:nowhere"


def _unknown_key(document: dict[str, Any]) -> None:
    document["gateway"]["prot"] = 1


def _short_api_key(document: dict[str, Any]) -> None:
    document["gateway"]["api_keys"][0]["key"] = "env:HOME_IS_NOT_SET_HERE"


@pytest.mark.parametrize(
    "spoil",
    [
        _without_secrets, _all_expired, _all_future, _no_source, _unknown_scheme, _bad_template, _unknown_key,
        _short_api_key,
    ],
)  # fmt: skip
async def test_one_bad_place_refuses_the_whole_reload(lab: Lab, spoil: Callable[[dict[str, Any]], None]) -> None:
    lab.document["sources"]["new"] = dict(lab.document["sources"]["github"])
    spoil(lab.document)
    lab.write()
    lab.secret.write_bytes(NEW)

    assert await lab.ask() == "refused"
    assert (await lab.post(OLD), await lab.post(NEW)) == (202, 401)
    assert await lab.post(OLD, "new") == 404


@pytest.mark.parametrize("text", ["", "{", "sources: [", "version: 1\n", "\xff"])
async def test_a_file_that_is_no_configuration_any_more_is_refused(lab: Lab, text: str) -> None:
    lab.file.write_bytes(text.encode("latin-1"))

    assert "refused" in await lab.settle()
    assert await lab.post(OLD) == 202


async def test_sources_come_and_go(lab: Lab) -> None:
    lab.document["sources"] = {"hub": lab.document["sources"]["github"]}
    lab.write()

    assert "applied" in await lab.settle()
    assert (await lab.post(OLD, "hub"), await lab.post(OLD)) == (202, 404)


async def test_a_request_ends_with_the_source_it_began_with(lab: Lab) -> None:
    lab.gateway.producer.hold_acks()
    waiting = asyncio.ensure_future(lab.post(OLD))
    await eventually_async(lambda: lab.gateway.producer.buffered_bytes)
    lab.document["sources"] = {"hub": lab.document["sources"]["github"]}
    lab.write()
    await lab.ask()
    lab.gateway.producer.release_acks()

    assert await waiting == 202
    assert await lab.post(OLD) == 404


async def test_api_keys_are_taken_over_too(lab: Lab) -> None:
    key = lab.folder / "key"
    key.write_bytes(b"the-first-key-of-enough-characters")
    lab.document["gateway"]["api_keys"][0]["key"] = f"file:{key}"
    lab.write()
    await lab.ask()
    first = await lab.gateway.call("POST", "/v1/events", as_caller("the-first-key-of-enough-characters", ce_type="t"))
    key.write_bytes(b"the-second-key-of-enough-characters")
    await lab.settle()
    again = await lab.gateway.call("POST", "/v1/events", as_caller("the-first-key-of-enough-characters", ce_type="t"))
    second = await lab.gateway.call("POST", "/v1/events", as_caller("the-second-key-of-enough-characters", ce_type="t"))

    assert (first.status, again.status, second.status) == (202, 401, 202)


async def test_what_needs_a_restart_is_named_and_the_rest_is_taken_over(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.document["gateway"]["ack_timeout_s"] = 3
    lab.document["kafka"] = {"bootstrap_servers": "elsewhere:9092"}
    lab.document["routes"] = []
    lab.write()
    lab.secret.write_bytes(NEW)

    assert await lab.ask() == "applied"
    printed = "".join(capsys.readouterr())
    assert await lab.post(NEW) == 202
    assert "config.restart_needed" in printed
    assert "gateway.ack_timeout_s" in printed
    assert "kafka.bootstrap_servers" in printed
    assert _sample("config_restart_needed_settings") == 2
    lab.document = yaml.safe_load(yaml.safe_dump(CONFIGURATION)) | {"sources": lab.document["sources"]}
    lab.document["gateway"]["ack_timeout_s"] = ACK_TIMEOUT_S
    lab.write()
    await lab.ask()
    assert _sample("config_restart_needed_settings") == 0


def test_the_first_api_key_needs_a_restart_and_another_one_does_not(lab: Lab) -> None:
    settings = load(lab.file)
    gateway = settings.gateway
    fewer = settings.model_copy(update={"gateway": gateway.model_copy(update={"api_keys": gateway.api_keys[:1]})})
    none = settings.model_copy(update={"gateway": gateway.model_copy(update={"api_keys": ()})})

    assert needs_restart(settings, fewer) == []
    assert needs_restart(settings, none) == ["gateway.api_keys"]
    assert needs_restart(none, settings) == ["gateway.api_keys"]


async def test_the_last_use_of_a_key_goes_with_the_key_also_when_a_late_request_notes_it_again(lab: Lab) -> None:
    labels = {"source": "github", "key_id": "a"}
    await lab.post(OLD)
    assert _sample("webhook_key_last_used_timestamp_seconds", **labels)
    late = lab.gateway.parts.sources["github"]
    lab.document["sources"]["github"]["secrets"][0]["id"] = "b"
    lab.write()
    await lab.ask()
    gone = _sample("webhook_key_last_used_timestamp_seconds", **labels)
    headers = [(name.encode(), text.encode()) for name, text in github_headers(BODY, OLD).items()]
    late.accept(headers, BODY)
    await lab.reloader.tick()

    assert gone is None
    assert _sample("webhook_key_last_used_timestamp_seconds", **labels) is None
    assert await lab.post(OLD) == 202
    assert _sample("webhook_key_last_used_timestamp_seconds", source="github", key_id="b")


async def test_without_watching_only_a_signal_reloads(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.document["gateway"]["reload"] = {"watch": False}
    lab.write()
    settings = load(lab.file)
    lab.reloader = Reloader(settings, lab.gateway.parts, ConfigFile(lab.file, functools.partial(load, lab.file)))
    await lab.gateway.producer.start()
    lab.secret.write_bytes(NEW)

    assert await lab.settle() == ["None", "None", "None"]
    assert await lab.ask() == "applied"


async def test_a_bug_while_reloading_leaves_what_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        message = "a bug"
        raise ZeroDivisionError(message)

    monkeypatch.setattr("gateways.reloading.build_senders", broken)

    assert await lab.ask() == "refused"
    assert await lab.post(OLD) == 202


class Vault:
    """A service of secrets that a test turns."""

    def __init__(self) -> None:
        self.found: tuple[Value, ...] = (Value(OLD),)
        self.is_due = False
        self.expired = 0

    def values(self, _reference: object) -> tuple[Value, ...]:
        return self.found

    def expire(self) -> None:
        self.expired += 1

    def keep(self, references: Collection[str]) -> None:
        assert "aws-sm:shop" in references

    def close(self) -> None: ...


async def test_a_services_secret_is_followed_when_it_is_due_and_sighup_does_not_wait(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = Vault()
    monkeypatch.setattr(lab.reloader, "_store", SecretStore(load(lab.file).secrets_manager, lambda: vault))
    lab.document["sources"]["github"]["secrets"] = [{"id": "a", "value": "aws-sm:shop"}]
    lab.write()
    await lab.ask()
    await lab.settle()
    vault.found = (Value(NEW), Value(OLD, ":previous"))
    early = await lab.settle()
    vault.is_due = True
    due = await lab.reloader.tick()
    overlap = (await lab.post(OLD), await lab.post(NEW))
    vault.is_due, vault.found = False, (Value(NEW),)
    asked = await lab.ask()

    assert "applied" not in early
    assert (due, asked) == ("applied", "applied")
    assert overlap == (202, 202)
    assert (await lab.post(OLD), await lab.post(NEW)) == (401, 202)
    assert vault.expired == 1


async def test_files_are_looked_at_later_when_no_thread_can_be_started(lab: Lab) -> None:
    lab.secret.write_bytes(NEW)
    # One that has started no thread yet.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
    with no_threads():
        assert await lab.settle() == ["None", "None", "None"]

    assert "applied" in await lab.settle()
    assert await lab.post(NEW) == 202
