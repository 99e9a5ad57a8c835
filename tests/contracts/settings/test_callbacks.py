"""The section of a callback endpoint: what is wrong is named by file, line and key."""

from pathlib import Path

import pytest

from contracts.errors import ConfigError
from contracts.settings import Settings, build, parse
from contracts.settings.egress import CallbackDoor

DOOR = """\
version: 1
egress:
  crm:
    kind: callback
    url: {url}
    secrets:
      - {{id: a, value: env:A}}
"""


def _load(text: str) -> Settings:
    return build(parse(text, "penstock.yaml"), {}, base=Path())


def _door(url: str = "https://crm.example/hooks", *lines: str) -> CallbackDoor:
    door = _load(DOOR.format(url=url) + "".join(f"    {line}\n" for line in lines)).egress["crm"]
    assert isinstance(door, CallbackDoor)
    return door


def test_the_defaults_are_https_two_ports_and_nothing_internal() -> None:
    door = _door()

    assert (door.ports, door.allow_http, door.allow_networks) == ((443, 8443), False, ())
    assert (door.attempt_timeout_s, door.timeout_s, door.order) == (15.0, 30.0, "none")


@pytest.mark.parametrize(
    ("url", "line", "text"),
    [
        ("ftp://crm.example/", ":5: egress.crm.url:", "a URL that begins with https:// or http://"),
        ("https://user:pw@crm.example/", ":5: egress.crm.url:", "a URL without user name and password"),
        ("https://127.1/", ":5: egress.crm.url:", "four decimal numbers"),
        ("https://crm.example./", ":5: egress.crm.url:", "without a dot at its end"),
        ("http://crm.example/", ":3: egress.crm:", "http:// needs allow_http: true"),
        ("https://crm.example:9200/", ":3: egress.crm:", "port 9200 is not in `ports`"),
    ],
)
def test_a_url_that_is_not_taken_is_named_with_its_line(url: str, line: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _door(url)

    assert line in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("attempt_timeout_s: 30",), "attempt_timeout_s must be below timeout_s"),
        (("max_in_flight: 20", "max_per_s: 1"), "max_in_flight / max_per_s must be at most"),
        (("allow_networks: [10.0.0.1/8]",), "egress.crm.allow_networks[0]"),
        (("permanent_statuses: [200]",), "egress.crm.permanent_statuses[0]"),
        (("timeout: 3",), "egress.crm.timeout: unknown key"),
    ],
)
def test_what_does_not_fit_together_is_named(lines: tuple[str, ...], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _door("https://crm.example/", *lines)

    assert text in str(caught.value)


def test_two_keys_with_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="two secrets have one id"):
        _load(DOOR.format(url="https://crm.example/") + "      - {id: a, value: env:B}\n")


def test_an_endpoint_without_a_key_is_refused() -> None:
    text = DOOR.format(url="https://crm.example/").partition("    secrets:")[0]

    with pytest.raises(ConfigError, match=r"egress\.crm\.secrets: is required"):
        _load(text)


KEY = """\
version: 1
gateway:
  api_keys:
    - id: crm
      key: env:K
      callbacks:
        hosts: ["*.customer.example"]
        secrets: [{id: a, value: env:A}]
"""
CALLER_DOOR = "egress:\n  callers: {kind: caller-callback}\n"


def test_a_caller_may_name_urls_only_where_a_door_sends_to_them() -> None:
    assert _load(KEY + CALLER_DOOR).gateway.api_keys[0].callbacks is not None
    with pytest.raises(ConfigError, match=r":6: gateway\.api_keys\[0\]\.callbacks: .* caller-callback is configured"):
        _load(KEY)


def test_there_is_one_door_for_callers() -> None:
    with pytest.raises(ConfigError, match=r"egress\.more\.kind: .* there is callers already"):
        _load(KEY + CALLER_DOOR + "  more: {kind: caller-callback}\n")
