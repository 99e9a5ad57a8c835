"""Where the Lambda door puts an accepted event: on Kafka, or on a queue that `penstock ingress` empties.

Blocking: the queue's call blocks its thread; the function has nothing else to do.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from contracts.errors import ConfigError, LogUnavailable, TooLarge
from contracts.settings import Settings
from gateways.ingress.producing import produce
from gateways.ingress.queued import QueuedEvent, with_payload
from gateways.ingress.webhooks import KEY_ID_HEADER, Accepted, WebhookSource

# Amazon SQS quotas (checked 2026-11): 1 MiB, attributes included; we send none.
_MAX_MESSAGE_BYTES = 1_048_576
_CONNECT_TIMEOUT_S = 3.0


class Target(Protocol):
    """One per container, used by one event loop."""

    async def start(self) -> None:
        """Prepare, once."""
        ...

    async def put(self, source: WebhookSource, accepted: Accepted, timeout_s: float) -> None:
        """Return when the event is durable.

        Raises:
            LogUnavailable: not confirmed in time; it may be there all the same.
            Busy: too much is waiting.
            TooLarge: it can never be taken.
        """
        ...


class KafkaTarget:
    """Produces the record that the gateway would produce."""

    def __init__(self, settings: Settings) -> None:
        from producers.producer import KafkaProducer

        self._producer = KafkaProducer(
            settings.kafka,
            settings.producer,
            client_id="penstock-lambda",
            # A record that is given up must not follow later, when the container is thawed for another request.
            delivery_timeout_s=settings.lambda_door.timeout_s,
        )

    async def start(self) -> None:
        """Create the client; it connects in the background."""
        await self._producer.start()

    async def put(self, source: WebhookSource, accepted: Accepted, timeout_s: float) -> None:  # noqa: ARG002
        """Wait for the broker's ack."""
        await produce(self._producer, accepted.record, timeout_s)

    async def aclose(self) -> None:
        """Flush and close; for tests, since a container just ends."""
        await self._producer.aclose(1.0)


class QueueTarget:
    """Sends a `QueuedEvent` to SQS; a FIFO queue gets the partition key as group, id and body against repeats."""

    def __init__(self, settings: Settings) -> None:
        self._door = settings.lambda_door
        if self._door.queue_url is None:
            message = "lambda_door.queue_url: is needed for target sqs"
            raise ConfigError(message)
        self._url = self._door.queue_url
        self._client: Any = None

    async def start(self) -> None:
        """Load boto3's service model.

        Raises:
            ConfigError: no region, or the endpoint is none.
        """
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError

        config = Config(
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=self._door.timeout_s,
            retries={"total_max_attempts": 1, "mode": "standard"},
            tcp_keepalive=True,
        )
        try:
            self._client = boto3.session.Session().client(
                "sqs", region_name=self._door.region, endpoint_url=self._door.endpoint_url, config=config
            )
        except (BotoCoreError, ValueError) as error:
            message = f"lambda_door: {error}"
            raise ConfigError(message) from error

    async def put(self, source: WebhookSource, accepted: Accepted, timeout_s: float) -> None:
        """Wait for the queue's answer."""
        body = queued_event(source, accepted)
        if len(body) > _MAX_MESSAGE_BYTES:
            message = f"the event is larger than the {_MAX_MESSAGE_BYTES} bytes that a message may have"
            raise TooLarge(message)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.to_thread(self._send, body.decode(), accepted)
        except TimeoutError as error:
            message = f"the queue did not answer within {timeout_s:g} s"
            raise LogUnavailable(message) from error

    def _send(self, body: str, accepted: Accepted) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        options: dict[str, str] = {}
        if self._url.endswith(".fifo"):
            event = accepted.event
            options = {
                "MessageGroupId": _digest(event.key or event.id.encode()),
                # With the body: another event under an id that was just used must not be dropped as its repetition.
                "MessageDeduplicationId": _digest(f"{event.source}\n{event.id}\n".encode() + event.data),
            }
        try:
            self._client.send_message(QueueUrl=self._url, MessageBody=body, **options)
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and _is_too_large(error.response):
                # Of a queue with a smaller MaximumMessageSize: its sender would come again and again.
                message = "the event is larger than a message of the queue may be"
                raise TooLarge(message) from error
            message = f"the queue did not take the event: {error}"
            raise LogUnavailable(message) from error

    async def aclose(self) -> None:
        """Let go of connections; for tests."""
        if self._client is not None:
            self._client.close()


def queued_event(source: WebhookSource, accepted: Accepted) -> bytes:
    """Return an accepted webhook as the message that the SQS door reads with the envelope penstock."""
    event, headers = accepted.event, dict(accepted.record.headers)
    queued = QueuedEvent(
        type=event.type,
        received_at=event.time,
        id=event.id,
        source=event.source,
        key=(event.key or b"").decode(),
        subject=event.subject,
        content_type=event.datacontenttype,
        traceparent=event.extensions.get("traceparent", ""),
        scheme=source.settings.scheme,
        key_id=(headers.get(KEY_ID_HEADER) or b"").decode(),
        lane=source.settings.lane,
    )
    return msgspec.json.encode(with_payload(queued, event.data))


def _is_too_large(response: Mapping[str, Any]) -> bool:
    """Tell whether SQS says so; it has one code for this and every other parameter."""
    error = response.get("Error", {})
    return error.get("Code") == "InvalidParameterValue" and "shorter than" in error.get("Message", "")


def _digest(raw: bytes) -> str:
    # Groups and deduplication ids are 128 characters of a few kinds; a digest always fits.
    return hashlib.sha256(raw).hexdigest()


def make_target(settings: Settings) -> KafkaTarget | QueueTarget:
    """Return the configured target; nothing is started.

    Raises:
        ConfigError: it cannot be used.
    """
    return QueueTarget(settings) if settings.lambda_door.target == "sqs" else KafkaTarget(settings)
