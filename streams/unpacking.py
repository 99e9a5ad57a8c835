"""How what was fetched becomes records: in pieces, with foreign header names, large batches held compressed.

Verified, like streams/shell.py, against its TESTED_VERSIONS; streams/fetching.py puts the classes in aiokafka's place.
Source of the layout: Kafka protocol, "Record Batch", format 2.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, lz4_encode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBase, _DefaultRecordBatchPy
from aiokafka.record.legacy_records import LegacyRecordBatch
from aiokafka.record.util import calc_crc32c, decode_varint

# A fetch counts compressed bytes: 128 KB can hold 20,000 small records, and aiokafka makes objects of all of them.
# Three whole bundles of streams/fetching.py.
_PIECE_RECORDS = 96
_BATCH_HEAD = struct.Struct(">qi")
_BATCH_START = struct.Struct(">qiib")
# Of the oldest format, behind length: a batch that says that it has less is damaged, and nobody knows where it ends.
_LEAST_BYTES = 14
_MAGIC_OFFSET = 16
_MAGIC_WITH_HEADERS = 2
# A batch stays in memory as long as its records have not been read to the end, one of each partition. Uncompressed it
# has up to a megabyte with the usual settings of a producer, so from here on it is held in compressed parts.
_LARGE_BYTES = 131_072
_PART_BYTES = 65_536
_FEW_RECORDS = 8
_HEAD = DefaultRecordBase.HEADER_STRUCT
_CRC_OFFSET = DefaultRecordBase.CRC_OFFSET
_ATTRIBUTES_OFFSET = DefaultRecordBase.ATTRIBUTES_OFFSET
_CODEC_MASK = DefaultRecordBase.CODEC_MASK
_CODEC_LZ4 = DefaultRecordBase.CODEC_LZ4
_DECODE: dict[int, Callable[[bytes], bytes]] = {
    DefaultRecordBase.CODEC_NONE: bytes,
    DefaultRecordBase.CODEC_GZIP: gzip_decode,
    DefaultRecordBase.CODEC_SNAPPY: snappy_decode,
    DefaultRecordBase.CODEC_LZ4: lz4_decode,
    DefaultRecordBase.CODEC_ZSTD: zstd_decode,
}
# The fast one: the parts live for seconds.
_LEVEL = 1

_MemoryRecords = fetcher.MemoryRecords
_PartitionRecords = fetcher.PartitionRecords
_FetchResult = fetcher.FetchResult


class Piece(list[Any]):
    """Records of one fetch.

    Attributes:
        epochs: of the leaders that wrote what was fetched: from which offset on, and the epoch.
    """

    epochs: tuple[tuple[int, int], ...] = ()


class PiecewiseFetchResult(_FetchResult):  # type: ignore[misc,valid-type] # aiokafka has no types here
    """Hands out some records of each partition at a time, so that the others have their turn."""

    def getall(self, max_records: int | None = None) -> Piece:
        """Return the next records of the partition, at most as many as told and as one piece has."""
        # They are gone with the last record.
        records = self._partition_records
        found = Piece(super().getall(min(_PIECE_RECORDS, max_records or _PIECE_RECORDS)))
        found.epochs = getattr(records, "epochs", ())
        return found


class KeptRecords:
    """aiokafka's fast parser, large batches in parts, and the bytes, for the slow one."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._inner: Any = _MemoryRecords(raw)
        self.size_in_bytes = self._inner.size_in_bytes
        self.has_next = self._inner.has_next
        self.next_batch = self._inner.next_batch

    def start(self, offset: int) -> None:
        """Begin with the batch that holds this offset, before the first one has been taken."""
        if _has_large(self.raw):
            self._inner = _Ahead(self._in_parts(offset))
            self.has_next = self._inner.has_next
            self.next_batch = self._inner.next_batch

    def _in_parts(self, offset: int) -> Iterator[Any]:
        for batch in _batches(self.raw):
            parts = parts_of(batch)
            for part in parts:
                # None of them is kept here: what is read is unpacked, and as large as the batch in the end.
                found = _MemoryRecords(part).next_batch()
                # aiokafka goes on behind each batch that it has seen: one before the offset would set it back.
                if found.next_offset > offset or part is parts[-1]:
                    yield found


class TolerantPartitionRecords(_PartitionRecords):  # type: ignore[misc,valid-type] # aiokafka has no types here
    """Goes on with the slow parser where the fast one meets a header name that is not UTF-8; says where damage is."""

    _records: Any

    def __init__(self, tp: Any, records: Any, aborted: Any, fetch_offset: int, *args: Any) -> None:
        self.epochs: tuple[tuple[int, int], ...] = ()
        if isinstance(records, KeptRecords):
            records.start(fetch_offset)
            self.epochs = tuple(_epochs(records.raw))
        super().__init__(tp, records, aborted, fetch_offset, *args)

    def _unpack_records(self) -> Iterator[Any]:
        # One generator for both: each more would be gone through once per record.
        try:
            try:
                yield from super()._unpack_records()
            except UnicodeDecodeError:
                # From the batch with that record on: the state of aborted transactions is that of this batch.
                self._records = _SlowRecords(self._records.raw, self.next_fetch_offset)
                yield from super()._unpack_records()
        except Exception as error:
            # Whatever is wrong with it: who has to mend or to skip it needs the place.
            place = f"{self._tp.topic}/{self._tp.partition}, offset {self.next_fetch_offset} or behind it"
            message = f"a batch cannot be read ({place}): {error!r}"
            raise CorruptRecordException(message) from error


