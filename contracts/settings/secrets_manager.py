"""Secrets in AWS Secrets Manager, `aws-sm:...`: how they are fetched, and how rotation is followed."""

from pydantic import Field

from contracts.settings.section import HttpUrl, Seconds, Section


class SecretsManagerSettings(Section):
    """AWS Secrets Manager; credentials are the usual ones of AWS."""

    region: str | None = Field(default=None, min_length=1)
    """AWS region; from the AWS configuration when absent."""
    endpoint_url: HttpUrl | None = None
    """Another endpoint: a VPC endpoint, or moto's server."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Limit of connecting, and again of each answer; a call is tried three times."""
    refresh_interval_s: float = Field(default=300.0, ge=1, le=86400)
    """How often each secret is fetched again; so long a rotation may stay unnoticed."""
    previous_overlap_s: Seconds = 86400.0
    """How long the version before (AWSPREVIOUS) still counts, from the making of the current one (AWSCURRENT)."""
