"""The address policy."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateways.egress.addresses import AddressPolicy, networks

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0",
    "198.17.255.255", "198.20.0.0", "203.0.112.255", "223.255.255.255", "168.63.129.15", "2001:200::1",
    "2001:4860:4860::8888",    "2606:4700:4700::1111", "2a00:1450:4001::1", "2003::1",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str) -> None:
    assert AddressPolicy().refusal(address) is None


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"), ("0.0.0.1", "unspecified"), ("10.1.2.3", "private"), ("100.100.100.200", "shared"),
        ("169.254.169.254", "link_local"), ("168.63.129.16", "platform"), ("192.0.2.1", "documentation"),
        ("198.18.0.1", "benchmark"), ("224.0.0.1", "multicast"), ("255.255.255.255", "reserved"), ("::", "unspecified"),
        ("::1", "loopback"), ("::7f00:1", "ipv4_compatible"), ("::ffff:127.0.0.1", "ipv4_mapped"),
        ("::ffff:0:127.0.0.1", "ipv4_translated"), ("64:ff9b::7f00:1", "nat64"), ("2002:7f00:1::", "6to4"),
        ("2001::1", "teredo"), ("2001:10::1", "ietf"), ("2001:db8::1", "documentation"), ("3fff::1", "documentation"),
        ("5f00::1", "srv6"), ("100::1", "discard"), ("fd00:ec2::254", "private"), ("fe80::1", "link_local"),
        ("fe80::1%eth0", "link_local"), ("2606:4700::1%eth0", "link_local"), ("fec0::1", "site_local"),
        ("ff02::1", "multicast"), ("4000::1", "not_given_out"), ("8000::", "not_given_out"), ("", "not_an_address"),
        ("localhost", "not_an_address"), ("0x7f000001", "not_an_address"), ("127.1", "not_an_address"),
        ("0177.0.0.1", "not_an_address"),
    ],
)  # fmt: skip
def test_a_refusal_names_its_reason(address: str, reason: str) -> None:
    assert AddressPolicy().refusal(address) == reason


@given(st.ip_addresses())
def test_what_the_standard_library_calls_not_global_is_refused(address: IPv4Address | IPv6Address) -> None:
    refusal = AddressPolicy().refusal(str(address))

    assert address.is_global or refusal is not None


@given(st.integers(0, 2**32 - 1))
def test_no_ipv4_address_passes_in_the_clothes_of_an_ipv6_address(number: int) -> None:
    inside = ip_address(number)
    dressed = [f"::{inside}", f"::ffff:{inside}", f"64:ff9b::{inside}", f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1"]

    assert [AddressPolicy().refusal(text) is None for text in dressed] == [False] * 4


def test_allowed_networks_pass_and_their_neighbours_do_not() -> None:
    policy = AddressPolicy(allowed=networks(["10.1.0.0/16", "fd00::/64"]))

    assert policy.refusal("10.1.2.3") is None
    assert policy.refusal("fd00::1") is None
    assert policy.refusal("10.2.0.1") == "private"
    assert policy.refusal("fd00:0:0:1::1") == "private"
    assert policy.refusal("::ffff:10.1.2.3") == "ipv4_mapped"


def test_a_network_refused_by_configuration_wins_over_an_allowed_one() -> None:
    policy = AddressPolicy(allowed=networks(["8.0.0.0/8"]), refused=networks(["8.8.0.0/16"]))

    assert policy.refusal("8.8.8.8") == "refused_network"
    assert policy.refusal("8.9.8.8") is None
