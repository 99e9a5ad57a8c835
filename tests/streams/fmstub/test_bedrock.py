"""boto3, unchanged, against the stub."""

import contextlib
import json
from typing import Any

import boto3
import botocore.exceptions
import pytest
from botocore.config import Config

from tests.stub import Stub

pytestmark = pytest.mark.process

MODEL = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-v1:0"
PROMPT = "Invoice INV-2291 of Acme Corp over EUR 480 was not paid. Please call them."
MESSAGES = [{"role": "user", "content": [{"text": PROMPT}]}]


@pytest.fixture
def client(stub: Stub) -> Any:
    session = boto3.session.Session(aws_access_key_id="test", aws_secret_access_key="test")
    config = Config(retries={"total_max_attempts": 1}, read_timeout=5)
    client = session.client("bedrock-runtime", region_name="us-east-1", endpoint_url=stub.url, config=config)
    yield client
    client.close()


def test_converse_answers_with_usage_metrics_and_request_id(client: Any) -> None:
    response = client.converse(modelId=MODEL, messages=MESSAGES, system=[{"text": "Be brief."}])

    assert "was not paid" in response["output"]["message"]["content"][0]["text"]
    assert response["stopReason"] == "end_turn"
    assert response["usage"]["totalTokens"] == response["usage"]["inputTokens"] + response["usage"]["outputTokens"]
    assert response["metrics"]["latencyMs"] >= 0
    assert len(response["ResponseMetadata"]["RequestId"]) == 36


def test_an_arn_arrives_decoded(client: Any, stub: Stub) -> None:
    client.converse(modelId=MODEL, messages=MESSAGES)

    assert stub.stats()["by_model"] == {MODEL: 1}


def test_converse_stream_gives_the_same_text_in_deltas(client: Any) -> None:
    whole = client.converse(modelId=MODEL, messages=MESSAGES)["output"]["message"]["content"][0]["text"]

    events = list(client.converse_stream(modelId=MODEL, messages=MESSAGES)["stream"])

    deltas = [event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event]
    assert "".join(deltas) == whole
    assert [next(iter(event)) for event in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]
    assert events[-1]["metadata"]["usage"]["outputTokens"] > 0


def test_a_json_schema_is_satisfied(client: Any) -> None:
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    structure = {"jsonSchema": {"schema": json.dumps(schema), "name": "answer"}}

    response = client.converse(
        modelId=MODEL,
        messages=MESSAGES,
        outputConfig={"textFormat": {"type": "json_schema", "structure": structure}},
    )

    assert json.loads(response["output"]["message"]["content"][0]["text"]) == {"amount": 480}


def test_max_tokens_end_the_answer(client: Any) -> None:
    response = client.converse(modelId=MODEL, messages=MESSAGES, inferenceConfig={"maxTokens": 2})

    assert response["stopReason"] == "max_tokens"
    assert response["usage"]["outputTokens"] == 2


@pytest.mark.parametrize(
    ("model", "exception"),
    [
        ("error.throttling", "ThrottlingException"),
        ("error.unavailable", "ServiceUnavailableException"),
        ("error.internal", "InternalServerException"),
        ("error.timeout", "ModelTimeoutException"),
        ("error.not_ready", "ModelNotReadyException"),
        ("error.model_error", "ModelErrorException"),
        ("error.validation", "ValidationException"),
        ("error.access_denied", "AccessDeniedException"),
        ("error.not_found", "ResourceNotFoundException"),
    ],
)
def test_a_model_id_asks_for_an_error_of_botos_own_class(client: Any, model: str, exception: str) -> None:
    with pytest.raises(getattr(client.exceptions, exception)):
        client.converse(modelId=model, messages=MESSAGES)


def test_a_stream_that_ends_in_an_exception_frame_raises_event_stream_error(client: Any) -> None:
    stream = client.converse_stream(modelId="error.stream_error", messages=MESSAGES)["stream"]

    with (
        contextlib.closing(stream),
        pytest.raises(botocore.exceptions.EventStreamError, match="modelStreamErrorException"),
    ):
        list(stream)


def test_malformed_requests_are_validation_errors(client: Any) -> None:
    turn = {"role": "assistant", "content": [{"text": "I begin."}]}

    with pytest.raises(client.exceptions.ValidationException, match="must start with a user message"):
        client.converse(modelId=MODEL, messages=[turn])


def test_calls_are_counted_per_event(client: Any, stub: Stub) -> None:
    for _ in range(2):
        client.converse(modelId=MODEL, messages=MESSAGES, requestMetadata={"event_id": "evt-7"})

    assert stub.stats()["calls_per_event"] == {"evt-7": 2}
    assert stub.stats()["billed_per_event"] == {"evt-7": 2}


def test_scripted_failures_come_first_and_are_not_billed(client: Any, stub: Stub) -> None:
    stub.set_knobs(fail_first={"INV-2291": 2})

    for _ in range(2):
        with pytest.raises(client.exceptions.ServiceUnavailableException):
            client.converse(modelId=MODEL, messages=MESSAGES)

    assert client.converse(modelId=MODEL, messages=MESSAGES)["stopReason"] == "end_turn"
    assert stub.stats()["calls"] == 3
    assert stub.stats()["billed"] == 1


def test_a_token_quota_reserves_max_tokens_and_settles_on_usage(client: Any, stub: Stub) -> None:
    stub.set_knobs(tpm=6000)
    small = {"maxTokens": 3000}

    # Reserving without settling would refuse the second call: twice 3,000 and the input exceed the quota.
    for _ in range(3):
        client.converse(modelId=MODEL, messages=MESSAGES, inferenceConfig=small)
    with pytest.raises(client.exceptions.ThrottlingException) as caught:
        client.converse(modelId=MODEL, messages=MESSAGES, inferenceConfig={"maxTokens": 6000})

    assert int(caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) >= 1


def test_invoke_model_speaks_anthropics_messages(client: Any) -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": PROMPT}],
    }

    response = client.invoke_model(modelId=MODEL, body=json.dumps(body))

    answer = json.loads(response["body"].read())
    assert "was not paid" in answer["content"][0]["text"]
    assert response["ResponseMetadata"]["HTTPHeaders"]["x-amzn-bedrock-output-token-count"].isdigit()


def test_invoke_model_streams_anthropics_events(client: Any) -> None:
    body = {"max_tokens": 100, "messages": [{"role": "user", "content": PROMPT}]}

    response = client.invoke_model_with_response_stream(modelId=MODEL, body=json.dumps(body))

    chunks = [json.loads(event["chunk"]["bytes"]) for event in response["body"]]
    text = "".join(chunk["delta"]["text"] for chunk in chunks if chunk["type"] == "content_block_delta")
    assert "was not paid" in text
    assert chunks[-1]["type"] == "message_stop"


def test_titan_embeddings_are_unit_vectors(client: Any) -> None:
    response = client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=json.dumps({"inputText": PROMPT}))

    vector = json.loads(response["body"].read())["embedding"]
    assert sum(value * value for value in vector) == pytest.approx(1.0)
