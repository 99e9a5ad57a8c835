"""Hands out tests to several pytest processes: those that share something of their module stay in one.

Each process would make the same programs for itself otherwise. xdist 3.8 marks groups in an attribute that pytest 9.2
does not read any more, so that its `loadgroup` knows none.
"""

import functools

from xdist.scheduler import LoadScopeScheduling

from tests.support import ROOT


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc] # no annotations upstream
    """Hands out one test at a time, or all of a module; the modules first, those with most tests before the others."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def group_of(nodeid: str) -> str:
    """Return the name of the group that a test is handed out with: of its module, or its own."""
    path = nodeid.partition("::")[0]
    return path if _shares(path) else nodeid


@functools.cache
def _shares(path: str) -> bool:
    file = ROOT / path
    return file.is_file() and 'fixture(scope="module")' in file.read_text("utf-8")
