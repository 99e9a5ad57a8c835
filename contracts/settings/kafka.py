"""Kafka: one section feeds both client libraries."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from contracts.settings.secrets import SecretRef
from contracts.settings.section import ExistingFile, Form, Seconds, Section

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


class KafkaSettings(Section):
    """How to reach the brokers, and how topics are made."""

    bootstrap_servers: Servers = Field(default=("localhost:9092",), min_length=1)
    """Brokers to start from: a list, or a comma-separated string, of host:port."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """As in Kafka's own clients."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """Needed with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: str | None = None
    """User name for SASL."""
    sasl_password: SecretRef | None = None
    """Reference to the password for SASL."""
    ssl_ca_file: ExistingFile | None = None
    """PEM file of the certificate authority; the system's when absent."""
    ssl_certificate_file: ExistingFile | None = None
    """PEM file of the client certificate, for mutual TLS."""
    ssl_key_file: ExistingFile | None = None
    """PEM file of the client key, for mutual TLS."""
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
