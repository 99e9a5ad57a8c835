"""Translates what OpenAI-compatible servers answer into the error tree.

Source: OpenAI API reference, "Error codes" and "Rate limits" (checked 2026-11); vLLM, Ollama, llama.cpp and LiteLLM use
subsets of it. OpenRouter, "Errors and Debugging"; Groq, "API Error Codes and Responses" (both checked 2026-11).
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

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
    Retryable,
    Throttled,
)
from contracts.payloads import FinishReason, InferenceRequest, Usage
from streams.providers.base import QUOTA_WAIT_S, billed

_MAX_TEXT_CHARS = 500
_FIRST_CHARS = 100
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TOO_LONG = re.compile(
    r"context.{0,3}length|context.?window|maximum context|available context size|maximum model length|"
    r"prompt is too long|too many tokens",
    re.IGNORECASE,
)
_OUT_OF_QUOTA = frozenset(
    {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded", "budget_exceeded"}
)
# LiteLLM repeats its upstream's words and gives it the status as code; Anthropic has no code for it.
_NO_MONEY = re.compile(r"insufficient_quota|budget has been exceeded|credit balance is too low", re.IGNORECASE)
# "Rate limit reached ... on requests per day (RPD)": the code is that of every throttle. They name the model too, which
# may be a deployment's name such as "daily-digest".
_DAILY = re.compile(r"\bper[ -]day\b|(?<![\w./-])daily(?![\w-])|\b[RT]PD\b", re.IGNORECASE)
_BLOCKED = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})
# xAI, whose code is that of every 403, and OpenRouter's guardrails.
_FLAGGED = re.compile(r"content violates usage guidelines|request blocked:", re.IGNORECASE)
# Google and xAI answer 400 where others answer 401. At the beginning only: a text behind it may be the event's.
_WRONG_KEY = re.compile(r"api key not valid|incorrect api key provided", re.IGNORECASE)
# These are of every event where they name a setting that we send; whatever else they name may be the event's.
_UNSUPPORTED = frozenset({"unsupported_parameter", "unsupported_value"})
LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
_BAD_REQUEST = frozenset({400, 422})
_UNKNOWN = re.compile(r"unsupported|not supported|unrecognized|unknown|unexpected|not permitted", re.IGNORECASE)
_A_NAME = re.compile(r"parameter|argument|field|\bextra|unrecognized", re.IGNORECASE)
# Of a limit that is refused for its size. Taken for one of the name, the other name might be ignored: then nothing
# would limit the answer.
_A_VALUE = re.compile(
    r"\bvalues?\b|exceed|at (?:most|least)|(?:less|greater|more|larger) than|too (?:large|high|big|small)",
    re.IGNORECASE,
)
_SETTINGS = frozenset(
    {"model", "temperature", "max_tokens", "max_completion_tokens", "stop", "response_format", "stream",
     "stream_options", "encoding_format"}
)  # fmt: skip
# Conflict, Too Early; Groq: its flex tier is full, the call was cancelled there.
_PASSING = frozenset({409, 425, 498, 499})
_STATUS = re.compile(r"[45][0-9]{2}")
_THROTTLE = 429
_SERVER_ERROR = 500
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
}
# Google's words beside OpenAI's.
_WITHHELD = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"})
# No end of an answer: vLLM has aborted it (shutdown, sleep, an operator), a router's upstream has broken it off.
_BROKEN_OFF = frozenset({"abort", "error"})


def from_status(status: int, headers: Mapping[str, str], body: bytes, model: str) -> PenstockError:
    """Return the error for an answer that is not 200; `headers` must be case-insensitive."""
    details = parse(body)
    code, text = code_of(details), text_of(details) or body[:200].decode("utf-8", "replace")
    said = f"the server refused {model}: HTTP {status} {code}: {text}".replace(" :", ":")
    if 300 <= status < 400:  # noqa: PLR2004 - redirects are not followed
        return ModelNotFound(f"{said}: redirected to {headers.get('Location', '?')}; is base_url right?")
    return _judged(status, details, text, said, retry_after(headers))


def from_answer(details: Any, model: str, usage: Usage, *, has_begun: bool = False) -> PenstockError:
    """Return the error for an error object in an answer whose status is 200, in a stream or not.

    What was made of the answer by then may be billed; the error says what it has cost.

    Args:
        details: what has the error object.
        model: that was asked.
        usage: what the server says that the call has cost.
        has_begun: whether some of the answer has come.
    """
    code, text = code_of(details), text_of(details)
    said = f"the server broke off the answer of {model}: {code}: {text}"
    if _STATUS.fullmatch(code):
        error = _judged(int(code), details, text, said, None)
    elif "rate_limit" in code:
        error = _judged(_THROTTLE, details, text, said, None)
    else:
        error = _judged(_SERVER_ERROR, details, text, said, None)
    if isinstance(error, ProviderUnavailable):
        # Servers give 500 for whatever it is, once they have answered 200.
        error = by_code(details, text, said) or error
    if isinstance(error, AccessDenied | ModelNotFound) and (code == "403" or has_begun or usage != Usage()):
        # The server has let us in and asked the model. What went wrong then, a moderation's 403 say, or an upstream
        # that a router has tried, is of this call: to pause for it would let it hold up all others.
        error = ProviderUnavailable(said)
    if isinstance(error, Retryable):
        error.possibly_billed = True
    return billed(error, usage)


def _judged(status: int, details: Any, text: str, said: str, wait_s: float | None) -> PenstockError:  # noqa: PLR0911 - a table
    codes = codes_of(details)
    if codes & _OUT_OF_QUOTA or _is_out_of_money(status, text):
        return QuotaExhausted(said)
    match status:
        case 429:
            is_quota = _DAILY.search(text) or (wait_s or 0.0) >= QUOTA_WAIT_S
            return QuotaExhausted(said) if is_quota else Throttled(said, retry_after_s=wait_s)
        case 401 | 403:
            # A moderation's 403 is of one event; to pause for it would let it hold up all others.
            return ContentBlocked(said) if codes & _BLOCKED or _is_flagged(details, text) else AccessDenied(said)
        case 404 | 405 | 410:
            return ModelNotFound(said)
        case 408 | 504 | 524:
            # 504 and Cloudflare's 524: a gateway has given up waiting, and the model may go on.
            return ProviderTimeout(said, retry_after_s=wait_s)
        case 424:
            # What was asked for the answer has failed: Bedrock behind a gateway, a generation of Hugging Face's TGI.
            return ProviderUnavailable(said, retry_after_s=wait_s, possibly_billed=True)
        case _ if 400 <= status < _SERVER_ERROR and status not in _PASSING:  # noqa: PLR2004 - client errors
            return by_code(details, text, said) or InvalidRequest(said)
    return ProviderUnavailable(said, retry_after_s=wait_s)


def _is_out_of_money(status: int, text: str) -> bool:
    # Of other refusals the beginning: behind it a server may repeat what it was asked.
    said = text if status == _THROTTLE else text[:_FIRST_CHARS]
    return status == 402 or (400 <= status < _SERVER_ERROR and _NO_MONEY.search(said) is not None)  # noqa: PLR2004 - Payment Required


def by_code(details: Any, text: str, said: str) -> PenstockError | None:
    """Return the error for a code or text that says more than the status; None when they do not."""
    codes = codes_of(details)
    if "context_length_exceeded" in codes or _TOO_LONG.search(text):
        return ContextTooLong(said)
    if codes & _BLOCKED or text.startswith("litellm.ContentPolicyViolationError"):
        return ContentBlocked(said)
    if "model_not_found" in codes or (codes & _UNSUPPORTED and _is_of_a_setting(details)):
        return ModelNotFound(said)
    return AccessDenied(said) if "invalid_api_key" in codes or _WRONG_KEY.match(text) else None


def renamed(body: dict[str, Any], status: int, refusal: bytes) -> dict[str, Any] | None:
    """Return a request with the other name of its limit where a server refuses the one; None where it says otherwise.

    A value that is refused is no refusal of its name.

    Nothing was made of the call that it has refused.
    """
    if status not in _BAD_REQUEST:
        return None
    name, details = next(name for name in LIMIT_NAMES if name in body), parse(refusal)
    said = text_of(details) or refusal[:_MAX_TEXT_CHARS].decode("utf-8", "replace")
    is_coded = "unsupported_parameter" in codes_of(details) and _field(details, "param") == name
    is_named = re.search(rf"\b{name}\b", said) and _UNKNOWN.search(said) and _A_NAME.search(said)
    is_said = is_named is not None and _A_VALUE.search(said) is None
    if not (is_coded or is_said):
        return None
    (other,) = set(LIMIT_NAMES) - {name}
    return {other if key == name else key: value for key, value in body.items()}


def finish_of(reason: Any, refusal: Any, request: InferenceRequest, usage: Usage) -> FinishReason:
    """Return how an answer ended.

    Raises:
        ContentBlocked: the model or a filter has refused; it is billed all the same.
        ProviderUnavailable: what there is of the answer is not all of it.
    """
    said = str(reason).lower()
    if said in _WITHHELD or refusal:
        text = f"{request.model} refused to answer event {request.event_id}: {refusal or reason}"
        raise billed(ContentBlocked(text[:_MAX_TEXT_CHARS]), usage)
    if said in _BROKEN_OFF:
        text = f"the server broke off the answer of {request.model}: {reason}"
        raise billed(ProviderUnavailable(text, possibly_billed=True), usage)
    return _FINISH.get(said, "other")


def parse(body: bytes) -> Any:
    """Return a JSON body; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def error_of(details: Any) -> Any:
    """Return an answer's error object, whatever it is; None when it has none."""
    if isinstance(details, list) and len(details) == 1:
        # As Google sends it.
        details = details[0]
    if not isinstance(details, dict):
        return None
    # Without an envelope in older versions of vLLM.
    return details if details.get("object") == "error" else details.get("error")


