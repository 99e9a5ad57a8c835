"""What the doors to AWS have in common: one client, threads of its own, and errors turned into verdicts, once.

Blocking: boto3 blocks, so every call has a thread of the door's own pool, as many as its deliveries at a time.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ReadTimeoutError,
)

from contracts.errors import ConfigError
from contracts.settings.egress import AwsDoor
from gateways.egress.base import DELIVERED, Item, Later, Refused, Verdict
from gateways.egress.schedule import retry_after_s
from producers.threads import DaemonPool

_MAX_TEXT_CHARS = 300
_MIN_READ_TIMEOUT_S = 1.0
CALL_ERRORS = (ClientError, BotoCoreError)

# Source: models and retry rules of botocore (1.44, `data/_retry.json`), query error codes of SQS; checked 2026-11.
_THROTTLED = frozenset({
    "BandwidthLimitExceeded", "EC2ThrottledException", "LimitExceededException", "OverLimit", "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
    "SlowDown", "Throttled", "ThrottledException", "Throttling", "ThrottlingException", "TooManyEntriesException",
    "TooManyRequestsException", "TransactionInProgressException",
})  # fmt: skip
_DENIED = frozenset({
    "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException", "ExpiredToken",
    "ExpiredTokenException", "ForbiddenException", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId",
    "InvalidSecurity", "InvalidSignatureException", "MissingAuthenticationToken", "NotAuthorized",
    "NotAuthorizedForDetailTypeException", "NotAuthorizedForSourceException", "OptInRequired", "RequestExpired",
    "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip
_MISSING = frozenset({
    "AWS.SimpleQueueService.NonExistentQueue", "AWS.SimpleQueueService.QueueDeletedRecently", "NoSuchBucket",
    "NotFound", "NotFoundException", "QueueDeletedRecently", "QueueDoesNotExist", "ResourceNotFoundException",
})  # fmt: skip
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)


class Aws:
    """One boto3 client.

    Args:
        name: of the door's section, for messages.
        service: boto3's name of the service.
        settings: the door's section.
        session: in place of a new boto3 session, for tests.
        s3: botocore's settings of that name.
    """

    def __init__(self, name: str, service: str, settings: AwsDoor, session: Any = None, s3: Any = None) -> None:
        self._name = name
        self._service = service
        self._settings = settings
        self._session = session
        self._s3 = s3
        self._client: Any = None
        self._threads = DaemonPool(settings.max_in_flight, f"egress-{name}-call")

    async def start(self) -> None:
        """Load the service model, so that the first delivery does not pay for it.

        Raises:
            ConfigError: region or endpoint cannot work.
        """
        try:
            self._client = await self._threads.run(self._make)
        except (BotoCoreError, ValueError) as error:
            message = f"egress.{self._name}: no {self._service} client: {error}"
            raise ConfigError(message) from error

    async def aclose(self) -> None:
        """Close the connections; a thread that still waits ends with its read timeout."""
        self._threads.close()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run blocking work in a thread of this door.

        Raises:
            NoThread: nobody can do it now.
        """
        return await self._threads.run(function, *args, **kwargs)

    async def call(self, operation: str, **arguments: Any) -> Any:
        """Return the answer of one call.

        Raises:
            ClientError, BotoCoreError: for `verdict_of`.
            NoThread: it was not made.
        """
        return await self.run(getattr(self._client, operation), **arguments)

    def _make(self) -> Any:
        settings = self._settings
        connect_s = min(settings.connect_timeout_s, settings.timeout_s / 2)
        config = Config(
            connect_timeout=connect_s,
            # With the connecting it stays inside of the delivery's own limit.
            read_timeout=max(_MIN_READ_TIMEOUT_S, settings.timeout_s - connect_s),
            # The runner retries: two layers of retries multiply, and hide what is wrong from the breaker.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=settings.max_in_flight,
            s3=self._s3,
        )
        session: Any = self._session or boto3.session.Session()
        return session.client(
            self._service, region_name=settings.region, endpoint_url=settings.endpoint_url, config=config
        )


