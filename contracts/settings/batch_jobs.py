"""Batch jobs: which S3 objects become one, where their results go, and how much is done at a time."""

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated, Any

from pydantic import Field

from contracts.settings.secrets import Name
from contracts.settings.section import Form, HttpUrl, ListenHost, Pointer, Port, Seconds, Section

S3Prefix = Annotated[
    str, Form(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/\S*)?$", "a place in S3, such as s3://bucket/folder/")
]
# What a job writes below its output prefix.
OUTPUTS = {"output": "output.jsonl", "errors": "errors.jsonl", "manifest": "manifest.json"}


class BatchInput(Section):
    """S3 objects that become batch jobs; the first section that matches takes the object."""

    name: Name
    """Name in job ids and logs."""
    bucket: str = Field(min_length=3, max_length=63)
    """Bucket of the objects."""
    key: str = Field(default="*", min_length=1)
    """Glob pattern of their keys, case-sensitive; `*` also matches `/`."""
    output: S3Prefix
    """Where the results go: `<output>/<key>/<job>/output.jsonl`, `errors.jsonl` and, last of all, `manifest.json`."""
    source: str = Field(default="batch", min_length=1)
    """CloudEvents source of the events, for the routes."""
    type: str = Field(default="penstock.batch.line", min_length=1)
    """CloudEvents type of the events, for the routes."""
    record_id: Pointer = "/recordId"
    """JSON pointer to a line's own id, which its result repeats; where there is none, the line number."""
    partition_key: Pointer | None = None
    """JSON pointer to what keeps lines in order among each other; no order when absent."""
    expires_after_s: Seconds | None = None
    """Lines without an answer by then end as expired; the route's deadline holds as well."""


class BatchProcess(Section):
    """The process that `penstock batch serve` is."""

    health_host: ListenHost = "127.0.0.1"
    """Address of /healthz, /readyz and /metrics; 0.0.0.0 in a container."""
    health_port: Port = 8084
    """Port of the same; 0 = any free one, printed at start."""


class BatchJobSettings(Section):
    """Batch jobs: JSON lines in, one line of result for each out."""

    inputs: tuple[BatchInput, ...] = ()
    """S3 objects that `penstock batch serve` works on."""
    s3_endpoint_url: HttpUrl | None = None
    """Another S3 endpoint: a VPC endpoint, MinIO, moto."""
    s3_region: str | None = None
    """Region of the S3 client; that of the AWS configuration when absent."""
    max_jobs: int = Field(default=4, ge=1, le=64)
    """Jobs at a time in `penstock batch serve`; each holds a thread and three Kafka connections."""
    max_input_bytes: int = Field(default=5 * 2**30, ge=1)
    """Largest input; it is copied to `work_dir` first."""
    work_dir: Annotated[str, Form(r"^[^\x00]*$", "the path of a folder")] | None = None
    """Folder for copies of inputs and for joins, some two to three times the largest input and its results; that of
    the system when absent."""
    retry_pause_s: Seconds = 5.0
    """How long a job of `penstock batch serve` rests after a failure that may pass, and `penstock hand-over` while the
    disk is full."""

    def misfits(self) -> Iterator[tuple[tuple[str | int, ...], Any, str]]:
        """Yield what does not fit: path below the section, what was found, what is allowed."""
        for index, section in enumerate(self.inputs):
            if any(section.name == earlier.name for earlier in self.inputs[:index]):
                yield ("inputs", index, "name"), section.name, "a name no other input has"
            for other in self.inputs:
                bucket, _, prefix = other.output.removeprefix("s3://").partition("/")
                # A job whose results are a new input would never end.
                if bucket == section.bucket and any(
                    fnmatchcase(f"{prefix.rstrip('/')}/k/j/{name}".lstrip("/"), section.key)
                    for name in OUTPUTS.values()
                ):
                    yield ("inputs", index, "key"), section.key, f"a pattern that does not match below {other.output}"
