"""What objects on S3 hold: JSON lines of CloudEvents, or a Parquet table."""

import gzip
import io
from collections.abc import Sequence
from typing import Any, Protocol

from contracts.errors import ConfigError
from contracts.settings.egress import S3Door
from gateways.egress.base import Item
from gateways.egress.rendering import attributes, structured, text_of

# CloudEvents attributes that have a column of their own.
_TEXTS = ("id", "source", "type", "subject", "eventid", "eventsource", "eventtype", "delivery", "owner", "traceparent")


class Encoder(Protocol):
    """Makes an object's bytes; blocking."""

    suffix: str
    content_type: str
    content_encoding: str

    def encode(self, items: Sequence[Item]) -> bytes:
        """Return the bytes of one object: the same for the same items."""
        ...


class JsonLines:
    """One CloudEvent in JSON per line."""

    content_type = "application/x-ndjson"
    # Not `gzip`: readers that undo it by themselves would hand out a file whose name lies.
    content_encoding = ""

    def __init__(self, *, is_compressed: bool) -> None:
        self._is_compressed = is_compressed
        self.suffix = ".jsonl.gz" if is_compressed else ".jsonl"
        if is_compressed:
            self.content_type = "application/gzip"

    def encode(self, items: Sequence[Item]) -> bytes:
        """Return the lines."""
        lines = b"".join(structured(item) + b"\n" for item in items)
        # Without the time in its header: the same records are the same bytes.
        return gzip.compress(lines, compresslevel=6, mtime=0) if self._is_compressed else lines


class Parquet:
    """A table with the attributes, where the record lies, and the value as JSON text."""

    suffix = ".parquet"
    content_type = "application/vnd.apache.parquet"
    content_encoding = ""

    def __init__(self, arrow: Any, parquet: Any) -> None:
        self._arrow = arrow
        self._parquet = parquet
        text, whole = arrow.string(), arrow.int64()
        columns = [(name, text) for name in _TEXTS]
        columns += [("time", arrow.timestamp("ms", tz="UTC")), ("status", text), ("route", text), ("key", text)]
        columns += [("topic", text), ("partition", whole), ("offset", whole), ("value", text)]
        self._schema = arrow.schema(columns)

    def encode(self, items: Sequence[Item]) -> bytes:
        """Return the file."""
        table = self._arrow.Table.from_pylist([_row(item) for item in items], schema=self._schema)
        sink = io.BytesIO()
        self._parquet.write_table(table, sink, compression="zstd")
        return sink.getvalue()


def _row(item: Item) -> dict[str, Any]:
    found = attributes(item)
    place = item.position
    return {name: found.get(name) for name in _TEXTS} | {
        # When the outcome was written, as the log says; milliseconds.
        "time": place.timestamp_ms,
        "status": item.status,
        "route": item.route,
        "key": None if item.key is None else item.key.decode(errors="replace"),
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
        "value": text_of(item),
    }


def encoder_for(name: str, settings: S3Door) -> Encoder:
    """Return the encoder of a door's section.

    Raises:
        ConfigError: Parquet without its library.
    """
    if settings.format == "jsonl":
        return JsonLines(is_compressed=settings.compression == "gzip")
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        message = f"egress.{name}.format: parquet needs the extra: pip install 'penstock[parquet]'"
        raise ConfigError(message) from error
    return Parquet(pa, parquet)