def _field(details: Any, name: str) -> Any:
    error = error_of(details)
    return error.get(name) if isinstance(error, dict) else None


def code_of(details: Any) -> str:
    """Return the error's code, or its type, in lower case; empty when there is none."""
    return str(_field(details, "code") or _field(details, "type") or "").lower()[:60]


def codes_of(details: Any) -> frozenset[str]:
    """Return the error's code and type, in lower case: LiteLLM says what it is in the type alone."""
    return frozenset(str(_field(details, name) or "").lower()[:60] for name in ("code", "type"))


def _is_of_a_setting(details: Any) -> bool:
    # With the path into it, as `response_format.json_schema`.
    return re.split(r"[.\[]", str(_field(details, "param") or ""), maxsplit=1)[0] in _SETTINGS


def _is_flagged(details: Any, text: str) -> bool:
    """Tell whether a server says that its moderation has flagged a text, or which."""
    metadata = _field(details, "metadata")
    return (isinstance(metadata, dict) and "flagged_input" in metadata) or _FLAGGED.match(text) is not None


def text_of(details: Any) -> str:
    """Return the error's message; servers differ on where it is."""
    error = error_of(details)
    if error is None:
        error = details if isinstance(details, dict) else ""
    found = (error.get("message") or error.get("detail") or "") if isinstance(error, dict) else error
    return str(found)[:_MAX_TEXT_CHARS]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the wait in seconds that an answer asks for; None when it does not.

    In this order: `retry-after-ms`, `Retry-After` (seconds or a date), the reset of the limit that is used up.
    """
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("Retry-After", "")
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        # Overflow: a year of many digits.
        return _reset_of_used_up(headers)


def _reset_of_used_up(headers: Mapping[str, str]) -> float | None:
    waits: list[float] = []
    for kind in ("requests", "tokens"):
        wait_s = duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
        left = _number(headers.get(f"x-ratelimit-remaining-{kind}", ""))
        # A day's limit of which nobody says that it is used up must not make a pause of a minute's throttle.
        if wait_s is not None and (left == 0.0 or (left is None and wait_s < QUOTA_WAIT_S)):
            waits.append(wait_s)
    return max(waits, default=None)


def duration(text: str) -> float | None:
    """Return `6m0s`, `20ms` or `1.5` in seconds; None when it is none of these."""
    plain = _number(text)
    if plain is not None:
        return plain
    parts = _DURATION.findall(text)
    return sum(float(value) * _UNIT_S[unit] for value, unit in parts) if parts else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    # Azure says -1 for "unknown"; infinity would park an event for ever.
    return value if 0 <= value < 86400 * 31 else None
