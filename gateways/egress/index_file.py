"""The file of the index of results: whose it is, who holds it, and how it goes away."""

import contextlib
import fcntl
import sqlite3
from pathlib import Path

from contracts.errors import ConfigError

# How a file of SQLite begins.
_HEADER = b"SQLite format 3\0"


def check_header(path: Path) -> None:
    """Refuse a file that is none of SQLite's: a wrong path must not cost anybody a file.

    Zeros are what a file system may leave of an index after a loss of power.

    Raises:
        ConfigError: it is none, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        message = f"gateway.results_view.path: {path}: {error.strerror}"
        raise ConfigError(message) from error
    if header.strip(b"\0") and header != _HEADER:
        raise foreign(path)


def foreign(path: Path) -> ConfigError:
    """Return what to raise for a file that is somebody else's."""
    return ConfigError(
        f"gateway.results_view.path: {path} is no index of results, and would be overwritten: name another file"
    )


def unusable(path: Path, error: Exception) -> ConfigError:
    """Return what to raise for a file that cannot be opened, and may be anybody's."""
    return ConfigError(f"gateway.results_view.path: {path}: {error}")


def remove(path: Path) -> None:
    """Remove it with what SQLite keeps beside it."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """Return a number that SQLite keeps."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def hold(path: Path) -> "contextlib.ExitStack":
    """Keep other processes away from the file until the stack is closed.

    Raises:
        ConfigError: one is there already, or the folder cannot be written to.
    """
    stack = contextlib.ExitStack()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = stack.enter_context(path.with_name(path.name + ".lock").open("a"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stack.close()
        message = f"gateway.results_view.path: {path} is used by another gateway; each process needs a file of its own"
        raise ConfigError(message) from error
    except OSError as error:
        stack.close()
        message = f"gateway.results_view.path: {path}: {error.strerror}"
        raise ConfigError(message) from error
    return stack


def primary_code(error: sqlite3.Error) -> int:
    """Return what kind of error it is, as SQLite numbers them."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF
