"""What our confluent-kafka clients have in common: settings, log lines, and the translation of their errors.

Source of the tokens for Amazon MSK: aws-msk-iam-sasl-signer-python 1.0.2, README and signer (checked 2026-11); what is
left of it beside botocore are the names below.
"""

import base64
import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, ParamSpec, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from contracts import logs
from contracts.codec import Record
from contracts.errors import Busy, ConfigError, LogUnavailable, PenstockError, TooLarge
from contracts.kafka_config import librdkafka_config
from contracts.logs import logger
from contracts.settings import KafkaSettings, ProducerSettings
from producers.base import Forbidden
from producers.threads import NoThread, in_pool

# Room for what the protocol adds to a record beyond our own count, mostly lengths in front of headers.
RECORD_OVERHEAD_BYTES = 16_384
# Bounds what a client holds in front of us: a queue, and one answer of each broker on its way into it.
QUEUE_LIMITS: dict[str, Any] = {
    "queued.max.messages.kbytes": 4 * 1024,
    # An answer goes into the queue as a whole, however full that is, and it comes compressed: of small results that are
    # alike, the usual 50 MB (1 MB a partition) were 170,000 records and 200 MB of memory (measured, 12 partitions).
    "fetch.max.bytes": 2**20,
    # A full queue is empty again sooner than the client would look by itself, after a second.
    "fetch.queue.backoff.ms": 20,
}
# Kafka's default for a topic's max.message.bytes is 1,048,588 and holds for a whole batch (Kafka 4.1 documentation).
_BATCH_BYTES = 1_000_000
# How long a topic without metadata may still be on its way; after that its records fail instead of waiting for minutes.
_TOPIC_APPEARS_MS = 3_000
_RECONNECT_MAX_MS = 1_000
_METADATA_MAX_AGE_MS = 30_000
# Of a number in librdkafka's settings; it takes a larger one for a negative one.
_MOST = 2**31 - 1
# Between two looks whether a full buffer has room.
_FULL_S = 0.05
# A stop that came first still gives a request this long: brokers that are there answer sooner.
_GRACE_S = 0.5
# Amazon MSK takes no token that is valid for longer.
_MSK_TOKEN_S = 900
_MSK_SERVICE, _MSK_ACTION, _MSK_AGENT = "kafka-cluster", "kafka-cluster:Connect", "penstock"

# What a consumer says that may not ask where its group is. One that was given its partitions never joins one: nothing
# follows from it, and it is said once, in place of a record.
NO_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED

# For a client whose failures are told by us, with what to do about them: a log level of 0 lets the fatal ones through.
SILENT = logging.getLogger("penstock.silent")
SILENT.setLevel(logging.CRITICAL + 1)

# What no client can be made with now: no thread; no token within 10 s, of which `kafka.token_refused` says why.
_NOT_NOW = frozenset({KafkaError._CRIT_SYS_RESOURCE, KafkaError.SASL_AUTHENTICATION_FAILED})  # noqa: SLF001 - so named

_Answer = TypeVar("_Answer")
_Given = ParamSpec("_Given")
IsStopped = Callable[[], bool]


class Stopped(LogUnavailable):
    """Raise when a stop does not wait for Kafka any longer; what was asked of it may still happen."""


def unless_stopped(request: Callable[[], _Answer], is_stopped: IsStopped | None) -> _Answer:
    """Return what a blocking request returns, or give up waiting for it when a stop comes.

    A request that was given up goes on in a thread that does not outlive the process; its client must not be closed.

    Args:
        request: does not use what the caller goes on with.
        is_stopped: None = never.

    Raises:
        LogUnavailable: no thread can be started now.
        Stopped: a stop came first.
    """
    if is_stopped is None:
        return request()
    future: Future[_Answer] = Future()

    def run() -> None:
        try:
            future.set_result(request())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)

    start_thread(run, "kafka-request")
    while not wait([future], _GRACE_S).done:
        if is_stopped():
            message = "stopped while Kafka did not answer"
            raise Stopped(message)
    return future.result()


def start_thread(run: Callable[[], None], name: str) -> None:
    """Run something in a thread that does not outlive the process.

    Raises:
        LogUnavailable: none can be started now, as in a container at its limit.
    """
    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError as error:
        raise _without_thread(error) from error


def made(make: Callable[[], _Answer]) -> _Answer:
    """Return a new client.

    Raises:
        LogUnavailable: its threads cannot be started now, or AWS_MSK_IAM gives it no token.
        KafkaException: it cannot be made with these settings.
    """
    try:
        return make()
    except KafkaException as exception:
        if error_of(exception).code() not in _NOT_NOW:
            raise
        raise _without_thread(error_of(exception).str()) from exception


def _without_thread(reason: object) -> LogUnavailable:
    return LogUnavailable(f"Kafka cannot be asked: {reason}")


