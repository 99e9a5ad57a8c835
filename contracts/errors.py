"""The error tree: every failure that crosses a seam is one of these kinds.

    PenstockError
      ConfigError        the configuration file or an environment override is wrong
      Rejected           the caller's fault
        BadSignature, Unauthenticated, Forbidden, UnknownSource, UnknownResult, IdReused, MethodNotAllowed,
        InvalidPayload, UnsupportedMedia, TooLarge, BodyTimeout
      Busy               our limit is reached; says when to come back
        RateLimited, Backlogged
      Retryable          the same call may succeed later
        Throttled, ProviderUnavailable, ProviderTimeout, LogUnavailable
      Terminal           trying this event again cannot help
        Undecodable, NoRoute, PromptFailed, InvalidRequest, ContentBlocked, ContextTooLong,
        OutputInvalid (OutputTruncated), DeadlineExceeded, AttemptsExhausted, Cancelled
      ConfigurationFault everything fails until an operator acts: pause, never dead-letter the topic
        AccessDenied, ModelNotFound, QuotaExhausted, UnknownHost, CertificateRefused

`http_status`, `reason` (bounded slug: dead-letter reason and metric label) and `retryable` are read by two places
only: streams/outcome.py and the gateway's error responses.
"""

import errno
import sqlite3
from typing import ClassVar

# A provider's refusal of one event may repeat the prompt, or be the model's own words.
_WITHOUT_WORDS = "the provider's words may quote the event, and are in the dead letter alone"


class PenstockError(Exception):
    """Base of every error that crosses a seam.

    Attributes:
        http_status: status of the HTTP answer when a caller waits.
        reason: bounded slug, used as dead-letter reason and as metric label.
        retryable: whether the same work may succeed later without anybody changing anything.
        unquoted: the text without what it quotes of an event or an answer; empty when it quotes nothing.
    """

    http_status: ClassVar[int] = 500
    reason: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    unquoted: str = ""

    @property
    def for_log(self) -> str:
        """Return the text for a log line: payloads and answers are on the topics alone."""
        return self.unquoted or str(self)


class ConfigError(PenstockError):
    """Raise when the configuration cannot be used; the text names file, line, key, found and allowed."""

    reason = "config_invalid"


class Rejected(PenstockError):
    """Base of failures the caller can mend; nothing has been produced."""

    http_status = 400
    reason = "rejected"


class BadSignature(Rejected):
    """Raise when a signature is missing, malformed, stale or wrong.

    Args:
        detail: private reason code for logs and metrics (bounded slug); never part of the answer.
        age_s: of a timestamp that is not accepted, seconds; negative when it lies in the future. For logs.
    """

    http_status = 401
    reason = "bad_signature"

    def __init__(self, detail: str, age_s: float | None = None) -> None:
        super().__init__(f"signature refused: {detail}")
        self.detail = detail
        self.age_s = age_s


class Unauthenticated(Rejected):
    """Raise when an API key or ticket is missing or unknown."""

    http_status = 401
    reason = "unauthenticated"


class Forbidden(Rejected):
    """Raise when a known caller may not do this."""

    http_status = 403
    reason = "forbidden"


class UnknownSource(Rejected):
    """Raise when no source of that name is configured."""

    http_status = 404
    reason = "unknown_source"


class UnknownResult(Rejected):
    """Raise when an id is unknown, or not the caller's: the two must look the same."""

    http_status = 404
    reason = "unknown_result"


class IdReused(Rejected):
    """Raise when a caller waits for the outcome of an id, or Idempotency-Key, that it used before with another body.

    Source: draft-ietf-httpapi-idempotency-key-header-07, 2.7 (checked 2026-12).
    """

    http_status = 422
    reason = "id_reused"


class MethodNotAllowed(Rejected):
    """Raise when the path exists and the method does not.

    Args:
        allow: methods for the Allow header.
    """

    http_status = 405
    reason = "method_not_allowed"

    def __init__(self, allow: tuple[str, ...]) -> None:
        super().__init__(f"method not allowed, use {', '.join(allow)}")
        self.allow = allow


class BodyTimeout(Rejected):
    """Raise when the request body does not arrive in time."""

    http_status = 408
    reason = "body_timeout"


class TooLarge(Rejected):
    """Raise when a body or record is above its limit."""

    http_status = 413
    reason = "too_large"


class UnsupportedMedia(Rejected):
    """Raise when the content type or encoding is not accepted."""

    http_status = 415
    reason = "unsupported_media"


class InvalidPayload(Rejected):
    """Raise when the request is understood and its content is wrong."""

    http_status = 400
    reason = "invalid_payload"


class Busy(PenstockError):
    """Raise when our own limit is reached.

    Args:
        message: which limit.
        retry_after_s: when it makes sense to come back, seconds.
    """

    http_status = 503
    reason = "busy"
    retryable = True

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(Busy):
    """Raise when a sender is over a limit of its own; the same request is right later."""

    http_status = 429
    reason = "rate_limited"


class Backlogged(Busy):
    """Raise when the workers are too far behind to take more of a lane."""

    reason = "backlogged"


