"""The openai package, unchanged, against the stub."""

import json
from collections.abc import Iterator

import openai
import pytest

from tests.stub import Stub

pytestmark = pytest.mark.process

PROMPT = "Invoice INV-2291 of Acme Corp over EUR 480 was not paid. Please call them."


@pytest.fixture
def client(stub: Stub) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{stub.url}/v1", api_key="test", max_retries=0, timeout=5) as client:
        yield client


def test_a_chat_completion_has_text_and_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])

    assert "was not paid" in str(answer.choices[0].message.content)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_a_streamed_chat_completion_gives_the_same_text_and_usage_at_the_end(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="m", messages=[{"role": "user", "content": PROMPT}])

    chunks = list(
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": PROMPT}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


async def test_the_async_client_streams_too(stub: Stub) -> None:
    async with openai.AsyncOpenAI(base_url=f"{stub.url}/v1", api_key="test", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": PROMPT}], stream=True
        )
        finishes = [chunk.choices[0].finish_reason async for chunk in stream]

    assert finishes[-1] == "stop"
    assert len(finishes) > 5


def test_a_json_schema_is_satisfied(client: openai.OpenAI) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}

    answer = client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": PROMPT}],
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema)}},
    )

    assert json.loads(str(answer.choices[0].message.content)) == {"amount": 480}


@pytest.mark.parametrize(
    ("model", "error"),
    [
        ("error.throttling", openai.RateLimitError),
        ("error.quota", openai.RateLimitError),
        ("error.unavailable", openai.InternalServerError),
        ("error.validation", openai.BadRequestError),
        ("error.too_long", openai.BadRequestError),
        ("error.access_denied", openai.AuthenticationError),
        ("error.not_found", openai.NotFoundError),
    ],
)
def test_a_model_id_asks_for_an_error_of_the_packages_own_class(
    client: openai.OpenAI, model: str, error: type[openai.APIStatusError]
) -> None:
    with pytest.raises(error):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": PROMPT}])


def test_calls_are_counted_per_event_of_metadata_user_or_header(client: openai.OpenAI, stub: Stub) -> None:
    turn: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]
    client.chat.completions.create(model="m", messages=turn, metadata={"event_id": "a"})
    client.chat.completions.create(model="m", messages=turn, user="b")
    client.chat.completions.create(model="m", messages=turn, extra_headers={"X-Client-Request-Id": "c%2F1"})

    assert stub.stats()["calls_per_event"] == {"a": 1, "b": 1, "c/1": 1}


def test_a_request_quota_says_what_is_left_and_when_it_refills(client: openai.OpenAI, stub: Stub) -> None:
    stub.set_knobs(rpm=1)
    turn: list[openai.types.chat.ChatCompletionMessageParam] = [{"role": "user", "content": PROMPT}]

    first = client.chat.completions.with_raw_response.create(model="m", messages=turn)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="m", messages=turn)

    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60


def test_embeddings_of_like_wording_are_near(client: openai.OpenAI) -> None:
    found = client.embeddings.create(
        model="m", input=["invoice was paid", "the invoice was paid late", "a cat sleeps"], encoding_format="float"
    )

    one, two, three = (item.embedding for item in found.data)
    assert sum(map(float.__mul__, one, two)) > sum(map(float.__mul__, one, three)) + 0.3


def test_completions_take_a_list_of_prompts(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="m", prompt=[PROMPT, "Order 4411 arrived broken."], max_tokens=100)

    assert "was not paid" in answer.choices[0].text
    assert "arrived broken" in answer.choices[1].text


def test_models_name_the_extractor(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["embedded/extract-v1"]