async def in_thread(request: Callable[_Given, _Answer], *args: _Given.args, **kwargs: _Given.kwargs) -> _Answer:
    """Return what a blocking request returns, made in one of the loop's threads.

    Raises:
        LogUnavailable: no thread can be started now, as in a container at its limit; the request is not made.
    """
    try:
        return await in_pool(None, request, *args, **kwargs)
    except NoThread as error:
        raise _without_thread(error) from error


def client_config(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the connection settings of every client: `librdkafka_config`, and what brings tokens of AWS_MSK_IAM.

    Blocking for AWS_MSK_IAM the first time: finds the credentials of AWS's default chain; on a machine of AWS that asks
    its metadata service. Once they were there, their want is no fault of the settings: it passes, and clients meet it
    as brokers that are away.

    Raises:
        ConfigError: as `librdkafka_config`, or the process has not had credentials of AWS yet, and finds none.
    """
    config: dict[str, Any] = {**librdkafka_config(kafka)}
    if kafka.is_sasl and kafka.sasl_mechanism == "AWS_MSK_IAM" and kafka.aws_region:
        _see_credentials(kafka.aws_region)
        config["oauth_cb"] = _msk_callback(kafka.aws_region)
    return config


@functools.cache
def _see_credentials(region: str) -> None:
    """Refuse a start without credentials; a client's constructor would wait for 10 s and then not say why."""
    try:
        msk_token(region)
    except LogUnavailable as error:
        # Not remembered: what is raised is no answer to the cache.
        raise ConfigError(str(error)) from error


@functools.cache
def _msk_callback(region: str) -> Callable[[str], tuple[str, float]]:
    """Return what librdkafka asks for a token, on a thread of its own; the same for all clients of a region."""

    def token(_config: str) -> tuple[str, float]:
        try:
            return msk_token(region)
        except LogUnavailable as error:
            # librdkafka asks again in 10 s, and does not tell what was raised.
            logger("kafka").warning("kafka.token_refused", error=str(error))
            raise

    return token


def msk_token(region: str) -> tuple[str, float]:
    """Return a token for Amazon MSK, and the Unix seconds at which it ends: 15 minutes from now.

    It is the signed URL of a request that nobody makes, which the brokers check (SigV4, in the query). Blocking where
    the credentials have to be fetched, or are about to end.

    Raises:
        LogUnavailable: there are no credentials, or they could not be fetched.
    """
    from botocore.auth import SigV4QueryAuth
    from botocore.awsrequest import AWSRequest

    request = AWSRequest("GET", f"https://kafka.{region}.amazonaws.com/", params={"Action": _MSK_ACTION})
    try:
        credentials = _aws_session().get_credentials()
        frozen = credentials and credentials.get_frozen_credentials()
        now_s = time.time()
        if frozen:
            SigV4QueryAuth(frozen, _MSK_SERVICE, region, expires=_MSK_TOKEN_S).add_auth(request)
    except Exception as error:
        # A refusal of STS is no BotoCoreError, a token file that is not there an OSError, credentials that stay expired
        # a RuntimeError: each provider of the chain raises its own.
        why = str(error) or type(error).__name__
        message = f"kafka: sasl_mechanism AWS_MSK_IAM: the credentials of AWS cannot be had: {why}"
        raise LogUnavailable(message) from error
    if not frozen:
        message = "kafka: sasl_mechanism AWS_MSK_IAM needs credentials of AWS, and its default chain finds none"
        raise LogUnavailable(message)
    # Not signed: it stands in the brokers' log.
    url = f"{request.url}&User-Agent={_MSK_AGENT}"
    return base64.urlsafe_b64encode(url.encode()).decode().rstrip("="), now_s + _MSK_TOKEN_S


@functools.cache
def _aws_session() -> Any:
    """Return the one session: it keeps the credentials, and renews those that end."""
    from botocore.session import get_session

    return get_session()


def producer_config(
    kafka: KafkaSettings, producer: ProducerSettings, client_id: str, delivery_timeout_s: float
) -> dict[str, Any]:
    """Return the settings of the idempotent producer.

    Raises:
        ConfigError: as `client_config`.
    """
    # librdkafka takes 0 for no limit at all, and no linger that is not shorter.
    timeout_ms = min(math.ceil(delivery_timeout_s * 1000), _MOST)
    return client_config(kafka) | {
        "client.id": client_id,
        "enable.idempotence": True,
        "acks": "all",
        "delivery.timeout.ms": timeout_ms,
        "linger.ms": min(producer.linger_s * 1000, timeout_ms - 1),
        "compression.type": producer.compression,
        # Java's default: the same key lands in the same partition whoever produces it.
        "partitioner": "murmur2_random",
        "message.max.bytes": producer.max_record_bytes + RECORD_OVERHEAD_BYTES,
        "batch.size": largest_batch_bytes(producer),
        # Our own byte limit comes first; these only must not be in its way.
        "queue.buffering.max.kbytes": min(2 * producer.max_buffer_bytes // 1024, _MOST),
        "queue.buffering.max.messages": 10_000_000,
        "topic.metadata.propagation.max.ms": _TOPIC_APPEARS_MS,
        "reconnect.backoff.max.ms": _RECONNECT_MAX_MS,
        "metadata.max.age.ms": 3 * _METADATA_MAX_AGE_MS,
        "topic.metadata.refresh.interval.ms": _METADATA_MAX_AGE_MS,
        "socket.keepalive.enable": True,
        # An idle connection that the broker closes is no event.
        "log.connection.close": False,
    }


def largest_batch_bytes(producer: ProducerSettings) -> int:
    """Return the size of the largest batch we may send, which the topics' max.message.bytes must allow."""
    return max(_BATCH_BYTES, producer.max_record_bytes + RECORD_OVERHEAD_BYTES)


class ClientLog(logging.Logger):
    """Turns librdkafka's log lines into ours; of one kind, one in some seconds, with the number of those left out.

    Args:
        minimum: lowest level that is passed on.
    """

    def __init__(self, minimum: int = logging.WARNING) -> None:
        super().__init__("librdkafka", minimum)
        self._lines = logger("kafka")

    def log(self, level: int, msg: object, *args: Any, **_kwargs: Any) -> None:
        """Take one line; librdkafka's binding calls this with facility, client and text as arguments."""
        if level < self.level:
            return
        try:
            facility, client, text = args
        except ValueError:
            facility, client, text = "", "", str(msg)
        left_out = logs.REPETITIONS.left_out(logs.Kind("kafka", level, facility))
        if left_out is not None:
            self._lines.log(
                level, "kafka.client_logged", facility=facility, client=client, text=text, similar_left_out=left_out
            )


# An operator has to act first; the client looks at its topics anew every 30 s anyway.
_FORBIDDEN_S = 5.0
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE})
_UNKNOWN_TOPIC = frozenset({KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART})  # noqa: SLF001 - so named
_UNKNOWN_PARTITION = KafkaError._UNKNOWN_PARTITION  # noqa: SLF001 - so named
_QUEUE_FULL = KafkaError._QUEUE_FULL  # noqa: SLF001 - so named
_TIMED_OUT = frozenset({KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT})  # noqa: SLF001 - so named


