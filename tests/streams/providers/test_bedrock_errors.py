"""What boto3 raises, in our words."""

from typing import Any

import pytest
from botocore import exceptions as boto
from urllib3.exceptions import ProtocolError

from contracts.errors import (
    AccessDenied,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    Retryable,
    Throttled,
)
from streams.providers.bedrock_errors import retry_after, translate


def client_error(
    code: str, message: str = "", status: int = 400, operation: str = "Converse", **more: Any
) -> boto.ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": {}},
        **more,
    }
    return boto.ClientError(response, operation)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("ThrottlingException", "Too many tokens, please wait before trying again."), Throttled),
        (client_error("throttlingException", "mid-stream, camelCase"), Throttled),
        (client_error("ThrottlingException", "Too many tokens per day, please wait."), QuotaExhausted),
        (client_error("ServiceQuotaExceededException"), QuotaExhausted),
        (client_error("ValidationException", "Input is too long for requested model."), ContextTooLong),
        (client_error("ValidationException", "Input Tokens Exceeded: Number of input tokens exceeds maximum length."),
         ContextTooLong),
        (client_error("ValidationException", "The provided model identifier is invalid."), ModelNotFound),
        (client_error("ValidationException", "Invocation of model ID x with on-demand throughput isn't supported."),
         ModelNotFound),
        (client_error("ValidationException", "messages: roles must alternate"), InvalidRequest),
        (client_error("ExpiredTokenException", status=403), AccessDenied),
        (client_error("UnrecognizedClientException", status=403), AccessDenied),
        (client_error("ModelErrorException", originalStatusCode=400), InvalidRequest),
        (client_error("ModelErrorException", originalStatusCode=500), ProviderUnavailable),
        (client_error("ModelErrorException", originalStatusCode=429), ProviderUnavailable),
        (client_error("ModelErrorException", "The system encountered an unexpected error during processing. "
                      "Try your request again.", status=424, originalStatusCode=400), ProviderUnavailable),
        (client_error("InvalidIdentityToken", operation="AssumeRoleWithWebIdentity"), AccessDenied),
        (client_error("ValidationError", operation="AssumeRole"), AccessDenied),
        (client_error("Throttling", operation="AssumeRole"), ProviderUnavailable),
        (client_error("InternalFailure", status=500, operation="AssumeRole"), ProviderUnavailable),
        (client_error("504", status=504), ProviderTimeout),
        (client_error("modelStreamErrorException"), ProviderUnavailable),
        (client_error("ModelTimeoutException", status=408), ProviderTimeout),
        (client_error("502", status=502), ProviderUnavailable),
        (client_error("429", status=429), Throttled),
        (client_error("404", status=404), ModelNotFound),
        (client_error("413", status=413), InvalidRequest),
        (boto.NoCredentialsError(), AccessDenied),
        (boto.ParamValidationError(report="messages: wrong type"), InvalidRequest),
        (boto.ReadTimeoutError(endpoint_url="http://x"), ProviderTimeout),
    ],
)  # fmt: skip
def test_each_error_has_its_kind(error: Exception, kind: type[PenstockError]) -> None:
    assert type(translate(error, "m")) is kind


@pytest.mark.parametrize("code", ["ThrottlingException", "429"])
@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"retry-after": "599"}, Throttled),
        ({"retry-after": "86400"}, QuotaExhausted),
        ({"x-amz-retry-after": "999999999999"}, QuotaExhausted),
    ],
)
def test_a_wait_that_no_rate_takes_to_refill_is_a_quota(
    code: str, headers: dict[str, str], kind: type[PenstockError]
) -> None:
    """Each event would be called once and end as expired, and nothing would pause."""
    more: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": headers}}

    assert type(translate(client_error(code, **more), "m")) is kind


@pytest.mark.parametrize(
    ("error", "is_billed"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), False),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), False),
        (boto.ConnectionClosedError(endpoint_url="http://x"), True),
        (boto.ReadTimeoutError(endpoint_url="http://x"), True),
        (ProtocolError("cut"), True),
        (client_error("ThrottlingException"), False),
        (client_error("ModelTimeoutException"), True),
        (client_error("Throttling", operation="AssumeRole"), False),
    ],
)
def test_only_calls_that_were_sent_may_be_billed(error: Exception, is_billed: bool) -> None:
    translated = translate(error, "m")

    assert isinstance(translated, Retryable)
    assert translated.possibly_billed is is_billed


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"x-amz-retry-after": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT"}, None),
        ({"x-amz-retry-after": "\u00b2"}, None),
        ({"x-amz-retry-after": "9" * 400, "retry-after": "3"}, 3.0),
        ({}, None),
    ],
)
def test_the_wait_is_read_from_either_header(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected
