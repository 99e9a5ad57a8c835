"""Puts the worker's memory into large pages.

Between two turns of the loop other processes run, and the processor may forget where our pages lie; on a virtual
machine it is dear to find them again. An event touches hundreds of small pages, and a few large ones (docs/adr/0029).
Linux only; elsewhere, and where the kernel cannot, nothing happens.
"""

import asyncio
import contextlib
import ctypes
import re
from itertools import accumulate
from pathlib import Path

# Source: Linux, include/uapi/asm-generic/mman-common.h, since 6.1 (checked 2026-11).
_MADV_COLLAPSE = 25
_LARGE_BYTES = 2 * 2**20
# What is missing of a large page is taken from the machine: areas that are nearly empty, as stacks are, stay as they
# are.
_LEAST_SHARE = 0.75
# Of all areas together, since a quarter of some GB may be all that a container has left.
_MOST_MISSING_BYTES = 8 * 2**20
_FIRST_S, _LONGEST_S = 2.0, 600.0
_SMAPS = Path("/proc/self/smaps")
# Memory of nobody's file, private and writable: the heap, and what Python and the C library have mapped.
_AREA = re.compile(
    r"^([0-9a-f]+)-([0-9a-f]+) rw-p 0+ 00:00 0 *(?:\[heap\])?\n"
    r"(?:(?:Size|KernelPageSize|MMUPageSize): .*\n)*Rss: +(\d+) kB",
    re.MULTILINE,
)


def filled_areas(smaps: str) -> list[tuple[int, int]]:
    """Return address and bytes of the areas that may lie in large pages, out of the text of a process's smaps."""
    full = []
    for first, end, resident_kb in _AREA.findall(smaps):
        start, size_bytes, resident_bytes = int(first, 16), int(end, 16) - int(first, 16), int(resident_kb) * 1024
        if size_bytes >= _LARGE_BYTES and resident_bytes >= _LEAST_SHARE * size_bytes:
            full.append((size_bytes - resident_bytes, start, size_bytes))
    # The fullest first: what they cost is the least.
    full.sort()
    costs = accumulate(missing_bytes for missing_bytes, _, _ in full)
    return sorted(
        (start, size) for cost, (_, start, size) in zip(costs, full, strict=True) if cost <= _MOST_MISSING_BYTES
    )


def use_large_pages() -> None:
    """Have the kernel copy the process's memory into large pages, once; nothing where it cannot.

    Blocking: a tenth of a second, for a thread of its own; who touches a page that is being copied waits a millisecond.
    """
    try:
        advise = ctypes.CDLL(None).madvise
        smaps = _SMAPS.read_text("utf-8", errors="replace")
    except (OSError, AttributeError, TypeError):
        # No Linux.
        return
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, size_bytes in filled_areas(smaps):
        # Refused by older kernels, without free large pages, and for an area that has gone: then it stays as it is.
        advise(start, size_bytes, _MADV_COLLAPSE)


def give_back() -> None:
    """Give freed memory back to the machine, once, for behind what took much; nothing where the C library cannot.

    By itself glibc keeps what many small pieces were freed from: a worker that had looked through 25,000 results at its
    start stayed 15 to 60 MB larger than one that had not. Holes are given back out of large pages, too, and what is
    left of those is small pages: they are made large again.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
        use_large_pages()


async def keep_large() -> None:
    """Use large pages again and again, ever more rarely: memory grows when the work begins."""
    wait_s = _FIRST_S
    while True:
        await asyncio.sleep(wait_s)
        # No thread or memory to be had now, as in a container with limits: that ends no worker.
        with contextlib.suppress(RuntimeError, MemoryError):
            await asyncio.to_thread(use_large_pages)
        wait_s = min(2 * wait_s, _LONGEST_S)