class _Ahead:
    """Batches one by one, as aiokafka asks for them."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches
        self._next: Any = next(batches, None)

    def has_next(self) -> bool:
        return self._next is not None

    def next_batch(self) -> Any:
        batch, self._next = self._next, next(self._batches, None)
        return batch


class _SlowRecords(_Ahead):
    """The batches that hold or follow an offset."""

    def __init__(self, raw: bytes, offset: int) -> None:
        super().__init__(batch for batch in map(self._parsed, _batches(raw)) if batch.next_offset > offset)

    @staticmethod
    def _parsed(raw: bytes) -> Any:
        magic = raw[_MAGIC_OFFSET]
        return _SlowBatch(raw) if magic >= _MAGIC_WITH_HEADERS else LegacyRecordBatch(raw, magic)


class _SlowBatch(_DefaultRecordBatchPy):  # type: ignore[misc] # final for its authors
    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        super()._maybe_uncompress()
        self._buffer = _Lenient(self._buffer)


class _Lenient(bytearray):
    """Bytes whose text keeps what is not UTF-8 as lone surrogates."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        return _Lenient(found) if isinstance(index, slice) else found

    def decode(self, encoding: str = "utf-8", _errors: str = "strict") -> str:
        return super().decode(encoding, "surrogateescape")


def _batches(raw: bytes) -> Iterator[bytes]:
    """Yield the whole batches of what was fetched.

    Raises:
        CorruptRecordException: the length of one cannot be.
    """
    start, size = 0, len(raw)
    while start + _BATCH_HEAD.size <= size:
        base, length = _BATCH_HEAD.unpack_from(raw, start)
        if length < _LEAST_BYTES:
            message = f"the length of the batch of offset {base} is {length} bytes"
            raise CorruptRecordException(message)
        end = start + _BATCH_HEAD.size + length
        if end > size:
            return
        yield raw[start:end]
        start = end


def _epochs(raw: bytes) -> Iterator[tuple[int, int]]:
    """Yield the epochs of leaders in what was fetched, each with the offset of the first batch that has it."""
    start, newest = 0, None
    while start + _BATCH_START.size <= len(raw):
        base, length, epoch, magic = _BATCH_START.unpack_from(raw, start)
        if length < _LEAST_BYTES:
            return
        if magic >= _MAGIC_WITH_HEADERS and epoch >= 0 and epoch != newest:
            newest = epoch
            yield base, epoch
        start += _BATCH_HEAD.size + length


def _has_large(raw: bytes) -> bool:
    """Tell whether a batch of what was fetched may be large; not of what is damaged, which aiokafka refuses to read."""
    try:
        return any(map(_may_be_large, _batches(raw)))
    except CorruptRecordException:
        return False


def _may_be_large(batch: bytes) -> bool:
    """Tell whether it is worth looking how large the records of a batch are."""
    if len(batch) < _HEAD.size or batch[_MAGIC_OFFSET] != _MAGIC_WITH_HEADERS:
        return False
    *_, attributes, _, _, _, _, _, _, count = _HEAD.unpack_from(batch)
    is_compressed = attributes & _CODEC_MASK != DefaultRecordBase.CODEC_NONE
    return bool(count >= _FEW_RECORDS and (is_compressed or len(batch) > _LARGE_BYTES))


def parts_of(batch: bytes) -> list[bytes]:
    """Return a large batch as several small ones with the same records, each compressed; any other as it is.

    Args:
        batch: one whole record batch, checksum not looked at yet; one that is damaged is returned as it is, for
            aiokafka to refuse.
    """
    if not _may_be_large(batch):
        return [batch]
    head = _HEAD.unpack_from(batch)
    if calc_crc32c(batch[_ATTRIBUTES_OFFSET:]) != head[4]:
        return [batch]
    try:
        records = _DECODE[head[5] & _CODEC_MASK](batch[_HEAD.size :])
        return _cut(head, records) if len(records) > _LARGE_BYTES else [batch]
    except Exception:  # noqa: BLE001 - whatever is wrong with it, aiokafka says it, with the partition
        return [batch]


def _cut(head: tuple[int, ...], records: bytes) -> list[bytes]:
    """Return the records of a batch as several batches."""
    parts, at, start, count, left = [], 0, 0, 0, head[12]
    while left:
        length, body = decode_varint(records, at)
        # Behind the length: attributes (a byte), timestamp delta, offset delta.
        _, place = decode_varint(records, body + 1)
        delta, _ = decode_varint(records, place)
        at = body + length
        count, left = count + 1, left - 1
        if not left or at - start >= _PART_BYTES:
            # The last part ends where the batch ends: its last records may have been compacted away.
            parts.append(_part(head, records[start:at], count, delta if left else head[6]))
            start, count = at, 0
    return parts


def _part(head: tuple[int, ...], records: bytes, count: int, last_delta: int) -> bytes:
    """Return a batch of some records of another one; their offsets and times count from the same base as before."""
    base, _, epoch, magic, _, attributes, _, first_ms, newest_ms, producer, producer_epoch, sequence, _ = head
    packed = lz4_encode(records, _LEVEL)
    made = bytearray(_HEAD.size)
    length = _HEAD.size - _BATCH_HEAD.size + len(packed)
    attributes = attributes & ~_CODEC_MASK | _CODEC_LZ4
    _HEAD.pack_into(
        made, 0, base, length, epoch, magic, 0, attributes, last_delta, first_ms, newest_ms, producer, producer_epoch,
        sequence, count,
    )  # fmt: skip
    made += packed
    struct.pack_into(">I", made, _CRC_OFFSET, calc_crc32c(bytes(made[_ATTRIBUTES_OFFSET:])))
    return bytes(made)
