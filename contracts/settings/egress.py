"""Doors out: where terminal records are delivered to, and which."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    Field,
    IPvAnyNetwork,
    model_validator,
)

from contracts.settings.callback_url import read_url
from contracts.settings.routes import Patterns
from contracts.settings.secrets import SecretRef
from contracts.settings.section import ExistingFile, Form, GroupName, ListenHost, Pointer, Port, Seconds, Section
from contracts.settings.sources import SourceSecret

# 400 and 422: about this body. 405, 501, 505: about what every callback is. The rest: about its size or form.
CALLBACK_PERMANENT_STATUSES = (400, 405, 411, 413, 414, 415, 422, 431, 501, 505)

Url = Annotated[str, Form("^https?://[^@\\s]+$", "a URL without user and password, such as https://host/path")]
HttpsUrl = Annotated[str, Form(r"^https://[^@/\s]+$", "https:// and a host, without a path: https://host")]
Region = Annotated[str, Form("^[a-z0-9-]{1,40}$", "an AWS region, such as eu-central-1")]


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
    topic_arn: Annotated[
        str,
        Form(
            r"^arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?$",
            "a topic's ARN, such as arn:aws:sns:eu-central-1:123456789012:NAME",
        ),
    ]
    """The topic; one whose name ends in `.fifo` gets the record's key as message group, and
    what tells its outcome from every other one for deduplication."""
    linger_s: float = Field(default=0.02, ge=0, le=60)
    """How long a batch that is not full waits for company."""
    max_message_bytes: int = Field(default=262_144, ge=16_384, le=1_048_576)
    """Largest message of the topic (its MaximumMessageSize), attributes included; larger records go to the undelivered
    topic."""


class SqsDoor(AwsDoor):
    """Amazon SQS: one message per record, ten a call."""

    kind: Literal["sqs"]
    """Selects this door."""
    queue_url: Url
    """The queue; one whose name ends in `.fifo` gets the record's key as message group, and
    what tells its outcome from every other one for deduplication."""
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
    max_event_bytes: int = Field(default=262_144, ge=16_384, le=1_048_576)
    """Largest event that the bus takes, and what it sends on to; larger records go to the undelivered topic."""


class S3Door(AwsDoor):
    """Amazon S3: objects with many records each, every record in exactly one."""

    kind: Literal["s3"]
    """Selects this door."""
    bucket: Annotated[
        str,
        Form(
            r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$",
            "a bucket's name: 3 to 63 small letters, digits, dots and dashes, no s3:// before it",
        ),
    ]
    """The bucket; it must support conditional writes (If-None-Match), as Amazon S3 does."""
    prefix: Annotated[
        str, Form(r"^[A-Za-z0-9!_.*'()/=-]{0,400}$", "letters, digits and any of !_.*'()/=-, at most 400 characters")
    ] = "penstock"
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


def _callback_url(url: str) -> str:
    read_url(url)
    return url


class CallbackSection(DoorSection):
    """What both kinds of callbacks have in common."""

    content_type: Literal["application/cloudevents+json", "application/json"] = "application/cloudevents+json"
    """Header of the body, which is a CloudEvent in JSON either way; for receivers that know plain JSON only."""
    attempt_timeout_s: float = Field(default=15.0, gt=0, le=60)
    """Limit of one attempt, from the look-up of the name to the head of the answer; below `timeout_s`."""
    max_per_s: float | None = Field(default=None, gt=0, le=100_000)
    """Callbacks a second, per process; no limit when absent."""
    retry_after_max_s: Seconds = 3600.0
    """No Retry-After of the endpoint is followed beyond this."""
    permanent_statuses: tuple[Annotated[int, Field(ge=300, le=599)], ...] = CALLBACK_PERMANENT_STATUSES
    """Statuses after which a callback is not tried again; 410 disables the endpoint whatever stands here."""
    ports: tuple[Annotated[int, Field(ge=1, le=65535)], ...] = (443, 8443)
    """Ports that may be dialled."""
    allow_http: bool = False
    """Allow http:// URLs: callbacks can then be read on the way, though not changed."""
    allow_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that may be dialled although they are internal; for own receivers. Said at every start."""
    refuse_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks refused beyond the built-in list: own public addresses, an own NAT64 prefix."""
    ca_file: ExistingFile | None = None
    """Certificates (PEM) to trust in place of the system's."""

    @model_validator(mode="after")
    def _attempts_fit(self) -> Self:
        if self.attempt_timeout_s >= self.timeout_s:
            message = "attempt_timeout_s must be below timeout_s"
            raise ValueError(message)
        wait_s = self.max_in_flight / (self.max_per_s or float("inf"))
        if wait_s > self.timeout_s - self.attempt_timeout_s:
            message = (
                "max_in_flight / max_per_s must be at most timeout_s - attempt_timeout_s: attempts wait their turn"
            )
            raise ValueError(message)
        return self


