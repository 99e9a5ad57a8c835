"""Large pages for the worker's large_pages."""

import asyncio
import ctypes
import mmap
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.topics import Topics
from producers.embedded import EmbeddedBroker
from streams import large_pages
from tests.deploy.stack_file import example_environment
from tests.support import ChildProcess, eventually

SMAPS = Path("/proc/self/smaps")
MB = 2**20


def area(first: int, size_mb: int, resident_mb: float, rights: str = "rw-p", of: str = "") -> str:
    """Return an area as the kernel writes it, without the lines that nobody reads."""
    where = "fe:00 4711" if of.startswith("/") else "00:00 0"
    return (
        f"{first:x}-{first + size_mb * MB:x} {rights} 00000000 {where} {of:>30}\n"
        f"Size:           {size_mb * 1024:8} kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n"
        f"Rss:            {int(resident_mb * 1024):8} kB\nPss:            {int(resident_mb * 1024):8} kB\n"
        "VmFlags: rd wr mr mw me ac sd\n"
    )


def test_areas_that_are_nearly_full_are_found() -> None:
    smaps = area(0x1000000, 22, 21, of="[heap]") + area(0x7F0000000000, 8, 7) + area(0x7F1000000000, 4, 4)
    assert large_pages.filled_areas(smaps) == [
        (0x1000000, 22 * MB),
        (0x7F0000000000, 8 * MB),
        (0x7F1000000000, 4 * MB),
    ]


@pytest.mark.parametrize(
    "text",
    [
        area(0x7F0000000000, 8, 0.1),
        area(0x7F0000000000, 8, 8, of="[stack]"),
        area(0x7F0000000000, 8, 8, of="/usr/lib/libc.so.6"),
        area(0x7F0000000000, 8, 8, rights="r-xp"),
        area(0x7F0000000000, 8, 8, rights="rw-s"),
        area(0x7F0000000000, 1, 1),
    ],
    ids=["stack of a thread", "stack", "file", "code", "shared", "small"],
)
def test_all_others_stay_as_they_are(text: str) -> None:
    assert large_pages.filled_areas(text + area(0x7F1000000000, 4, 4)) == [(0x7F1000000000, 4 * MB)]


def test_no_more_than_some_mb_are_taken_from_the_machine_however_large_the_worker_is() -> None:
    smaps = area(0x7F0000000000, 1024, 1000) + area(0x7F1000000000, 512, 506) + area(0x7F2000000000, 4, 3)
    assert large_pages.filled_areas(smaps) == [(0x7F1000000000, 512 * MB), (0x7F2000000000, 4 * MB)]


def filled() -> tuple[mmap.mmap, int]:
    """Return memory of our own, all of it there, and where it is."""
    made = mmap.mmap(-1, 16 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    made.write(b"\x01" * len(made))
    return made, ctypes.addressof(ctypes.c_char.from_buffer(made))


@pytest.fixture
def _able() -> None:
    """Skip where this kernel cannot."""
    if not SMAPS.exists():
        pytest.skip("not Linux")
    tried, start = filled()
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if advise(start, len(tried), 25) != 0:
        pytest.skip("this kernel cannot, or has no large page left")


def large_kb(smaps: Path = SMAPS, address: int | None = None) -> int:
    """Return how much of a process's memory is in large pages: of all areas, or of the one at an address."""
    areas = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (?:.*\n)+?AnonHugePages: +(\d+) kB", re.MULTILINE)
    return sum(
        int(found[3])
        for found in areas.finditer(smaps.read_text())
        if address is None or int(found[1], 16) <= address < int(found[2], 16)
    )


@pytest.mark.usefixtures("_able")
def test_what_is_in_memory_lies_in_large_pages_afterwards_and_is_the_same() -> None:
    made, where = filled()
    large_pages.use_large_pages()
    assert large_kb(address=where) > 0
    assert made[:] == b"\x01" * len(made)


@pytest.mark.embedded
@pytest.mark.timeout(120)
@pytest.mark.usefixtures("_able")
def test_a_worker_does_it_soon_after_its_start() -> None:
    with EmbeddedBroker({topic.name: 1 for topic in Topics().table()}) as broker:
        environ = {
            **example_environment(),
            "PENSTOCK_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap,
            "PENSTOCK_KAFKA__EMBEDDED": "true",
            "PENSTOCK_WORKER__HEALTH_PORT": "0",
        }
        with ChildProcess("streams", "worker", env=environ) as worker:
            smaps = Path(f"/proc/{worker.process.pid}/smaps")
            assert eventually(lambda: large_kb(smaps), 60.0)


def test_where_the_kernel_says_nothing_nothing_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(large_pages, "_SMAPS", tmp_path / "smaps")
    large_pages.use_large_pages()


async def test_it_is_done_ever_more_rarely_and_goes_on_where_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    done: list[int] = []

    async def sleep(wait_s: float) -> None:
        if len(waits) == 12:
            raise asyncio.CancelledError
        waits.append(wait_s)

    async def to_thread(call: Callable[[], None]) -> None:
        call()
        if len(waits) == 3:
            message = "can't start new thread"
            raise RuntimeError(message)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    monkeypatch.setattr(large_pages, "use_large_pages", lambda: done.append(len(waits)))
    with pytest.raises(asyncio.CancelledError):
        await large_pages.keep_large()
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]
    assert done == list(range(1, 13))
