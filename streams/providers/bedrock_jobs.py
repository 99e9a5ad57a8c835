"""Bedrock's batch API: records to S3, one job over them, and its answers back, in no order.

Blocking: boto3. Source: botocore service model bedrock 2023-04-20 (checked 2026-11).
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from contracts.codec import encodable
from contracts.errors import AccessDenied, InvalidRequest, ModelNotFound, PenstockError, ProviderUnavailable, Terminal
from contracts.payloads import InferenceAnswer, InferenceRequest, Usage
from contracts.settings.batch_api import BatchApi
from contracts.settings.models import BedrockProvider
from streams.providers.bedrock import converse_arguments, usage_of
from streams.providers.bedrock_errors import finish, translate, with_credentials

# What has some answers at least, and what else is over.
ANSWERED = frozenset({"Completed", "PartiallyCompleted"})
OVER = ANSWERED | {"Failed", "Stopped", "Expired"}
_RETRIES = {"total_max_attempts": 5, "mode": "standard"}
_NOT_THERE = frozenset({"404", "NoSuchKey", "NoSuchBucket"})
_NO_KEY = "NoSuchKey"
_BLOCK_BYTES = 2**20
# The job exists: its name is taken, and its token was forgotten, or is being worked on.
_CONFLICT = "ConflictException"
_TOO_MANY = 429
_SERVER_ERROR = 500


class InputGone(ProviderUnavailable):
    """Raise when the records of a job are not on S3 any more: their bucket is there, and they are not in it."""


class JobUnknown(ModelNotFound):
    """Raise when the service does not know a job any more: it was deleted, or belongs to another account or region."""

    reason = "job_unknown"


# What the service says of a job that it may never show us again.
NOT_SHOWN = (JobUnknown, AccessDenied)


class Ended(NamedTuple):
    """One line of a job's output: an answer, or why there is none."""

    answer: InferenceAnswer | None
    error: PenstockError | None = None
    usage: Usage = Usage()


