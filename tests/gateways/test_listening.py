"""Addresses of our servers, as they are written and as they are reached."""

import socket

import aiohttp
import pytest

from contracts.errors import ConfigError
from gateways.ingress.door_health import DoorHealth
from gateways.listening import announce, listen, reached_at


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),  # noqa: S104 - a setting
        ("::", "http://[::1]:80"),
        ("2001:db8::1", "http://[2001:db8::1]:80"),
        ("gateway.internal", "http://gateway.internal:80"),
    ],
)
def test_a_server_is_reached_by_a_url(host: str, url: str) -> None:
    assert reached_at(host, 80) == url


def test_a_gateway_on_ipv6_says_where_as_a_url(ipv6_loopback: str, capsys: pytest.CaptureFixture[str]) -> None:
    with listen(ipv6_loopback, 0) as listener:
        port = listener.getsockname()[1]
        announce(ipv6_loopback, port, None)
        with pytest.raises(ConfigError, match=rf"gateway\.port: cannot listen on \[::1\]:{port}: "):
            listen(ipv6_loopback, port)

    assert capsys.readouterr().out == f"listening on http://[::1]:{port}\n"
    assert listener.family == socket.AF_INET6


async def test_the_page_of_the_doors_in_has_a_url_on_ipv6(ipv6_loopback: str) -> None:
    page = DoorHealth(ipv6_loopback, 0, list)
    address = await page.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{address}/readyz") as answer:
            assert answer.status == 200
    finally:
        await page.aclose()

    assert address.startswith("http://[::1]:")
