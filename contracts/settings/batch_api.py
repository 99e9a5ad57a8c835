"""A provider's batch API: which records may go there, how they are gathered, and how long anybody waits.

Source: Amazon Bedrock user guide, batch inference and its quotas (checked 2026-11). The quotas differ between models
and accounts, and have changed: Service Quotas has yours.
"""

from typing import Annotated

from pydantic import Field

from contracts.settings.batch_jobs import S3Prefix
from contracts.settings.section import Form, HttpUrl, ListenHost, Port, Seconds, Section


class BatchApi(Section):
    """Bedrock's batch inference, Converse records, at about half the price."""

    role_arn: Annotated[
        str,
        Form(
            r"^arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+$", "a role's ARN, such as arn:aws:iam::123456789012:role/NAME"
        ),
    ]
    """Role that Bedrock takes on to read the inputs and write the outputs."""
    input: S3Prefix
    """Where the records of a job are put."""
    output: S3Prefix
    """Where Bedrock writes its answers."""
    endpoint_url: HttpUrl | None = None
    """Another endpoint of Bedrock's control plane: a VPC endpoint, or `penstock fm-stub`."""
    s3_endpoint_url: HttpUrl | None = None
    """Another S3 endpoint: a VPC endpoint, MinIO, moto."""
    min_records: int = Field(default=100, ge=1)
    """Fewest records of a job (quota; older accounts: 1,000); fewer go to the workers instead."""
    max_records: int = Field(default=50_000, ge=1)
    """Most records of a job (quota)."""
    max_bytes: int = Field(default=900 * 2**20, ge=1024)
    """Most bytes of a job's records; the quota of 1 GB a file, with some room."""
    max_open_jobs: int = Field(default=8, ge=1, le=1000)
    """Hand-overs under way at a time; with as many, nothing more is gathered."""
    max_wait_s: Seconds = 900.0
    """How long the first record waits for others; then a job begins, or, with too few of them, the workers answer."""
    timeout_hours: int = Field(default=24, ge=24, le=168)
    """When Bedrock gives a job up."""
    min_time_left_s: Seconds = 25 * 3600.0
    """Records with less time until their deadline go to the workers at once; a job may take its whole timeout."""
    poll_s: Seconds = 30.0
    """First pause between two looks at a job; it doubles up to ten times this."""
    spill_behind: int | None = Field(default=None, ge=1)
    """Spill: an event of the bulk lane goes to the batch API by itself when so many lie behind it in its partition,
    when it is free of order and its deadline is far enough; never when absent."""
    price_share: float = Field(default=0.5, gt=0, le=1)
    """What a token costs there, as a share of the model's price."""


class HandOverProcess(Section):
    """The process that `penstock hand-over` is."""

    health_host: ListenHost = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; 0.0.0.0 in a container."""
    health_port: Port = 8085
    """Port of the same; 0 = any free one, printed at start."""
