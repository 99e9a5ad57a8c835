"""`penstock demo`: the whole path once, in its own processes, with an end a person understands.

Reads: result topics, dead letters, event topics of its own embedded broker. Blocking: below half a minute.
"""

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click
from rich.console import Console

from contracts.settings import Settings, environment, load
from contracts.settings.environ import PREFIX
from gateways.cli import demo_show, programs, throwaway
from gateways.cli.demo_http import fail_first, get, post
from gateways.cli.demo_outcomes import Ledger, Sent, verdict
from gateways.cli.demo_show import say
from gateways.cli.demo_story import FAILURES, marker, secret_of, story
from gateways.cli.reading import TopicReader
from gateways.cli.running import command_name
from gateways.cli.stack import Stack
from gateways.cli.tail import topics_of

_OUTCOMES_LIMIT_S = 20.0
# Nothing in it is paid for, so nobody has to wait for what is in work.
_STOP_LIMIT_S = 3.0
_POLL_S = 0.2
MODEL = "embedded/extract-v1"
PROVIDER = "demo"
_WORDS = {
    programs.BROKER: "embedded Kafka broker, in memory only",
    programs.STUB: "model stand-in, speaks the OpenAI protocol",
    programs.GATEWAY: "HTTP gateway",
    programs.WORKER: "stream worker",
}


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file. [default: the working example]")
@click.option("--seed", type=int, default=7, show_default=True, help="Another seed makes other events.")
@click.option("--logs", type=click.Path(path_type=Path, file_okay=False), help="Keep the programs' logs here.")
@click.pass_context
def demo(ctx: click.Context, config: Path | None, seed: int, logs: Path | None) -> None:
    """Show everything working, from signed webhook to result, and end.

    Starts an embedded broker, a model stand-in, the gateway and a worker as processes of their own, sends signed
    webhooks (one of them forged, one broken, one whose model call fails twice), waits for the outcome of each, shows
    them, and stops everything. Needs neither Docker nor Java nor a network.
    """
    file = programs.configuration(config)
    out = demo_show.console()
    with _folder(logs) as folder:
        out.print(f"Penstock demo: {file}, logs in {folder}", soft_wrap=True)
        environ = _quiet_environment()
        plain = load(file, environ)
        environ |= throwaway.environment_of(plain, {}, renew=True)
        with Stack(folder, environ, _STOP_LIMIT_S) as stack:
            holds = _run(out, stack, file, environ, seed)
        if not holds:
            message = f"the demo did not show what it should; logs: {folder}"
            raise click.ClickException(message)
    ctx.exit(0)


@contextlib.contextmanager
def _folder(logs: Path | None) -> Iterator[Path]:
    """Give a folder for logs; one that nobody asked for goes away, unless it explains a failure."""
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        yield logs
        return
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield folder
    except click.ClickException:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _quiet_environment() -> dict[str, str]:
    """Return our environment without overrides of settings: the demo reaches no real installation."""
    kept = {name: text for name, text in environment().items() if not (name.startswith(PREFIX) and "__" in name)}
    # What is sent from here goes there, whatever the file says.
    return kept | {f"{PREFIX}GATEWAY__HOST": "127.0.0.1", f"{PREFIX}WORKER__HEALTH_HOST": "127.0.0.1"}


def _run(out: Console, stack: Stack, file: Path, environ: dict[str, str], seed: int) -> bool:
    settings, ports = _start(out, stack, file, environ)
    acts = story(settings, seed)
    fail_first(ports[programs.STUB], marker(acts), FAILURES)
    ledger = Ledger()
    out.print(f"\nSending {len(acts)} webhooks over HTTP")
    for act in acts:
        sent = Sent(act, post(ports[programs.GATEWAY], act, secret_of(act.settings, environ)), time.time())
        ledger.sent.append(sent)
        say(out, str(sent.answer.status), f"{act.source:11} {act.title}")
    out.print("\nReading outcomes from the topics")
    _collect(out, stack, settings, ledger)
    events = _count_events(settings)
    out.print()
    out.print(demo_show.outcomes(ledger, out.width))
    _show_poll(out, ports[programs.GATEWAY], ledger)
    claims = verdict(ledger, events, FAILURES)
    for holds, text in claims:
        say(out, "ok" if holds else "FAILED", text)
    out.print("\n" + demo_show.next_steps(command_name()), soft_wrap=True)
    return all(holds for holds, _ in claims)


