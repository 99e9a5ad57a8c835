"""Shows batch jobs: the list, one in detail, and what was written at the end."""

import json
from collections import Counter
from typing import Any

import click
import msgspec
from rich.table import Table

from contracts.batch_jobs import DENIED, BatchJob, GivenUp, HandOver, HandOverPart
from contracts.codec import decode_json
from contracts.errors import Undecodable
from contracts.payloads import InferenceResult, OutcomeMarker
from gateways.batch.jobs import Jobs
from gateways.batch.outcomes import Outcomes
from gateways.cli.wording import printable, show_table


def listing(jobs: Jobs, *, in_json: bool) -> None:
    """Print every job, the newest last, and what waits to be begun."""
    waiting = [request for request in jobs.waiting if request.id not in jobs.jobs]
    rows = sorted(jobs.jobs.values(), key=lambda job: job.started_at)
    if in_json:
        for job in rows:
            click.echo(json.dumps(msgspec.to_builtins(job)))
        for request in waiting:
            click.echo(json.dumps({"state": "requested", **msgspec.to_builtins(request)}))
        return
    if not rows and not waiting:
        click.echo("no jobs")
        return
    table = Table()
    for column in ("job", "state", "lines", "started", "input"):
        table.add_column(column, justify="right" if column == "lines" else "left", overflow="fold")
    for job in rows:
        table.add_row(job.id, job.state, str(job.lines or ""), job.started_at, printable(job.object.uri))
    for request in waiting:
        table.add_row(request.id, "requested", "", request.requested_at, printable(request.object.uri))
    show_table(table)


def asked_for(jobs: Jobs, job_id: str) -> None:
    """Say that a job was asked for and has not begun.

    Raises:
        click.ClickException: nobody knows it.
    """
    if job_id not in jobs.requests:
        message = f"there is no job {job_id!r}; `penstock batch status` lists them"
        raise click.ClickException(message)
    click.echo(f"job {job_id} was asked for, and waits for `penstock batch serve`")


def unseen(jobs: Jobs) -> None:
    """Print the jobs of the provider's batch API that it does not know any more, or does not show to us."""
    found = jobs.unseen()
    for state, part in found:
        asked = ", given up: `penstock hand-over` follows" if _is_noted(jobs, part) else ""
        click.echo(f"{part.arn}\n  of hand-over {state.id}, gathered {state.gathered_at}{asked}")
        click.echo(f"  {why_unseen(part)}")
    if not found:
        click.echo("no job that its provider does not know")


def why_unseen(part: HandOverPart) -> str:
    """Return why nothing is known of a job."""
    why = "not shown to these credentials, and may run" if part.status == DENIED else "not known to its provider"
    return f"{why}: {printable(part.message)}"


def _is_noted(jobs: Jobs, part: HandOverPart, *, even_if_denied: bool = False) -> bool:
    """Tell whether a job was given up already, as far as that is needed or wanted."""
    wish = jobs.given_up.get(part.arn)
    return wish is not None and (wish.even_if_denied or not (even_if_denied or part.status == DENIED))


def given_up(jobs: Jobs, arn: str, *, even_if_denied: bool) -> GivenUp | None:
    """Say what giving up a job means, and return the wish to note; None when it was noted before.

    Raises:
        click.ClickException: its provider has not said that it does not know it, or it is ourselves who may not see it.
    """
    state, part = _unseen_one(jobs, arn)
    count = sum(end - first for first, end in state.ranges.values())
    click.echo(f"job {arn}\nof hand-over {state.id}, gathered {state.gathered_at}, up to {count} records")
    click.echo(why_unseen(part))
    if part.status == DENIED and not even_if_denied:
        message = (
            "the credentials or rights of `penstock hand-over` keep it from us: with those mended it goes on "
            "by itself, and nothing is lost until then. Given up, what it answers would be paid for twice; where it is "
            "gone all the same, as with its account, --even-if-denied gives it up"
        )
        raise click.ClickException(message)
    click.echo(
        "Given up, its records go to the workers, but for those whose answers lie in its output on S3.\n"
        "WARNING: each of them may be paid for twice, if the job has run or still runs, as in another account."
    )
    if _is_noted(jobs, part, even_if_denied=even_if_denied):
        click.echo("noted before; `penstock hand-over` follows when it asks for the job next")
        return None
    return GivenUp(id=state.id, job=arn, even_if_denied=even_if_denied)


def _unseen_one(jobs: Jobs, arn: str) -> tuple[HandOver, HandOverPart]:
    for state, part in jobs.unseen():
        if part.arn == arn:
            return state, part
    message = f"there is no job {arn!r} that its provider does not know; `penstock batch give-up` lists those"
    raise click.ClickException(message)


def details(job: BatchJob, outcomes: Outcomes, *, in_json: bool) -> None:
    """Print how far a job is."""
    counts: Counter[str] = Counter()
    tokens, cost_usd = 0, 0.0
    for outcome in outcomes:
        try:
            if outcome.is_result:
                result = decode_json(outcome.body, InferenceResult)
                counts["succeeded"] += 1
                tokens += result.usage.input_tokens + result.usage.output_tokens
                cost_usd += result.cost_usd or 0.0
            else:
                counts[decode_json(outcome.body, OutcomeMarker).status] += 1
        except Undecodable:
            # Not one of ours; in the files it is an error of its line.
            counts["undecodable"] += 1
    waiting = max(0, job.lines - job.rejected - outcomes.count)
    facts: dict[str, Any] = {
        "job": job.id,
        "state": job.state,
        "input": job.object.uri,
        "lines": job.lines,
        "succeeded": counts["succeeded"],
        "dead_letter": counts["dead_letter"],
        "expired": counts["expired"],
        "rejected": job.rejected,
        **({"undecodable": counts["undecodable"]} if counts["undecodable"] else {}),
        "waiting": waiting,
        "tokens": tokens,
        "cost_usd": round(cost_usd, 6),
        "started_at": job.started_at,
        "submitted_at": job.submitted_at,
        "ended_at": job.ended_at,
        "message": job.message,
    }
    if in_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in {"", None}:
            click.echo(f"{name:<13} {printable(str(value))}")


def summary(manifest: dict[str, Any], uris: dict[str, str]) -> None:
    """Print what was written."""
    counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in manifest["counts"].items() if number)
    click.echo(f"job {manifest['job']}: {manifest['lines']} lines: {counts or 'none'}")
    usage = manifest["usage"]
    click.echo(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out, {manifest['cost_usd']:.4f} USD")
    if manifest["results_without_price"]:
        click.echo(f"{manifest['results_without_price']} results are of a model without a price in the configuration")
    for kind, uri in uris.items():
        click.echo(f"{kind:<9} {uri}")
