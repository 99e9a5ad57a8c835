"""`penstock why-stuck`: names what holds back each partition, why, and what to do about it.

Reads: GET /stuck of workers; the consumer group, and of the partitions of which no worker tells, one record each; where
a provider has a batch API, batch-jobs.
Blocking: 5 s per worker, then Kafka, 10 s a request.
"""

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.table import Table

from contracts.batch_jobs import DENIED, HandOverPart
from contracts.errors import LogUnavailable
from contracts.settings import Settings, load
from contracts.stuck import PartitionState, StuckReport
from gateways.batch.jobs import read_jobs
from gateways.cli import why_stuck_group
from gateways.cli.batch_show import why_unseen
from gateways.cli.dlq_filters import Finite
from gateways.cli.why_stuck_group import GroupPartition, GroupReport
from gateways.cli.why_stuck_words import Finding, of_partition, of_worker
from gateways.cli.wording import printable, printable_json, show_table
from gateways.listening import reached_at

_LIMIT_S = 5.0
_MAX_BYTES = 16 * 2**20
NOT_STUCK, STUCK, CANNOT_TELL = 0, 1, 2


@click.command("why-stuck")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
@click.option("--worker", "workers", multiple=True, metavar="URL", help="Health address of a worker; repeat for more. "
              "[default: from the configuration]")  # fmt: skip
@click.option("--older-than", "older_than_s", type=Finite(0), default=30.0, show_default=True, metavar="S",
              help="Events taken so long ago count as stuck.")  # fmt: skip
@click.option("--json", "in_json", is_flag=True, help="One JSON document with everything that was found.")
def why_stuck(config: Path | None, workers: tuple[str, ...], older_than_s: float, *, in_json: bool) -> int:
    """Name the oldest unfinished event of every partition, its state and the reason.

    Of partitions of which no worker tells, the group's commits and the records at them are read from Kafka.

    \b
    Exit codes:
      0  of what can be seen nothing is stuck, in no partition
      1  something is
      2  it cannot be told: a worker or Kafka does not answer, nobody tells how far a partition is to be read,
         or events wait in partitions of workers that were not asked

    \b
    Examples:
      penstock why-stuck
      penstock why-stuck --worker http://10.0.0.5:8081 --worker http://10.0.0.6:8081
      penstock why-stuck --json | jq '.workers[].report.partitions[].oldest'
    """  # noqa: D301 - click's \b
    settings = load(config)
    answers = {url: _ask(url) for url in workers or _configured(settings)}
    reports = {url: answer for url, answer in answers.items() if isinstance(answer, StuckReport)}
    silent = {url: answer for url, answer in answers.items() if isinstance(answer, str)}
    told = frozenset((one.topic, one.partition) for report in reports.values() for one in report.partitions)
    # Of the embedded broker there is one worker: a second member of the group fails.
    group, problem = (None, "") if reports and settings.kafka.embedded else _group(settings, told)
    unseen = _unseen(settings)
    if in_json:
        click.echo(_as_json(reports, silent, group, problem, unseen))
    else:
        _show(reports, silent, older_than_s)
        for part in unseen.values():
            click.echo(_line(_of_job(part)))
        _show_group(group, problem, are_others=bool(reports))
        if not reports and group is None:
            click.echo("Nobody could be asked. Name the workers' health addresses: penstock why-stuck --worker URL")
    silent |= {"kafka": problem} if problem else {}
    return STUCK if unseen else verdict(reports, silent, group, older_than_s)


def _unseen(settings: Settings) -> dict[str, HandOverPart]:
    """Return each job of a batch API that its provider does not know, or does not show to us; its events wait."""
    if not any(getattr(provider, "batch_api", None) for provider in settings.providers.values()):
        return {}
    try:
        return {part.arn: part for _, part in read_jobs(settings.kafka).unseen()}
    except LogUnavailable:
        # Said of the group already, or of no use to whoever asks about workers.
        return {}


def _of_job(part: HandOverPart) -> Finding:
    hint = f"penstock batch give-up {part.arn} --dry-run"
    if part.status == DENIED:
        # To give it up would pay twice for what it answers.
        hint = (
            "the credentials of `penstock hand-over`, and their right to bedrock:GetModelInvocationJob; with those "
            "mended it goes on by itself, and nothing is lost until then"
        )
    return Finding(True, f"job {part.arn} of the hand-over: {why_unseen(part)}", hint)


def _configured(settings: Settings) -> list[str]:
    worker = settings.worker
    return [reached_at(worker.health_host, worker.health_port)] if worker.health_port else []


def _ask(url: str) -> StuckReport | str:
    """Return a worker's report, or why there is none."""
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is not a URL such as http://127.0.0.1:8081", param_hint="--worker")  # noqa: EM102, TRY003 - click's way
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/stuck", timeout=_LIMIT_S) as answer:  # noqa: S310 - checked above
            return msgspec.json.decode(answer.read(_MAX_BYTES), type=StuckReport)
    except TimeoutError:
        return f"no answer within {_LIMIT_S:g} s: its event loop is stuck, or the process is stopped"
    except msgspec.DecodeError as error:
        return f"answers, but not as a worker of this version does: {error}"
    except urllib.error.URLError as error:
        return f"does not answer: {error.reason if not isinstance(error, urllib.error.HTTPError) else error}"
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"does not answer: {error}"


def _group(settings: Settings, told: frozenset[tuple[str, int]]) -> tuple[GroupReport | None, str]:
    try:
        return why_stuck_group.look(settings, told), ""
    except LogUnavailable as error:
        return None, str(error)