def _start(out: Console, stack: Stack, file: Path, environ: dict[str, str]) -> tuple[Settings, dict[str, int]]:
    """Start the four programs; return the settings they run under, and their ports."""
    stack.start(programs.broker(load(file, environ)))
    stack.start(programs.stub())
    ports = {name: _ready(out, stack, name) for name in (programs.BROKER, programs.STUB)}
    tied = programs.embedded_kafka(ports[programs.BROKER]) | _models_from(ports[programs.STUB], load(file, environ))
    settings = load(file, environ | tied)
    # Before anything is sent the sources have to be there.
    story(settings, 0)
    stack.lend(tied)
    stack.start(programs.gateway(file, 0, settings))
    stack.start(programs.worker(file, stack.folder, settings))
    ports |= {name: _ready(out, stack, name) for name in (programs.GATEWAY, programs.WORKER)}
    return settings, ports


def _ready(out: Console, stack: Stack, name: str) -> int:
    port = stack.wait_ready(name)
    say(out, "ok", f"{name:8} 127.0.0.1:{port:<6} {_WORDS[name]}")
    return port


def _models_from(port: int, settings: Settings) -> dict[str, str]:
    """Return the variables that let every model alias be served by the stand-in."""
    provider = f"{PREFIX}PROVIDERS__{PROVIDER.upper()}__"
    tied = {provider + "KIND": "openai", provider + "BASE_URL": f"http://127.0.0.1:{port}/v1"}
    for alias in settings.models:
        model = f"{PREFIX}MODELS__{alias.upper()}__"
        tied |= {model + "PROVIDER": PROVIDER, model + "MODEL": MODEL}
    return tied


def _collect(out: Console, stack: Stack, settings: Settings, ledger: Ledger) -> None:
    """Read until every accepted event has its outcome, or time is up."""
    letters = topics_of("dead-letters", settings)
    deadline_s = time.monotonic() + _OUTCOMES_LIMIT_S
    topics = [*topics_of("results", settings), *letters]
    with TopicReader(settings.kafka, topics, from_beginning=True) as reader, demo_show.progress(out) as bar:
        task = bar.add_task("outcomes", total=len(ledger.accepted))
        while ledger.open and time.monotonic() < deadline_s:
            stack.check()
            record = reader.poll(_POLL_S)
            if record is None:
                continue
            if record.topic in letters:
                ledger.take_dead_letter(record)
            elif (one := ledger.take_terminal(record)) is not None:
                # Drawn anew before the line: printing one shows the bar as it was last drawn.
                bar.update(task, advance=1, refresh=True)
                say(out, f"{one.ending:12}", f"{one.act.source:11} {one.act.title}")


def _count_events(settings: Settings) -> int:
    with TopicReader(settings.kafka, topics_of("events", settings), from_beginning=True) as reader:
        count = 0
        while not reader.at_end:
            count += reader.poll(_POLL_S) is not None
        return count


def _show_poll(out: Console, port: int, ledger: Ledger) -> None:
    """Ask the gateway for one result the way a sender would."""
    one = next(one for one in ledger.sent if one.act.kind == "stubborn")
    url = str(one.answer.document.get("status_url", ""))
    answer = get(port, url)
    out.print("\nThe same result over HTTP, by the status URL of the 202:", soft_wrap=True)
    say(out, str(answer.status), f"GET {url}  ->  {answer.document.get('status', '')}")
    out.print()
