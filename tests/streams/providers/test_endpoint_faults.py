"""What there is no connection for until an operator acts: a name that does not exist, a certificate that is refused."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import CertificateRefused, PenstockError, ProviderUnavailable, UnknownHost
from contracts.payloads import InferenceRequest
from contracts.settings.models import BedrockProvider, OpenAIProvider
from streams.providers.bedrock import Bedrock
from streams.providers.openai import OpenAI
from tests.streams.providers.transport.conftest import Served, _served

REQUEST = InferenceRequest(event_id="e", model="m", messages=(), system="Say yes.", timeout_s=10.0)
TRANSPORTS = pytest.mark.parametrize("transport", ["lean", "aiohttp"])


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return _served(tmp_path_factory.mktemp("good"), 5)


@pytest.fixture(scope="module")
def expired(tmp_path_factory: pytest.TempPathFactory) -> Served:
    return _served(tmp_path_factory.mktemp("expired"), -1)


@contextlib.asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def refusal(
    transport: Any, base_url: str, ca_file: Path | None = None, proxy: str | None = None
) -> PenstockError:
    settings = OpenAIProvider(kind="openai", base_url=base_url, transport=transport, ca_file=ca_file, proxy=proxy)
    provider = OpenAI(settings)
    await provider.start()
    try:
        with pytest.raises(PenstockError) as caught:
            await provider.invoke(REQUEST)
        with pytest.raises(PenstockError) as streamed:
            _ = [piece async for piece in provider.stream(REQUEST)]
    finally:
        await provider.aclose()
    assert type(caught.value) is type(streamed.value)
    return caught.value


@TRANSPORTS
async def test_an_expired_certificate_is_a_fault_that_says_so(transport: str, expired: Served) -> None:
    async with serving(expired[0]) as port:
        error = await refusal(transport, f"https://127.0.0.1:{port}/v1", expired[1])

    assert type(error) is CertificateRefused
    assert f"127.0.0.1:{port}: its certificate is refused: certificate has expired" in str(error)


@TRANSPORTS
async def test_an_unknown_authority_is_a_fault_that_says_so(transport: str, good: Served) -> None:
    async with serving(good[0]) as port:
        error = await refusal(transport, f"https://127.0.0.1:{port}/v1")

    assert type(error) is CertificateRefused
    assert "self-signed certificate" in str(error)


@TRANSPORTS
async def test_a_certificate_of_another_host_is_a_fault_that_says_so(transport: str, good: Served) -> None:
    async with serving(good[0]) as port:
        error = await refusal(transport, f"https://localhost:{port}/v1", good[1])

    assert type(error) is CertificateRefused
    assert "not valid for 'localhost'" in str(error)


def resolving_to(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def look_up(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(code, "said the resolver")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@TRANSPORTS
async def test_a_name_that_does_not_exist_is_a_fault_that_names_it(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving_to(monkeypatch, socket.EAI_NONAME)

    error = await refusal(transport, "http://api.opneai.test/v1")

    assert type(error) is UnknownHost
    assert "api.opneai.test: there is no host of this name" in str(error)


async def test_a_proxy_that_does_not_exist_is_named_in_place_of_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, socket.EAI_NONAME)

    error = await refusal("aiohttp", "https://api.openai.test/v1", proxy="http://sqiud.test:3128")

    assert type(error) is UnknownHost
    assert "proxy sqiud.test:3128: there is no host of this name" in str(error)


async def test_a_proxy_that_does_not_exist_is_named_in_place_of_bedrock(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, socket.EAI_NONAME)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://me:word@sqiud.test:3128")

    error = await bedrock_refusal(None, monkeypatch)

    assert type(error) is UnknownHost
    assert "proxy sqiud.test:3128: there is no host of this name" in str(error)
    assert "word" not in str(error)


@TRANSPORTS
@pytest.mark.parametrize("code", [socket.EAI_AGAIN, socket.EAI_FAIL, socket.EAI_NODATA])
async def test_a_name_of_which_nobody_can_tell_may_be_right_in_a_minute(
    transport: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving_to(monkeypatch, code)

    assert type(await refusal(transport, "http://api.openai.test/v1")) is ProviderUnavailable


@TRANSPORTS
async def test_a_refused_connection_may_pass(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    assert type(await refusal(transport, f"http://127.0.0.1:{port}/v1")) is ProviderUnavailable


async def bedrock_refusal(endpoint_url: str | None, monkeypatch: pytest.MonkeyPatch) -> PenstockError:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    settings = BedrockProvider(kind="bedrock", region="eu-centrl-1", endpoint_url=endpoint_url)
    provider = Bedrock(settings, bearer_token=b"key")
    await provider.start()
    try:
        with pytest.raises(PenstockError) as caught:
            await provider.invoke(REQUEST)
    finally:
        await provider.aclose()
    return caught.value


async def test_a_region_that_bedrock_does_not_have_is_a_host_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving_to(monkeypatch, socket.EAI_NONAME)

    error = await bedrock_refusal(None, monkeypatch)

    assert type(error) is UnknownHost
    assert "bedrock-runtime.eu-centrl-1.amazonaws.com: there is no host of this name" in str(error)


async def test_where_no_name_server_answers_bedrock_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving_to(monkeypatch, socket.EAI_AGAIN)

    error = await bedrock_refusal(None, monkeypatch)

    assert type(error) is ProviderUnavailable
    assert not error.possibly_billed


async def test_a_certificate_that_bedrocks_client_refuses_is_a_fault(
    good: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(good[0]) as port:
        error = await bedrock_refusal(f"https://127.0.0.1:{port}", monkeypatch)

    assert type(error) is CertificateRefused
    assert f"127.0.0.1:{port}: its certificate is refused" in str(error)
