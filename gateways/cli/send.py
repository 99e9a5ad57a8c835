"""`penstock send`: posts signed sample webhooks to a running gateway, as the real senders would.

Blocking: until everything is answered, or Ctrl-C.
"""

import asyncio
import contextlib
import csv
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from contracts.errors import ConfigError
from contracts.settings import SecretRef, Settings, SourceSettings, load
from contracts.settings.section import checked_url
from contracts.signals import StopSignals
from gateways.cli.dlq_filters import Finite
from gateways.ingress.secrets import Secrets, SecretStore
from gateways.listening import reached_at
from producers.samples.courier import NO_ANSWER, Answer, Courier, Plan
from producers.samples.signing import needs_private_key
from producers.samples.table import sampler

_PROGRESS_LINE_INTERVAL_S = 5.0
_PERCENTILES = (50, 90, 99)
_INTERRUPTED = 130
_SEEDS = 10**9


def http_url(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Return the value of an option that names a server; a click callback."""
    try:
        return value if value is None else checked_url(value)
    except ValueError as error:
        message = f"{value!r}: expected http://HOST:PORT"
        raise click.BadParameter(message) from error


def _reference(_context: click.Context, _parameter: click.Parameter, value: str | None) -> SecretRef | None:
    try:
        return SecretRef(value) if value is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.command("send")
@click.option("--source", "name", required=True, help="Name of a source in the configuration.")
@click.option("--count", type=click.IntRange(1, 10_000_000), default=10, show_default=True, help="How many events.")
@click.option("--rate", type=Finite(0, min_open=True), help="Events per second. [default: no limit]")
@click.option(
    "--url", callback=http_url, help="Base URL of the gateway. [default: that of `penstock up`, else as configured]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Same seed, same events, ids included. [default: random]")
@click.option("--concurrency", type=click.IntRange(1, 2_000), default=20, show_default=True, help="Open requests.")
@click.option("--forge", type=click.IntRange(min=0), default=0, help="The last N get a wrong signature: 401.")
@click.option("--redeliver", is_flag=True,
              help="Have events done again that the gateway knows; needs the source's redelivery_secret.")  # fmt: skip
@click.option("--timeout", "timeout_s", type=Finite(0, min_open=True), default=15.0, show_default=True,
              help="Seconds to wait for an answer.")  # fmt: skip
@click.option("--ids-file", type=click.Path(path_type=Path, dir_okay=False),
              help="Write `id,status_url` of every accepted event.")  # fmt: skip
@click.option("--private-key", metavar="env:NAME|file:PATH", callback=_reference,
              help="For a source with a public key: the private one, of a pair of your own.")  # fmt: skip
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: ./penstock.yaml]")
def send(
    name: str,
    count: int,
    rate: float | None,
    url: str | None,
    seed: int | None,
    concurrency: int,
    forge: int,
    redeliver: bool,
    timeout_s: float,
    ids_file: Path | None,
    private_key: SecretRef | None,
    config: Path | None,
) -> int:
    """Send signed sample webhooks of a source to a gateway.

    The source's scheme and its first valid secret are taken from the configuration. Exit code 0 only if every answer
    was 2xx (401 for forged ones).

    \b
    Examples:
      penstock send --source github
      penstock send --source salesforce --count 1000 --rate 200 --forge 5
    """  # noqa: D301 - click's \b
    settings = load(config)
    source = _source_of(settings, name)
    reading = SecretStore(settings.secrets_manager).reading()
    key = _key_of(name, source, private_key, reading)
    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    wanted = _redelivery_secret(name, source, reading) if redeliver else b""
    plan = Plan(count, min(forge, count), rate, concurrency, timeout_s, seed, wanted)
    target = f"{(url or reached_at(settings.gateway.host, settings.gateway.port)).rstrip('/')}/webhooks/{name}"
    click.echo(f"sending {count} signed {name} events to {target}, seed {seed}")
    with _Report(count, ids_file) as report:
        courier = Courier(target, source, key, sampler(name, source), plan, report.add)
        try:
            was_interrupted = asyncio.run(_run(courier))
        except ConfigError as error:
            message = f"source {name}: {error}"
            raise ConfigError(message) from error
    return _conclude(report, courier, target, was_interrupted=was_interrupted)


def _source_of(settings: Settings, name: str) -> SourceSettings:
    if name not in settings.sources:
        known = ", ".join(sorted(settings.sources)) or "none is configured"
        message = f"there is no source {name!r}; configured: {known}"
        raise click.BadParameter(message, param_hint="--source")
    return settings.sources[name]


def _key_of(name: str, source: SourceSettings, private_key: SecretRef | None, reading: Secrets) -> tuple[str, bytes]:
    """Return the id of a secret and what signs for it: the first valid one that can."""
    if source.scheme == "sns":
        message = f"source {name}: only Amazon SNS can sign for it; publish to the topic instead"
        raise ConfigError(message)
    if source.scheme == "microsoft-graph":
        message = (
            f"source {name}: nothing is signed there, and no sample carries its secret; post a body of your own: "
            '{"value": [{"clientState": "<the secret>", "subscriptionId": "trial", "changeType": "updated"}]}'
        )
        raise ConfigError(message)
    now = datetime.now(UTC)
    valid = [secret for secret in source.secrets if secret.is_valid_at(now)]
    if not valid:
        message = f"source {name}: none of its secrets is valid now (not_before, not_after)"
        raise ConfigError(message)
    try:
        texts = [(secret.id, reading.values(secret.value)[0].text) for secret in valid]
        if private_key is not None:
            public = [key_id for key_id, text in texts if needs_private_key(source, text)]
            return (public or [valid[0].id])[0], private_key.resolve()
    except ConfigError as error:
        message = f"source {name}: {error}; it must be the one that the gateway has"
        raise ConfigError(message) from error
    for key_id, text in texts:
        if not needs_private_key(source, text):
            return key_id, text
    message = (
        f"source {name}: it has the sender's public key, which cannot sign; for trying it out, configure the public "
        "key of a pair of your own and give the private one: --private-key env:NAME or file:PATH"
    )
    raise ConfigError(message)


def _redelivery_secret(name: str, source: SourceSettings, reading: Secrets) -> bytes:
    ref = source.idempotency.redelivery_secret
    if ref is None:
        message = f"source {name}: --redeliver needs sources.{name}.idempotency.redelivery_secret, which is not set"
        raise ConfigError(message)
    return reading.values(ref)[0].text


async def _run(courier: Courier) -> bool:
    """Run it; True when Ctrl-C ended it. A second Ctrl-C does not wait for open requests."""
    loop = asyncio.get_running_loop()
    sending = loop.create_task(courier.run())
    was_interrupted = False

    def interrupt(_number: signal.Signals) -> None:
        nonlocal was_interrupted
        was_interrupted = True
        courier.stop()

    signals = StopSignals(interrupt, lambda _: sending.cancel())
    signals.follow(loop.add_signal_handler, (signal.SIGINT,))
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await sending
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return was_interrupted


def _conclude(report: "_Report", courier: Courier, target: str, *, was_interrupted: bool) -> int:
    """Print what became of it and return the exit code."""
    if courier.unreachable:
        message = (
            f"no gateway answers at {target}: {courier.unreachable}\n"
            "Start one with `penstock up` (everything, for play) or `penstock gateway`, or name another with --url."
        )
        raise click.ClickException(message)
    report.show()
    if report.ids_error:
        click.echo(report.ids_error, err=True)
    if was_interrupted:
        click.echo(f"interrupted: {report.total} of {report.count} were sent", err=True)
        return _INTERRUPTED
    return 1 if report.unexpected or report.ids_error else 0


class _Report:
    """Counts answers and shows progress while it is open.

    Args:
        count: answers expected.
        ids_file: gets a line per accepted event.
    """

    def __init__(self, count: int, ids_file: Path | None) -> None:
        self.count = count
        self.total = 0
        self.unexpected = 0
        self.ids_error = ""
        self._ids_file = ids_file
        self._statuses: Counter[tuple[int, bool]] = Counter()
        self._errors: Counter[str] = Counter()
        self._latencies_s: list[float] = []
        self._console = Console()
        self._started_s = time.monotonic()
        self._next_line_s = self._started_s + _PROGRESS_LINE_INTERVAL_S
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._progress = self._open.enter_context(_progress(self._console)) if self._console.is_terminal else None
        self._bar = self._progress.add_task("sent", total=self.count) if self._progress else None
        self._ids = self._file = None
        if self._ids_file is not None:
            try:
                self._file = self._ids_file.open("w", encoding="utf-8", newline="")
            except OSError as error:
                message = f"{self._ids_file}: cannot be written: {error.strerror}"
                raise click.ClickException(message) from error
            self._ids = csv.writer(self._file)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._keep(self._file.close)
        self._open.close()

    def _keep(self, write: Callable[[], object]) -> None:
        """Write to the file of ids; where that fails go on without it, since the events go out all the same."""
        try:
            write()
        except OSError as error:
            self.ids_error = f"{self._ids_file}: cannot be written: {error.strerror}; ids are missing in it"
            self._ids = None

    def add(self, answer: Answer) -> None:
        """Take one answer."""
        self.total += 1
        self.unexpected += not answer.is_expected
        self._statuses[answer.status, answer.is_forged] += 1
        if answer.status == NO_ANSWER:
            self._errors[answer.error] += 1
        elif not answer.is_forged:
            self._latencies_s.append(answer.latency_s)
        if self._ids is not None and answer.event_id:
            self._keep(partial(self._ids.writerow, (answer.event_id, answer.status_url)))
        self._tell()

    def _tell(self) -> None:
        if self._progress is not None and self._bar is not None:
            self._progress.update(self._bar, completed=self.total)
        elif time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + _PROGRESS_LINE_INTERVAL_S
            click.echo(f"sent {self.total} of {self.count}")

    def show(self) -> None:
        """Print the summary."""
        elapsed_s = max(time.monotonic() - self._started_s, 1e-9)
        click.echo(f"{self.total} answers in {elapsed_s:.1f} s ({self.total / elapsed_s:.0f} per second)")
        table = Table()
        for column in ("answer", "events", ""):
            table.add_column(column, justify="right" if column == "events" else "left")
        for (status, is_forged), number in sorted(self._statuses.items()):
            table.add_row("none" if status == NO_ANSWER else str(status), str(number), _remark(status, is_forged))
        self._console.print(table)
        if self._latencies_s:
            parts = [f"p{share} {_percentile(self._latencies_s, share) * 1000:.1f}" for share in _PERCENTILES]
            click.echo(f"latency ms: {', '.join(parts)}, max {max(self._latencies_s) * 1000:.1f}")
        for error, number in self._errors.most_common(3):
            click.echo(f"no answer ({number} times): {error}")


@contextlib.contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        yield progress


def _remark(status: int, is_forged: bool) -> str:
    if is_forged:
        return "forged signature, as expected" if Answer(status, 0, is_forged).is_expected else "FORGED, must be 401"
    remarks = {
        401: "signature refused: does the gateway have the same secret?",
        429: "over a limit: of the source, or of an address with many wrong signatures",
        404: "the gateway does not know this source",
        413: "too large for the gateway",
        503: "gateway busy or Kafka away; real senders try again",
        NO_ANSWER: "connection failed or too slow",
    }
    return "accepted" if Answer(status, 0).is_expected else remarks.get(status, "refused")


def _percentile(values: list[float], share: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