def translate_error(error: KafkaError, topic: str, partition: int | None = None) -> PenstockError:
    """Return what a failed record means to the rest."""
    code = error.code()
    if code in _TOO_LARGE:
        return TooLarge(f"record for topic {topic} is too large for the client or the broker: {error.str()}")
    if code == _QUEUE_FULL:
        return Busy("producer queue is full")
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return Forbidden(f"topic {topic} may not be written to: an ACL is missing", retry_after_s=_FORBIDDEN_S)
    if code in _UNKNOWN_TOPIC:
        message = f"topic {topic} does not exist (penstock topics create makes it)"
    elif code == _UNKNOWN_PARTITION:
        message = f"topic {topic} has no partition {partition}"
    elif code in _TIMED_OUT:
        message = f"record for topic {topic} was not confirmed in time; it may be on the log"
    else:
        message = f"record for topic {topic} failed: {error.name()}: {error.str()}"
    return LogUnavailable(message)


def error_of(exception: KafkaException) -> KafkaError:
    """Return the error inside a KafkaException."""
    error: KafkaError = exception.args[0]
    return error


def is_fatal(error: KafkaError) -> bool:
    """Return whether its client will never do anything again.

    What is asked of a client after its fatal error is refused with an error that does not call itself one.
    """
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - so named


def produce_waiting(
    client: Producer,
    record: Record,
    errors: list[str] | None,
    limit_s: float,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Give a record to a client of one's own, waiting while its buffer is full; for who writes many and then flushes.

    More records than the buffer holds (producer.max_buffer_bytes) may belong together: it empties by itself.
    Blocking: up to the limit.

    Args:
        client: used by this thread alone.
        record: to be written.
        errors: gets what the record fails with later. None in a transaction, which tells that itself: a callback must
            not run beside its fatal errors, which the binding has raised by then; the next call of anything in C ends
            as a SystemError (confluent-kafka 2.16).
        limit_s: how long there may be no room.
        meanwhile: called again and again while there is none; what it raises ends the waiting.

    Raises:
        KafkaException: the client does not take the record, or has had no room for so long.
    """

    def report(error: KafkaError | None, _message: Message) -> None:
        if error is not None and errors is not None:
            errors.append(str(translate_error(error, record.topic, record.partition)))

    more: dict[str, Any] = {} if errors is None else {"on_delivery": report}
    if record.timestamp_ms is not None:
        more["timestamp"] = record.timestamp_ms
    end_s = time.monotonic() + limit_s
    while True:
        try:
            client.produce(
                record.topic,
                value=record.value,
                key=record.key,
                partition=-1 if record.partition is None else record.partition,
                headers=list(record.headers),
                **more,
            )
        except BufferError as exception:
            if time.monotonic() >= end_s:
                raise KafkaException(KafkaError(_QUEUE_FULL)) from exception
            client.poll(_FULL_S)
            meanwhile()
        else:
            return
