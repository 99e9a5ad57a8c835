"""Inputs and results as files or S3 objects: a copy of the one to work on, and the others put in place when whole.

Blocking: downloads and uploads, with boto3's own retries.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contracts.batch_jobs import BatchObject
from contracts.errors import AccessDenied, ConfigError, InvalidPayload, Retryable, TooLarge
from contracts.settings import BatchJobSettings
from contracts.settings.batch_jobs import OUTPUTS

_BLOCK_BYTES = 2**20
# A missing or changed object does not come back by waiting.
_GONE = frozenset(
    {"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "412", "PreconditionFailed", "InvalidObjectState"}
)
_DENIED = frozenset({"401", "403", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})


class Objects:
    """Fetches inputs and puts results.

    Args:
        settings: the batch_jobs section.
    """

    def __init__(self, settings: BatchJobSettings) -> None:
        self._settings = settings
        self._client: Any = None

    def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            self._client.close()

    def find(self, uri: str) -> BatchObject:
        """Return an object as it is now.

        Raises:
            InvalidPayload: there is none.
            AccessDenied: the credentials do not reach it.
            Retryable: S3 does not answer.
        """
        bucket, key = split(uri)
        with _translated(uri):
            found = self._s3().head_object(Bucket=bucket, Key=key)
        return BatchObject(
            uri=uri,
            etag=str(found.get("ETag", "")).strip('"'),
            version_id="" if found.get("VersionId") == "null" else str(found.get("VersionId", "")),
            size_bytes=int(found["ContentLength"]),
        )

    def fetch(self, found: BatchObject, path: Path, is_stopped: Callable[[], bool] = lambda: False) -> None:
        """Copy exactly the object that was named, or nothing, to a path.

        Raises:
            InvalidPayload: it is gone, or another one stands in its place.
            TooLarge: it is above `batch_jobs.max_input_bytes`.
            AccessDenied: the credentials do not reach it.
            Retryable: S3 does not answer, or was stopped.
        """
        bucket, key = split(found.uri)
        exact = {"VersionId": found.version_id} if found.version_id else {}
        exact |= {"IfMatch": f'"{found.etag}"'} if found.etag else {}
        limit = self._settings.max_input_bytes
        with _translated(found.uri), path.open("wb") as file:
            answer = self._s3().get_object(Bucket=bucket, Key=key, **exact)
            if answer["ContentLength"] > limit:
                message = f"{found.uri} has {answer['ContentLength']} bytes, batch_jobs.max_input_bytes is {limit}"
                raise TooLarge(message)
            with contextlib.closing(answer["Body"]) as body:
                for block in body.iter_chunks(_BLOCK_BYTES):
                    file.write(block)
                    if is_stopped():
                        message = "stopped"
                        raise Retryable(message)

    def put(self, folder: Path, uris: dict[str, str]) -> None:
        """Put the files of a folder where their URIs say, the manifest last; each appears whole or not at all.

        Raises:
            InvalidPayload: the bucket does not exist.
            AccessDenied: the credentials do not reach it.
            Retryable: S3 does not answer.
        """
        for kind in ("output", "errors", "manifest"):
            file, uri = folder / OUTPUTS[kind], uris[kind]
            if is_s3(uri):
                bucket, key = split(uri)
                content = "application/json" if kind == "manifest" else "application/jsonl"
                with _translated(uri):
                    self._s3().upload_file(str(file), bucket, key, ExtraArgs={"ContentType": content})
            else:
                # Renamed into place: a reader sees the whole of it or nothing.
                target = Path(uri)
                partial = target.with_name(f".{target.name}.part")
                shutil.move(file, partial)
                partial.replace(target)

    def _s3(self) -> Any:
        if self._client is None:
            settings = self._settings
            # Path style: buckets with dots, and endpoints without a wildcard certificate.
            style: Any = {"addressing_style": "path"} if settings.s3_endpoint_url else {}
            config = Config(retries={"total_max_attempts": 5, "mode": "standard"}, s3=style)
            try:
                self._client = boto3.session.Session().client(
                    "s3", region_name=settings.s3_region, endpoint_url=settings.s3_endpoint_url, config=config
                )
            except (BotoCoreError, ValueError) as error:
                message = f"batch_jobs: {error}"
                raise ConfigError(message) from error
        return self._client


def is_s3(uri: str) -> bool:
    """Tell whether a URI is of S3 and not a path."""
    return uri.startswith("s3://")


def split(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def below(prefix: str, *parts: str) -> dict[str, str]:
    """Return the URIs of a job's files below an S3 prefix."""
    base = "/".join((prefix.rstrip("/"), *parts))
    return {kind: f"{base}/{name}" for kind, name in OUTPUTS.items()}


def beside(path: Path) -> dict[str, str]:
    """Return the paths of a job's files for an output path: `out.jsonl`, `out.errors.jsonl`, `out.manifest.json`."""
    stem = path.with_suffix("") if path.suffix else path
    names = {"output": path, "errors": f"{stem}.errors.jsonl", "manifest": f"{stem}.manifest.json"}
    return {kind: str(name) for kind, name in names.items()}


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Turn boto3's errors into ours."""
    host = urlsplit(uri).netloc
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = f"{uri}: {code}: {error.response.get('Error', {}).get('Message', '')}"
        if code in _GONE:
            raise InvalidPayload(message) from error
        if code in _DENIED:
            raise AccessDenied(message) from error
        raise Retryable(message) from error
    except (BotoCoreError, Boto3Error) as error:
        message = f"s3://{host}: {error}"
        raise Retryable(message) from error
