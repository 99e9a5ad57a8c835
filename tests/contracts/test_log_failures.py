"""What nobody has caught is in the log with its type and place, and quotes no event: tasks, callbacks, threads."""

import json
import logging
import subprocess
import sys
from typing import Any

import pytest

from contracts.logs import Kind
from tests.contracts.log_lab import configured
from tests.support import ROOT

PAYLOAD = "Ines Weber"
_HEAD = """
import asyncio, gc, sys, threading, uvloop
from contracts import logs
from contracts.settings import LogSettings

logs.configure(LogSettings(format="json"))

def convert(text):
    float(text)

async def fail():
    convert("Ines Weber")

def run(main):
    (uvloop.run if sys.argv[1] == "uvloop" else asyncio.run)(main)
"""


def told(code: str, loop: str = "asyncio") -> dict[str, Any]:
    """Run a program and return the one line that it logs."""
    args = [sys.executable, "-c", _HEAD + code, loop]
    said = subprocess.run(args, capture_output=True, text=True, timeout=50, cwd=ROOT, check=False).stderr
    assert PAYLOAD not in said
    lines = said.splitlines()
    assert len(lines) == 1, said
    line: dict[str, Any] = json.loads(lines[0])
    assert "in convert\n" in line["exception"]
    assert line["exception"].endswith("\nValueError")
    return line


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_task_whose_error_nobody_asks_for(loop: str) -> None:
    code = """
async def main():
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    del task
    gc.collect()

run(main())
"""
    line = told(code, loop)
    assert line["event"].startswith("Task exception was never retrieved: fail at <string>:")
    assert line["component"] == "asyncio"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_callback_that_fails(loop: str) -> None:
    code = """
async def main():
    asyncio.get_running_loop().call_soon(convert, "Ines Weber")
    await asyncio.sleep(0)
    await asyncio.sleep(0)

run(main())
"""
    assert told(code, loop)["event"] == "Exception in callback"


def test_a_thread_that_ends_with_an_error() -> None:
    code = """
thread = threading.Thread(target=convert, args=("Ines Weber",), name="tail")
thread.start()
thread.join()
"""
    line = told(code)
    assert (line["component"], line["event"], line["detail"]) == ("threading", "thread.failed", "tail")


def test_a_program_that_ends_with_an_error() -> None:
    line = told("asyncio.run(fail())\n")
    assert (line["component"], line["event"], line["level"]) == ("process", "process.failed", "critical")


def test_an_error_put_into_a_librarys_line(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.getLogger("mode").error("[^%s]: Crashed reason=%r", "Agent", ValueError(PAYLOAD))

    written = capsys.readouterr().err
    assert PAYLOAD not in written
    assert json.loads(written)["event"] == "[^Agent]: Crashed reason='ValueError'"


def test_an_error_that_is_a_librarys_whole_line(capsys: pytest.CaptureFixture[str]) -> None:
    with configured():
        logging.getLogger("mode").error(ValueError(PAYLOAD))

    written = capsys.readouterr().err
    assert PAYLOAD not in written
    assert json.loads(written)["event"] == "ValueError"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (("it broke: %(why)s", {"why": ValueError(PAYLOAD)}), "it broke: ValueError"),
        (("they broke: %s", [ValueError(PAYLOAD), 7]), "they broke: ['ValueError', 7]"),
        (("they broke: %s, %s", (ValueError(PAYLOAD),), {"a": [KeyError(PAYLOAD)]}), None),
        (([ValueError(PAYLOAD)],), "['ValueError']"),
        (("%s broke: %s", Kind("a", 1, "b"), 7), "Kind(component='a', level=1, text='b', error=()) broke: 7"),
    ],
    ids=["by name", "in a list", "in a tuple, and deeper", "a list as the whole", "none, in a named tuple"],
)
def test_errors_in_what_is_put_into_a_librarys_line(
    line: tuple[Any, ...], told: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    with configured():
        logging.getLogger("mode").error(*line)

    written = capsys.readouterr().err
    assert PAYLOAD not in written
    assert json.loads(written)["event"] == (told or "they broke: ('ValueError',), {'a': ['KeyError']}")


class _Speechless(OSError):
    def __str__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize("line", [("%s broke: %s", "Agent", _Speechless()), (_Speechless(),)], ids=["put in", "whole"])
def test_an_error_without_a_text_ends_neither_its_line_nor_who_writes_it(
    line: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with configured():
        logging.getLogger("mode").error(*line)

    assert json.loads(capsys.readouterr().err)["event"].endswith("_Speechless")