class BedrockJobs:
    """The batch API of one provider section.

    Args:
        provider: its section.
        batch: what it says about batches.
    """

    def __init__(self, provider: BedrockProvider, batch: BatchApi) -> None:
        self._provider = provider
        self._batch = batch
        self._clients: dict[str, Any] = {}

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def line(self, record_id: str, request: InferenceRequest) -> bytes:
        """Return the record of a request, as a line."""
        body = converse_arguments(request)
        # The model is the job's; metadata is of the invocation log, which batches do not write.
        del body["modelId"], body["requestMetadata"]
        if request.output_schema is not None and self._provider.structured_output:
            structure = {"jsonSchema": {"schema": json.dumps(request.output_schema, sort_keys=True), "name": "answer"}}
            body["outputConfig"] = {"textFormat": {"type": "json_schema", "structure": structure}}
        return json.dumps({"recordId": record_id, "modelInput": body}, ensure_ascii=False).encode() + b"\n"

    def put(self, uri: str, path: Path) -> None:
        """Put the records of a job, whole or not at all.

        Raises:
            AccessDenied, ProviderUnavailable: S3 does not take them.
        """
        bucket, key = _split(uri)
        with _translated(uri):
            self._client("s3").upload_file(str(path), bucket, key, ExtraArgs={"ContentType": "application/jsonl"})

    def has(self, uri: str) -> bool:
        """Tell whether an object is there.

        Raises:
            AccessDenied, ProviderUnavailable: S3 does not say.
        """
        bucket, key = _split(uri)
        with _translated(uri):
            try:
                self._client("s3").head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if str(error.response.get("Error", {}).get("Code")) in _NOT_THERE:
                    return False
                raise
        return True

    def record_ids(self, uri: str) -> Iterator[str]:
        """Yield the ids of the records that a job was given.

        Raises:
            InputGone: they are not there any more.
            AccessDenied, ProviderUnavailable: S3 does not give them.
        """
        for line in self._lines(uri):
            yield str(json.loads(line)["recordId"])

    @with_credentials()
    def create(self, model: str, token: str, input_uri: str, output_uri: str, *, may_exist: bool = False) -> str:
        """Return the ARN of the job of a token, beginning it when there is none yet.

        Args:
            model: id of the model.
            token: of the job.
            input_uri: where its records are.
            output_uri: where its answers go.
            may_exist: an earlier process may have begun it, with other settings: then the service refuses the token.

        Raises:
            InvalidRequest, ModelNotFound, AccessDenied, QuotaExhausted, Throttled, ProviderUnavailable: as it is.
        """
        source, name = {"s3InputFormat": "JSONL", "s3Uri": input_uri}, f"penstock-{token}"[:63]
        try:
            answer = self._client("bedrock").create_model_invocation_job(
                jobName=name,
                clientRequestToken=token,
                roleArn=self._batch.role_arn,
                modelId=model,
                modelInvocationType="Converse",
                inputDataConfig={"s3InputDataConfig": source},
                outputDataConfig={"s3OutputDataConfig": {"s3Uri": output_uri}},
                timeoutDurationInHours=self._batch.timeout_hours,
            )
        except (BotoCoreError, ClientError) as error:
            refusal = translate(error, model)
            if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == _CONFLICT:
                if arn := self._of_name(name):
                    return arn
                message = f"Bedrock says that job {name} is in conflict with another one, and shows none of this name"
                raise ProviderUnavailable(message) from error
            if may_exist and isinstance(refusal, Terminal | ModelNotFound) and (arn := self._of_name(name)):
                return arn
            raise refusal from error
        return str(answer["jobArn"])

    @with_credentials()
    def _of_name(self, name: str) -> str:
        """Return the ARN of the job that has a name of ours, which nobody else gives; empty when there is none.

        A token is kept for a while only. Taken for a refusal, the job would be paid for beside the workers' answers.

        Raises:
            AccessDenied, ProviderUnavailable: it cannot be looked for, or is not shown.
        """
        try:
            pages = self._client("bedrock").get_paginator("list_model_invocation_jobs").paginate(nameContains=name)
            jobs = (job for page in pages for job in page["invocationJobSummaries"])
            found = [str(job["jobArn"]) for job in jobs if job["jobName"] == name]
        except (BotoCoreError, ClientError) as error:
            why = translate(error, name)
            message = f"job {name} may be there, and cannot be looked for (bedrock:ListModelInvocationJobs): {why}"
            # Its own error where a right is missing: no waiting mends that.
            raise (AccessDenied if isinstance(why, AccessDenied) else ProviderUnavailable)(message) from error
        return found[0] if found else ""

    @with_credentials()
    def status(self, arn: str) -> tuple[str, str]:
        """Return a job's state and message.

        Raises:
            JobUnknown, AccessDenied, Throttled, ProviderUnavailable: as it is.
        """
        try:
            job = self._client("bedrock").get_model_invocation_job(jobIdentifier=arn)
        except (BotoCoreError, ClientError) as error:
            why = translate(error, arn)
            # A ValidationException is for an ARN of another region or partition.
            raise (JobUnknown(str(why)) if isinstance(why, ModelNotFound | InvalidRequest) else why) from error
        return str(job["status"]), str(job.get("message", ""))

    def outputs(self, arn: str, input_uri: str, output_uri: str) -> Iterator[tuple[str, bytes]]:
        """Yield record id and line of what a job says about its records; nothing when it has written nothing.

        Raises:
            AccessDenied, ProviderUnavailable: S3 does not give it.
        """
        name = arn.rpartition("/")[2]
        uri = f"{output_uri.rstrip('/')}/{name}/{input_uri.rpartition('/')[2]}.out"
        if self.has(uri):
            for line in self._lines(uri):
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                    yield encodable(str(json.loads(line)["recordId"])), line

    def _lines(self, uri: str) -> Iterator[bytes]:
        bucket, key = _split(uri)
        with (
            _translated(uri),
            contextlib.closing(self._client("s3").get_object(Bucket=bucket, Key=key)["Body"]) as body,
        ):
            for line in body.iter_lines(_BLOCK_BYTES):
                if line.strip():
                    yield line

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            is_s3 = service == "s3"
            endpoint = self._batch.s3_endpoint_url if is_s3 else self._batch.endpoint_url
            style: Any = {"addressing_style": "path"} if is_s3 and endpoint else {}
            self._clients[service] = boto3.session.Session().client(
                service,  # type: ignore[call-overload]
                region_name=self._provider.region,
                endpoint_url=endpoint,
                config=Config(retries=_RETRIES, s3=style) if is_s3 else Config(retries=_RETRIES),  # type: ignore[arg-type]
            )
        return self._clients[service]


def read_output(line: bytes, model: str, arn: str) -> Ended:
    """Return what a line of a job's output says."""
    job = arn.rpartition("/")[2]
    try:
        return _ended(json.loads(line), model, job)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        # One line of another shape must not hold up the answers of all others.
        message = f"job {job}: its output is not what was expected: {error!r}"
        return Ended(None, ProviderUnavailable(message, possibly_billed=True))


def _ended(document: Any, model: str, job: str) -> Ended:
    output = document.get("modelOutput")
    if not isinstance(output, dict) or "stopReason" not in output:
        return Ended(None, _refusal(document.get("error"), job))
    usage = usage_of(output.get("usage"))
    try:
        reason = finish(output["stopReason"], model)
    except PenstockError as error:
        return Ended(None, error, usage)
    blocks = output.get("output", {}).get("message", {}).get("content", [])
    text = encodable("".join(block["text"] for block in blocks if "text" in block))
    return Ended(InferenceAnswer(text=text, model=model, finish_reason=reason, usage=usage, response_id=job))


def _refusal(error: Any, job: str) -> PenstockError:
    details = error if isinstance(error, dict) else {}
    code, text = details.get("errorCode"), str(details.get("errorMessage", "no answer"))[:500]
    message = f"job {job}: {code}: {text}"
    is_ours = isinstance(code, int) and code < _SERVER_ERROR and code != _TOO_MANY
    return InvalidRequest(message) if is_ours else ProviderUnavailable(message)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@contextlib.contextmanager
def _translated(uri: str) -> Iterator[None]:
    try:
        with with_credentials():
            yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = f"{uri}: {error}"
        if code == _NO_KEY:
            raise InputGone(message) from error
        raise (AccessDenied if code in {"403", "AccessDenied"} else ProviderUnavailable)(message) from error
    except (BotoCoreError, Boto3Error) as error:
        message = f"{uri}: {error}"
        raise ProviderUnavailable(message) from error
