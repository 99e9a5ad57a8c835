"""Callbacks to URLs that callers name."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks

from contracts.codec import outcome_headers
from contracts.envelope import CALLBACK_URL, OWNER, Event
from contracts.settings import ApiKey
from contracts.settings.egress import CallerCallbackDoor
from gateways.egress.base import Delivered, Item, Later, Refused
from gateways.egress.notify_callers import NotifyCallers
from tests.gateways.egress.receiver import Receiver, status
from tests.gateways.egress.test_notify import NAME, SECRET, Lab
from tests.suites.egress import TIMEOUT_S, DoorSuite, result_item
from tests.suites.ssrf import ScriptedResolver

DOOR = {
    "kind": "caller-callback",
    "allow_http": True,
    "ports": list(range(1024, 65536)),
    "allow_networks": ["127.0.0.1/32"],
    "attempt_timeout_s": TIMEOUT_S,
}


def _item(number: int, url: str, owner: str = "crm-key") -> Item:
    """Return a result whose event named a URL, with the headers that the worker gives it."""
    item = result_item(number)
    event = Event(id=f"e{number}", source="crm", type="t", data=b"", extensions={OWNER: owner, CALLBACK_URL: url})
    headers = outcome_headers(event, item.outcome.type, "2026-01-01T00:00:00Z", "penstock", item.position)
    return item._replace(headers=headers, outcome=item.outcome._replace(owner=owner))


def _door(folder: Path, rounds: Any = (("127.0.0.1",),), hosts: Any = (NAME,)) -> NotifyCallers:
    secret = folder / "secret"
    secret.write_text(SECRET)
    keys = [
        ApiKey.model_validate(
            {
                "id": "crm-key",
                "key": "env:K",
                "callbacks": {"hosts": hosts, "secrets": [{"id": "k1", "value": f"file:{secret}"}]},
            }
        ),
        ApiKey.model_validate({"id": "plain", "key": "env:K"}),
    ]
    return NotifyCallers("callers", CallerCallbackDoor.model_validate(DOOR), keys, resolver=ScriptedResolver(rounds))


class _CallersLab(Lab):
    def item(self, number: int) -> Item:
        return _item(number, self.url)

    def poison(self) -> Item:
        return _item(0, "https://somebody.example/")

    @property
    def url(self) -> str:
        return f"http://{NAME}:{self.receiver.port}/hooks"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[_CallersLab]:
    async with Receiver() as receiver:
        door = _door(tmp_path)
        await door.start()
        try:
            yield _CallersLab(receiver, door)
        finally:
            await door.aclose()


class TestNotifyCallers(DoorSuite):
    pass


async def test_the_callers_own_key_signs(lab: _CallersLab) -> None:
    await lab.door.deliver([lab.item(1)])
    (request,) = lab.receiver.requests

    standardwebhooks.Webhook(SECRET).verify(request.body, request.headers)
    assert request.line == "POST /hooks HTTP/1.1"


def test_what_names_no_url_is_passed_over(tmp_path: Path) -> None:
    door = _door(tmp_path)

    assert not door.takes(result_item(1))
    assert door.takes(_item(1, "https://hook.example/"))


@pytest.mark.parametrize("owner", ["plain", "nobody", ""])
async def test_who_may_name_none_is_refused_whatever_the_gateway_let_pass(lab: _CallersLab, owner: str) -> None:
    (verdict,) = await lab.door.deliver([_item(1, lab.url, owner)])

    assert isinstance(verdict, Refused)
    assert verdict.reason == "callback_not_allowed"
    assert lab.receiver.connections == 0


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:{port}/", "http://other.example:{port}/", "http://hook.example.:{port}/", "gopher://x/", ""],
)
async def test_a_url_outside_the_callers_rule_is_refused_again_here(lab: _CallersLab, url: str) -> None:
    (verdict,) = await lab.door.deliver([_item(1, url.replace("{port}", str(lab.receiver.port)))])

    assert isinstance(verdict, Refused)
    assert verdict.reason == "url_refused"
    assert lab.receiver.connections == 0


@pytest.mark.parametrize("name", ["xn--bcher-kva.example", "xn--zz.example"])
async def test_a_name_of_another_script_is_dialled_as_it_is_written(tmp_path: Path, name: str) -> None:
    async with Receiver() as receiver:
        door = _door(tmp_path, hosts=["*.example"])
        await door.start()
        try:
            (verdict,) = await door.deliver([_item(1, f"http://{name}:{receiver.port}/")])
        finally:
            await door.aclose()

        assert verdict == Delivered()
        assert receiver.requests[0].headers["host"] == f"{name}:{receiver.port}"


async def test_an_allowed_name_that_leads_inside_is_not_dialled(tmp_path: Path) -> None:
    async with Receiver() as receiver:
        door = _door(tmp_path, [["10.0.0.1"]])
        await door.start()
        (verdict,) = await door.deliver([_item(1, f"http://{NAME}:{receiver.port}/")])
        await door.aclose()

    assert verdict == Later("address_refused", "private")


async def test_410_refuses_this_callback_and_no_other(lab: _CallersLab) -> None:
    lab.receiver.answer = status(410)
    (first,) = await lab.door.deliver([lab.item(1)])
    lab.receiver.answer = status(204)
    (second,) = await lab.door.deliver([lab.item(2)])

    assert first == Refused("endpoint_gone", "answered 410")
    assert second == Delivered()


def test_callers_share_no_breaker_and_neither_do_origins(tmp_path: Path) -> None:
    door = _door(tmp_path)
    items = [
        _item(1, "https://hook.example/a"),
        _item(2, "https://hook.example/b"),
        _item(3, "https://hook.example:8443/a"),
        _item(4, "https://hook.example/a", owner="other"),
        _item(5, "nonsense"),
    ]

    assert [door.destination(item) for item in items] == [
        "crm-key https://hook.example:443",
        "crm-key https://hook.example:443",
        "crm-key https://hook.example:8443",
        "other https://hook.example:443",
        "crm-key (refused)",
    ]
