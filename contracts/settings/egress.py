"""Doors out: where terminal records are delivered to, and which."""

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from contracts.settings.routes import Patterns
from contracts.settings.section import Port, Seconds, Section

Url = Annotated[str, StringConstraints(pattern="^https?://[^@\\s]+$")]
Region = Annotated[str, StringConstraints(pattern="^[a-z0-9-]{1,40}$")]


class DoorMatch(Section):
    """Glob patterns over the terminal record; all given ones must match, case-sensitive."""

    route: Patterns = ("*",)
    """Patterns for the route's name, one or a list; records that no route took have the empty name."""
    source: Patterns = ("*",)
    """Patterns for the event's source."""
    type: Patterns = ("*",)
    """Patterns for the event's type."""
    delivery: Patterns = ("*",)
    """Patterns for the event's `delivery` attribute (sync, notify, stream, batch); empty when it has none."""
    status: Patterns = ("*",)
    """Patterns for the outcome: succeeded, dead_letter, expired."""


class Breaker(Section):
    """Stops deliveries to a destination that fails, and tries one item from time to time."""

    failures: int = Field(default=5, ge=1, le=1000)
    """Failed deliveries in a row that open it."""
    base_s: Seconds = 1.0
    """Wait before the first try; doubled after each that fails."""
    max_s: Seconds = 60.0
    """Longest wait between two tries."""


class DoorSection(Section):
    """What all doors out have in common."""

    match: DoorMatch = DoorMatch()
    """Which terminal records."""
    since: AwareDatetime | None = None
    """Records older than this instant are passed over. A new door delivers everything that the topics still hold when
    absent."""
    max_in_flight: int = Field(default=4, ge=1, le=256)
    """Deliveries at a time; each is one call with up to a batch of records."""
    max_in_flight_per_destination: int | None = Field(default=None, ge=1, le=256)
    """Of these, how many to one destination, for doors with many; a quarter of them when absent."""
    max_held_items: int = Field(default=5_000, ge=1, le=1_000_000)
    """Records taken and not finished; intake pauses there."""
    max_held_bytes: int = Field(default=32 * 2**20, ge=2**16)
    """Bytes of the same."""
    timeout_s: Seconds = 30.0
    """Limit of one delivery."""
    max_attempts: int = Field(default=10, ge=1, le=10)
    """Attempts before a record goes to the undelivered topic; ten are spread over 75 hours (docs/egress.md)."""
    breaker: Breaker = Breaker()
    """When deliveries to a destination are stopped."""


class AwsDoor(DoorSection):
    """What doors to AWS have in common; credentials come from the default chain of the AWS SDK."""

    region: Region
    """AWS region."""
    endpoint_url: Url | None = None
    """Another endpoint: a VPC endpoint, or an emulator."""
    connect_timeout_s: Seconds = 3.0
    """Limit of the TCP and TLS handshake."""


class SnsDoor(AwsDoor):
    """Amazon SNS: one message per record, ten a call."""

    kind: Literal["sns"]
    """Selects this door."""
    topic_arn: str = Field(pattern=r"^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$")
    """The topic; one whose name ends in `.fifo` gets the record's key as message group and its id for deduplication."""
    linger_s: float = Field(default=0.02, ge=0, le=60)
    """How long a batch that is not full waits for company."""


class SqsDoor(AwsDoor):
    """Amazon SQS: one message per record, ten a call."""

    kind: Literal["sqs"]
    """Selects this door."""
    queue_url: Url
    """The queue; one whose name ends in `.fifo` gets the record's key as message group and its id for
    deduplication."""
    linger_s: float = Field(default=0.02, ge=0, le=60)
    """How long a batch that is not full waits for company."""
    max_message_bytes: int = Field(default=262_144, ge=1024, le=1_048_576)
    """Largest message of the queue, attributes included; larger records go to the undelivered topic."""


class EventBridgeDoor(AwsDoor):
    """Amazon EventBridge: one event per record, ten a call."""

    kind: Literal["eventbridge"]
    """Selects this door."""
    bus: str = Field(default="default", min_length=1, max_length=1600)
    """Name or ARN of the event bus."""
    linger_s: float = Field(default=0.02, ge=0, le=60)
    """How long a batch that is not full waits for company."""


class S3Door(AwsDoor):
    """Amazon S3: objects with many records each, every record in exactly one."""

    kind: Literal["s3"]
    """Selects this door."""
    bucket: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
    """The bucket; it must support conditional writes (If-None-Match), as Amazon S3 does."""
    prefix: str = Field(default="penstock", pattern=r"^[A-Za-z0-9!_.*'()/=-]{0,400}$")
    """First part of the objects' names, without the slash at its end."""
    format: Literal["jsonl", "parquet"] = "jsonl"
    """What the objects hold: one CloudEvent in JSON per line, or a table; Parquet needs the extra `parquet`."""
    compression: Literal["none", "gzip"] = "gzip"
    """Compression of JSONL objects; Parquet has its own (zstd)."""
    max_held_items: int = Field(default=40_000, ge=1, le=1_000_000)
    """Records taken and not in an object yet, of all partitions; intake pauses there, and the longest run is
    written."""
    max_held_bytes: int = Field(default=96 * 2**20, ge=2**16)
    """Bytes of the same."""
    max_object_records: int = Field(default=10_000, ge=1, le=1_000_000)
    """Records of one object, at most."""
    max_object_bytes: int = Field(default=8 * 2**20, ge=2**16, le=2**30)
    """Their bytes before compression."""
    max_object_age_s: Seconds = 60.0
    """How long an object that is not full waits for more records."""
    path_style: bool = False
    """Name the bucket in the path, not in the host; for emulators."""


class ApiGatewayDoor(AwsDoor):
    """Amazon API Gateway WebSocket API: to the connection that the event's `connectionid` names."""

    kind: Literal["apigateway"]
    """Selects this door."""
    endpoint_url: Url
    """The API's callback URL: `https://<api>.execute-api.<region>.amazonaws.com/<stage>`."""


DoorSettings = Annotated[SnsDoor | SqsDoor | EventBridgeDoor | S3Door | ApiGatewayDoor, Field(discriminator="kind")]
DOOR_KINDS = frozenset({"sns", "sqs", "eventbridge", "s3", "apigateway"})


class EgressProcess(Section):
    """The process that runs the doors out."""

    health_host: str = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; 0.0.0.0 in a container."""
    health_port: Port = 8082
    """Port of the same; 0 = any free one, printed at start."""
    instance_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,200}$")
    """Static membership: stable and unique per process (a pod name); a restart is then no rebalance."""
    session_timeout_s: Seconds = 15.0
    """A process silent for this long loses its partitions."""
    drain_timeout_s: Seconds = 30.0
    """How long deliveries in flight may finish on SIGTERM or when partitions are given up."""
