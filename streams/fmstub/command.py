"""The command line of the stub: `python -m streams fm-stub`."""

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from streams.fmstub.call import Backend
from streams.fmstub.control import check_knobs, explain
from streams.fmstub.jobs_run import JobObjects
from streams.fmstub.knobs import kinds
from streams.fmstub.server import serve


class _Pair(click.ParamType):
    """`NAME=NUMBER`."""

    name = "name=number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """Split at the last equals sign: markers may contain one."""
        if isinstance(value, tuple):
            return value
        name, sign, number = str(value).rpartition("=")
        try:
            return (name, float(number)) if sign and name else self.fail(f"{value!r} is not NAME=NUMBER", param, ctx)
        except ValueError:
            self.fail(f"{number!r} in {value!r} is not a number", param, ctx)


@click.command("fm-stub", context_settings={"help_option_names": ["--help", "-h"]})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port; 0 = any free one, printed at start.")
@click.option("--port-file", type=click.Path(path_type=Path, dir_okay=False), help="File to write the port to.")
@click.option("--latency", type=float, metavar="S", help="Median time to the first token, seconds.")
@click.option("--latency-sigma", type=float, help="Spread of the same (log-normal sigma); 0 = none.")
@click.option("--per-token", type=float, metavar="S", help="Time per output token, seconds.")
@click.option("--stream-pause", type=float, metavar="S", help="Extra pause before each piece of a stream, seconds.")
@click.option(
    "--error",
    "errors",
    type=_Pair(),
    multiple=True,
    metavar="KIND=RATE",
    help=f"Share of calls that fail. Kinds: {kinds()}.",
)
@click.option(
    "--fail-first",
    type=_Pair(),
    multiple=True,
    metavar="MARKER=N",
    help="The first N calls whose prompt contains MARKER get 503.",
)
@click.option("--rpm", type=int, help="Requests per minute and model.")
@click.option("--tpm", type=int, help="Tokens per minute and model, reserved as input + max_tokens.")
@click.option("--retry-after", type=float, metavar="S", help="Wait that throttles and 503s ask for, seconds.")
@click.option("--context-tokens", type=int, help="Longest input.")
@click.option(
    "--knobs", "knobs_file", type=click.File("rb"), help="JSON file with more knobs, as GET /_stub/knobs shows them."
)
@click.option("--s3-endpoint", metavar="URL", help="S3 endpoint of batch jobs (moto, MinIO); none without it.")
@click.option("--seed", default=0, show_default=True, help="Seed of latencies and errors.")
def fm_stub(
    host: str,
    port: int,
    port_file: Path | None,
    errors: Any,
    fail_first: Any,
    knobs_file: Any,
    s3_endpoint: str | None,
    seed: int,
    **flags: Any,
) -> None:
    """Serve Bedrock's and OpenAI's protocols without a model.

    Answers are extracts of the prompt. Knobs can be changed while it runs (PUT /_stub/knobs), what it has served is at
    GET /_stub/stats.
    """
    values = _read(knobs_file) if knobs_file is not None else {}
    names = {
        "latency": "latency_s",
        "per_token": "per_token_s",
        "stream_pause": "stream_pause_s",
        "retry_after": "retry_after_s",
    }
    values |= {names.get(flag, flag): value for flag, value in flags.items() if value is not None}
    if errors:
        values["error_rates"] = dict(errors)
    if fail_first:
        values["fail_first"] = dict(fail_first)
    try:
        backend = Backend(check_knobs(values), seed)
    except ValueError as error:
        raise click.UsageError(explain(error)) from error
    try:
        objects = JobObjects(s3_endpoint) if s3_endpoint else None
        asyncio.run(serve(backend, host, port, port_file, objects))
    except (OSError, UnicodeError) as error:
        # UnicodeError: a host that no resolver takes. Only a file has a name.
        of_file = getattr(error, "filename", None) is not None and port_file is not None
        what = f"--port-file {port_file} cannot be written" if of_file else f"cannot listen on {host}:{port}"
        message = f"{what}: {getattr(error, 'strerror', None) or error}"
        raise click.ClickException(message) from error


def _read(file: Any) -> dict[str, Any]:
    try:
        values = json.load(file)
    except ValueError as error:
        message = f"--knobs: {file.name} is not JSON: {error}"
        raise click.UsageError(message) from error
    if not isinstance(values, dict):
        message = f"--knobs: {file.name} must hold a JSON object"
        raise click.UsageError(message)
    return values
