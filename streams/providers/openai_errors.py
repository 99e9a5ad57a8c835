"""Translates what OpenAI-compatible servers answer into the error tree.

Source: OpenAI API reference, "Error codes" and "Rate limits" (checked 2026-11); vLLM, Ollama, llama.cpp and LiteLLM use
subsets of it.
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
    Throttled,
)

_MAX_TEXT_CHARS = 500
# A rate refills within a minute or some. What asks for a longer wait is a quota of the day by another name, as Azure's
# "retry after 86400 seconds": it meets every event, and would end one after the other as expired.
_QUOTA_WAIT_S = 600.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TOO_LONG = re.compile(
    r"context.{0,3}length|context window|maximum context|prompt is too long|too many tokens", re.IGNORECASE
)
# "Rate limit reached ... on requests per day (RPD)": the code is that of every throttle.
_DAILY = re.compile(r"per day|daily|\b[RT]PD\b", re.IGNORECASE)
_OUT_OF_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_BLOCKED = frozenset({"content_filter", "content_policy_violation", "responsibleaipolicyviolation"})


def from_status(status: int, headers: Mapping[str, str], body: bytes, model: str) -> PenstockError:  # noqa: PLR0911 - a table
    """Return the error for an answer that is not 200; `headers` must be case-insensitive."""
    details = parse(body)
    code, text = code_of(details), text_of(details) or body[:200].decode("utf-8", "replace")
    said = f"the server refused {model}: HTTP {status} {code}: {text}".replace(" :", ":")
    wait_s = retry_after(headers)
    if code in _OUT_OF_QUOTA or status == 402:  # noqa: PLR2004 - Payment Required
        return QuotaExhausted(said)
    match status:
        case 429:
            is_quota = _DAILY.search(text) or (wait_s or 0.0) >= _QUOTA_WAIT_S
            return QuotaExhausted(said) if is_quota else Throttled(said, retry_after_s=wait_s)
        case 401 | 403:
            return AccessDenied(said)
        case 404 | 405 | 410:
            return ModelNotFound(said)
        case 408:
            return ProviderTimeout(said, retry_after_s=wait_s)
        case _ if 300 <= status < 400:  # noqa: PLR2004 - redirects are not followed
            return ModelNotFound(f"{said}: redirected to {headers.get('Location', '?')}; is base_url right?")
        case _ if 400 <= status < 500 and status not in (409, 425):  # noqa: PLR2004 - client errors; those two pass
            return by_code(code, text, said) or InvalidRequest(said)
    return ProviderUnavailable(said, retry_after_s=wait_s)


def from_stream(details: Any, model: str) -> PenstockError:
    """Return the error for an error object inside a stream."""
    code, text = code_of(details), text_of(details)
    said = f"the server broke off the answer of {model}: {code}: {text}"
    if code in _OUT_OF_QUOTA:
        return QuotaExhausted(said)
    if "rate_limit" in code or code == "429":
        return Throttled(said, possibly_billed=True)
    return by_code(code, text, said) or ProviderUnavailable(said, possibly_billed=True)


def by_code(code: str, text: str, said: str) -> PenstockError | None:
    """Return the error for a code that says more than the status; None when it does not."""
    if code == "context_length_exceeded" or _TOO_LONG.search(text):
        return ContextTooLong(said)
    if code in _BLOCKED:
        return ContentBlocked(said)
    if code == "model_not_found":
        return ModelNotFound(said)
    return AccessDenied(said) if code == "invalid_api_key" else None


def parse(body: bytes) -> Any:
    """Return a JSON body; None when it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def code_of(details: Any) -> str:
    """Return the error's code, or its type, in lower case; empty when there is none."""
    error = details.get("error") if isinstance(details, dict) else None
    found = (error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""
    return str(found).lower()[:60]


def text_of(details: Any) -> str:
    """Return the error's message; servers differ on where it is."""
    if not isinstance(details, dict):
        return ""
    error = details.get("error", details)
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
    waits = [
        duration(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind in ("requests", "tokens")
        if (_number(headers.get(f"x-ratelimit-remaining-{kind}", "")) or 0.0) <= 0.0
    ]
    return max((wait for wait in waits if wait is not None), default=None)


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
