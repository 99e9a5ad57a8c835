"""Speaks Bedrock's batch API: CreateModelInvocationJob, Get, Stop and List, over objects of any S3 endpoint.

Source: botocore service model bedrock 2023-04-20, and the user guide's pages on batch inference (checked 2026-11).
"""

import asyncio
import json
import re
import secrets
import string
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from streams.fmstub.faults import CallFailedError
from streams.fmstub.jobs_run import JobFailedError, JobObjects, Tally, work
from streams.fmstub.wire import BACKEND, read_object

_ARN = "arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/"
_ROLE = re.compile(r"arn:aws(-[^:]+)?:iam::([0-9]{12})?:role/.+")
_NAME = re.compile(r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9+\-.]){0,63}")
_OVER = frozenset({"Completed", "PartiallyCompleted", "Failed", "Stopped", "Expired"})
_HOURS = range(24, 169)
_ID_CHARS = string.ascii_lowercase + string.digits


@dataclass
class Job:
    """One job, as GetModelInvocationJob shows it."""

    arn: str
    asked: dict[str, Any]
    submitted_at: datetime
    status: str = "Submitted"
    message: str = ""
    ended_at: datetime | None = None
    tally: Tally = field(default_factory=Tally)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The last part of the ARN."""
        return self.arn.rpartition("/")[2]

    def shown(self) -> dict[str, Any]:
        """Return the job as the service shows it."""
        hours = self.asked.get("timeoutDurationInHours", 24)
        shown = {
            "jobArn": self.arn,
            "status": self.status,
            "submitTime": _time(self.submitted_at),
            "lastModifiedTime": _time(self.ended_at or self.submitted_at),
            "jobExpirationTime": _time(self.submitted_at + timedelta(hours=hours)),
            "totalRecordCount": self.tally.total,
            "processedRecordCount": self.tally.succeeded + self.tally.failed,
            "successRecordCount": self.tally.succeeded,
            "errorRecordCount": self.tally.failed,
            **{name: value for name, value in self.asked.items() if name != "tags"},
        }
        shown |= {"message": self.message} if self.message else {}
        return shown | ({"endTime": _time(self.ended_at)} if self.ended_at else {})


class Jobs:
    """All jobs of one server.

    Args:
        objects: where inputs lie and outputs go; None = no S3 endpoint was given.
    """

    def __init__(self, objects: JobObjects | None = None) -> None:
        self.objects = objects
        self.by_id: dict[str, Job] = {}
        self._by_token: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def create(self, asked: dict[str, Any], app: web.Application) -> Job:
        """Begin a job; the same clientRequestToken gives the same job.

        Raises:
            CallFailedError: the service would refuse it.
        """
        if self.objects is None:
            raise CallFailedError(message="This server was started without --s3-endpoint.")
        token = str(asked.get("clientRequestToken") or secrets.token_hex(16))
        known = self._by_token.get(token)
        if known is not None:
            if known.asked | {"clientRequestToken": token} != asked | {"clientRequestToken": token}:
                raise CallFailedError(message="The clientRequestToken was used with other parameters.")
            return known
        _check(asked)
        name = "".join(secrets.choice(_ID_CHARS) for _ in range(12))
        job = Job(_ARN + name, asked | {"clientRequestToken": token}, datetime.now(UTC))
        self.by_id[job.id] = self._by_token[token] = job
        app[BACKEND].stats.by_operation["batch-job"] += 1
        task = asyncio.create_task(self._run(job, app, self.objects))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    def find(self, identifier: str) -> Job:
        """Return a job by id or ARN.

        Raises:
            CallFailedError: there is none.
        """
        job = self.by_id.get(identifier.rpartition("/")[2])
        if job is None:
            raise CallFailedError(kind="not_found", message="The job does not exist.")
        return job

    async def aclose(self, _app: web.Application) -> None:
        """Cut what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, job: Job, app: web.Application, objects: JobObjects) -> None:
        """Take a job through its states."""
        knobs = app[BACKEND].knobs
        try:
            for status in ("Validating", "Scheduled", "InProgress"):
                await asyncio.sleep(knobs.batch_state_s)
                job.status = job.status if job.stop.is_set() else status
            ended = await work(app[BACKEND], objects, job.id, job.asked, job.tally, job.stop)
        except JobFailedError as error:
            job.message, ended = str(error), "Failed"
        job.status, job.ended_at = ended, datetime.now(UTC)


JOBS: web.AppKey[Jobs] = web.AppKey("jobs", Jobs)


def _check(asked: dict[str, Any]) -> None:
    given = {name: asked.get(name) for name in ("jobName", "roleArn", "modelId", "inputDataConfig", "outputDataConfig")}
    missing = [name for name, value in given.items() if not value]
    if missing:
        raise CallFailedError(message=f"Missing required fields: {', '.join(missing)}.")
    if not _ROLE.fullmatch(str(asked["roleArn"])):
        raise CallFailedError(message="roleArn does not match the pattern of a role.")
    if not _NAME.fullmatch(str(asked["jobName"])):
        raise CallFailedError(message="jobName does not match its pattern.")
    if asked.get("timeoutDurationInHours", _HOURS[0]) not in _HOURS:
        raise CallFailedError(message="timeoutDurationInHours must be between 24 and 168.")
    if asked.get("modelInvocationType", "InvokeModel") not in {"InvokeModel", "Converse"}:
        raise CallFailedError(message="modelInvocationType must be InvokeModel or Converse.")


async def create_job(request: web.Request) -> web.Response:
    """Serve CreateModelInvocationJob."""
    try:
        job = request.app[JOBS].create(await read_object(request), request.app)
    except CallFailedError as error:
        return refusal(error)
    return web.json_response({"jobArn": job.arn})


async def get_job(request: web.Request) -> web.Response:
    """Serve GetModelInvocationJob."""
    try:
        return web.json_response(request.app[JOBS].find(request.match_info["job"]).shown())
    except CallFailedError as error:
        return refusal(error)


async def stop_job(request: web.Request) -> web.Response:
    """Serve StopModelInvocationJob: what is in hand is finished, the rest is left."""
    try:
        job = request.app[JOBS].find(request.match_info["job"])
    except CallFailedError as error:
        return refusal(error)
    if job.status in _OVER:
        return refusal(CallFailedError(message=f"The job is {job.status} already."))
    job.status = "Stopping"
    job.stop.set()
    return web.json_response({})


async def list_jobs(request: web.Request) -> web.Response:
    """Serve ListModelInvocationJobs, all on one page, the newest first."""
    jobs = sorted(request.app[JOBS].by_id.values(), key=lambda job: job.submitted_at, reverse=True)
    wanted = request.query.get("statusEquals")
    shown = [job.shown() for job in jobs if wanted in {None, job.status}]
    return web.json_response({"invocationJobSummaries": shown})


def refusal(error: CallFailedError) -> web.Response:
    """Return an error as the control plane tells it."""
    headers = {"x-amzn-ErrorType": error.fault.bedrock_type}
    text = json.dumps({"message": error.message})
    return web.Response(text=text, status=error.fault.bedrock_status, headers=headers, content_type="application/json")


def _time(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")