class CallbackDoor(CallbackSection):
    """A signed HTTP callback (Standard Webhooks): one POST per record to one endpoint."""

    kind: Literal["callback"]
    """Selects this door."""
    url: Annotated[str, AfterValidator(_callback_url)]
    """Where to. https, a port of `ports`, no user name; its addresses are judged whenever it is dialled."""
    secrets: tuple[SourceSecret, ...] = Field(min_length=1, max_length=8)
    """Signing keys, `whsec_...` (v1, HMAC) or `whsk_...` (v1a, ed25519); all that are valid sign every callback.
    `penstock callbacks keygen` makes one."""
    order: Literal["none", "key"] = "none"
    """`none`: a callback that failed is overtaken. `key`: one that failed holds back the later ones of its key."""
    disable_after_s: Seconds = 5 * 86400.0
    """Only failures for this long (and ten of them) disable the endpoint, until `penstock callbacks enable`."""

    @model_validator(mode="after")
    def _url_fits(self) -> Self:
        target = read_url(self.url)
        if target.scheme == "http" and not self.allow_http:
            message = "url: http:// needs allow_http: true"
            raise ValueError(message)
        if target.port not in self.ports:
            message = f"url: port {target.port} is not in `ports`"
            raise ValueError(message)
        if len({secret.id for secret in self.secrets}) != len(self.secrets):
            message = "two secrets have one id"
            raise ValueError(message)
        return self


class CallerCallbackDoor(CallbackSection):
    """Signed callbacks to the URL that the event's caller named: API keys with a section `callbacks` may."""

    kind: Literal["caller-callback"]
    """Selects this door."""


class SalesforceLogin(Section):
    """OAuth 2.0: client credentials (`consumer_secret`), or JWT bearer (`private_key` and `username`)."""

    url: HttpsUrl
    """The org's My Domain, `https://acme.my.salesforce.com`; for JWT bearer also https://login.salesforce.com, or
    https://test.salesforce.com for a sandbox."""
    consumer_key: str = Field(min_length=1, max_length=512)
    """Consumer key of the external client app or connected app."""
    consumer_secret: SecretRef | None = None
    """Reference to its consumer secret: client credentials."""
    private_key: SecretRef | None = None
    """Reference to the private key, PEM, whose certificate the app has: JWT bearer."""
    username: str | None = Field(default=None, min_length=1, max_length=80)
    """Who the door is in the org, for JWT bearer."""
    audience: HttpsUrl = "https://login.salesforce.com"
    """`aud` of the JWT; https://test.salesforce.com for a sandbox."""

    @model_validator(mode="after")
    def _one_flow(self) -> "SalesforceLogin":
        if (self.consumer_secret is None) == (self.private_key is None):
            message = "exactly one of consumer_secret and private_key is needed"
            raise ValueError(message)
        if (self.private_key is None) != (self.username is None):
            message = "private_key and username belong together"
            raise ValueError(message)
        return self