class Retryable(PenstockError):
    """Base of failures that may pass by themselves.

    Args:
        message: what failed.
        retry_after_s: wait asked for by the other side, seconds; None when it did not say.
        possibly_billed: True when the provider may charge for the failed call.
    """

    http_status = 503
    reason = "transient"
    retryable = True

    def __init__(self, message: str, *, retry_after_s: float | None = None, possibly_billed: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.possibly_billed = possibly_billed


class Throttled(Retryable):
    """Raise when the provider says slow down."""

    http_status = 429
    reason = "throttled"


class ProviderUnavailable(Retryable):
    """Raise when the provider answers 5xx, closes the connection or cannot be reached."""

    reason = "provider_unavailable"


class ProviderTimeout(Retryable):
    """Raise when the provider did not answer in time; the call is possibly billed."""

    reason = "provider_timeout"

    def __init__(self, message: str, *, retry_after_s: float | None = None, possibly_billed: bool = True) -> None:
        super().__init__(message, retry_after_s=retry_after_s, possibly_billed=possibly_billed)


class LogUnavailable(Retryable):
    """Raise when Kafka did not confirm a record."""

    reason = "log_unavailable"


class Terminal(PenstockError):
    """Base of failures of one event that no retry can mend."""

    http_status = 422
    reason = "terminal"


class Undecodable(Terminal):
    """Raise when a record is not a valid event or its payload is not what its route needs."""

    reason = "undecodable"


class NoRoute(Terminal):
    """Raise when no route matches the event."""

    reason = "no_route"


class PromptFailed(Terminal):
    """Raise when the prompt template cannot be rendered from the event.

    Args:
        message: why.
        unquoted: the same without values of the event.
    """

    reason = "prompt_failed"

    def __init__(self, message: str = "", unquoted: str = "") -> None:
        super().__init__(message)
        self.unquoted = unquoted


class InvalidRequest(Terminal):
    """Raise when the provider refuses this request as malformed (HTTP 400, ValidationException)."""

    reason = "invalid_request"
    unquoted = _WITHOUT_WORDS


class ContentBlocked(Terminal):
    """Raise when a guardrail or content filter refuses the event or its answer."""

    reason = "content_blocked"
    unquoted = _WITHOUT_WORDS


class ContextTooLong(Terminal):
    """Raise when the event does not fit the model's context window."""

    reason = "context_too_long"


class OutputInvalid(Terminal):
    """Raise when the answer does not match the route's output schema, after the allowed repair.

    Args:
        message: the first violation, with its JSON pointer.
        answer: the raw answer, kept in the dead letter because it is paid for.
        unquoted: the violation without the value.
    """

    http_status = 502
    reason = "output_invalid"

    def __init__(self, message: str, answer: str = "", unquoted: str = "") -> None:
        super().__init__(message)
        self.answer = answer
        self.unquoted = unquoted


class OutputTruncated(OutputInvalid):
    """Raise when an answer is empty or not of the schema, and has ended at its `max_tokens`; a repair would, too."""

    reason = "output_truncated"


class DeadlineExceeded(Terminal):
    """Raise when the event's deadline has passed; it ends as expired, and nothing more is called for it."""

    http_status = 504
    reason = "deadline_exceeded"


class AttemptsExhausted(Terminal):
    """Raise when a retryable failure has used up its attempts; chained to the last one."""

    http_status = 502
    reason = "attempts_exhausted"


class Cancelled(Terminal):
    """Raise when the sender does not want its event answered any more."""

    reason = "cancelled"


class ConfigurationFault(PenstockError):
    """Base of faults that hit every event of a route until an operator acts."""

    http_status = 503
    reason = "configuration_fault"


class AccessDenied(ConfigurationFault):
    """Raise when credentials are missing, wrong or not allowed to use the model."""

    reason = "access_denied"


class ModelNotFound(ConfigurationFault):
    """Raise when the provider does not know the model or its endpoint."""

    reason = "model_not_found"


class QuotaExhausted(ConfigurationFault):
    """Raise when a quota that does not refill soon (a day's) is used up."""

    reason = "quota_exhausted"


class UnknownHost(ConfigurationFault):
    """Raise when there is no host of the provider's name; where no name server can tell, it is unavailable."""

    reason = "unknown_host"


class CertificateRefused(ConfigurationFault):
    """Raise when the provider's certificate cannot be trusted: expired, unknown authority, another host's."""

    reason = "certificate_refused"


# May be of the disk; `is_of_disk` tells.
DISK_ERRORS = (OSError, sqlite3.OperationalError)
# A disk that is full (or has no room for longer files) or cannot be written for a while, and what was tidied away.
_DISK_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ENOENT})
_DISK_CODES = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_PRIMARY_CODE = 0xFF


def is_of_disk(error: Exception) -> bool:
    """Tell whether one of DISK_ERRORS passes with what the disk lacks.

    Others do not pass by waiting, as a folder that may not be written, or files that nobody closes.
    """
    if isinstance(error, OSError):
        return error.errno in _DISK_NUMBERS
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE in _DISK_CODES


def as_unsent(cancelled: BaseException) -> None:
    """Mark a cancellation as one that came before anything was sent to a provider: nothing is paid for."""
    cancelled.is_unsent = True  # type: ignore[attr-defined]


def is_unsent(error: BaseException) -> bool:
    """Tell whether an error is a cancellation before anything was sent."""
    return bool(getattr(error, "is_unsent", False))
