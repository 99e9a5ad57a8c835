"""`penstock batch`: JSON lines in, one line of result for each out, and where a job stands in between.

Reads: batch-jobs, events, result topics. Writes: batch-jobs, events. Blocking: until what was asked for is done.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from jsonpointer import JsonPointer, JsonPointerException

from contracts.batch_jobs import JOB_ID, BatchJob, BatchObject
from contracts.codec import encodable
from contracts.envelope import format_time
from contracts.settings import Settings, load, locating
from contracts.signals import StopSignals
from contracts.topics import Topics
from gateways.batch.jobs import put_given_up, read_jobs
from gateways.batch.lines import fingerprint
from gateways.batch.objects import below, beside, is_s3, split
from gateways.batch.run import JobRun, takes
from gateways.batch.serve import Service
from gateways.batch.submitting import wanted_job
from gateways.batch.workspace import Desk
from gateways.cli import batch_show
from gateways.cli.dlq_filters import Age
from gateways.cli.dlq_progress import Told
from gateways.cli.dlq_units import confirm, operator
from producers.admin import TopicAdmin
from producers.kafka_client import Stopped, unless_stopped

_INTERRUPTED = 130
_ID_CHARS = 20
# What is asked first has half a minute, for a coordinator that still loads. Later questions have 10 s each, so a broker
# that takes longer for the first one would not do.
_REACH_LIMIT_S = 10.0

_config_option = click.option(
    "--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]"
)


def _text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _is_text(value):
        message = f"{value!r}: expected UTF-8 text"
        raise click.BadParameter(message)
    return value


def _is_text(value: str) -> bool:
    """Tell whether a record can carry it: bytes of a command line that are no UTF-8 become halves of characters."""
    return encodable(value) == value


def _pointer(context: click.Context, parameter: click.Parameter, value: str | None) -> str:
    value = _text(context, parameter, value)
    try:
        JsonPointer(value or "")
    except JsonPointerException as error:
        message = f"{value!r}: expected a JSON pointer such as /order/id"
        raise click.BadParameter(message) from error
    return value or ""


@click.group()
def batch() -> None:
    """Batch jobs: JSON lines in, one line of result for each out.

    Each line becomes an event of the bulk lane. A command that was cut off goes on where it was when it is run again.

    \b
    Examples:
      penstock batch submit tickets.jsonl --source support --route ticket-summary --wait
      penstock batch status
      penstock batch results JOB -o out.jsonl
      penstock batch serve
    """  # noqa: D301 - click's \b


@batch.command()
@click.argument("source_uri", metavar="INPUT", callback=_text)
@click.option("--job", "job_id", help="Id of the job. [default: from the input and these options, so that the same "
              "command goes on with the same job]")  # fmt: skip
@click.option("--source", default="batch", show_default=True, callback=_text, help="CloudEvents source of the events.")
@click.option("--type", "kind", default="penstock.batch.line", show_default=True, callback=_text,
              help="CloudEvents type of them.")  # fmt: skip
@click.option("--route", help="Refuse to begin unless this route takes such events.")
@click.option("--record-id", default="/recordId", show_default=True, callback=_pointer,
              help="JSON pointer to a line's own id; where there is none, its number.")  # fmt: skip
@click.option("--key", callback=_pointer, help="JSON pointer to what keeps lines in order. [default: no order]")
@click.option("--expires-after", type=Age(), help="Lines without an answer by then end as expired.")
@click.option("--hand-over", is_flag=True, help="To the provider's batch API: half the price, and hours instead of "
              "minutes; needs `penstock hand-over`.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Stay until every line has an outcome, and write the results.")
@click.option("-o", "--output", help="With --wait: where the results go; as in `results`.")
@_config_option
def submit(
    source_uri: str, job_id: str | None, output: str | None, config: Path | None, *, wait: bool, **how: Any
) -> int:
    """Put every line of a file on the log.

    INPUT is a file or s3://bucket/key; each line becomes an event of the bulk lane.

    Run again after an interruption, it sends what is missing, and nothing twice.

    \b
    Examples:
      penstock batch submit tickets.jsonl --route ticket-summary
      penstock batch submit s3://in/tickets.jsonl --type com.example.ticket --wait -o s3://out/tickets
    """  # noqa: D301 - click's \b
    settings = load(config)
    if output is not None and not wait:
        message = "--output goes with --wait; `penstock batch results` writes it later"
        raise click.UsageError(message)
    _check_route(settings, how["source"], how["kind"], how["route"])
    with Desk(settings.batch_jobs, Path.cwd()) as desk, _stoppable() as is_stopped:
        origin, path = desk.input(source_uri)
        _check_output(output, origin.uri)
        run = JobRun(settings, desk.objects, is_stopped)
        topic = Topics(settings.kafka.topic_prefix).handovers if how["hand_over"] else ""
        wanted = _wanted(job_id, origin, path, how, topic)
        admin = TopicAdmin(settings.kafka)
        unless_stopped(lambda: admin.wait(_REACH_LIMIT_S), is_stopped)
        job = _submit(run, wanted, path)
        if job.state == "submitting":
            return _interrupted(job)
        click.echo(f"job {job.id}: {job.lines} lines, {job.lines - job.rejected} events, {job.rejected} rejected")
        if not wait:
            click.echo(f"penstock batch status {job.id}")
            return 0
        return _finish(desk, run, job, path, output, is_stopped, wait=True)


def _submit(run: JobRun, wanted: BatchJob, path: Path) -> BatchJob:
    _, _, most = fingerprint(path)
    with Told("submitting lines", most) as told:
        return run.submit(wanted, path, told.advance, as_asked=True)


def _wanted(job_id: str | None, origin: BatchObject, path: Path, how: dict[str, Any], event_topic: str) -> BatchJob:
    if job_id is not None and not JOB_ID.fullmatch(job_id):
        message = f"{job_id!r}: letters, digits, dots, dashes and underscores, at most 64"
        raise click.BadParameter(message, param_hint="--job")
    if job_id is None:
        sha256, _, _ = fingerprint(path)
        identity = "\n".join((sha256, how["source"], how["kind"], how["record_id"], how["key"], event_topic))
        job_id = hashlib.sha256(identity.encode()).hexdigest()[:_ID_CHARS]
    limit = how["expires_after"]
    return wanted_job(
        job_id,
        origin,
        source=how["source"],
        kind=how["kind"],
        record_id=how["record_id"],
        partition_key=how["key"],
        expires_at=format_time(datetime.now(UTC) + limit) if limit else "",
        event_topic=event_topic,
    )


def _check_route(settings: Settings, source: str, kind: str, wanted: str | None) -> None:
    """Say which route takes the events, before thousands of them are paid for.

    Raises:
        click.UsageError: none does, or another one than was asked for.
    """
    taken = next((route for route in settings.routes if takes(route, source, kind)), None)
    if taken is None:
        message = f"no route takes events of source {source!r} and type {kind!r}"
        raise click.UsageError(message)
    if wanted is not None and taken.name != wanted:
        message = (
            f"route {taken.name} takes events of source {source!r} and type {kind!r}, not {wanted}; "
            f"{_takes(settings, wanted)}"
        )
        raise click.UsageError(message)
    click.echo(f"route {taken.name}, model {taken.model}, deadline {taken.deadline_s:g} s for each line", err=True)


def _takes(settings: Settings, name: str) -> str:
    """Say what a route takes, or which routes there are."""
    route = next((route for route in settings.routes if route.name == name), None)
    if route is None:
        return f"there is no route {name!r}, but: {', '.join(route.name for route in settings.routes)}"
    match = route.match
    return f"{name} takes --source {' or '.join(match.source)} with --type {' or '.join(match.type)}"


@batch.command()
@click.argument("job_id", metavar="[JOB]", required=False)
@click.option("--json", "in_json", is_flag=True, help="As one JSON object per line.")
@_config_option
def status(job_id: str | None, config: Path | None, *, in_json: bool) -> None:
    """Show how far a job is. Without one, list the jobs that the log knows."""
    settings = load(config)
    jobs = read_jobs(settings.kafka)
    if job_id is None:
        batch_show.listing(jobs, in_json=in_json)
        return
    job = jobs.jobs.get(job_id)
    if job is None:
        batch_show.asked_for(jobs, job_id)
        return
    with Desk(settings.batch_jobs, Path.cwd()) as desk, desk.outcomes(job) as outcomes:
        JobRun(settings, desk.objects).follow(job, outcomes, wait=False)
        batch_show.details(job, outcomes, in_json=in_json)


@batch.command()
@click.argument("job_id", metavar="JOB")
@click.option("-o", "--output", help="File, or s3://bucket/prefix. [default: JOB.out.jsonl, or as the job says]")
@click.option("--input", "input_uri", help="Where the input is now. [default: where it was]")
@click.option("--wait", is_flag=True, help="Wait until every line has an outcome.")
@click.option("--partial", is_flag=True, help="Write what there is; the others are errors of status `missing`.")
@_config_option
def results(
    job_id: str, output: str | None, input_uri: str | None, config: Path | None, *, wait: bool, partial: bool
) -> int:
    """Write the answers, a line for each line.

    In the order of the input, with an error file and a manifest beside them.

    Exit code 0 when every line has an outcome, whichever; those that failed are in the error file, with the reason.

    \b
    Examples:
      penstock batch results JOB -o out.jsonl
      penstock batch results JOB -o s3://bucket/results/nightly --wait
    """  # noqa: D301 - click's \b
    settings = load(config)
    job = read_jobs(settings.kafka).jobs.get(job_id)
    if job is None:
        message = f"there is no job {job_id!r}; `penstock batch status` lists them"
        raise click.ClickException(message)
    if not job.submitted_at:
        what = f"it failed: {job.message}" if job.is_over else "run its `penstock batch submit` again"
        message = f"job {job_id} is not submitted to its end; {what}"
        raise click.ClickException(message)
    with Desk(settings.batch_jobs, Path.cwd()) as desk, _stoppable() as is_stopped:
        origin, path = desk.input(input_uri) if input_uri else desk.copy(job.object)
        if fingerprint(path)[0] != job.sha256:
            message = f"{input_uri or job.object.uri} is not the input of job {job_id} any more (SHA-256 differs)"
            raise click.ClickException(message)
        _check_output(output, origin.uri)
        run = JobRun(settings, desk.objects, is_stopped)
        return _finish(desk, run, job, path, output, is_stopped, wait=wait, partial=partial)


def _finish(
    desk: Desk,
    run: JobRun,
    job: BatchJob,
    path: Path,
    output: str | None,
    is_stopped: Callable[[], bool],
    *,
    wait: bool,
    partial: bool = False,
) -> int:
    """Gather the outcomes and write the files; return the exit code."""
    needed = job.lines - job.rejected
    with desk.outcomes(job) as outcomes:
        with Told("lines with an outcome", needed) as told:
            is_whole = run.follow(job, outcomes, told.advance, wait=wait, partial=partial)
        if is_stopped():
            return _interrupted(job)
        if not is_whole and not partial:
            click.echo(f"{outcomes.count} of {needed} lines have an outcome; --wait waits, --partial writes these")
            return 1
        uris = _uris(output, job)
        folder = Path.cwd() if is_s3(uris["output"]) else Path(uris["output"]).parent
        with desk.folder_in(folder) as parts:
            manifest = run.write(job, path, outcomes, parts, uris)
    batch_show.summary(manifest, uris)
    return 0 if manifest["is_complete"] else 1


def _check_output(output: str | None, source: str) -> None:
    """Refuse a place where results cannot go, before anything is waited or paid for.

    Raises:
        click.BadParameter: it names no bucket and no file that can be made, or would replace the input.
    """
    if output is None:
        return
    message = ""
    if not _is_text(output):
        message = "expected UTF-8 text"
    elif output.startswith("s3:"):
        message = "" if is_s3(output) and split(output)[0] else "expected s3://bucket/prefix"
    elif not Path(output).name or Path(output).is_dir():
        message = "is a folder; name a file in it, such as out.jsonl"
    elif not (folder := Path(output).parent).is_dir():
        message = f"there is no folder {folder}"
    elif not os.access(folder, os.W_OK | os.X_OK):
        message = f"nothing can be written in {folder}"
    elif any(_is_same(one, source) for one in beside(Path(output)).values()):
        message = f"would replace the input, {source}"
    if message:
        message = f"{output!r}: {message}"
        raise click.BadParameter(message, param_hint="--output")


def _is_same(one: str, other: str) -> bool:
    return not is_s3(other) and Path(one).exists() and Path(other).exists() and Path(one).samefile(other)


def _uris(output: str | None, job: BatchJob) -> dict[str, str]:
    if output is None:
        return job.outputs or beside(Path(f"{job.id}.out.jsonl"))
    return below(output) if is_s3(output) else beside(Path(output))


def _interrupted(job: BatchJob) -> int:
    click.echo(f"interrupted; the same command goes on with job {job.id}", err=True)
    return _INTERRUPTED


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C and SIGTERM end the work after the step under way; a second one ends it at once."""
    stop = threading.Event()
    with StopSignals(lambda _: stop.set()).taken():
        try:
            yield stop.is_set
        except Stopped as error:
            click.echo("interrupted; the same command goes on with the job", err=True)
            raise click.exceptions.Exit(_INTERRUPTED) from error


