"""The three calls to a queue of Amazon SQS, in threads of their own, with boto3's errors translated.

Blocking: boto3 blocks, so every call has a thread of an own pool; a poll holds its thread for `wait_s` at most, which
the end of the process waits for.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    TokenRetrievalError,
)

from contracts.errors import AccessDenied, ConfigError, ConfigurationFault, PenstockError, Retryable, Throttled
from contracts.metrics import INGRESS_CALLS
from contracts.settings.ingress import SqsDoor
from producers.threads import DaemonPool

BATCH = 10
# Beyond the time that SQS itself waits.
_READ_SLACK_S = 10.0
_OTHER_CALLS_S = 10.0
# Source: Amazon SQS API reference, common errors and errors of the three calls (checked 2026-11). Those of the queue's
# key all begin with KMS: boto3 puts the code of the former protocol (KMS.DisabledException) in place of the model's.
_THROTTLED = frozenset(
    {"RequestThrottled", "ThrottlingException", "Throttling", "OverLimit", "KmsThrottled", "KMS.ThrottlingException",
     "AWS.SimpleQueueService.OverLimit", "RequestLimitExceeded"}
)  # fmt: skip
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "InvalidClientTokenId", "UnrecognizedClientException", "ExpiredToken",
     "SignatureDoesNotMatch", "MissingAuthenticationToken", "OptInRequired", "InvalidSecurity", "IncompleteSignature",
     "ExpiredTokenException"}
)  # fmt: skip
_NO_QUEUE = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress", "UnsupportedOperation"}
)
_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, TokenRetrievalError)


class Failed(NamedTuple):
    """An entry of a batch that did not succeed; `is_final`: trying again cannot help."""

    code: str
    is_final: bool


class SqsClient:
    """One boto3 client of one door, without retries of its own.

    Args:
        name: of the door.
        settings: its section.
    """

    def __init__(self, name: str, settings: SqsDoor) -> None:
        self._name = name
        self._settings = settings
        # Deletions have as many threads as receivers, extensions one.
        self._pool = DaemonPool(2 * settings.receivers + 1, f"sqs-{name}")
        self._client: Any = None

    async def start(self) -> None:
        """Load boto3's service model; calls nobody.

        Raises:
            ConfigError: no region, or the endpoint is none.
        """
        try:
            self._client = await self._pool.run(self._make)
        except (BotoCoreError, ValueError) as error:
            what = "region: is neither here nor in the AWS configuration" if isinstance(error, NoRegionError) else error
            message = f"ingress.{self._name}.{what}"
            raise ConfigError(message) from error

    def _make(self) -> Any:
        settings = self._settings
        config = Config(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=max(settings.wait_s + _READ_SLACK_S, _OTHER_CALLS_S),
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=2 * settings.receivers + 1,
            tcp_keepalive=True,
        )
        session = boto3.session.Session()
        return session.client("sqs", region_name=settings.region, endpoint_url=settings.endpoint_url, config=config)

    def close(self) -> None:
        """Let go of connections; threads end with the call they are in."""
        self._pool.close()
        if self._client is not None:
            self._client.close()

    async def receive(self, limit: int) -> list[dict[str, Any]]:
        """Return up to `limit` messages (at most 10) as boto3 gives them, after a long poll.

        Raises:
            Retryable: SQS is away or slow.
            ConfigurationFault: it does not let us, or there is no such queue.
        """
        call = functools.partial(
            self._client.receive_message,
            QueueUrl=self._settings.queue_url,
            MaxNumberOfMessages=min(limit, BATCH),
            WaitTimeSeconds=self._settings.wait_s,
            VisibilityTimeout=self._settings.visibility_timeout_s,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        )
        answer = await self._call("receive", call)
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    async def delete(self, receipts: Sequence[str]) -> dict[int, Failed]:
        """Delete up to 10 messages; return what failed by its place.

        Raises:
            Retryable: as `receive`; what has been deleted is not known.
            ConfigurationFault: as `receive`.
        """
        entries = [{"Id": str(place), "ReceiptHandle": receipt} for place, receipt in enumerate(receipts)]
        return await self._batch("delete", self._client.delete_message_batch, entries)

    async def extend(self, receipts: Sequence[str], seconds: int) -> dict[int, Failed]:
        """Hide up to 10 messages for so long from now on; 0 gives them back at once. Return what failed by its place.

        Raises:
            Retryable: as `receive`.
            ConfigurationFault: as `receive`.
        """
        entries = [
            {"Id": str(place), "ReceiptHandle": receipt, "VisibilityTimeout": seconds}
            for place, receipt in enumerate(receipts)
        ]
        return await self._batch("extend", self._client.change_message_visibility_batch, entries)

    async def _batch(
        self, name: str, method: Callable[..., dict[str, Any]], entries: list[dict[str, Any]]
    ) -> dict[int, Failed]:
        answer = await self._call(name, functools.partial(method, QueueUrl=self._settings.queue_url, Entries=entries))
        failed = answer.get("Failed", [])
        if failed:
            INGRESS_CALLS.labels(self._name, name, "partial").inc()
        return {int(entry["Id"]): Failed(entry.get("Code", ""), bool(entry.get("SenderFault"))) for entry in failed}

    async def _call(self, name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        try:
            answer = await self._pool.run(call)
        except (ClientError, BotoCoreError) as error:
            translated = _translate(error, f"ingress.{self._name}: SQS, {name}")
            INGRESS_CALLS.labels(self._name, name, translated.reason).inc()
            raise translated from error
        INGRESS_CALLS.labels(self._name, name, "ok").inc()
        return answer


def _translate(error: ClientError | BotoCoreError, where: str) -> PenstockError:
    """Return what an error means to the door."""
    if not isinstance(error, ClientError):
        message = f"{where}: {error}"
        return AccessDenied(message) if isinstance(error, _CREDENTIALS) else Retryable(message)
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = f"{where}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if code in _THROTTLED:
        return Throttled(message)
    if code in _DENIED or code.upper().startswith("KMS"):
        return AccessDenied(message)
    if code in _NO_QUEUE:
        return ConfigurationFault(message)
    return Retryable(message)
