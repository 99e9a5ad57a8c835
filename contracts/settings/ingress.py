"""Doors that fetch events from a queue, and the door that a cloud function is."""

from typing import Annotated, Literal

from pydantic import Field

from contracts.settings.secrets import Name
from contracts.settings.section import Form, HttpUrl, Lane, ListenHost, Port, Seconds, Section
from contracts.settings.sources import FieldTemplate

QueueUrl = Annotated[
    str,
    Form(r"^https?://[^\s/]+/\S+$", "a queue's URL, such as https://sqs.eu-central-1.amazonaws.com/123456789012/NAME"),
]


class SqsDoor(Section):
    """A queue of Amazon SQS whose messages become events; run by `penstock ingress`."""

    kind: Literal["sqs"]
    """Selects this door."""
    queue_url: QueueUrl
    """URL of the queue; a name that ends in .fifo makes it a FIFO queue, whose groups are then the unit of order."""
    region: str | None = Field(default=None, min_length=1)
    """AWS region; from the AWS configuration when absent."""
    endpoint_url: HttpUrl | None = None
    """Another endpoint: a VPC endpoint, or moto's server."""
    envelope: Literal["body", "sns", "eventbridge", "s3", "penstock"] = "body"
    """What a message is. body: the event itself, also from SNS with raw message delivery. sns: an SNS notification,
    whose Message is the event. eventbridge: an EventBridge event. s3: an S3 event notification, one event per object.
    penstock: what the Lambda door queued. eventbridge and s3 may be inside an SNS notification."""
    batch_jobs: bool = False
    """With the envelopes s3 and eventbridge: objects that a section of `batch_jobs.inputs` matches become batch jobs of
    `penstock batch serve`; all others become events."""
    ce_source: str | None = Field(default=None, min_length=1, max_length=256)
    """CloudEvents source of the events; the name of this section when absent."""
    type: FieldTemplate | None = None
    """CloudEvents type; the envelope's own when absent."""
    id: FieldTemplate | None = None
    """Where the event's id comes from; the envelope's own when absent."""
    key: FieldTemplate | None = None
    """Partition key, the unit of order; the message group of a FIFO queue, the bucket and key of an S3 object, else
    the event's id when absent."""
    subject: FieldTemplate | None = None
    """CloudEvents subject; the envelope's own when absent."""
    lane: Lane = "standard"
    """Which lane the events take."""
    poison: Literal["dead_letter", "leave"] = "dead_letter"
    """A message that is not what `envelope` says: dead_letter puts it on the dead-letter topic, then deletes it; leave
    lets it come back until the queue's own redrive policy moves it."""
    receivers: int = Field(default=2, ge=1, le=32)
    """Long polls at a time; each holds a thread, and so does each batch of deletions."""
    max_in_flight: int = Field(default=200, ge=1, le=10_000)
    """Messages received and not deleted yet; at most 1 MiB each."""
    wait_s: int = Field(default=10, ge=1, le=20)
    """How long a poll of an empty queue waits; the end of the process may wait for it."""
    visibility_timeout_s: int = Field(default=60, ge=2, le=43_200)
    """How long a message is hidden from other receivers; extended at every third of it until the broker has confirmed
    the event. After a crash the message comes back this much later."""
    connect_timeout_s: Seconds = 3.0
    """Limit of the TCP and TLS handshake."""


# One kind so far; the next one makes it a union, told apart by `kind`.
IngressDoor = SqsDoor


class IngressProcess(Section):
    """The process that `penstock ingress` is."""

    health_host: ListenHost = "127.0.0.1"
    """Address of the health and metrics page; 0.0.0.0 in a container."""
    health_port: Port = 8083
    """Port of the same; 0 = any free one, printed at start."""
    drain_timeout_s: Seconds = 20.0
    """How long messages in progress may take after SIGTERM; longer than any door's `wait_s`. Giving back the others,
    and the producer's end, take 10 s more at most."""


class LambdaDoor(Section):
    """Webhooks through an AWS Lambda function: gateways/ingress/lambda_handler.py."""

    target: Literal["kafka", "sqs"] = "kafka"
    """Where accepted events go: to the brokers of section `kafka` (MSK), or to a queue that a door with the envelope
    penstock reads."""
    queue_url: QueueUrl | None = None
    """URL of the queue, for target sqs."""
    region: str | None = Field(default=None, min_length=1)
    """AWS region of the queue; the function's own when absent."""
    endpoint_url: HttpUrl | None = None
    """Another SQS endpoint: a VPC endpoint, or moto's server."""
    source: Name | None = None
    """The one source of this function; from the path, `/webhooks/<name>`, when absent."""
    timeout_s: float = Field(default=20.0, gt=0, le=28)
    """How long the broker or queue may take to confirm; API Gateway gives up after 29 s. Never longer than the
    function's own time that is left."""
