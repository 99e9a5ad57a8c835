"""The ways a call can fail, and how the two protocols say so."""

from typing import Literal, NamedTuple, get_args

Kind = Literal[
    "throttling", "daily_quota", "quota", "unavailable", "internal", "timeout", "not_ready", "model_error",
    "model_refused", "validation", "too_long", "access_denied", "not_found", "blocked", "hang", "cut", "stream_error",
    "malformed",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)


class Fault(NamedTuple):
    """How a failure looks in both protocols."""

    bedrock_status: int
    bedrock_type: str
    openai_status: int
    openai_type: str
    openai_code: str | None
    message: str


# Source: botocore's service model bedrock-runtime; OpenAI API reference (checked 2026-11).
FAULTS: dict[str, Fault] = {
    "throttling": Fault(429, "ThrottlingException", 429, "tokens", "rate_limit_exceeded",
                        "Too many tokens, please wait before trying again."),
    "daily_quota": Fault(429, "ThrottlingException", 429, "insufficient_quota", "insufficient_quota",
                         "Too many tokens per day, please wait before trying again."),
    "quota": Fault(400, "ServiceQuotaExceededException", 429, "insufficient_quota", "insufficient_quota",
                   "You exceeded your current quota."),
    "unavailable": Fault(503, "ServiceUnavailableException", 503, "server_error", None,
                         "The service is temporarily unavailable."),
    "internal": Fault(500, "InternalServerException", 500, "server_error", None,
                      "The system encountered an unexpected error."),
    "timeout": Fault(408, "ModelTimeoutException", 408, "timeout", None, "The model took too long to answer."),
    "not_ready": Fault(429, "ModelNotReadyException", 503, "server_error", "model_loading",
                       "The model is not ready to serve requests."),
    "model_error": Fault(424, "ModelErrorException", 500, "server_error", None,
                         "The request failed due to an error while processing the model."),
    "model_refused": Fault(424, "ModelErrorException", 422, "invalid_request_error", None,
                           "The model refused the request."),
    "validation": Fault(400, "ValidationException", 400, "invalid_request_error", "invalid_value",
                        "The request is malformed."),
    "too_long": Fault(400, "ValidationException", 400, "invalid_request_error", "context_length_exceeded",
                      "Input is too long for requested model."),
    "access_denied": Fault(403, "AccessDeniedException", 401, "invalid_request_error", "invalid_api_key",
                           "You don't have access to the model with the specified model ID."),
    "not_found": Fault(404, "ResourceNotFoundException", 404, "invalid_request_error", "model_not_found",
                       "The model does not exist."),
    "blocked": Fault(200, "", 400, "invalid_request_error", "content_filter",
                     "The answer was blocked by the content filter."),
}  # fmt: skip


class CallFailedError(Exception):
    """Raised by a call that is to fail with one of FAULTS."""

    def __init__(
        self, *, kind: str = "validation", message: str | None = None, retry_after_s: float | None = None
    ) -> None:
        self.kind = kind
        self.fault = FAULTS[kind]
        self.message = message or self.fault.message
        self.retry_after_s = retry_after_s
        super().__init__(f"{kind}: {self.message}")
