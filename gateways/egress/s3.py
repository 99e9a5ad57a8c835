"""Writes outcomes to Amazon S3: objects of many records, every record in exactly one, whatever crashes.

    <prefix>/topic=<topic>/dt=<day>/<partition>-<first offset>.jsonl.gz

The name follows from the first record, and an object that is there is never written again (If-None-Match): its
metadata say where it ends, and whoever comes to the same name goes on behind it. So two processes that hold each other
for dead write the same chain of objects. A topic that was made anew begins its offsets again: where an object of the
former one has the name already, the time of the first record is part of it. See: docs/egress.md.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from contracts.settings.egress import S3Door
from gateways.egress.aws import CALL_ERRORS, Aws, verdict_of
from gateways.egress.base import DELIVERED, Delivered, Item, Later, PlainDoor, Refused, Shape, Verdict
from gateways.egress.s3_formats import Encoder, encoder_for

LAST_OFFSET = "penstock-last-offset"
FIRST_STAMP = "penstock-first-timestamp-ms"
_EXISTS_STATUS = 412
# Two at once for one name; one of them will be told that it exists.
_RACE_STATUS = 409
# Of the calendar: the first second of the year 1, the last one of 9999.
_FIRST_S, _LAST_S = -62_135_596_800, 253_402_300_799


class S3(PlainDoor):
    """One bucket and prefix."""

    def __init__(self, name: str, settings: S3Door, session: Any = None) -> None:
        self._settings = settings
        self._aws = Aws(name, "s3", settings, session, {"addressing_style": "path"} if settings.path_style else None)
        self._encoder: Encoder = encoder_for(name, settings)
        self.shape = Shape(
            settings.max_object_records,
            settings.max_object_bytes,
            settings.max_object_age_s,
            order="partition",
            is_exact=True,
        )

    async def start(self) -> None:
        """Make the client."""
        await self._aws.start()

    async def aclose(self) -> None:
        """Close it."""
        await self._aws.aclose()

    def destination(self, item: Item) -> str:  # noqa: ARG002 - the protocol's
        """Name the bucket."""
        return self._settings.bucket

    def splits(self, first: Item, item: Item) -> bool:
        """Begin another object with another day; a straggler of the day before goes where it comes."""
        return _day(item) > _day(first)

    async def deliver(self, items: Sequence[Item]) -> Sequence[Verdict]:
        """Write a run of one partition as one object."""
        plain = self._key(items[0])
        verdicts = await self._written(plain, items)
        return (
            verdicts or await self._written(self._key(items[0], is_plain=False), items) or _foreign(plain, len(items))
        )

    async def _written(self, key: str, items: Sequence[Item]) -> Sequence[Verdict]:
        """Write an object, or take the one that is there; nothing when that one is of another log."""
        try:
            await self._put(key, items)
        except ClientError as error:
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if status == _EXISTS_STATUS:
                return await self._adopted(key, items)
            if status == _RACE_STATUS:
                return [Later("conflict", "another process writes the same object", scope="item")] * len(items)
            return [_kept(verdict_of(error))] * len(items)
        except CALL_ERRORS as error:
            return [_kept(verdict_of(error))] * len(items)
        return [DELIVERED] * len(items)

    async def _put(self, key: str, items: Sequence[Item]) -> None:
        first, last = items[0].position, items[-1].position
        body = await self._aws.run(self._encoder.encode, items)
        headers = {"ContentEncoding": self._encoder.content_encoding} if self._encoder.content_encoding else {}
        await self._aws.call(
            "put_object",
            Bucket=self._settings.bucket,
            Key=key,
            Body=body,
            ContentType=self._encoder.content_type,
            IfNoneMatch="*",
            Metadata={
                "penstock-topic": first.topic,
                "penstock-partition": str(first.partition),
                "penstock-first-offset": str(first.offset),
                FIRST_STAMP: str(first.timestamp_ms),
                LAST_OFFSET: str(last.offset),
                "penstock-records": str(len(items)),
            },
            **headers,
        )

    async def _adopted(self, key: str, items: Sequence[Item]) -> Sequence[Verdict]:
        """Take the object that is there for what it is: some of these records have been written already."""
        try:
            found = (await self._aws.call("head_object", Bucket=self._settings.bucket, Key=key))["Metadata"]
            last = int(found[LAST_OFFSET])
        except CALL_ERRORS as error:
            return [_kept(verdict_of(error))] * len(items)
        except (KeyError, ValueError):
            return _foreign(key, len(items))
        stamp_ms = str(items[0].position.timestamp_ms)
        # Objects of earlier versions do not say it.
        return _beyond(items, last) if found.get(FIRST_STAMP, stamp_ms) == stamp_ms else ()

    def _key(self, first: Item, *, is_plain: bool = True) -> str:
        place = first.position
        stamp = "" if is_plain else f"-{place.timestamp_ms}"
        name = f"{place.partition:05d}-{place.offset:020d}{stamp}{self._encoder.suffix}"
        parts = (self._settings.prefix.rstrip("/"), f"topic={place.topic}", f"dt={_day(first)}", name)
        return "/".join(part for part in parts if part)


def _beyond(items: Sequence[Item], last: int) -> Sequence[Verdict]:
    """Count what is in an object already as delivered, and let the rest begin one of its own.

    Where the run ends inside of the object, the rest of the object is delivered with it: what comes next begins behind.
    """
    done = Delivered(last) if items[-1].position.offset < last else DELIVERED
    rest = Later("object_exists", f"the object ends at offset {last}", scope="item")
    return [done if item.position.offset <= last else rest for item in items]


def _foreign(key: str, count: int) -> Sequence[Verdict]:
    return [Later("foreign_object", f"{key} is there and not one of ours", scope="operator")] * count


def _kept(verdict: Later | Refused) -> Later:
    """Hold back what S3 refuses: a refusal is about the bucket or the request, never about one record of many."""
    if isinstance(verdict, Refused):
        return Later(verdict.reason, verdict.message, scope="operator")
    return verdict


def _day(item: Item) -> str:
    # Whoever wrote the record chose its time. One outside of the calendar must not hold up its partition.
    seconds = min(max(item.position.timestamp_ms // 1000, _FIRST_S), _LAST_S)
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
