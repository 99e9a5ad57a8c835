"""Header lines with an index by name: a request's are looked at a dozen times, by whoever verifies and maps it."""

from collections.abc import Iterable, Sequence

HeaderLines = Sequence[tuple[bytes, bytes]]
_NONE: dict[bytes, list[bytes]] = {}


class Lines(list[tuple[bytes, bytes]]):
    """Header lines as they came; not changed afterwards.

    Attributes:
        once: values of the names that stand there once.
        repeated: those of the others.
    """

    __slots__ = ("once", "repeated")

    def __init__(self, lines: Iterable[tuple[bytes, bytes]]) -> None:
        super().__init__(lines)
        self.once = dict(self)
        self.repeated = _NONE
        if len(self.once) != len(self):
            self._set_apart()

    def _set_apart(self) -> None:
        values: dict[bytes, list[bytes]] = {}
        for name, value in self:
            values.setdefault(name, []).append(value)
        self.repeated = {name: found for name, found in values.items() if len(found) > 1}
        for name in self.repeated:
            del self.once[name]


def values_of(headers: HeaderLines, name: bytes) -> list[bytes]:
    """Return the values of every line of a header."""
    if type(headers) is Lines:
        value = headers.once.get(name)
        return headers.repeated.get(name, []) if value is None else [value]
    return [value for line, value in headers if line == name]
