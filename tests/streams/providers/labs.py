"""Labs of the provider suite: each provider with whom it asks, all in one process."""

from collections.abc import Mapping
from types import MappingProxyType

import boto3

from contracts.settings.models import BedrockProvider, EmbeddedProvider, FakeProvider, OpenAIProvider
from streams.fmstub.call import Backend
from streams.fmstub.control import check_knobs
from streams.fmstub.server import Server
from streams.providers.base import Provider
from streams.providers.bedrock import Bedrock
from streams.providers.embedded import Embedded
from streams.providers.extract.answer import MODEL_ID
from streams.providers.fake import Fake
from streams.providers.openai import OpenAI
from tests.suites.provider import LIMIT

NOTHING: Mapping[str, str] = MappingProxyType({})
SESSION = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")


class StubLab:
    """A provider that asks a stub in the same loop."""

    model = "anthropic.claude-test-v1:0"
    cannot = NOTHING

    def __init__(self, backend: Backend, provider: Provider) -> None:
        self.backend = backend
        self.provider = provider

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        self.backend.knobs = check_knobs({"error_rates": {kind: 1.0}, "retry_after_s": retry_after_s})

    async def hang(self) -> None:
        await self.fail("hang")

    async def slow(self, latency_s: float, stream_pause_s: float = 0.0) -> None:
        self.backend.knobs = check_knobs({"latency_s": latency_s, "stream_pause_s": stream_pause_s})

    async def recover(self) -> None:
        self.backend.knobs = check_knobs({})

    def calls(self) -> int:
        return self.backend.stats.calls

    def peak(self) -> int:
        return self.backend.stats.peak_in_flight


async def started_stub() -> tuple[Server, int]:
    """Return a running stub and its port."""
    server = Server(Backend(check_knobs({})), shutdown_s=0.02)
    return server, await server.start()


def bedrock(port: int) -> Bedrock:
    """Return a Bedrock provider for a stub, with credentials of its own."""
    settings = BedrockProvider(
        kind="bedrock", region="us-east-1", endpoint_url=f"http://127.0.0.1:{port}", max_in_flight=LIMIT
    )
    return Bedrock(settings, session=SESSION)


def openai(port: int, api_key: bytes | None = b"test") -> OpenAI:
    """Return an OpenAI provider for a stub."""
    settings = OpenAIProvider(kind="openai", base_url=f"http://127.0.0.1:{port}/v1", max_in_flight=LIMIT)
    return OpenAI(settings, api_key=api_key)


class FakeLab:
    """The fake, with a script per situation; all play into the same counters."""

    model = "any"
    cannot = MappingProxyType({"breaks": "its answers are not bytes on a wire"})
    _SLUGS = MappingProxyType(
        {
            "throttling": "throttled", "daily_quota": "quota_exhausted", "quota": "quota_exhausted",
            "unavailable": "provider_unavailable", "internal": "provider_unavailable",
            "not_ready": "provider_unavailable", "model_error": "provider_unavailable", "timeout": "provider_timeout",
            "validation": "invalid_request", "model_refused": "invalid_request", "too_long": "context_too_long",
            "blocked": "content_blocked", "access_denied": "access_denied", "not_found": "model_not_found",
        }
    )  # fmt: skip

    def __init__(self) -> None:
        self.provider: Fake = Fake(FakeProvider(kind="fake"))
        self._earlier = 0

    def _play(self, **step: object) -> None:
        self._earlier = self.calls()
        self.provider = Fake(FakeProvider(kind="fake", script=(step,)))

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        self._play(error=self._SLUGS[kind], retry_after_s=retry_after_s)

    async def hang(self) -> None:
        self._play(hang=True)

    async def slow(self, latency_s: float, stream_pause_s: float = 0.0) -> None:
        self._play(latency_s=latency_s + 10 * stream_pause_s)

    async def recover(self) -> None:
        self._play()

    def calls(self) -> int:
        return self._earlier + sum(self.provider.calls.values())

    def peak(self) -> int:
        return self.provider.peak_in_flight


class EmbeddedLab:
    """The embedded provider, which asks nobody."""

    model = MODEL_ID
    cannot = MappingProxyType(
        {
            "faults": "it asks nobody who could fail",
            "breaks": "it asks nobody who could fail",
            "hang": "it asks nobody who could hang",
            "counts": "it counts nothing",
        }
    )

    def __init__(self) -> None:
        self.provider = Embedded(EmbeddedProvider(kind="embedded"))

    async def fail(self, kind: str, retry_after_s: float | None = None) -> None:
        raise NotImplementedError

    async def hang(self) -> None:
        raise NotImplementedError

    async def slow(self, latency_s: float, stream_pause_s: float = 0.0) -> None:
        await self.provider.aclose()
        self.provider = Embedded(EmbeddedProvider(kind="embedded", latency_s=latency_s + 10 * stream_pause_s))

    async def recover(self) -> None:
        await self.slow(0.0)

    def calls(self) -> int:
        raise NotImplementedError

    def peak(self) -> int:
        raise NotImplementedError
