"""Translates what boto3 raises, and Bedrock's stop reasons, into the error tree.

Source: botocore service model bedrock-runtime 2023-09-30 (checked 2026-11); Amazon Bedrock user guide, "Troubleshooting
API error codes" (checked 2026-11).
"""

import contextlib
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.eventstream import ParserError as EventStreamParserError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as StreamReadTimeoutError

from contracts.errors import (
    AccessDenied,
    ContentBlocked,
    ContextTooLong,
    InvalidRequest,
    ModelNotFound,
    PenstockError,
    ProviderTimeout,
    ProviderUnavailable,
    QuotaExhausted,
    Throttled,
)
from contracts.payloads import FinishReason
from streams.providers.base import QUOTA_WAIT_S, endpoint_fault

# Everything a call can raise: botocore's classes, and urllib3's when a stream is cut (botocore does not wrap those).
CALL_ERRORS = (
    boto.BotoCoreError,
    boto.ClientError,
    HTTPError,
    OSError,
    EventStreamParserError,
    ResponseParserError,
)

_NOT_READY_WAIT_S = 10.0
_SERVER_ERROR = 500

_ACCESS = frozenset(
    {
        "accessdeniedexception", "unrecognizedclientexception", "invalidsignatureexception", "expiredtokenexception",
        "expiredtoken", "missingauthenticationtokenexception", "incompletesignatureexception", "optinrequired",
        "invalidclienttokenid", "notauthorized", "unauthorizedexception", "forbiddenexception",
    }
)  # fmt: skip
# What botocore calls for credentials before it calls a model: no fault of theirs is an event's.
_FOR_CREDENTIALS = frozenset(
    {"AssumeRole", "AssumeRoleWithWebIdentity", "AssumeRoleWithSAML", "GetRoleCredentials", "CreateToken",
     "CreateOAuth2Token"}
)  # fmt: skip
_UNAVAILABLE = frozenset(
    {"internalserverexception", "serviceunavailableexception", "internalfailure", "serviceunavailable"}
)
_TOO_LONG = re.compile(
    r"input is too long|too many input tokens|input tokens exceeded|context (?:window|length)|"
    r"maximum (?:context|number of tokens)|prompt is too long|input length|expected maxlength",
    re.IGNORECASE,
)
# The model id of a route is configuration: these validation errors hit every event, so they must not look like poison.
_WRONG_MODEL = re.compile(
    r"model identifier is invalid|on-demand throughput|model id.*(?:not supported|invalid)|does(?:n't| not) support",
    re.IGNORECASE,
)
# Statuses of a model behind Bedrock that pass, although they are no server error.
_PASSING = frozenset({408, 409, 424, 425, 429})
_TRY_AGAIN = re.compile(r"try your request again", re.IGNORECASE)
_DAILY = re.compile(r"per day|daily", re.IGNORECASE)
_MILLISECONDS = re.compile(r"[0-9]{1,15}")

FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_use",
}


@contextlib.contextmanager
def with_credentials() -> Iterator[None]:
    """Turn what botocore raises when it has fetched new credentials that have expired as well: a bare RuntimeError.

    Raises:
        AccessDenied: they have.
    """
    try:
        yield
    except RuntimeError as error:
        if "credentials" not in str(error):
            raise
        message = f"no usable AWS credentials: {error}"
        raise AccessDenied(message) from error


def translate(error: BaseException, model: str) -> PenstockError:
    """Return the error of the tree for one that boto3 raised during a call of `model`."""
    if isinstance(error, boto.ClientError):
        is_early = error.operation_name in _FOR_CREDENTIALS
        return _no_credentials(error) if is_early else _from_response(error, model)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return AccessDenied(f"no usable AWS credentials: {error}")
    if isinstance(error, boto.TokenRetrievalError | boto.UnauthorizedSSOTokenError | boto.SSOTokenLoadError):
        return AccessDenied(f"no usable AWS token: {error}")
    if isinstance(error, boto.ParamValidationError):
        return InvalidRequest(f"Bedrock cannot be asked this: {error}")
    if isinstance(error, boto.ReadTimeoutError | StreamReadTimeoutError):
        return ProviderTimeout(f"Bedrock did not answer for {model} in time; the call may be billed")
    # Nothing was sent when the connection never came about: nothing to pay for.
    is_unsent = isinstance(
        error, boto.EndpointConnectionError | boto.ConnectTimeoutError | boto.ProxyConnectionError | boto.SSLError
    )
    fault = endpoint_fault(error, _host(error)) if is_unsent else None
    return fault or ProviderUnavailable(
        f"Bedrock connection failed for {model}: {error}", possibly_billed=not is_unsent
    )


def _host(error: BaseException) -> str:
    """Return which host there is no connection to, as botocore tells it."""
    told: Mapping[str, Any] = getattr(error, "kwargs", {})
    if proxy := told.get("proxy_url"):
        return f"proxy {urlsplit(str(proxy)).netloc.rpartition('@')[2]}"
    return urlsplit(str(told["endpoint_url"])).netloc if told.get("endpoint_url") else "Bedrock"