def verdict(
    reports: dict[str, StuckReport], silent: dict[str, str], group: GroupReport | None, older_than_s: float
) -> int:
    """Return the exit code.

    Args:
        reports: by address, what workers tell.
        silent: why others, or Kafka, tell nothing.
        group: the partitions of which no worker tells; None where it was not asked, or does not answer.
        older_than_s: events taken so long ago count as stuck.
    """
    findings = [finding for report in reports.values() for finding in findings_of(report, older_than_s)]
    if any(finding.is_stuck for finding in findings):
        return STUCK
    behind = _behind(group)
    if reports:
        is_unknown = any(finding.is_unknown for finding in findings)
        return CANNOT_TELL if silent or behind or is_unknown else NOT_STUCK
    if group is None:
        return CANNOT_TELL
    # No worker can be asked: what lags is stuck, unless somebody is at work whose address we do not know.
    return NOT_STUCK if not behind else CANNOT_TELL if group.members else STUCK


def _behind(group: GroupReport | None) -> list[GroupPartition]:
    """Return the partitions in which records wait; behind a commit there may be nothing but markers."""
    return [one for one in group.partitions if one.lag and one.next_offset is not None] if group is not None else []


def findings_of(report: StuckReport, older_than_s: float) -> list[Finding]:
    """Return everything that is to be said of a worker."""
    return of_worker(report, older_than_s) + [of_partition(report, one, older_than_s) for one in report.partitions]


def _as_json(
    reports: dict[str, StuckReport],
    silent: dict[str, str],
    group: GroupReport | None,
    problem: str,
    unseen: dict[str, HandOverPart],
) -> str:
    document: dict[str, Any] = {
        "workers": [{"url": url, "report": report} for url, report in reports.items()]
        + [{"url": url, "problem": text} for url, text in silent.items()],
        "group": group,
        "group_problem": problem or None,
        "unseen_jobs": {arn: {"status": part.status, "message": part.message} for arn, part in unseen.items()},
    }
    return printable_json(msgspec.json.encode(document).decode())


def _show(reports: dict[str, StuckReport], silent: dict[str, str], older_than_s: float) -> None:
    for url, text in silent.items():
        click.echo(f"worker {url}: {printable(text)}")
    for url, report in reports.items():
        counts = ", ".join(f"{count} {state}" for state, count in sorted(report.events.items())) or "no events"
        name = f" ({report.instance_id})" if report.instance_id else ""
        click.echo(f"worker {url}{name}: {report.state}, generation {report.generation}, lease {report.lease}; {counts}"
                   f"; last moved {report.idle_s:.0f} s ago")  # fmt: skip
        if report.paused:
            click.echo(f"  intake is paused: {', '.join(report.paused)}")
        for finding in of_worker(report, older_than_s):
            click.echo(_line(finding))
        busy = [one for one in report.partitions if one.lag or one.unfinished]
        unknown = [one for one in report.partitions if one.lag is None and not one.unfinished]
        if busy:
            show_table(_table(busy))
        _show_idle(len(report.partitions) - len(busy) - len(unknown))
        if unknown:
            click.echo(f"  {_partitions(len(unknown))} with nothing in work; the lag is not known (yet)")
        for one in report.partitions:
            finding = of_partition(report, one, older_than_s)
            if finding.is_stuck or finding.is_unknown or one.oldest is not None:
                click.echo(_line(finding, f"{one.topic}/{one.partition}: "))


def _line(finding: Finding, place: str = "") -> str:
    line = f"  {'STUCK ' if finding.is_stuck else ''}{place}{printable(finding.text)}"
    return f"{line}\n      -> {finding.hint}" if finding.hint else line


def _show_idle(count: int) -> None:
    if count:
        click.echo(f"  {_partitions(count)} with nothing to do")


def _partitions(count: int) -> str:
    return f"{count} partition{'' if count == 1 else 's'}"


def _table(partitions: Sequence[PartitionState]) -> Table:
    table = Table()
    for column in ("partition", "commit point", "committed", "lag", "unfinished", "oldest event", "state", "for"):
        numeric = column not in {"partition", "oldest event", "state"}
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for one in partitions:
        table.add_row(*_row(one))
    return table


def _row(one: PartitionState) -> tuple[str, ...]:
    oldest = one.oldest
    about = (printable(oldest.event_id), oldest.state, f"{oldest.state_s:.0f} s") if oldest else ("-", "-", "-")
    numbers = (str(one.commit_point), _number(one.committed), _number(one.lag), str(one.unfinished))
    return (f"{one.topic}/{one.partition}", *numbers, *about)


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _show_group(group: GroupReport | None, problem: str, *, are_others: bool) -> None:
    if problem:
        others = "; what other workers' partitions hold is not known" if are_others else ""
        click.echo(f"Kafka: {printable(problem)}{others}")
    if group is None or (are_others and not _behind(group)):
        return
    if are_others:
        click.echo("events wait in partitions of which no worker told; name the others' addresses, too: --worker URL")
    members = "; ".join(group.members) or "no members"
    click.echo(f"group {group.app_id}: {group.state}, {members}")
    if not group.members and any(one.lag for one in group.partitions):
        click.echo("  STUCK no worker is in the group, and events wait\n      -> penstock worker")
    behind = [one for one in group.partitions if one.lag]
    table = Table()
    for column in ("partition", "committed", "end", "lag", "record at the commit point", "type", "age"):
        table.add_column(column, overflow="fold")
    for one in behind:
        age = "-" if one.next_age_s is None else f"{one.next_age_s:.0f} s"
        record = one.next_id or ("-" if one.next_offset is None else f"(no id, offset {one.next_offset})")
        numbers = (_number(one.committed), str(one.end), str(one.lag))
        table.add_row(f"{one.topic}/{one.partition}", *numbers, record, one.next_type or "-", age)
    if behind:
        show_table(table)
    _show_idle(len(group.partitions) - len(behind))
