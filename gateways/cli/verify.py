"""`penstock verify`: explains a captured request offline, as the gateway will not do in public.

Blocking: reads the files and the secrets of the configuration; network only for secrets in AWS Secrets Manager.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from contracts.settings import load
from gateways.cli.captured import read_request
from gateways.cli.verify_advice import advice
from gateways.cli.verify_findings import Report, examine
from gateways.cli.wording import printable, printable_json

_MAX_FILE_BYTES = 64 * 2**20
_WIDTH = 10


def _instant(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        if value.isascii() and value.isdecimal():
            return datetime.fromtimestamp(int(value), UTC)
        instant = datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError) as error:
        message = f"{value!r}: expected Unix seconds, or a time such as 2026-11-28T14:05:00Z"
        raise click.BadParameter(message) from error
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


@click.command("verify")
@click.argument("request", type=click.File("rb"))
@click.option("--source", "name", required=True, help="Name of a source in the configuration.")
@click.option("--body", type=click.File("rb"), help="File with the body, byte for byte, where REQUEST has none.")
@click.option("--now", callback=_instant, help="When it was captured: Unix seconds or ISO 8601 (UTC). [default: now]")
@click.option("--peer", default="", help="Address of who connected, for scheme client-certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as one line of JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def verify(
    request: BinaryIO,
    name: str,
    body: BinaryIO | None,
    now: datetime | None,
    peer: str,
    as_json: bool,
    config: Path | None,
) -> int:
    """Explain whether a captured request is authentic, and why not.

    REQUEST is a file with the raw HTTP/1.1 request, headers and body, or - for standard input. The secrets are taken
    from the configuration, and never printed.

    Exit code 0 = authentic, 1 = the gateway would refuse it with 401 (or 400), 2 = the file or the command line is
    wrong.

    \b
    Examples:
      penstock verify --source stripe request.http
      penstock verify --source github headers.txt --body body.json --now 2026-11-28T14:05:00Z
    """  # noqa: D301 - click's \b
    settings = load(config)
    if name not in settings.sources:
        known = ", ".join(sorted(settings.sources)) or "none is configured"
        message = f"there is no source {name!r}; configured: {known}"
        raise click.BadParameter(message, param_hint="--source")
    if settings.sources[name].scheme == "sns":
        message = f"source {name}: Amazon SNS is verified with a certificate of Amazon's, which is not fetched offline"
        raise click.BadParameter(message, param_hint="--source")
    captured = read_request(_content(request), None if body is None else _content(body))
    report = examine(settings, name, captured, now or datetime.now(UTC), peer)
    if as_json:
        click.echo(printable_json(msgspec.json.encode(report).decode()))
    else:
        _show(report)
    return 0 if report.is_authentic else 1


def _content(file: BinaryIO) -> bytes:
    content = file.read(_MAX_FILE_BYTES + 1)
    if len(content) > _MAX_FILE_BYTES:
        message = f"{file.name}: larger than {_MAX_FILE_BYTES // 2**20} MiB"
        raise click.UsageError(message)
    return content


def _show(report: Report) -> None:
    for check in report.checks:
        click.echo(printable(f"{check.outcome:7} {check.what:{_WIDTH}} {check.words}"))
    click.echo()
    if report.reason is None:
        click.echo(f"authentic: source {report.source}, scheme {report.scheme}, key {report.key_id}, at {report.now}")
        return
    click.echo(f"refused: {report.reason} (source {report.source}, scheme {report.scheme}, at {report.now})")
    click.echo(f"-> {advice(report.reason)}")
