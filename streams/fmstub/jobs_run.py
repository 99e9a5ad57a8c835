"""Works on one batch job of the stub: JSON lines from S3, each answered or refused, and back to S3 in no order.

Blocking: S3 in threads; memory holds the job's output, which is fine for a stand-in.
"""

import asyncio
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from streams.fmstub.bedrock_bodies import converse_ask, invoke_ask
from streams.fmstub.call import Backend
from streams.fmstub.faults import CallFailedError

_AT_A_TIME = 32


class JobFailedError(Exception):
    """The job as a whole cannot be done; the text is its message."""


@dataclass
class Tally:
    """What a job has done so far."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class JobObjects:
    """Objects on an S3 endpoint; any credentials will do.

    Args:
        endpoint_url: moto's server, MinIO, or AWS.
    """

    def __init__(self, endpoint_url: str) -> None:
        self._endpoint_url = endpoint_url

    def _client(self) -> Any:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name="eu-central-1",
            aws_access_key_id="stub",
            aws_secret_access_key="stub",  # noqa: S106 - no secret
            config=Config(s3={"addressing_style": "path"}),
        )

    async def read(self, uri: str) -> bytes:
        """Return an object.

        Raises:
            JobFailedError: it cannot be read.
        """
        bucket, key = _split(uri)
        found = await self._try(uri, lambda client: client.get_object(Bucket=bucket, Key=key)["Body"].read())
        return bytes(found)

    async def write(self, uri: str, body: bytes) -> None:
        """Put an object.

        Raises:
            JobFailedError: it cannot be written.
        """
        bucket, key = _split(uri)
        await self._try(uri, lambda client: client.put_object(Bucket=bucket, Key=key, Body=body))

    async def _try(self, uri: str, act: Callable[[Any], Any]) -> Any:
        def run() -> Any:
            client = self._client()
            try:
                return act(client)
            finally:
                client.close()

        try:
            return await asyncio.to_thread(run)
        except (BotoCoreError, ClientError) as error:
            message = f"{uri} cannot be used: {error}"
            raise JobFailedError(message) from error


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


async def work(
    backend: Backend, objects: JobObjects, job_id: str, asked: dict[str, Any], tally: Tally, stop: asyncio.Event
) -> str:
    """Answer every record, write the outputs, and return the state in which the job ends.

    Raises:
        JobFailedError: the input is not what the service takes.
    """
    source = asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
    records = _records(await objects.read(source))
    tally.total = len(records)
    if len(records) < backend.knobs.batch_min_records:
        message = f"The input has {len(records)} records, fewer than the minimum of {backend.knobs.batch_min_records}."
        raise JobFailedError(message)
    # The service leaves out what it did not come to when its time is over.
    limit = None if backend.knobs.batch_share is None else int(len(records) * backend.knobs.batch_share)
    lines: list[dict[str, Any]] = []
    turn = asyncio.Semaphore(_AT_A_TIME)

    async def answer(record: dict[str, Any]) -> None:
        async with turn:
            if not stop.is_set():
                lines.append(await _line(backend, asked, record, tally))

    async with asyncio.TaskGroup() as group:
        for record in records[:limit]:
            group.create_task(answer(record))
    random.Random(job_id).shuffle(lines)  # noqa: S311 - so that nobody relies on an order
    base = f"{asked['outputDataConfig']['s3OutputDataConfig']['s3Uri'].rstrip('/')}/{job_id}"
    output = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    await objects.write(f"{base}/{source.rpartition('/')[2]}.out", output.encode("utf-8", "replace"))
    manifest = {
        "totalRecordCount": tally.total,
        "processedRecordCount": tally.succeeded + tally.failed,
        "successRecordCount": tally.succeeded,
        "errorRecordCount": tally.failed,
        "inputTokenCount": tally.input_tokens,
        "outputTokenCount": tally.output_tokens,
    }
    await objects.write(f"{base}/manifest.json.out", json.dumps(manifest).encode())
    if stop.is_set():
        return "Stopped"
    if backend.knobs.batch_end is not None:
        return backend.knobs.batch_end
    return "Completed" if limit is None else "PartiallyCompleted"


def _records(raw: bytes) -> list[dict[str, Any]]:
    try:
        records = [json.loads(line) for line in raw.splitlines() if line.strip()]
    except ValueError as error:
        message = f"The input is not JSON lines: {error}"
        raise JobFailedError(message) from error
    if not all(isinstance(record, dict) and isinstance(record.get("modelInput"), dict) for record in records):
        message = "Each record must be an object with a modelInput."
        raise JobFailedError(message)
    return records


async def _line(backend: Backend, asked: dict[str, Any], record: dict[str, Any], tally: Tally) -> dict[str, Any]:
    read = converse_ask if asked.get("modelInvocationType") == "Converse" else invoke_ask
    head = {"recordId": record.get("recordId", ""), "modelInput": record["modelInput"]}
    try:
        ask = read(asked["modelId"], record["modelInput"], "batch")
        async with backend.serve(ask, None, is_stream=False) as reply:
            usage = {"inputTokens": reply.input_tokens, "outputTokens": reply.output_tokens}
            usage["totalTokens"] = reply.input_tokens + reply.output_tokens
            output = {
                "output": {"message": {"role": "assistant", "content": [{"text": reply.text}]}},
                "stopReason": reply.ending,
                "usage": usage,
            }
    except CallFailedError as error:
        tally.failed += 1
        return head | {"error": {"errorCode": error.fault.bedrock_status, "errorMessage": error.message}}
    tally.succeeded += 1
    tally.input_tokens += usage["inputTokens"]
    tally.output_tokens += usage["outputTokens"]
    return head | {"modelOutput": output}
