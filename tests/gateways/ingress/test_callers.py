"""API keys: who calls and what it may do."""

from datetime import UTC, datetime

import pytest

from contracts.errors import ConfigError, Forbidden, InvalidPayload, Unauthenticated
from contracts.metrics import REGISTRY
from contracts.settings import ApiKey
from contracts.settings.callback_url import UrlRule
from contracts.settings.egress import CallerCallbackDoor
from gateways.ingress.callers import Caller, Callers

GOOD = "k" * 16


def _callers(monkeypatch: pytest.MonkeyPatch, *keys: str) -> Callers:
    for index, key in enumerate(keys):
        monkeypatch.setenv(f"TEST_KEY_{index}", key)
    return Callers([ApiKey.model_validate({"id": f"c{n}", "key": f"env:TEST_KEY_{n}"}) for n in range(len(keys))])


def test_a_key_names_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    callers = _callers(monkeypatch, GOOD, "j" * 20)

    assert callers.authenticate([(b"authorization", b"Bearer " + b"j" * 20)]).id == "c1"
    assert callers.authenticate([(b"authorization", b"bearer  " + GOOD.encode())]).id == "c0"


@pytest.mark.parametrize(
    "value",
    [b"", b"Bearer", b"Bearer ", b"Basic " + b"k" * 16, b"Bearer " + b"k" * 15, b"Bearer " + b"k" * 17, b"Bearer \xff"],
)
def test_any_other_value_is_unauthenticated(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated):
        _callers(monkeypatch, GOOD).authenticate([(b"authorization", value)])


def test_without_any_key_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthenticated):
        _callers(monkeypatch).authenticate([(b"authorization", b"Bearer x")])


def test_two_authorization_headers_are_ambiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    line = (b"authorization", b"Bearer " + GOOD.encode())
    with pytest.raises(InvalidPayload):
        _callers(monkeypatch, GOOD).authenticate([line, line])


@pytest.mark.parametrize("key", ["k" * 15, "k" * 15 + " ", "k" * 15 + "\u00fc", ""])
def test_a_weak_key_is_refused_at_start(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"gateway.api_keys\[0\] \(c0\)"):
        _callers(monkeypatch, key)


def _former(**more: str) -> ApiKey:
    former = {"value": "env:TEST_OLD", **more}
    return ApiKey.model_validate({"id": "crm", "key": "env:TEST_NEW", "former_keys": [former]})


def test_a_former_key_is_the_same_caller_until_its_end_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_NEW", "n" * 16)
    monkeypatch.setenv("TEST_OLD", "o" * 16)
    callers = Callers([_former(not_after="2026-12-24T00:00:00Z")])

    def counted() -> float:
        return REGISTRY.get_sample_value("penstock_caller_former_keys_total", {"key_id": "crm"}) or 0.0

    def caller(letter: str, day: int) -> Caller:
        line = (b"authorization", b"Bearer " + letter.encode() * 16)
        return callers.authenticate([line], datetime(2026, 12, day, tzinfo=UTC))

    before = counted()
    assert caller("n", 23) is caller("o", 23)
    assert counted() - before == 1
    assert caller("n", 25).id == "crm"
    with pytest.raises(Unauthenticated):
        caller("o", 25)
    assert counted() - before == 1


@pytest.mark.parametrize(("old", "said"), [("o" * 15, "needs at least 16"), ("n" * 16, "two keys"), ("", "not set")])
def test_a_former_key_that_cannot_be_used_is_refused_at_start(
    old: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NEW", "n" * 16)
    monkeypatch.setenv("TEST_OLD", old)

    with pytest.raises(ConfigError, match=said):
        Callers([_former()])


def test_one_value_for_two_keys_is_refused_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="two keys"):
        _callers(monkeypatch, GOOD, GOOD)


@pytest.mark.parametrize(
    ("source", "is_allowed"), [("crm", True), ("crm/eu", True), ("crm2", False), ("x", False), ("CRM", False)]
)
def test_a_caller_may_claim_its_own_name_and_what_is_under_it(source: str, is_allowed: bool) -> None:
    caller = Caller("crm", (), ("standard",))
    if is_allowed:
        caller.check_source(source)
    else:
        with pytest.raises(Forbidden):
            caller.check_source(source)


def test_configured_sources_replace_its_own_name() -> None:
    caller = Caller("crm", ("shop/*",), ("standard",))
    caller.check_source("shop/1")

    with pytest.raises(Forbidden):
        caller.check_source("crm")


def test_the_lane_is_the_wanted_one_or_standard_or_the_first() -> None:
    assert Caller("a", (), ("interactive", "standard")).choose_lane(None) == "standard"
    assert Caller("a", (), ("bulk",)).choose_lane(None) == "bulk"
    assert Caller("a", (), ("bulk", "standard")).choose_lane("bulk") == "bulk"
    with pytest.raises(Forbidden):
        Caller("a", (), ("bulk",)).choose_lane("interactive")


RULE = UrlRule(("hooks.example",), (443,))


def test_a_caller_may_name_a_url_that_fits_its_rule() -> None:
    Caller("crm", (), ("standard",), RULE).check_callback("https://hooks.example/a")


def test_a_url_that_does_not_fit_is_the_callers_mistake() -> None:
    with pytest.raises(InvalidPayload, match=r"callbackurl must be a host of hooks\.example"):
        Caller("crm", (), ("standard",), RULE).check_callback("https://other.example/")


def test_a_caller_without_the_right_may_name_none() -> None:
    with pytest.raises(Forbidden):
        Caller("crm", (), ("standard",)).check_callback("https://hooks.example/a")


def test_the_rule_takes_hosts_from_the_key_and_ports_from_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", GOOD)
    callbacks = {"hosts": ["hooks.example"], "secrets": [{"id": "a", "value": "env:A"}]}
    key = ApiKey.model_validate({"id": "crm", "key": "env:TEST_KEY", "callbacks": callbacks})
    door = CallerCallbackDoor.model_validate({"kind": "caller-callback", "ports": [8443], "allow_http": True})
    headers = [(b"authorization", b"Bearer " + GOOD.encode())]

    assert Callers([key], door).authenticate(headers).callbacks == UrlRule(("hooks.example",), (8443,), allow_http=True)
    assert Callers([key]).authenticate(headers).callbacks is None