def verdict_of(error: Exception) -> Later | Refused:
    """Return what a failed call means for its items."""
    if isinstance(error, ClientError):
        return _client_verdict(error)
    if isinstance(error, _CREDENTIALS):
        return Later("no_credentials", str(error)[:_MAX_TEXT_CHARS], scope="operator")
    if isinstance(error, ParamValidationError):
        # Its text repeats what it found.
        return Refused("invalid_request", "the AWS SDK refuses the call's parameters")
    reason = "timeout" if isinstance(error, ReadTimeoutError | ConnectTimeoutError) else "unreachable"
    return Later(reason, str(error)[:_MAX_TEXT_CHARS])


def _client_verdict(error: ClientError) -> Later | Refused:
    response: Any = error.response
    details, meta = response.get("Error", {}), response.get("ResponseMetadata", {})
    status = int(meta.get("HTTPStatusCode", 0))
    after_s = retry_after_s(meta.get("HTTPHeaders", {}).get("retry-after"))
    return code_verdict(str(details.get("Code", "")), str(details.get("Message", "")), status, after_s)


def batch_verdicts(answer: Mapping[str, Any], count: int) -> list[Verdict]:
    """Return what became of each entry of a batch of SNS or SQS whose entries are numbered by their `Id`."""
    failed = {one["Id"]: one for one in answer.get("Failed", [])}
    return [_entry_verdict(failed.get(str(index))) for index in range(count)]


def _entry_verdict(failure: Mapping[str, Any] | None) -> Verdict:
    if failure is None:
        return DELIVERED
    status = 400 if failure.get("SenderFault") else 500
    return code_verdict(failure.get("Code", ""), failure.get("Message", ""), status)


def code_verdict(code: str, message: str, status: int = 0, after_s: float | None = None) -> Later | Refused:
    """Return what an error code of AWS means, of a whole call or of one entry in a batch.

    Args:
        code: the service's.
        message: the service's.
        status: HTTP status; 0 for an entry, which has none.
        after_s: Retry-After.
    """
    text = f"{code}: {message}"[:_MAX_TEXT_CHARS]
    # Of the key that encrypts a queue or topic; SNS says KMSThrottling, SQS KmsThrottled or KMS.ThrottlingException.
    is_about_key = code.upper().startswith("KMS")
    if code in _THROTTLED or status == 429 or (is_about_key and "Throttl" in code):  # noqa: PLR2004 - Too Many Requests
        return Later("throttled", text, after_s)
    if status >= 500 or status == 408 or (not 400 <= status < 500 and "Internal" in code):  # noqa: PLR2004 - HTTP
        return Later("unavailable", text, after_s)
    if is_about_key or code in _DENIED or status in {401, 403}:
        return Later("access_denied", text, scope="operator")
    if code in _MISSING or status == 404:  # noqa: PLR2004 - Not Found
        return Later("destination_missing", text, scope="operator")
    return Refused("invalid_request", text)


async def in_batches(
    items: Sequence[Item],
    limit_bytes: int,
    size_of: Callable[[Item], int],
    send: Callable[[Sequence[Item]], Awaitable[Sequence[Verdict]]],
) -> list[Verdict]:
    """Deliver what fits, refuse what is too large, and when a whole call is refused ask again item by item.

    Args:
        items: one batch.
        limit_bytes: of one message.
        size_of: bytes of an item as the service counts them.
        send: one call; raises what `verdict_of` takes.
    """
    verdicts: list[Verdict] = [_too_large(size_of(item), limit_bytes) for item in items]
    fitting = [index for index, item in enumerate(items) if size_of(item) <= limit_bytes]
    if not fitting:
        return verdicts
    for index, verdict in zip(fitting, await _sent([items[index] for index in fitting], send), strict=True):
        verdicts[index] = verdict
    return verdicts


async def _sent(
    items: Sequence[Item], send: Callable[[Sequence[Item]], Awaitable[Sequence[Verdict]]]
) -> Sequence[Verdict]:
    try:
        return await send(items)
    except CALL_ERRORS as error:
        verdict = verdict_of(error)
    if isinstance(verdict, Refused) and len(items) > 1:
        # One of them spoils the call for all: the others must not suffer.
        return [one for item in items for one in await _sent([item], send)]
    return [verdict] * len(items)


def _too_large(size_bytes: int, limit_bytes: int) -> Refused:
    return Refused("too_large", f"{size_bytes} bytes, the service takes {limit_bytes}; the result topic has it")
