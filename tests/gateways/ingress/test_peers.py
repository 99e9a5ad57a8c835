"""Whose address counts, and what a forged X-Forwarded-For achieves."""

from ipaddress import ip_network

import pytest

from gateways.ingress.peers import Network, Peers

PROXY, SENDER, FORGED = "10.0.0.7", "203.0.113.5", "198.51.100.9"
OWN: list[Network] = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]


def name(connected: str, *forwarded: bytes, trusted: list[Network] | None = None) -> str:
    peers = Peers(OWN if trusted is None else trusted)
    return peers.find(connected, [(b"x-forwarded-for", value) for value in forwarded]).name


def test_without_trusted_proxies_the_header_is_not_read() -> None:
    assert name(PROXY, FORGED.encode(), trusted=[]) == PROXY


def test_a_header_from_an_address_that_is_no_proxy_of_ours_is_not_read() -> None:
    assert name(SENDER, FORGED.encode()) == SENDER


@pytest.mark.parametrize(
    "forwarded",
    [
        (b"203.0.113.5",),
        # What the sender wrote himself stands left of what our proxy saw.
        (b"198.51.100.9, 203.0.113.5",),
        (b"198.51.100.9", b"203.0.113.5"),
        (b"198.51.100.9,203.0.113.5, 10.1.1.1 ,10.2.2.2",),
        (b"203.0.113.5:4711",),
        (b"::ffff:203.0.113.5",),
        (b"garbage, 203.0.113.5",),
    ],
)
def test_behind_our_proxies_the_last_address_that_is_none_of_them_counts(forwarded: tuple[bytes, ...]) -> None:
    assert name(PROXY, *forwarded) == SENDER


@pytest.mark.parametrize("forwarded", [b"", b"unknown", b"203.0.113.5, _hidden", b"1.2.3.4.5", b"\xff", b"9" * 5000])
def test_what_is_no_address_leaves_the_proxy_itself(forwarded: bytes) -> None:
    assert name(PROXY, forwarded) == PROXY


def test_a_proxy_without_the_header_counts_itself() -> None:
    assert name(PROXY) == PROXY


def test_a_long_list_is_read_from_its_end_only() -> None:
    assert name(PROXY, b"203.0.113.5, " + b"10.0.0.1, " * 30 + b"10.0.0.1") == "10.0.0.1"


@pytest.mark.parametrize("connected", ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:2::1%eth0"])
def test_ipv6_addresses_count_with_their_network(connected: str) -> None:
    assert name(connected) == "2001:db8:1:2::/64"


def test_an_ipv6_sender_behind_an_ipv6_proxy() -> None:
    assert name("fd00::1", b"[2001:db8:1:2::1]:443") == "2001:db8:1:2::/64"


def test_a_connection_without_an_address_has_a_name_too() -> None:
    assert name("") == "unknown"


def test_an_allow_list_is_about_the_single_address() -> None:
    peer = Peers().find("2001:db8:1:2::1", [])

    assert peer.is_in([ip_network("10.0.0.0/8"), ip_network("2001:db8:1:2::1/128")])
    assert not peer.is_in([ip_network("2001:db8:1:2::2/128")])
    assert not Peers().find("", []).is_in([ip_network("0.0.0.0/0")])
