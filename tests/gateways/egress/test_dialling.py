"""The guarded client: nothing of the corpus is ever dialled."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest

from gateways.egress.addresses import REFUSED, AddressPolicy, networks
from gateways.egress.dialling import (
    AddressRefused,
    SystemResolver,
    TooManyInterimAnswers,
    guarded_session,
    guarded_socket,
)
from producers.threads import NoThread
from tests.gateways.egress.receiver import OK, Receiver, status
from tests.suites.ssrf import ANSWERS, LITERALS, WATCH, ScriptedResolver, literal_urls, odd_urls
from tests.support import no_threads

LOOPBACK = AddressPolicy(allowed=networks(["127.0.0.1/32"]))
NAME = "hook.example"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as started:
        yield started


async def _attempt(url: str, policy: AddressPolicy, rounds: Sequence[Sequence[str]] = (("127.0.0.1",),)) -> int:
    async with guarded_session(policy, ScriptedResolver(rounds), limit=4, timeout_s=10) as session:
        return await _post(session, url)


async def _post(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(url, data=b"{}", allow_redirects=False) as response:
        await response.read()
        return response.status


async def test_no_literal_of_the_corpus_is_dialled(receiver: Receiver) -> None:
    for url in literal_urls(receiver.port):
        with WATCH.on() as dialled, pytest.raises((AddressRefused, aiohttp.ClientError)):
            await _attempt(url, AddressPolicy())
        assert dialled == [], url

    assert receiver.connections == 0
    assert len(LITERALS) > 70


async def test_no_odd_url_of_the_corpus_is_dialled(receiver: Receiver) -> None:
    for url in odd_urls(receiver.port):
        with WATCH.on() as dialled, pytest.raises((AddressRefused, aiohttp.ClientError, ValueError)):
            await _attempt(url, AddressPolicy())
        assert dialled == [], url

    assert receiver.connections == 0


async def test_no_name_whose_answer_has_a_refused_address_is_dialled(receiver: Receiver) -> None:
    for answer in ANSWERS:
        with WATCH.on() as dialled, pytest.raises(AddressRefused):
            await _attempt(f"http://{NAME}:{receiver.port}/", AddressPolicy(), answer.rounds)
        assert dialled == [], answer.label

    assert receiver.connections == 0
    assert len(ANSWERS) > 100


async def test_the_watch_would_see_a_dialled_address(receiver: Receiver) -> None:
    with WATCH.on() as dialled:
        assert await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK) == 200
        assert await _attempt(f"http://127.0.0.1:{receiver.port}/", LOOPBACK) == 200

    assert dialled == ["127.0.0.1", "127.0.0.1"]
    assert receiver.connections == 2


@pytest.mark.parametrize("reason", REFUSED)
def test_the_maker_of_sockets_refuses_even_what_a_resolver_let_pass(reason: str) -> None:
    make = guarded_socket(AddressPolicy())
    for network in networks(REFUSED[reason]):
        family = socket.AF_INET if network.version == 4 else socket.AF_INET6
        with pytest.raises(AddressRefused):
            make((family, socket.SOCK_STREAM, 0, "", (str(network[-1]), 80)))


async def test_a_name_that_leads_inside_the_second_time_is_refused_then(receiver: Receiver) -> None:
    receiver.answer = status(200, "Connection: close")
    resolver = ScriptedResolver([["127.0.0.1"], ["127.0.0.2"]])
    url = f"http://{NAME}:{receiver.port}/"
    async with guarded_session(LOOPBACK, resolver, limit=4, timeout_s=10) as session:
        assert await _post(session, url) == 200
        with WATCH.on() as dialled, pytest.raises(AddressRefused):
            await _post(session, url)

    assert dialled == []
    assert resolver.asked == 2


async def test_the_checked_address_is_the_dialled_one_and_the_name_is_asked_once_per_connection(
    receiver: Receiver,
) -> None:
    # A name server with TTL 0 that says something harmless to the check and something else to the dialler.
    resolver = ScriptedResolver([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.2"]])
    async with guarded_session(LOOPBACK, resolver, limit=4, timeout_s=10) as session:
        with WATCH.on() as dialled:
            assert await _post(session, f"http://{NAME}:{receiver.port}/") == 200

    assert dialled == ["127.0.0.1"]
    assert resolver.asked == 1


async def test_a_kept_connection_stays_where_it_was_checked(receiver: Receiver) -> None:
    resolver = ScriptedResolver([["127.0.0.1"], ["127.0.0.2"]])
    url = f"http://{NAME}:{receiver.port}/"
    async with guarded_session(LOOPBACK, resolver, limit=4, timeout_s=10) as session:
        with WATCH.on() as dialled:
            assert [await _post(session, url) for _ in range(3)] == [200, 200, 200]

    assert dialled == ["127.0.0.1"]
    assert receiver.connections == 1


@pytest.mark.parametrize("code", [300, 301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_never_followed(receiver: Receiver, code: int) -> None:
    async with Receiver() as inside:
        receiver.answer = status(
            code, f"Location: http://127.0.0.1:{inside.port}/", "Refresh: 0; url=http://127.0.0.1/"
        )

        assert await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK) == code
        assert inside.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with Receiver() as proxy:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")

        assert await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK) == 200
        assert proxy.connections == 0


async def test_interim_answers_without_end_are_given_up_soon(receiver: Receiver) -> None:
    receiver.answer = b""
    receiver.repeat = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" * 100

    with pytest.raises(TooManyInterimAnswers):
        await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK)


async def test_a_few_interim_answers_are_passed_over(receiver: Receiver) -> None:
    receiver.answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 8 + OK

    assert await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK) == 200


async def test_a_server_that_never_answers_costs_the_limit_and_no_more(receiver: Receiver) -> None:
    receiver.answer = None
    async with guarded_session(LOOPBACK, ScriptedResolver([["127.0.0.1"]]), limit=4, timeout_s=0.2) as session:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_post(session, f"http://{NAME}:{receiver.port}/"), 10)


async def test_a_gzip_bomb_is_not_unpacked(receiver: Receiver) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    receiver.answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
    url, resolver = f"http://{NAME}:{receiver.port}/", ScriptedResolver([["127.0.0.1"]])
    async with (
        guarded_session(LOOPBACK, resolver, limit=4, timeout_s=10) as session,
        session.post(url, data=b"{}") as response,
    ):
        assert await response.read() == bomb


async def test_a_name_that_does_not_resolve_is_a_failure_of_the_name() -> None:
    class _Nowhere(ScriptedResolver):
        async def resolve(self, *_args: object, **_kwargs: object) -> list[aiohttp.abc.ResolveResult]:
            raise OSError(None, "no such name")

    async with guarded_session(LOOPBACK, _Nowhere([]), limit=4, timeout_s=10) as session:
        with pytest.raises(aiohttp.ClientConnectorDNSError):
            await _post(session, f"http://{NAME}/")


@pytest.mark.parametrize("addresses", [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")])
async def test_one_refused_address_refuses_the_whole_answer(receiver: Receiver, addresses: tuple[str, ...]) -> None:
    with WATCH.on() as dialled, pytest.raises(AddressRefused):
        await _attempt(f"http://{NAME}:{receiver.port}/", LOOPBACK, [addresses])

    assert dialled == []


async def test_the_systems_resolver_answers_with_every_address_of_a_name(receiver: Receiver) -> None:
    resolver = SystemResolver(2)
    try:
        found = await resolver.resolve("localhost", 80, socket.AF_INET)
        policy = AddressPolicy(allowed=networks(["127.0.0.1/32", "::1/128"]))
        async with guarded_session(policy, resolver, limit=4, timeout_s=10) as session:
            assert await _post(session, f"http://localhost:{receiver.port}/") == 200
    finally:
        await resolver.close()

    assert [one["host"] for one in found] == ["127.0.0.1"]


async def test_a_name_that_no_thread_can_look_up_is_not_looked_up_later(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = list[str]()

    def look_up(host: str, *_args: object, **_more: object) -> list[object]:
        looked.append(host)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    resolver = SystemResolver(2)
    with no_threads(), pytest.raises(NoThread):
        await resolver.resolve("first.example", 443)

    await resolver.resolve("second.example", 443)
    await resolver.close()

    assert looked == ["second.example"]
