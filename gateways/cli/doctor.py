"""`penstock doctor`: says what this machine has, what is missing, and how to get it.

Blocking: some seconds: starts `docker`, `java`, `mvn` for their versions, asks the configured Kafka; no other network.
"""

from pathlib import Path

import click

from contracts.settings import environment
from gateways.cli import doctor_checks
from gateways.cli.doctor_checks import Finding

_WIDTH = 14


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
@click.pass_context
def doctor(ctx: click.Context, config: Path | None) -> None:
    """Say what this machine has, what is missing, and how to get it.

    Exits with 1 when something is missing that every command needs; what only some need is a hint.
    """
    findings: list[Finding] = []
    for check in doctor_checks.all_checks(config, environment()):
        finding = check()
        click.echo(_line(finding))
        findings.append(finding)
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        click.echo(f"\nmissing: {', '.join(missing)}", err=True)
        ctx.exit(1)
    click.echo("\nEverything needed is there." + (" Hints above." if any(f.state == "hint" for f in findings) else ""))


def _line(finding: Finding) -> str:
    first, *rest = finding.text.splitlines()
    lines = [f"{finding.state:8}{finding.name:{_WIDTH}} {first}"]
    lines += [" " * (_WIDTH + 9) + line for line in rest]
    if finding.advice:
        lines.append(" " * (_WIDTH + 9) + f"-> {finding.advice}")
    return "\n".join(lines)
