"""What a callback's URL may look like."""

import pytest

from contracts.settings.callback_url import Target, UrlRefused, UrlRule, read_url
from tests.suites.ssrf import odd_urls


@pytest.mark.parametrize(
    ("url", "host", "port", "is_literal"),
    [
        ("https://example.com", "example.com", 443, False),
        ("HTTPS://Example.COM:8443/hooks/a%20b?x=1&y=/?", "example.com", 8443, False),
        ("http://receiver_1:8080/", "receiver_1", 8080, False),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, False),
        ("https://8.8.8.8/", "8.8.8.8", 443, True),
        ("https://[2606:4700::1111]:8443/", "2606:4700::1111", 8443, True),
        ("https://1.example", "1.example", 443, False),
    ],
)
def test_plain_urls_are_read(url: str, host: str, port: int, is_literal: bool) -> None:
    target = read_url(url)

    assert target == Target(url, url.partition(":")[0].lower(), host, port, is_literal)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://" + "a" * 2048, "too_long"),
        ("https://b\u00fccher.example/", "characters"),
        ("https://example.com/a b", "characters"),
        ("https://example.com/\n", "characters"),
        ("https://example.com\\@127.0.0.1/", "characters"),
        ("ftp://example.com/", "scheme"),
        ("example.com", "scheme"),
        ("https:/example.com", "scheme"),
        ("https://user@example.com/", "userinfo"),
        ("https://user:pass@example.com/", "userinfo"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com/{id}", "path"),
        ("https://example.com/%zz", "path"),
        ("https:///path", "host"),
        ("https://a..b/", "host"),
        ("https://-a.example/", "host"),
        ("https://a%2eb/", "host"),
        ("https://127.0.0.1%00.example.com/", "host"),
        ("https://example.com./", "trailing_dot"),
        ("https://2130706433/", "odd_address"),
        ("https://0x7f000001/", "odd_address"),
        ("https://0x/", "odd_address"),
        ("https://127.1/", "odd_address"),
        ("https://0177.0.0.1/", "odd_address"),
        ("https://256.1.1.1/", "odd_address"),
        ("https://example.0x1/", "odd_address"),
        ("https://[fe80::1%25eth0]/", "odd_address"),
        ("https://[127.0.0.1]/", "odd_address"),
        ("https://[::1/", "odd_address"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "port"),
        ("https://example.com:080/", "port"),
        ("https://example.com:/", "port"),
        ("https://example.com:443:80/", "port"),
    ],
)
def test_odd_urls_are_refused_with_a_reason(url: str, reason: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        read_url(url)

    assert caught.value.reason == reason


def test_a_refusal_does_not_repeat_the_url() -> None:
    with pytest.raises(UrlRefused) as caught:
        read_url("https://user:hunter2@example.com/")

    assert "hunter2" not in str(caught.value)


def test_every_odd_url_of_the_corpus_is_refused_or_names_a_host_to_be_resolved() -> None:
    taken = []
    for url in odd_urls(8080):
        try:
            taken.append(read_url(url).host)
        except UrlRefused:
            continue

    assert taken == ["localhost", "localhost"]


RULE = UrlRule(("hooks.example", "*.Customer.example"), (443,))


@pytest.mark.parametrize("url", ["https://hooks.example/a?b", "https://HOOKS.example", "https://a.b.customer.example/"])
def test_a_rule_lets_its_hosts_pass(url: str) -> None:
    assert RULE.check(url).url == url


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://other.example/", "host_not_allowed"),
        ("https://customer.example/", "host_not_allowed"),
        ("https://hooks.example.evil.example/", "host_not_allowed"),
        ("https://8.8.8.8/", "literal"),
        ("https://[2606:4700::1111]/", "literal"),
        ("http://hooks.example/", "scheme"),
        ("https://hooks.example:8443/", "port"),
        ("https://hooks.example@evil.example/", "userinfo"),
    ],
)
def test_a_rule_refuses_everything_else(url: str, reason: str) -> None:
    with pytest.raises(UrlRefused) as caught:
        RULE.check(url)

    assert caught.value.reason == reason


def test_a_rule_for_every_host_still_takes_no_address() -> None:
    with pytest.raises(UrlRefused):
        UrlRule(("*",), (443,)).check("https://127.0.0.1/")