@batch.command("give-up")
@click.argument("arn", metavar="[ARN]", required=False)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--even-if-denied", is_flag=True, help="Also one that credentials or rights hide: it may run, and cost.")
@_config_option
def give_up(arn: str | None, config: Path | None, *, dry_run: bool, yes: bool, even_if_denied: bool) -> int:
    """Give up a job of the provider's batch API that the provider does not know any more.

    Its events go to the workers, which ask the model for each: what the job has cost or may still cost is paid besides.
    Without ARN, list such jobs. `penstock hand-over` does it, within minutes; a job that is seen again is waited for.

    \b
    Examples:
      penstock batch give-up arn:aws:bedrock:eu-central-1:123456789012:model-invocation-job/abc --dry-run
    """  # noqa: D301 - click's \b
    settings = load(config)
    jobs = read_jobs(settings.kafka)
    if arn is None:
        batch_show.unseen(jobs)
        return 0
    wish = batch_show.given_up(jobs, arn, even_if_denied=even_if_denied)
    if wish and not dry_run:
        if not yes:
            confirm("give it up?")
        asyncio.run(put_given_up(settings, wish, operator()))
        click.echo("noted; `penstock hand-over` follows when it asks for the job next")
    return 0


@batch.command()
@_config_option
def serve(config: Path | None) -> None:
    """Work on S3 objects that were announced.

    Until SIGTERM or Ctrl-C, which end after the step under way; a second one ends at once. A restart goes on where the
    log says.

    A door (SQS, EventBridge) puts the announcement on the jobs topic; `batch_jobs.inputs` says which objects are meant.
    """
    from contracts.logs import configure

    settings = load(config)
    configure(settings.logging)
    with locating(config):
        asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    from contracts.metrics import BUILD_INFO
    from gateways.egress.page import HealthPage
    from gateways.openapi import package_version

    service, process = Service(settings), settings.batch_process
    BUILD_INFO.labels(package_version(), "batch").set(1)
    StopSignals(lambda _: service.stop()).follow(asyncio.get_running_loop().add_signal_handler)
    # A process that answers lives: the end of the service is the end of the process.
    page = HealthPage("batch_process", process.health_host, process.health_port, list, service.unready)
    try:
        click.echo(f"health on {await page.start()}")
        await asyncio.to_thread(service.serve)
    finally:
        await page.aclose()
