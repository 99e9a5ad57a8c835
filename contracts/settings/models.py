"""Providers, and the aliases under which routes know models."""

from typing import Annotated, Any, Literal

from pydantic import Field

from contracts.payloads import Reasoning, Task
from contracts.settings.batch_api import BatchApi
from contracts.settings.retry import RetryBudgetSettings
from contracts.settings.secrets import Name, SecretRef
from contracts.settings.section import ExistingFile, Form, HttpUrl, Seconds, Section

# What the embedded provider has, by task.
EMBEDDED_MODELS: dict[Task, str] = {"chat": "embedded/extract-v1", "embedding": "embedded/hashed-words-v1"}


class EmbeddedProvider(Section):
    """Offline, deterministic, extractive: no language model, for a first look and for tests."""

    kind: Literal["embedded"]
    """Selects this provider."""
    latency_s: float = Field(default=0.0, ge=0, le=60)
    """Artificial time per call, seconds."""


class BedrockProvider(Section):
    """Amazon Bedrock, Converse API."""

    kind: Literal["bedrock"]
    """Selects this provider."""
    region: str = Field(min_length=1)
    """AWS region."""
    endpoint_url: HttpUrl | None = None
    """Another endpoint: a VPC endpoint, or `penstock fm-stub`."""
    bearer_token: SecretRef | None = None
    """Bedrock API key; the default AWS credential chain when absent."""
    max_in_flight: int = Field(default=64, ge=1, le=512)
    """Calls at a time; each holds a thread."""
    connect_timeout_s: Seconds = 3.0
    """Limit of the TCP and TLS handshake."""
    structured_output: bool = True
    """Send the route's schema as outputConfig; false for models that refuse it. Answers are validated either way."""
    batch_api: BatchApi | None = None
    """Batch inference for records on the hand-over topic; `penstock hand-over` works on them."""


class OpenAIProvider(Section):
    """Any OpenAI-compatible server: OpenAI, vLLM, Ollama, llama.cpp, a LiteLLM proxy."""

    kind: Literal["openai"]
    """Selects this provider."""
    base_url: HttpUrl
    """Up to and including `/v1`."""
    api_key: SecretRef | None = None
    """Sent as a bearer token; none for servers that need none."""
    max_in_flight: int = Field(default=64, ge=1, le=4096)
    """Calls at a time; each holds a connection."""
    connect_timeout_s: Seconds = 3.0
    """Limit of the TCP and TLS handshake."""
    transport: Literal["auto", "aiohttp", "lean"] = "auto"
    """HTTP client: `lean` is our own, for many calls in flight; `aiohttp` knows proxies and odd servers; `auto` is
    lean unless `proxy` or an unusual `base_url` asks for aiohttp."""
    proxy: (
        Annotated[str, Form(r"^https?://[^@\s]+$", "a URL without user and password, such as http://proxy:3128")] | None
    ) = None
    """HTTP proxy for all calls, without credentials; those of the environment are never used. Not with `lean`."""
    ca_file: ExistingFile | None = None
    """PEM file of the certificate authorities to trust in place of the system's."""
    structured_output: bool = True
    """Send the route's schema as response_format; false for servers that refuse it. Answers are validated
    either way."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """Name under which a chat model gets its `max_tokens`. `auto` is `max_completion_tokens` at OpenAI and Azure
    OpenAI, `max_tokens` elsewhere, and the other one for a model whose server refuses that."""


class FakeProvider(Section):
    """Scripted answers and faults, for tests of your own pipeline."""

    kind: Literal["fake"]
    """Selects this provider."""
    script: tuple[dict[str, Any], ...] = ()
    """Steps; see docs/providers.md."""
    script_file: ExistingFile | None = None
    """The same steps as a YAML or JSON file."""
    seed: int = 0
    """Seed of random steps."""


ProviderSettings = Annotated[
    EmbeddedProvider | BedrockProvider | OpenAIProvider | FakeProvider, Field(discriminator="kind")
]


class Price(Section):
    """US dollars per million tokens, from the provider's price list."""

    input_usd: float = Field(ge=0)
    """Per million input tokens."""
    output_usd: float = Field(ge=0)
    """Per million output tokens."""
    cache_read_usd: float | None = Field(default=None, ge=0)
    """Per million tokens read from the provider's prompt cache; as `input_usd` when absent."""
    cache_write_usd: float | None = Field(default=None, ge=0)
    """Per million tokens written to the prompt cache, where the provider counts them apart; as `input_usd` when
    absent."""


class ModelSettings(Section):
    """What an alias stands for; change it here and no consumer notices."""

    provider: Name
    """Name of a section under `providers`."""
    model: str = Field(min_length=1, max_length=2048)
    """The provider's model id, inference profile or ARN."""
    task: Task = "chat"
    """What it is asked for: `chat`; `completion` (text continued, the older API of OpenAI-compatible servers);
    `embedding` (the result's output is the vector)."""
    max_tokens: int = Field(default=512, ge=1, le=1_000_000)
    """Longest answer; always sent, since an unset one reserves the model's maximum against the quota."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; the model's default when absent."""
    reasoning: Reasoning = "strip"
    """What becomes of thoughts that the server leaves in the text of an answer, in front of it between `<think>` and
    `</think>`: `strip`; `strip_unopened`, also where the server's prompt template has written the opening tag, so that
    all up to `</think>` is thoughts; `strip_all`, also between `<thinking>`, `<seed:think>` or `[THINK]` and their
    ends; `keep`, they are part of the answer."""
    retry_budget: RetryBudgetSettings = RetryBudgetSettings()
    """Limit of retries to this model."""
    price: Price | None = None
    """Price list; costs are unknown (not zero) when absent."""
