"""What a running `penstock up` leaves in its folder, so that commands in other terminals find it without any copying.

The file `build/up.json` holds the environment (throw-away secrets, broker address) and the gateway's URL. `up` keeps it
locked as long as it runs; a file that nobody holds is stale and ignored, whatever process ids say.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

STATE_FILE = Path("build/up.json")
# Commands that talk to a running installation; servers never take over another one's environment.
CLIENTS = frozenset(
    {"send", "verify", "tail", "batch", "dlq", "undelivered", "topics", "why-stuck", "callbacks", "doctor"}
)


@contextlib.contextmanager
def claimed(file: Path = STATE_FILE) -> Iterator[IO[str]]:
    """Hold the state file; it is empty afterwards.

    Raises:
        click.ClickException: another `penstock up` holds it, or the folder cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # 0600: the file carries secrets, if only those of a playground.
        state = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="utf-8")
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror}; it needs a folder in which it may write"
        raise click.ClickException(message) from error
    with state:
        try:
            fcntl.flock(state, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            message = f"`penstock up` is running already in this folder ({file} is locked); stop that one first"
            raise click.ClickException(message) from error
        try:
            state.truncate(0)
            yield state
        finally:
            # Not unlinked: a second `up` may have it open already, and would lock a file nobody else can see.
            state.truncate(0)


def publish(state: IO[str], environ: dict[str, str], url: str) -> None:
    """Write what other commands need."""
    state.seek(0)
    state.truncate()
    json.dump({"url": url, "environment": environ}, state)
    state.flush()


def current(file: Path = STATE_FILE) -> dict[str, Any] | None:
    """Return what the running `penstock up` of this folder has published; None when none runs or it is not up yet."""
    with contextlib.suppress(OSError, ValueError), file.open(encoding="utf-8") as state:
        try:
            fcntl.flock(state, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found: dict[str, Any] = json.load(state)
            return found
    return None


def command_name() -> str:
    """Return how this person calls us: by name where that works, else by the path they have just used."""
    return "penstock" if shutil.which("penstock") else sys.argv[0].replace("__main__.py", "penstock")


def lend(ctx: click.Context) -> None:
    """Let a client command see the environment of the `penstock up` that runs in this folder; own variables win."""
    if ctx.invoked_subcommand not in CLIENTS or {"-h", "--help"} & set(ctx.args):
        return
    found = current()
    if found is None:
        return
    # Not at the top: settings take longer to import than `penstock --help` may last.
    from contracts.settings.environ import adopt, environment

    names = [name for name in found["environment"] if name not in environment()]
    adopt(found["environment"])
    ctx.default_map = {**(ctx.default_map or {}), "send": {"url": found["url"]}}
    if names:
        click.echo(f"using the running `penstock up` ({STATE_FILE})", err=True)
