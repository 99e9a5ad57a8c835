"""Which transport is chosen, and what is said about it."""

from typing import Any

import pytest

from contracts.settings.models import OpenAIProvider
from streams.providers.transport.choice import chosen, shortfalls


def provider(**more: Any) -> OpenAIProvider:
    return OpenAIProvider.model_validate({"kind": "openai", "base_url": "http://127.0.0.1:1/v1"} | more)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "lean"),
        ({"base_url": "https://api.example.com/v1"}, "lean"),
        ({"proxy": "http://127.0.0.1:3128"}, "aiohttp"),
        ({"base_url": "http://user:pw@127.0.0.1/v1"}, "aiohttp"),
        ({"transport": "aiohttp"}, "aiohttp"),
    ],
)
def test_auto_takes_lean_unless_something_asks_for_aiohttp(more: dict[str, Any], name: str) -> None:
    assert chosen(provider(**more)) == name


def test_a_fitting_configuration_has_no_shortfall() -> None:
    assert shortfalls([("a", provider(max_in_flight=1024))], 1024, max_files=4096) == []


def test_aiohttp_above_what_it_is_good_for_is_said() -> None:
    found = shortfalls([("a", provider(max_in_flight=512, transport="aiohttp"))], 512, max_files=4096)

    assert "providers.a uses aiohttp" in found[0]


def test_a_provider_below_the_worker_is_said() -> None:
    assert "providers.a.max_in_flight is 64" in shortfalls([("a", provider())], 256, max_files=4096)[0]


def test_too_few_open_files_are_said() -> None:
    assert "ulimit -n" in shortfalls([("a", provider(max_in_flight=1024))], 1024, max_files=1024)[0]


def test_a_worker_whose_events_share_calls_wants_fewer_of_them() -> None:
    assert shortfalls([("a", provider(max_in_flight=64))], 512, max_files=256, events={"a": 8}) == []
    assert len(shortfalls([("a", provider(max_in_flight=63))], 512, max_files=256, events={"a": 8})) == 1
