"""Large batches are held in compressed parts, and read as if nothing had happened to them."""

import random
import struct
import tracemalloc
from itertools import islice
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.codec import lz4_decode
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy as Builder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from streams import unpacking
from streams.unpacking import KeptRecords, TolerantPartitionRecords, parts_of

AT = TopicPartition("events", 0)
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LAST_DELTA = struct.Struct(">i")
TRANSACTIONAL, READ_COMMITTED, APPEND_TIME = 0x10, 1, 0x08


def batch(codec: int, records: int = 1000, base: int = 7, *, producer: int = -1, attributes: int = 0) -> bytes:
    """Return a batch of some 300 bytes a record, with offsets left out as compaction does."""
    dice = random.Random(f"{codec}{records}{base}")  # noqa: S311 - reproducible on purpose
    builder = Builder(2, codec, int(bool(attributes & TRANSACTIONAL)), producer, 0, 0, 2**30)
    offset = 0
    for number in range(records):
        key = None if number % 7 == 0 else b"k%d" % (number % 5)
        value = None if number % 11 == 0 else b"%d" % dice.getrandbits(64) + b"text " * dice.randrange(100)
        builder.append(offset, 1_000 + dice.randrange(-900, 10**9), key, value, [("h", b"1"), ("n", None)])
        offset += dice.choice((1, 1, 1, 300))
    raw = bytearray(builder.build())
    raw[:8] = base.to_bytes(8, "big")
    return resealed(raw)


def resealed(raw: bytearray) -> bytes:
    """Return a batch that was changed, with the checksum of what it is now."""
    struct.pack_into(">I", raw, unpacking._CRC_OFFSET, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def read(records: Any, offset: int = 0, aborted: list[tuple[int, int]] | None = None) -> tuple[list[Any], int]:
    parsed = TolerantPartitionRecords(AT, records, aborted, offset, None, None, True, READ_COMMITTED)
    return list(parsed), parsed.next_fetch_offset


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_record_is_what_it_would_be_without_parts(codec: int) -> None:
    raw = batch(codec) + batch(codec, 20, 400_000) + batch(codec, 2000, 500_000)
    wanted = read(MemoryRecords(raw))

    assert len(parts_of(raw[: len(batch(codec))])) > 3
    assert read(KeptRecords(raw)) == wanted
    assert read(KeptRecords(raw), 90_000) == read(MemoryRecords(raw), 90_000)


def test_records_that_have_the_time_of_their_broker_keep_it_in_parts() -> None:
    """It is that of the batch. An event that came with another one the next time would be called again."""
    raw = bytearray(batch(CODECS["lz4"]))
    raw[unpacking._ATTRIBUTES_OFFSET + 1] |= APPEND_TIME
    records, _ = read(KeptRecords(resealed(raw)))

    assert len(parts_of(resealed(raw))) > 3
    assert records == read(MemoryRecords(resealed(raw)))[0]
    assert {(one.timestamp_type, one.timestamp) for one in records} == {(1, unpacking._HEAD.unpack_from(raw)[8])}


def test_no_part_is_large_and_only_what_is_large_is_cut() -> None:
    parts = parts_of(batch(CODECS["lz4"]))
    sizes = [len(lz4_decode(part[unpacking._HEAD.size :])) for part in parts]

    assert max(sizes) < unpacking._PART_BYTES + 1000
    assert parts_of(batch(CODECS["lz4"], 100)) == [batch(CODECS["lz4"], 100)]
    assert parts_of(batch(CODECS["none"], 100)) == [batch(CODECS["none"], 100)]


def test_records_that_wait_to_be_read_are_held_compressed() -> None:
    raw = batch(CODECS["lz4"], 8000)
    tracemalloc.start()
    try:
        parsed = TolerantPartitionRecords(AT, KeptRecords(raw), None, 0, None, None, True, READ_COMMITTED)
        for _ in islice(parsed, 7000):
            pass
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(lz4_decode(raw[unpacking._HEAD.size :])) > 2_000_000
    assert held_bytes < 3 * len(raw)


def test_reading_goes_on_behind_what_was_compacted_away_at_the_end() -> None:
    raw = bytearray(batch(CODECS["lz4"]))
    LAST_DELTA.pack_into(raw, 23, 10**6)

    assert read(KeptRecords(resealed(raw)))[1] == 7 + 10**6 + 1


def test_aborted_records_stay_unread() -> None:
    raw = batch(CODECS["lz4"], producer=5, attributes=TRANSACTIONAL) + batch(CODECS["lz4"], 10, 400_000)
    found, _ = read(KeptRecords(raw), aborted=[(5, 7)])

    assert min(one.offset for one in found) == 400_000


@pytest.mark.parametrize("place", [30, 500])
def test_a_damaged_batch_is_refused_as_aiokafka_refuses_it(place: int) -> None:
    raw = bytearray(batch(CODECS["lz4"]))
    raw[place] ^= 1

    assert parts_of(bytes(raw)) == [bytes(raw)]
    with pytest.raises(CorruptRecordException):
        read(KeptRecords(bytes(raw)))


@pytest.mark.parametrize("length", [-(2**31), -100, -13, -12, -1, 0, 13, 20, 45, 60])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "later"])
def test_a_batch_whose_length_is_damaged_is_refused_by_name_of_its_place_when_it_is_read(
    length: int, is_first: bool
) -> None:
    before = batch(CODECS["none"], 3) if not is_first else b""
    raw = bytearray(batch(CODECS["gzip"], 1000, 1000))
    struct.pack_into(">i", raw, 8, length)
    whole = before + bytes(raw) + batch(CODECS["gzip"], 1000, 400_000)
    place = len(read(KeptRecords(before))[0]) and read(KeptRecords(before))[1]

    # Not here: this runs in the task that fetches, of which nobody hears what it raises.
    parsed = TolerantPartitionRecords(AT, KeptRecords(whole), None, 0, None, None, True, READ_COMMITTED)
    with pytest.raises(CorruptRecordException, match=f"events/0, offset {place} or behind"):
        list(parsed)


def test_a_damaged_length_behind_a_large_batch_is_refused_when_it_is_read() -> None:
    raw = bytearray(batch(CODECS["gzip"], 10, 400_000))
    struct.pack_into(">i", raw, 8, -12)
    large = batch(CODECS["gzip"])
    parsed = TolerantPartitionRecords(AT, KeptRecords(large + bytes(raw)), None, 0, None, None, True, READ_COMMITTED)

    found: list[Any] = []
    with pytest.raises(CorruptRecordException, match=r"events/0.*offset 400000 is -12 bytes"):
        found.extend(parsed)
    assert [one.offset for one in found] == [one.offset for one in read(KeptRecords(large))[0]][: len(found)]


def test_a_batch_that_cannot_be_unpacked_is_left_to_aiokafka() -> None:
    raw = bytearray(batch(CODECS["lz4"]))
    raw[200:300] = bytes(100)

    assert parts_of(resealed(raw)) == [bytes(raw)]