def _as_source(value: Any) -> Any:
    return {"pointer": value} if isinstance(value, str) else value


class FieldSource(Section):
    """What is written into a field: a JSON pointer, or a section with these keys."""

    pointer: Pointer
    """Where in the result: `/output/summary`, `/provenance/model`. A list of scalars becomes lines of text."""
    max_chars: int | None = Field(default=None, ge=1, le=131_072)
    """Longer text is cut to this and ends in `...`; without it, text that the field does not take is refused."""


FieldName = Annotated[
    str, Form("^[A-Za-z][A-Za-z0-9_]{0,79}$", "an API name: a letter, then letters, digits and underscores, at most 80")
]
FieldSources = Annotated[
    dict[
        FieldName,
        Annotated[FieldSource, BeforeValidator(_as_source, json_schema_input_type=str | FieldSource)],
    ],
    Field(min_length=1),
]


class SalesforceDoor(DoorSection):
    """Salesforce: the result is written into fields of the record it is about, up to 200 records a call.

    Events that have no result are passed over: there is nothing to write.
    """

    kind: Literal["salesforce"]
    """Selects this door; it needs the extra `salesforce`."""
    login: SalesforceLogin
    """How the door logs in."""
    object: FieldName = "Opportunity"
    """API name of the object."""
    record_id: Annotated[
        str, Form(r"^(key|subject|json:(/([^~/]|~[01])*)+)$", "key, subject, or a JSON pointer such as json:/output/id")
    ] = "key"
    """Where the record's id is: the event's partition key, its subject, or a JSON pointer into the result. A result is
    what a model wrote: with a pointer below /output, the model chooses the record."""
    fields: FieldSources
    """Field -> what is written into it."""
    result_field: FieldName
    """A text field of at least 120 characters, for this door alone: it says which result the record shows. By it each
    result is written once, however often it is delivered, and an older one never replaces a newer one."""
    api_version: Annotated[str, Form(r"^\d{2,3}\.0$", 'a version in quotes, such as "62.0"')] = "62.0"
    """Version of the REST API."""
    max_records: int = Field(default=200, ge=1, le=200)
    """Records of one call."""
    linger_s: float = Field(default=1.0, ge=0, le=60)
    """How long a call that is not full waits for company; each batch costs two calls of the org's daily limit."""
    max_in_flight: int = Field(default=1, ge=1, le=10)
    """Batches at a time. Salesforce locks an Opportunity's Account with it: parallel batches collide there."""
    ca_file: ExistingFile | None = None
    """PEM file of the certificate authority, for a TLS proxy or the stub; the usual ones when absent."""


DoorSettings = Annotated[
    SnsDoor | SqsDoor | EventBridgeDoor | S3Door | ApiGatewayDoor | CallbackDoor | CallerCallbackDoor | SalesforceDoor,
    Field(discriminator="kind"),
]
DOOR_KINDS = frozenset({"sns", "sqs", "eventbridge", "s3", "apigateway", "callback", "caller-callback", "salesforce"})


# With the last commit behind it, below the longest poll interval that the client knows, a day: until then the group
# waits for a process that gives partitions up.
MAX_DRAIN_S = 86_000.0


class EgressProcess(Section):
    """The process that runs the doors out."""

    health_host: ListenHost = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; 0.0.0.0 in a container."""
    health_port: Port = 8082
    """Port of the same; 0 = any free one, printed at start."""
    instance_id: GroupName | None = None
    """Static membership: stable and unique per process (a pod name); a restart is then no rebalance."""
    session_timeout_s: float = Field(default=15.0, ge=1, le=300)
    """A process silent for this long loses its partitions. Below 6 it needs brokers with a smaller
    `group.min.session.timeout.ms`."""
    drain_timeout_s: Seconds = 30.0
    """How long deliveries in flight may finish on SIGTERM or when partitions are given up; at most 86,000 together with
    the longest `timeout_s` of the doors. So long the group waits for a process that hangs, at least 300 s."""