def _from_response(error: boto.ClientError, model: str) -> PenstockError:  # noqa: PLR0911 - a table, one line per code
    details: Mapping[str, Any] = error.response
    code = str(details.get("Error", {}).get("Code", ""))
    text = str(details.get("Error", {}).get("Message", "")) or code
    metadata = details.get("ResponseMetadata", {})
    wait_s = retry_after(metadata.get("HTTPHeaders", {}))
    said = f"Bedrock refused {model}: {code}: {text}"
    match code.lower():
        case "throttlingexception" | "throttling" | "toomanyrequestsexception":
            # "Too many tokens" is the rate; only "per day" does not refill while somebody waits.
            return QuotaExhausted(said) if _DAILY.search(text) else _throttled(said, wait_s)
        case "servicequotaexceededexception":
            return QuotaExhausted(said)
        case "modelnotreadyexception":
            return ProviderUnavailable(said, retry_after_s=wait_s or _NOT_READY_WAIT_S)
        case "modeltimeoutexception":
            return ProviderTimeout(said, retry_after_s=wait_s)
        case "modelerrorexception" | "modelstreamerrorexception":
            return _model_error(details, said, wait_s)
        case "validationexception":
            return _invalid(text, said)
        case "resourcenotfoundexception" | "unknownoperationexception":
            return ModelNotFound(said)
        case name if name in _ACCESS:
            return AccessDenied(said)
        case name if name in _UNAVAILABLE:
            return ProviderUnavailable(said, retry_after_s=wait_s)
    return _by_status(int(metadata.get("HTTPStatusCode", 0) or 0), said, wait_s)


def _throttled(said: str, wait_s: float | None) -> PenstockError:
    return QuotaExhausted(said) if (wait_s or 0.0) >= QUOTA_WAIT_S else Throttled(said, retry_after_s=wait_s)


def _no_credentials(error: boto.ClientError) -> PenstockError:
    """Return the kind for credentials that could not be had; no model was asked."""
    details: Mapping[str, Any] = error.response
    code = str(details.get("Error", {}).get("Code", "")).lower()
    status = int(details.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) or 0)
    if status >= _SERVER_ERROR or "throttl" in code:
        return ProviderUnavailable(f"no AWS credentials: {error}")
    return AccessDenied(f"no AWS credentials: {error}")


def _model_error(details: Mapping[str, Any], said: str, wait_s: float | None) -> PenstockError:
    original = details.get("originalStatusCode")
    passes = original in _PASSING or _TRY_AGAIN.search(said)
    if isinstance(original, int) and original < _SERVER_ERROR and not passes:
        return InvalidRequest(f"{said} (the model's own status was {original})")
    return ProviderUnavailable(said, retry_after_s=wait_s, possibly_billed=True)


def _invalid(text: str, said: str) -> PenstockError:
    if _TOO_LONG.search(text):
        return ContextTooLong(said)
    return ModelNotFound(said) if _WRONG_MODEL.search(text) else InvalidRequest(said)


def _by_status(status: int, said: str, wait_s: float | None) -> PenstockError:
    """Return the kind for a code nobody has met yet, such as a proxy's."""
    match status:
        case 429:
            return _throttled(said, wait_s)
        case 401 | 403:
            return AccessDenied(said)
        case 404:
            return ModelNotFound(said)
        case 408 | 504:
            # 504: a gateway has given up waiting, and the model may go on.
            return ProviderTimeout(said, retry_after_s=wait_s)
        case 400 | 413 | 422:
            return InvalidRequest(said)
    return ProviderUnavailable(said, retry_after_s=wait_s)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds that the answer asks for; None when it does not.

    `Retry-After` is seconds or a date, `x-amz-retry-after` is milliseconds.
    """
    milliseconds = headers.get("x-amz-retry-after", "")
    if _MILLISECONDS.fullmatch(milliseconds):
        return int(milliseconds) / 1000
    text = headers.get("retry-after", "")
    try:
        wait_s = float(text)
    except ValueError:
        pass
    else:
        return max(0.0, wait_s) if math.isfinite(wait_s) else None
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        # Overflow: a year of many digits.
        return None


def finish(stop_reason: str, model: str) -> FinishReason:
    """Return how a call ended that Bedrock answered with 200.

    Raises:
        ContentBlocked: a guardrail or filter stepped in.
        ContextTooLong: the context window was used up.
        ProviderUnavailable: the model's output is malformed; asking again may help, and this call is paid for.
    """
    said = f"Bedrock ended the answer of {model} with {stop_reason}"
    match stop_reason:
        case "guardrail_intervened" | "content_filtered":
            raise ContentBlocked(said)
        case "model_context_window_exceeded":
            raise ContextTooLong(said)
        case "malformed_model_output" | "malformed_tool_use":
            raise ProviderUnavailable(said, possibly_billed=True)
    return FINISH.get(stop_reason, "other")
