"""Kafka: one section feeds both client libraries."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from contracts.settings.secrets import SecretRef
from contracts.settings.section import ExistingFile, Form, HttpUrl, Seconds, Section

_MAX_PORT = 65535


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


_SERVER = "host:port, such as localhost:9092"


def _checked(server: str) -> str:
    if int(server.rpartition(":")[2]) > _MAX_PORT:
        message = f"must be {_SERVER}, the port 65535 at most"
        raise ValueError(message)
    return server


_Server = Annotated[str, Form(r"^[^\s/]+:[1-9]\d{0,4}$", _SERVER), AfterValidator(_checked)]
Servers = Annotated[
    tuple[_Server, ...],
    BeforeValidator(_split, json_schema_input_type=str | Annotated[tuple[_Server, ...], Field(min_length=1)]),
]


Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"]
# RFC 7628, 3.1. The two clients separate them by commas and by control characters.
_ExtensionName = Annotated[str, Form(r"^[A-Za-z]{1,64}$", "a name of letters alone, as RFC 7628 has it")]
_ExtensionValue = Annotated[str, Form(r"^[ -+\--~]+$", "printable ASCII without a comma")]


class OAuthSettings(Section):
    """A token for the brokers from an authorization server, by the client credentials grant (RFC 6749, 4.4)."""

    token_url: HttpUrl
    """Token endpoint of the authorization server; https anywhere but in a test."""
    client_id: str = Field(min_length=1)
    """Name under which the server knows this installation."""
    client_secret: SecretRef
    """Reference to its secret."""
    scope: str | None = None
    """Scopes to ask for, separated by spaces, such as `https://NAMESPACE.servicebus.windows.net/.default`."""
    extensions: dict[_ExtensionName, _ExtensionValue] = Field(default_factory=dict)
    """SASL extensions for the brokers, such as `logicalCluster` and `identityPoolId` of Confluent Cloud."""
    ca_file: ExistingFile | None = None
    """PEM file of the authority that the token endpoint's certificate is checked with; the system's when absent."""


class KafkaSettings(Section):
    """How to reach the brokers, and how topics are made."""

    bootstrap_servers: Servers = Field(default=("localhost:9092",), min_length=1)
    """Brokers to start from: a list, or a comma-separated string, of host:port."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As in Kafka's own clients."""
    sasl_mechanism: Mechanism | None = None
    """Needed with SASL_PLAINTEXT and SASL_SSL. OAUTHBEARER takes a token of an authorization server (`oauth`),
    AWS_MSK_IAM signs one with the credentials of AWS's default chain (`aws_region`)."""
    sasl_username: str | None = None
    """User name for PLAIN and SCRAM."""
    sasl_password: SecretRef | None = None
    """Reference to the password for PLAIN and SCRAM."""
    oauth: OAuthSettings | None = None
    """Where the token of OAUTHBEARER comes from."""
    aws_region: Annotated[str, Form(r"^[a-z]{2,}(-[a-z]+)+-\d$", "an AWS region, such as eu-central-1")] | None = None
    """Region of the Amazon MSK cluster, for AWS_MSK_IAM."""
    ssl_ca_file: ExistingFile | None = None
    """PEM file of the certificate authority; the system's when absent."""
    ssl_certificate_file: ExistingFile | None = None
    """PEM file of the client certificate, for mutual TLS."""
    ssl_key_file: ExistingFile | None = None
    """PEM file of the client key, for mutual TLS."""
    client_rack: str | None = Field(default=None, min_length=1, max_length=249)
    """Where this process runs, as `broker.rack` of the brokers says it: an availability zone, say. A worker and the
    doors' groups then read from a replica there, if the brokers' `replica.selector.class` allows it (KIP-392)."""
    topic_prefix: Annotated[
        str,
        Form(
            r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$",
            "letters, digits, dashes and underscores, at most 64, the first a letter or digit",
        ),
    ] = "penstock"
    """First part of every topic's name, so that several installations can share a cluster."""
    partitions: int = Field(default=12, ge=1, le=10_000)
    """Partitions of topics that `penstock topics create` makes; 2 to 4 times the number of workers is sound."""
    replication_factor: int = Field(default=-1, ge=-1, le=15)
    """Replicas of topics that `penstock topics create` makes; -1 = the broker's default."""
    embedded: bool = False
    """True on the embedded broker of `penstock up`: memory only, no topic administration, nothing survives a
    restart."""

    @property
    def is_sasl(self) -> bool:
        """Whether the brokers are told who comes."""
        return self.security_protocol.startswith("SASL_")

    @property
    def has_token(self) -> bool:
        """Whether the brokers are shown a token that runs out, in place of a password."""
        return self.sasl_mechanism in {"OAUTHBEARER", "AWS_MSK_IAM"}

    @property
    def secret_places(self) -> list[tuple[str, ...]]:
        """Where the secrets lie that the brokers are told; with tokens a password may be left over."""
        if not self.is_sasl:
            return []
        return [("kafka", "oauth") if self.has_token else ("kafka", "sasl_password")]

    def misfits(self) -> Iterator[tuple[str, Any, str]]:
        """Yield what of how the brokers are told who comes is missing, or contradicts the rest: key, found, allowed."""
        mechanism = self.sasl_mechanism
        if self.is_sasl and mechanism is None:
            allowed = f"a mechanism, such as SCRAM-SHA-512, since security_protocol is {self.security_protocol}"
            yield "sasl_mechanism", None, allowed
        if mechanism == "AWS_MSK_IAM" and self.security_protocol != "SASL_SSL":
            yield "security_protocol", self.security_protocol, "SASL_SSL, since sasl_mechanism is AWS_MSK_IAM"
        if mechanism == "OAUTHBEARER" and not self.is_sasl:
            allowed = "SASL_SSL or SASL_PLAINTEXT, since sasl_mechanism is OAUTHBEARER"
            yield "security_protocol", self.security_protocol, allowed
        for key, wanted in (("oauth", "OAUTHBEARER"), ("aws_region", "AWS_MSK_IAM")):
            is_there = getattr(self, key) is not None
            if mechanism == wanted and not is_there:
                yield key, None, f"{'a section' if key == 'oauth' else 'a region'}, since sasl_mechanism is {wanted}"
            if is_there and mechanism != wanted:
                yield (
                    key,
                    "a section" if key == "oauth" else self.aws_region,
                    f"nothing, unless sasl_mechanism is {wanted}",
                )
        if self.is_sasl and mechanism is not None and not self.has_token:
            for key in ("sasl_username", "sasl_password"):
                if not getattr(self, key):
                    yield key, None, f"one, since sasl_mechanism is {mechanism}"


class ProducerSettings(Section):
    """The one idempotent producer of a process."""

    max_buffer_bytes: int = Field(default=64 * 2**20, ge=2**16)
    """Bytes of records waiting for their ack; beyond it the process refuses or pauses."""
    max_record_bytes: int = Field(default=1_000_000, ge=1024, le=512 * 2**20)
    """Largest record, key, value and headers together; must fit the topics' max.message.bytes (Kafka's default
    1,048,588)."""
    delivery_timeout_s: Seconds = 900.0
    """How long a worker's record may wait for its ack. Long, because a paid answer is in it (a broker outage
    of minutes is survived)."""
    linger_s: float = Field(default=0.005, ge=0, le=1)
    """How long a record waits for company."""
    compression: Literal["none", "lz4", "zstd", "gzip", "snappy"] = "lz4"
    """Compression of record batches."""
